// A strip: the part of a capsule between its ends, seen by whole pixels. Where a pixel meets one straight piece of a
// stroke only, the area that the piece covers has a closed form; where it meets more, its samples are counted
// (coverage.hpp).
#pragma once

#include <cstdint>

#include "raster/capsule.hpp"

namespace sketchynet {

// In pixels from the corner of the capsule's own pixel. A point (x, y) lies t = x * ux + y * uy - t0 along the segment
// and s = x * uy - y * ux - s0 beside it.
struct Strip {
    float ux, uy, t0, s0, length;
    float radius;
    // A half-plane whose edge runs along the strip at signed distance d inside a pixel's centre covers 1/2 + v of the
    // pixel, v = m / a - max(m - flat, 0)^2 * bend with the sign of d, m = min(|d|, corner); a and b are the greater and
    // the smaller of |ux| and |uy|, corner = (a + b) / 2, flat = (a - b) / 2, bend = 1 / (2ab).
    float per_a, corner, flat, bend;
    // Pixels with their centre at t in [first, last] take the strip's area. Beyond an end that is open, pixels are in
    // doubt between the two (squared) distances from it, fully inked before and free behind; where the stroke goes on
    // smoothly, the next strip has them.
    float first, last, core, reach;
    bool open_start, open_end;
    bool thin;  // both edges may cross one pixel
    // Strips from this one on (an index) join this one smoothly: the greater of their areas stands for the union.
    std::int32_t joined;
};

// The canvas, and who inked a pixel last.
struct StripBand {
    std::uint8_t* pixels;    // (rows, size)
    std::uint16_t* owners;   // (rows, size): base + index of a strip; below base: none of this drawing
    std::uint64_t* doubted;  // (rows, stride): one bit a pixel, set where the area is not certain
    std::uint32_t* places;   // room for rows * size numbers
    int stride;              // words of `doubted` a row: one more than its bits need
    int size, first_row, rows;
    std::uint16_t base;
};

}  // namespace sketchynet
