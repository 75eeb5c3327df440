#include "raster/rasterizer.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
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

// Canvases from this size on are drawn by strips (strip.hpp), smaller ones by samples alone: there too many
// pixels would be in doubt.
constexpr int kStripSize = 160;

// More strips than this, of which a canvas seldom has a hundredth, do not fit StripBand::owners.
constexpr std::size_t kMostStrips = 0xff00;

// Strips join smoothly where the stroke turns less than this between them, in radians.
constexpr float kSmoothTurn = 0.25f;

// What a thread may keep between canvases: a sketch of a million points is drawn, not remembered.
constexpr std::size_t kKeptMarks = std::size_t{1} << 16;

// Radii in pixels from which on single precision is not enough.
constexpr double kWideRadius = 128;

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
        const bool by_strips = canvas.size >= kStripSize && wide_.empty() && batch.erasers == nullptr &&
                               segments_.size() < kMostStrips;
        capsules_.resize(segments_.size());
        strips_.resize(by_strips ? segments_.size() : 0);
        kernel.prepare(segments_.data(), static_cast<std::int64_t>(segments_.size()), canvas.size, capsules_.data(),
                       by_strips ? strips_.data() : nullptr);
        if (by_strips) join_strips();
        sorted_ = false;
        if (band_rows_ < canvas.size) assign_bands(canvas.size);
        std::uint8_t* pixels = canvas.pixels;
        for (int first = 0, part = 0; first < canvas.size; first += band_rows_, ++part) {
            band_.first_row = first;
            band_.rows = std::min(band_rows_, canvas.size - first);
            const Mark* marks = sorted_ ? band_marks_.data() + band_offsets_[part] : marks_.data();
            const std::int64_t count =
                sorted_ ? band_offsets_[part + 1] - band_offsets_[part] : static_cast<std::int64_t>(marks_.size());
            if (by_strips) {
                draw_strips(kernel, marks, count, pixels);
            } else {
                draw_samples(kernel, marks, count, pixels);
            }
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
        const std::size_t band_bytes = size < kStripSize ? kBandBytes : kLargeBandBytes;
        band_rows_ = static_cast<int>(std::clamp<std::size_t>(band_bytes / row_bytes, 1, size));
        band_.size = size;
        band_.touched_stride = size / 64 + 1;
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
        segments_ = {};
        capsules_ = {};
        strips_ = {};
        turns_ = {};
        wide_ = {};
        marks_ = {};
        band_marks_ = {};
    }

    // The segments of the canvas' sketch in drawing order.
    void collect(const SketchBatchView& batch, const Canvas& canvas) {
        segments_.clear();
        wide_.clear();
        marks_.clear();
        for (std::int64_t s = batch.sketch_offsets[canvas.sketch]; s < batch.sketch_offsets[canvas.sketch + 1]; ++s) {
            const double stated = batch.stroke_widths ? batch.stroke_widths[s] : batch.line_width;
            const double width = batch.widths_in_pixels ? stated : std::max(1.0, stated * canvas.size);
            Segment segment{};
            segment.radius = 0.5 * width;
            segment.erase = batch.erasers != nullptr && batch.erasers[s];
            const std::int64_t begin = batch.stroke_offsets[s], end = batch.stroke_offsets[s + 1];
            const float* p = batch.points + 2 * begin;
            if (end - begin == 1) add(p, p, canvas.size, segment);
            for (std::int64_t i = begin; i + 1 < end; ++i, p += 2) add(p, p + 2, canvas.size, segment);
        }
    }

    void add(const float* a, const float* b, int size, Segment& segment) {
        const bool visible = place(a, b, size, segment);
        if (visible && segment.radius < kWideRadius) {
            marks_.push_back(static_cast<Mark>(segments_.size()));
            segments_.push_back(segment);
        } else if (visible) {
            marks_.push_back(~static_cast<Mark>(wide_.size()));
            wide_.push_back(make_wide_capsule(segment, size));
        }
        segment.continues = visible;
    }

    // Sorts the marks by the bands that they reach, each kept in drawing order: a band then costs its own marks only.
    // Where most marks reach many bands that would cost more memory than it saves time: every band then meets all.
    void assign_bands(int size) {
        const int bands = (size + band_rows_ - 1) / band_rows_;
        band_offsets_.assign(bands + 1, 0);
        const auto reach = [&](Mark mark) {
            // One pixel more on either side: more than rounding could need.
            const auto bands_of = [&](double top, double bottom) {
                return std::pair<int, int>(static_cast<int>(std::clamp((top - 1) / band_rows_, 0.0, bands - 1.0)),
                                           static_cast<int>(std::clamp((bottom + 1) / band_rows_, 0.0, bands - 1.0)));
            };
            if (mark >= 0) {
                const Capsule& c = capsules_[mark];
                return bands_of(c.row, c.row + static_cast<double>(c.bottom) / kColumns);
            }
            const WideCapsule& c = wide_[~mark];
            return bands_of(c.y0 - c.radius, c.y1 + c.radius);
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

    void draw_samples(const Kernel& kernel, const Mark* marks, std::int64_t count, std::uint8_t* pixels) {
        if (wide_.empty()) {
            kernel.draw(band_, capsules_.data(), marks, count);
        } else {
            for (std::int64_t i = 0; i < count; ++i) {
                if (marks[i] >= 0) {
                    kernel.draw(band_, capsules_.data(), marks + i, 1);
                } else {
                    draw_wide(band_, wide_[~marks[i]]);
                }
            }
        }
        kernel.resolve(band_, pixels);
    }

    // Joins the strips where a stroke goes on smoothly.
    void join_strips() {
        turns_.resize(strips_.size());
        float turned = 0;  // along the strokes so far, in radians
        std::int32_t joined = 0;
        for (std::size_t i = 0; i < strips_.size(); ++i) {
            Strip& strip = strips_[i];
            const auto own = static_cast<std::int32_t>(i);
            if (!segments_[i].continues) {
                joined = own;
            } else {
                Strip& before = strips_[i - 1];
                const bool reversed = segments_[i].reversed, before_reversed = segments_[i - 1].reversed;
                const float sign = reversed == before_reversed ? 1.0f : -1.0f;
                const float dx = sign * strip.ux - before.ux, dy = sign * strip.uy - before.uy;
                const float turn = std::sqrt(dx * dx + dy * dy);
                turned += turn;
                if (turn < kSmoothTurn) {
                    // The wedge between the two, as far out as a pixel's centre may lie.
                    const float wedge = 0.55f * turn * (strip.radius + 0.75f) + 0.01f;
                    before.open_start &= !before_reversed;
                    before.open_end &= before_reversed;
                    (before_reversed ? before.first : before.last) = before_reversed ? -wedge : before.length + wedge;
                    strip.open_end = !reversed;
                    strip.open_start = reversed;
                    (reversed ? strip.last : strip.first) = reversed ? strip.length + wedge : -wedge;
                    while (turned - turns_[joined] > kSmoothTurn) ++joined;
                } else {
                    joined = own;
                }
            }
            turns_[i] = turned;
            strip.joined = joined;
        }
    }

    void draw_strips(const Kernel& kernel, const Mark* marks, std::int64_t count, std::uint8_t* pixels) {
        const std::size_t area = static_cast<std::size_t>(band_.rows) * band_.size;
        if (owners_.size() < area || base_ + strips_.size() > 0xffff) {
            owners_.assign(std::max(area, owners_.size()), 0);
            base_ = 1;
        }
        std::fill_n(pixels, area, std::uint8_t{0});
        if (places_.size() < area) places_.resize(area);
        const StripBand strips{pixels,     owners_.data(),  band_.touched, places_.data(), band_.touched_stride,
                               band_.size, band_.first_row, band_.rows,    static_cast<std::uint16_t>(base_)};
        kernel.draw_strips(strips, capsules_.data(), strips_.data(), marks, count);
        kernel.settle_doubts(band_, strips, capsules_.data(), marks, count);
        base_ += strips_.size();
    }

    int band_rows_ = 0;
    bool sorted_ = false;  // whether band_marks_ is in use
    Band band_{};
    std::unique_ptr<std::uint32_t[], Free> words_;
    std::size_t word_bytes_ = 0;
    std::vector<std::uint64_t> touched_;
    std::vector<Segment> segments_;
    std::vector<Capsule> capsules_;      // of the segments
    std::vector<Strip> strips_;          // of the segments, where a canvas is drawn by strips
    std::vector<float> turns_;
    std::vector<std::uint16_t> owners_;  // see StripBand; what is below base_ is of earlier drawings
    std::vector<std::uint32_t> places_;
    std::size_t base_ = 1;
    std::vector<WideCapsule> wide_;
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
