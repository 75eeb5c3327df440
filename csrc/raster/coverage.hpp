// Ink coverage of a band of pixel rows, counted on a lattice of kLines x kColumns samples a pixel.
//
// Every sample is one bit, and drawing is OR: ink that overlaps itself counts once, whatever the order, and the
// result is the same on every machine. Erasing clears bits.
#pragma once

#include <cstdint>
#include <vector>

#include "raster/capsule.hpp"

namespace sketchynet {

class Coverage {
public:
    static constexpr int kLines = 16;    // sample lines a pixel
    static constexpr int kColumns = 64;  // samples a line and pixel: one machine word

    // `size`: width and height of the canvas in pixels.
    explicit Coverage(int size);

    int band_rows() const { return band_rows_; }

    // Draws (or erases) what of `capsule` lies in the pixel rows [first_row, first_row + band_rows()).
    void draw(const Capsule& capsule, int first_row, bool erase);

    // Writes the coverage of the band's first `rows` rows, 0..255, to `pixels` (rows x size bytes), and clears the
    // band for its next use.
    void resolve(int rows, std::uint8_t* pixels);

private:
    template <bool kErase>
    void draw_lines(Capsule capsule, int first_row);

    int size_, band_rows_;
    std::vector<std::uint64_t> bits_;    // (band_rows, size, kLines)
    std::vector<std::uint8_t> touched_;  // (band_rows, size): 1 where a bit may be set
};

}  // namespace sketchynet
