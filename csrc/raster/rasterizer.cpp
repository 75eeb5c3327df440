#include "raster/rasterizer.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#include "raster/capsule.hpp"
#include "raster/coverage.hpp"
#include "raster/dispatch.hpp"

namespace sketchynet {
namespace {

// Bytes of bits a band may take: it stays in the second-level cache. Large canvases get more, so that their bands are
// not too many.
constexpr std::size_t kBandBytes = std::size_t{1} << 20, kLargeBandBytes = std::size_t{1} << 22;
constexpr int kLargeSize = 1024;

// What a thread may keep between canvases: a sketch of a million points is drawn, not remembered.
constexpr std::size_t kKeptMarks = std::size_t{1} << 16;

// Radii in pixels from which on single precision is not enough.
constexpr double kWideRadius = 1024;

// Work, in points and pixels, below which another thread costs more than it brings.
constexpr std::int64_t kPixelsPerThread = 1 << 18, kPixelsPerPoint = 64;

// A capsule of a sketch is an index into `capsules`, or ~ an index into `wide`.
using Mark = std::int32_t;

// What one thread needs to draw; kept from canvas to canvas.
class Scratch {
public:
    void draw(const SketchBatchView& batch, const Canvas& canvas, const Kernel& kernel) {
        resize(canvas.size);
        collect(batch, canvas);
        std::uint8_t* pixels = canvas.pixels;
        for (int first = 0, part = 0; first < canvas.size; first += band_rows_, ++part) {
            band_.first_row = first;
            band_.rows = std::min(band_rows_, canvas.size - first);
            draw_band(kernel, part);
            kernel.resolve(band_, pixels);
            pixels += static_cast<std::size_t>(band_.rows) * canvas.size;
        }
        if (marks_.capacity() > kKeptMarks) release();
    }

private:
    struct Free {
        void operator()(std::uint32_t* p) const { ::operator delete[](p, std::align_val_t{64}); }
    };

    void resize(int size) {
        const std::size_t row_bytes = static_cast<std::size_t>(size) * kLines * sizeof(std::uint32_t);
        const std::size_t band_bytes = size < kLargeSize ? kBandBytes : kLargeBandBytes;
        band_rows_ = static_cast<int>(std::clamp<std::size_t>(band_bytes / row_bytes, 1, size));
        band_.size = size;
        band_.touched_stride = (size + 63) / 64;
        const std::size_t bytes = row_bytes * band_rows_;
        if (bytes > word_bytes_) {
            words_.reset();
            word_bytes_ = 0;
            words_.reset(static_cast<std::uint32_t*>(::operator new[](bytes, std::align_val_t{64})));
            std::fill_n(words_.get(), bytes / sizeof(std::uint32_t), 0u);
            word_bytes_ = bytes;
        }
        const std::size_t touched = static_cast<std::size_t>(band_rows_) * band_.touched_stride;
        if (touched > touched_.size()) touched_.assign(touched, 0);
        band_.words = words_.get();
        band_.touched = touched_.data();
    }

    void release() {
        capsules_ = {};
        wide_ = {};
        marks_ = {};
        band_marks_ = {};
    }

    // The capsules of the canvas' sketch in drawing order, in pixels.
    void collect(const SketchBatchView& batch, const Canvas& canvas) {
        capsules_.clear();
        wide_.clear();
        marks_.clear();
        for (std::int64_t s = batch.sketch_offsets[canvas.sketch]; s < batch.sketch_offsets[canvas.sketch + 1]; ++s) {
            const double stated = batch.stroke_widths ? batch.stroke_widths[s] : batch.line_width;
            const double width = batch.widths_in_pixels ? stated : std::max(1.0, stated * canvas.size);
            const bool erase = batch.erasers != nullptr && batch.erasers[s];
            const std::int64_t begin = batch.stroke_offsets[s], end = batch.stroke_offsets[s + 1];
            const float* p = batch.points + 2 * begin;
            if (end - begin == 1) add(p, p, canvas.size, 0.5 * width, erase);
            for (std::int64_t i = begin; i + 1 < end; ++i, p += 2) add(p, p + 2, canvas.size, 0.5 * width, erase);
        }
        sorted_ = false;
        if (band_rows_ < canvas.size) assign_bands(canvas.size);
    }

    void add(const float* a, const float* b, int size, double radius, bool erase) {
        if (radius < kWideRadius) {
            capsules_.emplace_back();
            if (make_capsule(a[0], a[1], b[0], b[1], size, radius, erase, capsules_.back())) {
                marks_.push_back(static_cast<Mark>(capsules_.size() - 1));
            } else {
                capsules_.pop_back();
            }
        } else {
            wide_.emplace_back();
            if (make_capsule(a[0], a[1], b[0], b[1], size, radius, erase, wide_.back())) {
                marks_.push_back(~static_cast<Mark>(wide_.size() - 1));
            } else {
                wide_.pop_back();
            }
        }
    }

