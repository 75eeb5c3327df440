// Draws batches of sketches into square canvases of ink coverage.
#pragma once

#include <cstdint>

namespace sketchynet {

// Flat view of B sketches with S strokes and N points; the caller has validated it and keeps it alive.
struct SketchBatchView {
    const float* points;                 // (N, 2): x, y in the unit frame, y down
    const std::int64_t* stroke_offsets;  // (S + 1,) into points
    const std::int64_t* sketch_offsets;  // (B + 1,) into strokes
    const double* stroke_widths;         // (S,) or null
    const bool* erasers;                 // (S,) or null: strokes that take ink away from those before them
    double line_width;                   // of every stroke where stroke_widths is null
    bool widths_in_pixels;               // of the canvas; otherwise in the unit frame, and at least 1 pixel
};

// One picture to draw.
struct Canvas {
    std::int64_t sketch;   // 0..B - 1
    std::int32_t size;     // width and height in pixels
    std::uint8_t* pixels;  // size x size bytes, 255 = fully inked; no two canvases overlap
};

// Draws `count` canvases with up to `threads` threads (>= 1), which share them out one by one. What is drawn depends on
// the canvas' sketch and size alone. Throws what a thread threw (std::bad_alloc).
//
// Time: a capsule costs the pixels of its bounding rows that it may touch, a canvas the bytes of its pixels, a batch its
// points; no capsule visits a pixel twice, whatever the input.
void rasterize(const SketchBatchView& batch, const Canvas* canvases, std::int64_t count, int threads);

}  // namespace sketchynet
