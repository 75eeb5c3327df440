#include "raster/capsule.hpp"

#include <cmath>
#include <utility>

namespace sketchynet {
namespace {

constexpr double kLevel = 1 << 22;

struct Segment {
    double xa, ya, xb, yb;
};

// Cuts the segment to the square [low, high] x [low, high]; false where nothing is left. Points of its line satisfy
// dx * y - dy * x = cross, and the products in `cross` are exact: the cut is right for ends as far away as 1e38.
bool clip(Segment& s, double low, double high) {
    const double dx = s.xb - s.xa, dy = s.yb - s.ya, cross = s.xb * s.ya - s.yb * s.xa;
    const auto cut_x = [&](double& x, double& y, double edge) { x = edge, y = (cross + dy * edge) / dx; };
    const auto cut_y = [&](double& x, double& y, double edge) { x = (dx * edge - cross) / dy, y = edge; };

    if ((s.xa < low && s.xb < low) || (s.xa > high && s.xb > high)) return false;
    if (s.xa < low) cut_x(s.xa, s.ya, low);
    if (s.xa > high) cut_x(s.xa, s.ya, high);
    if (s.xb < low) cut_x(s.xb, s.yb, low);
    if (s.xb > high) cut_x(s.xb, s.yb, high);
    if ((s.ya < low && s.yb < low) || (s.ya > high && s.yb > high)) return false;
    if (s.ya < low) cut_y(s.xa, s.ya, low);
    if (s.ya > high) cut_y(s.xa, s.ya, high);
    if (s.yb < low) cut_y(s.xb, s.yb, low);
    if (s.yb > high) cut_y(s.xb, s.yb, high);
    return true;
}

}  // namespace

template <typename Real>
bool make_capsule(float ax, float ay, float bx, float by, int size, double radius, bool erase,
                  Capsule<Real>& capsule) {
    // One order for both directions of drawing, so that a reversed stroke gives the very same pixels.
    if (by < ay || (by == ay && bx < ax)) {
        std::swap(ax, bx);
        std::swap(ay, by);
    }
    Segment s{ax, ay, bx, by};
    const double beyond = (radius + 1) / size, low = -beyond, high = 1 + beyond;
    const auto outside = [&](double v) { return v < low || v > high; };
    if (outside(s.xa) || outside(s.xb) || outside(s.ya) || outside(s.yb)) {
        if (!clip(s, low, high)) return false;
    }

    const double x0 = s.xa * size, y0 = s.ya * size, x1 = s.xb * size, y1 = s.yb * size;
    const double dx = x1 - x0, dy = y1 - y0, length = std::sqrt(dx * dx + dy * dy);
    // The direction has uy >= 0; any will do for a dot.
    const double per_length = length > 0 ? 1 / length : 0.0;
    const double across_x = length > 0 ? dy * per_length * radius : radius, across_y = dx * per_length * radius;
    // So flat an edge that it rises less than a thousandth of a pixel over the largest canvas counts as level.
    const double slope = std::abs(dx) < kLevel * dy ? dx / dy : 0.0;
    const auto real = [](double v) { return static_cast<Real>(v); };
    capsule = {real(x0),
               real(y0),
               real(x1),
               real(y1),
               real(radius),
               real(y0 + across_y),
               real(y1 + across_y),
               real(x0 - across_x),
               real(y0 - across_y),
               real(y1 - across_y),
               real(x0 + across_x),
               real(slope),
               erase};
    return true;
}

template bool make_capsule(float, float, float, float, int, double, bool, Capsule<float>&);
template bool make_capsule(float, float, float, float, int, double, bool, Capsule<double>&);

}  // namespace sketchynet
