// Capsules of thousands of pixels, in double precision and plain C++: rare, and their time is that of filling pixels.
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

}  // namespace

void draw_wide(const Band& band, const WideCapsule& c) {
    const double top = c.y0 - c.radius, bottom = c.y1 + c.radius;
    const double width = static_cast<double>(band.size) * kColumns;
    for (int line = 0; line < band.rows * kLines; ++line) {
        const double y = band.first_row + (line + 0.5) / kLines;
        if (y < top || y > bottom) continue;
        const Chord cut = chord(c, y);
        const int begin = static_cast<int>(std::clamp(cut.left * kColumns + 0.5, 0.0, width));
        const int end = static_cast<int>(std::clamp(cut.right * kColumns + 0.5, 0.0, width));
        const int row = line / kLines;
        for (int at = begin; at < end;) {
            const int column = at / kColumns, stop = std::min((column + 1) * kColumns, end);
            const std::uint32_t samples = ~std::uint32_t{0} >> (kColumns - (stop - at)) << (at % kColumns);
            const std::size_t pixel = static_cast<std::size_t>(row) * band.size + column;
            std::uint32_t& word = band.words[pixel * kLines + line % kLines];
            if (c.erase) {
                word &= ~samples;
            } else {
                word |= samples;
                band.touched[static_cast<std::size_t>(row) * band.touched_stride + column / 64] |=
                    std::uint64_t{1} << (column % 64);
            }
            at = stop;
        }
    }
}

}  // namespace sketchynet
