// A capsule: all points within `radius` of a segment. A round-capped, round-joined stroke is the union of the
// capsules of its segments; a dot is the capsule of a segment of length zero.
#pragma once

namespace sketchynet {

// Coordinates and radius in pixels of the canvas, y down, y0 <= y1. A horizontal line cuts the capsule, a convex shape,
// in one chord. Either end of the chord runs along the upper cap, then along the straight edge, then along the lower
// cap; it is on the straight edge for y in [start, end], where it lies at x + (y - start) * slope.
template <typename Real>
struct Capsule {
    Real x0, y0, x1, y1, radius;
    Real left_start, left_end, left_x;
    Real right_start, right_end, right_x;
    Real slope;  // 0 also where the segment is level, dx != 0: no horizontal line crosses its edges
    bool erase;
};

// The capsule around the segment from (ax, ay) to (bx, by) in the unit frame on a canvas of size x size pixels. What
// lies farther than `radius` + 1 pixels outside the canvas is cut off, so that coordinates of any magnitude give the
// right picture in single precision. False where nothing is left. The order of the ends does not matter.
template <typename Real>
bool make_capsule(float ax, float ay, float bx, float by, int size, double radius, bool erase, Capsule<Real>& capsule);

}  // namespace sketchynet
