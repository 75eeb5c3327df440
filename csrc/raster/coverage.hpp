// Ink coverage of a band of pixel rows, counted on a lattice of kLines x kColumns samples a pixel.
//
// Every sample is one bit, and drawing is OR: ink that overlaps itself counts once, whatever the order, and the result
// is the same on every machine. Erasing clears bits.
#pragma once

#include <cstdint>

#include "raster/capsule.hpp"

namespace sketchynet {

constexpr int kLines = 16;    // sample lines a pixel: one cache line of words
constexpr int kColumns = 32;  // samples a line and pixel: one word

// A view of the bits of a band: the pixel rows [first_row, first_row + rows) of a canvas.
struct Band {
    std::uint32_t* words;    // (rows, size, kLines), 64-byte aligned; all zero before the band is drawn
    std::uint64_t* touched;  // (rows, touched_stride): one bit a pixel, set where a word may not be zero
    int touched_stride;      // ceil(size / 64)
    int size, first_row, rows;

    // Half-open ranges of samples include a sample that lies on an outline, on either side of the ink, within this many
    // pixels (the error of single precision on this canvas): mirrored drawings then give mirrored pixels although
    // their sums round differently.
    double tie() const { return size * (1.0 / (1 << 19)); }
};

// The inner loops, compiled once for every instruction set. All give the same bits.
struct Kernel {
    // Draws (or erases) capsules[order[0 .. count)] in this order, as far as they lie in the band.
    void (*draw)(const Band& band, const Capsule<float>* capsules, const std::int32_t* order, std::int64_t count);
    // Writes the coverage of the band, 0..255, to `pixels` (rows x size bytes) and clears the band for its next use.
    void (*resolve)(const Band& band, std::uint8_t* pixels);
};

extern const Kernel kPortableKernel;
#if defined(__x86_64__)
extern const Kernel kSse2Kernel, kAvx2Kernel, kAvx512Kernel;
#endif

// The same as Kernel::draw for one capsule in double precision: for radii of thousands of pixels.
void draw_wide(const Band& band, const Capsule<double>& capsule);

}  // namespace sketchynet
