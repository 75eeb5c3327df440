// Fuzz target of the rasteriser for libFuzzer (`make fuzz`); with replay.cpp an ordinary program that reads files.
//
// Any bytes are drawings: one of canvas size, one of line width, one of flags (1: widths of single strokes), then points.
// A point is a byte of flags (1: begins a stroke, 2: begins a sketch, 4: this stroke erases, 8: coordinates are float32
// as they are, else int16 / 16384) and x and y. tests/test_raster_corpus.py reads the same format.
//
// Drawn into a buffer with a margin, by every instruction set and by several threads: nothing is written outside the
// canvases, and all agree.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "raster/dispatch.hpp"
#include "raster/rasterizer.hpp"

namespace {

constexpr std::size_t kMargin = 256;
constexpr int kCopies = 2;
// So that no input takes long under a sanitizer.
constexpr std::size_t kMostPoints = 256, kMostSketches = 4;

struct Drawings {
    std::vector<float> points;
    std::vector<std::int64_t> stroke_offsets{0}, sketch_offsets{0};
    std::vector<std::uint8_t> erasers;
    std::vector<double> widths;
    double width = 0;
    int size = 0;
};

void require(bool condition, const char* what) {
    if (condition) return;
    std::fprintf(stderr, "raster fuzz: %s\n", what);
    std::abort();
}

double width_of(std::uint8_t byte) { return std::exp2((byte - 64) / 8.0); }

bool read(const std::uint8_t* data, std::size_t length, Drawings& d) {
    if (length < 3) return false;
    d.size = 8 + data[0] * data[0] / 256;
    d.width = width_of(data[1]);
    const bool own_widths = data[2] & 1;
    std::size_t at = 3;
    const auto end_stroke = [&] {
        const auto points = static_cast<std::int64_t>(d.points.size() / 2);
        if (points > d.stroke_offsets.back()) d.stroke_offsets.push_back(points);
    };
    const auto end_sketch = [&] {
        const auto strokes = static_cast<std::int64_t>(d.stroke_offsets.size() - 1);
        if (strokes > d.sketch_offsets.back()) d.sketch_offsets.push_back(strokes);
    };
    while (at < length && d.points.size() < 2 * kMostPoints && d.sketch_offsets.size() <= kMostSketches) {
        const std::uint8_t flags = data[at++];
        float xy[2];
        if (flags & 8) {
            if (at + 8 > length) break;
            std::memcpy(xy, data + at, 8);
            at += 8;
            if (!std::isfinite(xy[0]) || !std::isfinite(xy[1])) continue;  // the bindings refuse them
        } else {
            if (at + 4 > length) break;
            std::int16_t grid[2];
            std::memcpy(grid, data + at, 4);
            at += 4;
            xy[0] = grid[0] / 16384.0f, xy[1] = grid[1] / 16384.0f;
        }
        if (flags & 3) end_stroke();
        if (flags & 2) end_sketch();
        if (static_cast<std::int64_t>(d.points.size() / 2) == d.stroke_offsets.back()) {
            d.erasers.push_back((flags & 4) != 0);
            if (own_widths) d.widths.push_back(width_of(static_cast<std::uint8_t>(flags ^ data[1])));
        }
        d.points.insert(d.points.end(), xy, xy + 2);
    }
    end_stroke();
    end_sketch();
    return d.stroke_offsets.size() > 1;
}

std::vector<std::uint8_t> draw(const Drawings& d, int threads) {
    bool any_eraser = false;
    std::vector<char> erasers(d.erasers.begin(), d.erasers.end());
    for (const char erase : erasers) any_eraser |= erase != 0;
    const sketchynet::SketchBatchView view{d.points.data(),
                                           d.stroke_offsets.data(),
                                           d.sketch_offsets.data(),
                                           d.widths.empty() ? nullptr : d.widths.data(),
                                           any_eraser ? reinterpret_cast<const bool*>(erasers.data()) : nullptr,
                                           d.width,
                                           true};
    const auto sketches = static_cast<std::int64_t>(d.sketch_offsets.size() - 1);
    const std::size_t area = static_cast<std::size_t>(d.size) * d.size;
    std::vector<std::uint8_t> buffer(area * sketches * kCopies + 2 * kMargin, 0xa5);
    std::vector<sketchynet::Canvas> canvases;
    for (std::int64_t i = 0; i < sketches * kCopies; ++i) {
        canvases.push_back({i % sketches, d.size, buffer.data() + kMargin + i * area});
    }
    sketchynet::rasterize(view, canvases.data(), static_cast<std::int64_t>(canvases.size()), threads);
    for (std::size_t i = 0; i < kMargin; ++i) {
        require(buffer[i] == 0xa5 && buffer[buffer.size() - 1 - i] == 0xa5, "wrote outside the canvases");
    }
    for (std::int64_t i = sketches; i < sketches * kCopies; ++i) {
        const std::uint8_t* first = canvases[i % sketches].pixels;
        require(std::memcmp(first, canvases[i].pixels, area) == 0, "one sketch gave two pictures");
    }
    return buffer;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t length) {
    Drawings drawings;
    if (!read(data, length, drawings)) return 0;
    sketchynet::use_instruction_set("auto");
    const std::vector<std::uint8_t> expected = draw(drawings, 1);
    require(draw(drawings, 2) == expected, "threads changed a pixel");
    for (const std::string& name : sketchynet::instruction_sets()) {
        sketchynet::use_instruction_set(name);
        require(draw(drawings, 1) == expected, "instruction sets differ");
    }
    return 0;
}
