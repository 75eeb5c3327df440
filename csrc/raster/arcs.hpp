// Half-chords of discs, which end capsules: worked out once a radius and place in a line, and kept.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "raster/coverage.hpp"

namespace sketchynet {

class Arcs {
public:
    // Works out the arc of a disc whose centre lies `phase` / kPhases of a line below the upper side of its line.
    static void write(float radius, int phase, std::int16_t* numbers);

    // To be called before every canvas.
    void begin_canvas() { ++canvas_; }

    // The table of a radius, valid until the next canvas, with the arcs of the phases whose bits are set in it; null where
    // more radii are in use on one canvas than there is room for, which depends on the canvas alone.
    Arc find(float radius, std::uint64_t phases);

private:
    struct Table {
        float radius = 0;
        std::uint64_t canvas = 0;   // the last one that it was of use to
        std::uint64_t written = 0;  // a bit a phase
        std::vector<std::int16_t> numbers;
    };
    static_assert(kPhases == 64);


    std::array<Table, 64> tables_;
    std::uint64_t canvas_ = 0;
};

}  // namespace sketchynet
