// Ink coverage of a band of pixel rows, counted on a lattice of kLines x kColumns samples a pixel.
//
// Every sample is one bit, and drawing is OR: ink that overlaps itself counts once, whatever the order, and the result
// is the same on every machine. Erasing clears bits.
#pragma once

#include <cstdint>

#include "raster/capsule.hpp"
#include "raster/strip.hpp"

namespace sketchynet {

// A view of the bits of a band: the pixel rows [first_row, first_row + rows) of a canvas.
struct Band {
    std::uint32_t* words;    // (rows, size, kLines), 64-byte aligned; all zero before the band is drawn
    std::uint64_t* touched;  // (rows, touched_stride): one bit a pixel, set where a word may not be zero
    int touched_stride;      // size / 64 + 1
    int size, first_row, rows;
};

// The inner loops, compiled once for every instruction set. All give the same bits.
struct Kernel {
    // The capsules of `count` segments on a canvas of size x size pixels, and their strips, with both ends open, where
    // `strips` is not null.
    void (*prepare)(const Segment* segments, std::int64_t count, int size, Capsule* capsules, Strip* strips);
    // Draws (or erases) capsules[order[0 .. count)] in this order, as far as they lie in the band.
    void (*draw)(const Band& band, const Capsule* capsules, const std::int32_t* order, std::int64_t count);
    // Writes the coverage of the band, 0..255, to `pixels` (rows x size bytes) and clears the band for its next use.
    void (*resolve)(const Band& band, std::uint8_t* pixels);

    // Draws the areas of strips[order[0 .. count)], which belong to the capsules of the same index, into a band that
    // holds zeros, and marks the pixels whose area is in doubt.
    void (*draw_strips)(const StripBand& band, const Capsule* capsules, const Strip* strips, const std::int32_t* order,
                        std::int64_t count);
    // Counts the samples of the pixels that are marked as touched, both in `band` and in `strips`, and writes their
    // coverage; clears the marks.
    void (*settle_doubts)(const Band& band, const StripBand& strips, const Capsule* capsules, const std::int32_t* order,
                          std::int64_t count);
};

extern const Kernel kPortableKernel;
#if defined(__x86_64__)
extern const Kernel kSse2Kernel, kAvx2Kernel, kAvx512Kernel;
#endif

// The same as Kernel::draw for one wide capsule.
void draw_wide(const Band& band, const WideCapsule& capsule);

}  // namespace sketchynet