    // Sorts the marks by the bands that they reach, each kept in drawing order: a band then costs its own marks only.
    // Where most marks reach many bands that would cost more memory than it saves time: every band then meets all.
    void assign_bands(int size) {
        const int bands = (size + band_rows_ - 1) / band_rows_;
        band_offsets_.assign(bands + 1, 0);
        const auto reach = [&](Mark mark) {
            const auto bands_of = [&](const auto& capsule) {
                // One pixel more on either side: more than rounding could need.
                const double first = (capsule.y0 - capsule.radius - 1) / band_rows_;
                const double last = (capsule.y1 + capsule.radius + 1) / band_rows_;
                return std::pair<int, int>(static_cast<int>(std::clamp(first, 0.0, bands - 1.0)),
                                           static_cast<int>(std::clamp(last, 0.0, bands - 1.0)));
            };
            return mark >= 0 ? bands_of(capsules_[mark]) : bands_of(wide_[~mark]);
        };
        for (const Mark mark : marks_) {
            const auto [first, last] = reach(mark);
            for (int band = first; band <= last; ++band) ++band_offsets_[band + 1];
        }
        for (int band = 0; band < bands; ++band) band_offsets_[band + 1] += band_offsets_[band];
        sorted_ = band_offsets_[bands] <= static_cast<std::int64_t>(marks_.size()) * bands / 4;
        if (!sorted_) return;
        band_marks_.resize(band_offsets_[bands]);
        next_.assign(band_offsets_.begin(), band_offsets_.end() - 1);
        for (const Mark mark : marks_) {
            const auto [first, last] = reach(mark);
            for (int band = first; band <= last; ++band) band_marks_[next_[band]++] = mark;
        }
    }

    void draw_band(const Kernel& kernel, int part) {
        const Mark* marks = sorted_ ? band_marks_.data() + band_offsets_[part] : marks_.data();
        const std::int64_t count =
            sorted_ ? band_offsets_[part + 1] - band_offsets_[part] : static_cast<std::int64_t>(marks_.size());
        if (wide_.empty()) {
            kernel.draw(band_, capsules_.data(), marks, count);
            return;
        }
        for (std::int64_t i = 0; i < count; ++i) {
            if (marks[i] >= 0) {
                kernel.draw(band_, capsules_.data(), marks + i, 1);
            } else {
                draw_wide(band_, wide_[~marks[i]]);
            }
        }
    }

    int band_rows_ = 0;
    bool sorted_ = false;  // whether band_marks_ is in use
    Band band_{};
    std::unique_ptr<std::uint32_t[], Free> words_;
    std::size_t word_bytes_ = 0;
    std::vector<std::uint64_t> touched_;
    std::vector<Capsule<float>> capsules_;
    std::vector<Capsule<double>> wide_;
    std::vector<Mark> marks_, band_marks_;
    std::vector<std::int64_t> band_offsets_, next_;
};

std::int64_t useful_threads(const SketchBatchView& batch, const Canvas* canvases, std::int64_t count, int threads) {
    const std::int64_t enough = threads * kPixelsPerThread;
    std::int64_t work = 0;
    for (std::int64_t i = 0; i < count && work < enough; ++i) {
        const std::int64_t* strokes = batch.sketch_offsets + canvases[i].sketch;
        work += static_cast<std::int64_t>(canvases[i].size) * canvases[i].size;
        work += kPixelsPerPoint * (batch.stroke_offsets[strokes[1]] - batch.stroke_offsets[strokes[0]]);
    }
    return std::clamp<std::int64_t>(work / kPixelsPerThread, 1, std::min<std::int64_t>(threads, std::max<std::int64_t>(count, 1)));
}

}  // namespace

void rasterize(const SketchBatchView& batch, const Canvas* canvases, std::int64_t count, int threads) {
    const Kernel& kernel = sketchynet::kernel();
    std::atomic<std::int64_t> next{0};
    std::exception_ptr failure;
    std::mutex failure_lock;

    const auto work = [&] {
        try {
            thread_local Scratch scratch;
            for (std::int64_t i = next++; i < count; i = next++) scratch.draw(batch, canvases[i], kernel);
        } catch (...) {
            next = count;  // the others stop at their next canvas
            const std::lock_guard<std::mutex> hold(failure_lock);
            failure = std::current_exception();
        }
    };

    std::vector<std::thread> helpers;
    const std::int64_t wanted = useful_threads(batch, canvases, count, threads);
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
