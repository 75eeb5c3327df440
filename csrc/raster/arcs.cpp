#include "raster/arcs.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace sketchynet {

void Arcs::write(float radius, int phase, std::int16_t* numbers) {
    // A line that touches the disc is one of its lines.
    constexpr double kError = 1e-9;
    const int reach = arc_reach(radius), middle = reach + kTileLines;
    std::fill_n(numbers, arc_length(reach), kNoChord);
    const double squared = static_cast<double>(radius) * radius;
    for (int k = -reach; k < reach; ++k) {
        const double away = (k + 0.5 - static_cast<double>(phase) / kPhases) / kLines, left = squared - away * away;
        if (left >= -kError) {
            numbers[middle + k] = static_cast<std::int16_t>(std::sqrt(std::max(left, 0.0)) * kUnits + 0.5);
        }
    }
}

Arc Arcs::find(float radius, std::uint64_t phases) {
    std::uint32_t bits;
    std::memcpy(&bits, &radius, sizeof bits);
    Table& table = tables_[bits * 0x9e3779b1u >> 26];
    static_assert(std::tuple_size_v<decltype(tables_)> == 1 << 6);
    const int length = arc_length(arc_reach(radius));
    if (table.radius != radius) {
        if (table.canvas == canvas_) return nullptr;
        table.radius = radius;
        table.written = 0;
        table.numbers.resize(static_cast<std::size_t>(length) * kPhases);
    }
    table.canvas = canvas_;
    for (std::uint64_t missing = phases & ~table.written; missing; missing &= missing - 1) {
        const int phase = __builtin_ctzll(missing);
        write(radius, phase, table.numbers.data() + static_cast<std::ptrdiff_t>(length) * phase);
    }
    table.written |= phases;
    return table.numbers.data();
}

}  // namespace sketchynet
