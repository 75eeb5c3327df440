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

}  // namespace

void draw_wide(const Band& band, const WideCapsule& c) {
    constexpr double kUnit = kUnits / kSamples;
    const double bounds[2] = {c.y0 - c.radius - band.first_row, c.y1 + c.radius - band.first_row};
    const int first = static_cast<int>(std::clamp(bounds[0] * kLines, 0.0, band.rows * static_cast<double>(kLines)));
    const int last = static_cast<int>(std::clamp(bounds[1] * kLines, -1.0, band.rows * kLines - 1.0));
    for (int line = first; line <= last; ++line) {
        const double y = (line + 0.5) / kLines;
        if (y < bounds[0] || y > bounds[1]) continue;
        const Chord cut = chord(c, band.first_row + y);
        const int left = static_cast<int>(std::clamp(cut.left, 0.0, band.size - 1.0));
        const int right = static_cast<int>(std::clamp(cut.right, 0.0, band.size - 1.0));
        const std::ptrdiff_t pair = line / kTileLines;
        std::uint16_t* const words = band.words + pair * 2 * band.size * kTileLines + line % kTileLines;
        std::uint64_t* const touched = band.touched + pair * band.stride;
        for (int half = 2 * left; half < 2 * right + 2; ++half) {
            const double shift = kUnit / 2 + (half % 2 ? -stagger(line) : stagger(line));
            const auto place = [&](double x) { return ((x - half * 0.5) * kUnits - shift) / kUnit; };
            const std::uint16_t samples = bits(std::ceil(place(cut.left)), std::floor(place(cut.right)) + 1);
            std::uint16_t& word = words[static_cast<std::ptrdiff_t>(half) * kTileLines];
            word = static_cast<std::uint16_t>(c.erase ? word & ~samples : word | samples);
            touched[half / 128] |= std::uint64_t{1} << (half / 2 % 64);
        }
    }
}

}  // namespace sketchynet
