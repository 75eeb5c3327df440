// A capsule: all points within a radius of a segment. A round-capped, round-joined stroke is the union of the capsules
// of its segments; a dot is the capsule of a segment of length zero.
#pragma once

namespace sketchynet {

// A straight piece of a stroke in the unit frame, ya <= yb; both ends are equal for a dot.
struct Segment {
    double xa, ya, xb, yb;
};

// The piece drawn from `a` to `b`, (x, y) each, on a canvas of size x size pixels. What lies farther than `radius` + 1
// pixels outside the canvas is cut off, so that coordinates of any magnitude give the right picture. False where nothing
// is left.
bool place(const float* a, const float* b, int size, double radius, Segment& segment);

// A capsule in pixels of the canvas and double precision, for radii at which 16 bits are not enough; y down, y0 <= y1.
// A horizontal line cuts the capsule, a convex shape, in one chord. Either end of the chord runs along the upper cap, then
// along the straight edge, then along the lower cap; it is on the straight edge for y in [start, end], where it lies at
// x + (y - start) * slope.
struct WideCapsule {
    double x0, y0, x1, y1, radius;
    double left_start, left_end, left_x;
    double right_start, right_end, right_x;
    double slope;  // 0 also where the segment is level: no horizontal line crosses its edges
    bool erase;
};

// Wider than asked for by a tiny part of a sample, the error of its numbers: a sample that lies on an outline, on either
// side of the ink, is inside, and mirrored drawings give mirrored pixels although their sums round differently.
WideCapsule make_wide_capsule(const Segment& segment, double radius, bool erase, int size);

}  // namespace sketchynet
