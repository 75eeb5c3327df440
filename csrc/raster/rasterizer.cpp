#include "raster/rasterizer.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "raster/capsule.hpp"
#include "raster/coverage.hpp"

namespace sketchynet {
namespace {

struct Mark {
    Capsule capsule;
    bool erase;
};

// The capsules of sketch `b` in drawing order, in pixels.
void collect_marks(const SketchBatchView& batch, std::int64_t b, int size, std::vector<Mark>& marks) {
    marks.clear();
    for (std::int64_t stroke = batch.sketch_offsets[b]; stroke < batch.sketch_offsets[b + 1]; ++stroke) {
        const double radius = 0.5 * batch.line_widths[stroke];
        const bool erase = batch.erasers != nullptr && batch.erasers[stroke];
        const std::int64_t begin = batch.stroke_offsets[stroke], end = batch.stroke_offsets[stroke + 1];
        const auto x = [&](std::int64_t i) { return static_cast<double>(batch.points[2 * i]) * size; };
        const auto y = [&](std::int64_t i) { return static_cast<double>(batch.points[2 * i + 1]) * size; };
        if (end - begin == 1) marks.push_back({Capsule(x(begin), y(begin), x(begin), y(begin), radius), erase});
        for (std::int64_t i = begin; i + 1 < end; ++i) {
            marks.push_back({Capsule(x(i), y(i), x(i + 1), y(i + 1), radius), erase});
        }
    }
}

void draw_sketch(const std::vector<Mark>& marks, int size, Coverage& coverage, std::uint8_t* canvas) {
    for (int row = 0; row < size; row += coverage.band_rows()) {
        const int rows = std::min(coverage.band_rows(), size - row);
        for (const Mark& mark : marks) coverage.draw(mark.capsule, row, mark.erase);
        coverage.resolve(rows, canvas + static_cast<std::size_t>(row) * size);
    }
}

}  // namespace

void rasterize(const SketchBatchView& batch, int size, int threads, std::uint8_t* pixels) {
    std::atomic<std::int64_t> next{0};
    std::exception_ptr failure;
    std::mutex failure_lock;

    const auto work = [&] {
        try {
            Coverage coverage(size);
            std::vector<Mark> marks;
            for (std::int64_t b = next++; b < batch.sketches; b = next++) {
                collect_marks(batch, b, size, marks);
                draw_sketch(marks, size, coverage, pixels + static_cast<std::size_t>(b) * size * size);
            }
        } catch (...) {
            next = batch.sketches;  // the others stop at their next sketch
            const std::lock_guard<std::mutex> hold(failure_lock);
            failure = std::current_exception();
        }
    };

    std::vector<std::thread> helpers;
    const auto wanted = std::min<std::int64_t>(threads, batch.sketches);
    try {
        for (std::int64_t i = 1; i < wanted; ++i) helpers.emplace_back(work);
    } catch (const std::exception&) {
        // No more threads to be had: those that run, this one at least, do all the work.
    }
    work();
    for (std::thread& helper : helpers) helper.join();
    if (failure) std::rethrow_exception(failure);
}

}  // namespace sketchynet
