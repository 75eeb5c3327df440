// A capsule: all points within `radius` of a segment. A round-capped, round-joined stroke is the union of the
// capsules of its segments; a dot is the capsule of a segment of length zero.
#pragma once

#include <algorithm>
#include <cmath>

namespace sketchynet {

struct Interval {
    double left, right;
};

// Coordinates and radius in pixels, y down.
class Capsule {
public:
    Capsule(double xa, double ya, double xb, double yb, double radius) : radius_(radius) {
        // One order for both directions of drawing, so that a reversed stroke gives the very same pixels.
        if (yb < ya || (yb == ya && xb < xa)) {
            std::swap(xa, xb);
            std::swap(ya, yb);
        }
        x0_ = xa, y0_ = ya, x1_ = xb, y1_ = yb;
        const double length = std::hypot(xb - xa, yb - ya);
        // Direction with uy >= 0; any will do for a dot.
        const double ux = length > 0 ? (xb - xa) / length : 0.0;
        const double uy = length > 0 ? (yb - ya) / length : 1.0;
        left_start_ = y0_ + radius * ux, left_end_ = y1_ + radius * ux;
        right_start_ = y0_ - radius * ux, right_end_ = y1_ - radius * ux;
        left_x_ = x0_ - radius * uy, right_x_ = x0_ + radius * uy;
        // A horizontal segment has no line between left_start and left_end: its slope is never read.
        slope_ = uy > 0 ? ux / uy : 0.0;
    }

    double top() const { return y0_ - radius_; }
    double bottom() const { return y1_ + radius_; }
    double left() const { return std::min(x0_, x1_) - radius_; }
    double right() const { return std::max(x0_, x1_) + radius_; }

    // Where the horizontal line at `y` (top() <= y <= bottom()) cuts the capsule, a convex shape. Each side runs
    // along the upper cap, then along the straight edge, then along the lower cap.
    Interval chord(double y) const {
        Interval cut;
        if (y < left_start_) {
            cut.left = x0_ - half_chord(y - y0_);
        } else if (y > left_end_) {
            cut.left = x1_ - half_chord(y - y1_);
        } else {
            cut.left = left_x_ + (y - left_start_) * slope_;
        }
        if (y < right_start_) {
            cut.right = x0_ + half_chord(y - y0_);
        } else if (y > right_end_) {
            cut.right = x1_ + half_chord(y - y1_);
        } else {
            cut.right = right_x_ + (y - right_start_) * slope_;
        }
        return cut;
    }

private:
    double half_chord(double dy) const { return std::sqrt(std::max(0.0, radius_ * radius_ - dy * dy)); }

    double x0_, y0_, x1_, y1_, radius_;
    double left_start_, left_end_, right_start_, right_end_, left_x_, right_x_, slope_;
};

}  // namespace sketchynet
