// Ink coverage of a band of pixel rows, counted on samples: kLines lines of kSamples samples a pixel.
//
// Every sample is one bit, and drawing is OR: ink that overlaps itself counts once, whatever the order, and more ink
// never makes a pixel lighter. Erasing clears bits. All numbers behind a sample are integers, so that every machine
// draws the same.
#pragma once

#include <cstdint>

#include "raster/capsule.hpp"

namespace sketchynet {

constexpr int kLines = 16;            // sample lines a pixel: line j lies at y = (j + 1/2) / kLines
constexpr int kSamples = 32;          // samples a line and pixel
constexpr int kUnits = 512;           // units of x a pixel, 16 a sample
constexpr int kTileLines = 32;        // lines of a tile
constexpr int kTileSamples = 16;      // samples a line of a tile
constexpr int kPhases = 64;           // the ends of a capsule lie on y = i / (kPhases * kLines)
constexpr int kGroup = 16;            // capsules a block
constexpr int kMiddleLine = 1 << 14;  // counted from here, lines of the largest canvas and around it fit 16 bits

// Where the samples of a line lie: number i of the left half of a pixel at 16 i + 8 + stagger(line) units, those of the
// right half the other way about. A steep edge so meets another fraction of a sample on every line, and the pattern is
// the same seen from all four sides.
constexpr int stagger(int line) {
    const int in_pixel = line % kLines, from_side = in_pixel < kLines / 2 ? in_pixel : kLines - 1 - in_pixel;
    const int mixed = (from_side & 1) << 2 | (from_side & 2) | from_side >> 2;  // its three bits turned round
    return 2 * mixed + 1 - 8;
}

// A view of the bits of a band: the pixel rows [first_row, first_row + rows) of a canvas, first_row even. A tile is half
// a pixel wide and two pixels high, one cache line.
struct Band {
    std::uint16_t* words;    // (row pairs, 2 * size, kTileLines), 64-byte aligned; all zero before the band is drawn
    std::uint64_t* touched;  // (row pairs, stride): one bit a column of pixels, set where a word may not be zero
    int stride;              // one word more than the bits need
    int size, first_row, rows;
};

// Half the width of a disc on the lines around its centre, in units: arc[k] for the line k after the one that the
// centre lies in, kNoChord where the line misses the disc. Valid for k in [-reach - kTileLines, reach + kTileLines).
constexpr std::int16_t kNoChord = -32768;
using Arc = const std::int16_t*;

// Ends of kGroup segments on the canvas, in pixels, in any order, and their radii.
struct SegmentBlock {
    float xa[kGroup], ya[kGroup], xb[kGroup], yb[kGroup], radius[kGroup];
};

// kGroup capsules in units from `column`, an own column of pixels, and in lines of the canvas. A line cuts a capsule, a
// convex shape, in one chord. Either end of the chord lies on one of two discs or on a straight edge; the edges lie
// `half` units beside the segment, on the lines [left_first, left_last] and [right_first, right_last], which count from
// kMiddleLine.
struct CapsuleBlock {
    using Numbers = std::int32_t[kGroup];
    Numbers column;
    Numbers first, last;              // lines that it may reach
    Numbers low, high;                // units that it may reach
    Numbers x0_left, x0_right;        // the upper end, rounded for the left and the right side of the disc
    Numbers x1_left, x1_right;        // the lower end
    Numbers line0, phase0;            // the line of the upper end and its place in it
    Numbers line1, phase1;
    Numbers offset0, offset1;         // of their arcs in a table with one after the other
    Numbers centre;                   // x of the middle of the segment, in 1/65536 unit
    Numbers ends;                     // sum of y of both ends, in 1/kPhases of a line
    Numbers slope;                    // 1/65536 unit a line
    Numbers half;
    Numbers left_first, left_last, right_first, right_last;
    Numbers reach;                    // of the arcs
    Arc arcs[kGroup];                 // their table, filled in by the caller
};

// Capsules of `kMostRadius` pixels at most that extend over `kMostExtent` columns at most: 16 bits hold their units.
constexpr double kMostRadius = 12;
constexpr float kMostExtent = 36;

// Lines on either side of a disc's centre that may cut it; and the numbers that an arc takes.
inline int arc_reach(float radius) { return static_cast<int>(radius * kLines) + 2; }
constexpr int arc_length(int reach) { return 2 * (reach + kTileLines); }

// The inner loops, compiled once for every instruction set. All give the same bits.
struct Kernel {
    // The capsules, but their `arcs`, of `blocks` blocks of segments.
    void (*prepare)(const SegmentBlock* segments, std::int64_t blocks, CapsuleBlock* capsules);
    // Draws the capsules order[0 .. count), as far as they lie in the band; erases with those that erase[.] says, where
    // it is not null.
    void (*draw)(const Band& band, const CapsuleBlock* capsules, const std::int32_t* order, std::int64_t count,
                 const std::uint8_t* erase);
    // Writes the coverage of the band, 0..255, to `pixels` (rows x size bytes) and clears the band for its next use.
    void (*resolve)(const Band& band, std::uint8_t* pixels);
};

extern const Kernel kPortableKernel;
#if defined(__x86_64__)
extern const Kernel kSse2Kernel, kAvx2Kernel, kAvx512BwKernel, kAvx512Kernel;
#endif

// The same as Kernel::draw for one wide capsule.
void draw_wide(const Band& band, const WideCapsule& capsule);

}  // namespace sketchynet
