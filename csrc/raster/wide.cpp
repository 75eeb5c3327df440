// Capsules of dozens to thousands of pixels, in double precision and plain C++: rare, and their time is that of filling
// pixels.
#include <algorithm>
#include <cmath>
#include <cstddef>

#include "raster/coverage.hpp"

namespace sketchynet {
namespace {

struct Chord {
    double left, right;
};

Chord chord(const WideCapsule& c, double y) {
    const auto half = [&](double d) { return std::sqrt(std::max((c.radius - d) * (c.radius + d), 0.0)); };
    Chord cut{c.left_x + (y - c.left_start) * c.slope, c.right_x + (y - c.right_start) * c.slope};
    if (y < c.left_start) cut.left = c.x0 - half(y - c.y0);
    if (y > c.left_end) cut.left = c.x1 - half(y - c.y1);
    if (y < c.right_start) cut.right = c.x0 + half(y - c.y0);
    if (y > c.right_end) cut.right = c.x1 + half(y - c.y1);
    return cut;
}

// Samples [begin, end) of a tile, as bits.
std::uint16_t bits(double begin, double end) {
    const auto ones_from = [](double place) {
        return 0xffffu << static_cast<int>(std::clamp(place, 0.0, static_cast<double>(kTileSamples)));
    };
    return static_cast<std::uint16_t>(ones_from(begin) & ~ones_from(end));
}

// The tiles [first, last] of a row of tiles, whole or on one line.
struct TileRow {
    std::uint16_t* words;
    std::uint64_t* touched;
    bool erase;

    void fill(int first, int last) const {
        for (int half = first; half <= last; ++half) {
            std::fill_n(words + static_cast<std::ptrdiff_t>(half) * kTileLines, kTileLines,
                        static_cast<std::uint16_t>(erase ? 0 : 0xffff));
            touch(half);
        }
    }
    void mark(const Chord& cut, int line, int first, int last) const {
        constexpr double kUnit = kUnits / kSamples;
        for (int half = first; half <= last; ++half) {
            const double shift = kUnit / 2 + (half % 2 ? -stagger(line) : stagger(line));
            const auto place = [&](double x) { return ((x - half * 0.5) * kUnits - shift) / kUnit; };
            const std::uint16_t samples = bits(std::ceil(place(cut.left)), std::floor(place(cut.right)) + 1);
            std::uint16_t& word = words[static_cast<std::ptrdiff_t>(half) * kTileLines + line];
            word = static_cast<std::uint16_t>(erase ? word & ~samples : word | samples);
            touch(half);
        }
    }
    void touch(int half) const { touched[half / 128] |= std::uint64_t{1} << (half / 2 % 64); }
};

}  // namespace

void draw_wide(const Band& band, const WideCapsule& c) {
    const double top = c.y0 - c.radius, bottom = c.y1 + c.radius;
    const auto half_at = [&](double x) { return static_cast<int>(std::clamp(2 * x, -1.0, 2.0 * band.size)); };
    for (int pair = 0; 2 * pair < band.rows; ++pair) {
        const TileRow tiles{band.words + static_cast<std::ptrdiff_t>(pair) * 2 * band.size * kTileLines,
                            band.touched + static_cast<std::ptrdiff_t>(pair) * band.stride, c.erase};
        const double y = band.first_row + 2.0 * pair;
        if (y + 2 < top || y > bottom) continue;
        // Tiles between the rightmost left end and the leftmost right end are whole; none where a line misses the capsule.
        Chord cuts[kTileLines];
        int inner_first = 0, inner_last = 2 * band.size - 1;
        for (int line = 0; line < kTileLines; ++line) {
            const double at = y + (line + 0.5) / kLines;
            const bool hit = at >= top && at <= bottom;
            cuts[line] = hit ? chord(c, at) : Chord{1.0 * band.size, -1.0};
            inner_first = std::max(inner_first, half_at(cuts[line].left) + 1);
            inner_last = std::min(inner_last, half_at(cuts[line].right) - 1);
        }
        if (inner_first <= inner_last) tiles.fill(inner_first, inner_last);
        for (int line = 0; line < kTileLines; ++line) {
            const int first = std::max(half_at(cuts[line].left), 0);
            const int last = std::min(half_at(cuts[line].right), 2 * band.size - 1);
            if (inner_first <= inner_last) {
                tiles.mark(cuts[line], line, first, inner_first - 1);
                tiles.mark(cuts[line], line, inner_last + 1, last);
            } else {
                tiles.mark(cuts[line], line, first, last);
            }
        }
    }
}

}  // namespace sketchynet
