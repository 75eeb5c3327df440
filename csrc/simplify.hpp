// Douglas–Peucker simplification of strokes.
#pragma once

#include <cstdint>
#include <vector>

namespace sketchynet {

// The indices of the points that stay, ascending, and the offsets (S + 1) of the simplified strokes into them. The
// ends of every stroke stay; no dropped point lies farther than `tolerance` from the segment that replaces it.
struct Simplified {
    std::vector<std::int64_t> kept;
    std::vector<std::int64_t> stroke_offsets;
};

// points: (N, 2); stroke_offsets: (strokes + 1) into points, every stroke at least one point; tolerance >= 0 in the
// unit of the points.
Simplified simplify(const float* points, const std::int64_t* stroke_offsets, std::int64_t strokes, double tolerance);

}  // namespace sketchynet
