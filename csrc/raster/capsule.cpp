#include "raster/capsule.hpp"

#include <algorithm>
#include <cmath>

namespace sketchynet {
namespace {

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

bool place(const float* a, const float* b, int size, double radius, Segment& s) {
    // One order for both directions of drawing, so that a reversed stroke gives the very same pixels.
    const bool reversed = b[1] < a[1] || (b[1] == a[1] && b[0] < a[0]);
    const float *first = reversed ? b : a, *second = reversed ? a : b;
    s = {first[0], first[1], second[0], second[1]};
    const double beyond = (radius + 1) / size, low = -beyond, high = 1 + beyond;
    if (std::min(s.xa, s.xb) >= low && std::max(s.xa, s.xb) <= high && s.ya >= low && s.yb <= high) return true;
    return clip(s, low, high);
}

WideCapsule make_wide_capsule(const Segment& s, double radius, bool erase, int size) {
    constexpr double kError = 1e-14;
    WideCapsule c{};
    c.radius = radius * (1 + kError);
    c.x0 = s.xa * size, c.y0 = s.ya * size, c.x1 = s.xb * size, c.y1 = s.yb * size;
    const double dx = c.x1 - c.x0, dy = c.y1 - c.y0, length = std::sqrt(dx * dx + dy * dy);
    // The direction has uy >= 0; any will do for a dot.
    const double reach = length > 0 ? c.radius / length : 0.0;
    const double across_x = length > 0 ? dy * reach : c.radius, across_y = dx * reach;
    c.left_start = c.y0 + across_y, c.left_end = c.y1 + across_y, c.left_x = c.x0 - across_x;
    c.right_start = c.y0 - across_y, c.right_end = c.y1 - across_y, c.right_x = c.x0 + across_x;
    c.slope = std::abs(dx) < 1e12 * dy ? dx / dy : 0.0;
    c.erase = erase;
    return c;
}

}  // namespace sketchynet
