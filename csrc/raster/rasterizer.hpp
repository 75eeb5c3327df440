// Draws batches of sketches into square canvases of ink coverage.
#pragma once

#include <cstdint>

namespace sketchynet {

// Flat view of B sketches with S strokes and N points; the caller has validated it and keeps it alive.
struct SketchBatchView {
    const float* points;                 // (N, 2): x, y in the unit frame, y down
    const std::int64_t* stroke_offsets;  // (S + 1,) into points
    const std::int64_t* sketch_offsets;  // (B + 1,) into strokes
    const double* line_widths;           // (S,): pixels of the canvas
    const bool* erasers;                 // (S,) or null: strokes that take ink away from those before them
    std::int64_t sketches;               // B
};

// Writes B canvases of size x size bytes, 255 = fully inked, to `pixels` with up to `threads` threads (>= 1). The
// result does not depend on the number of threads. Throws what a thread threw (std::bad_alloc).
void rasterize(const SketchBatchView& batch, int size, int threads, std::uint8_t* pixels);

}  // namespace sketchynet
