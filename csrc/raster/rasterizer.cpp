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

#include "raster/arcs.hpp"
#include "raster/capsule.hpp"
#include "raster/coverage.hpp"
#include "raster/dispatch.hpp"

namespace sketchynet {
namespace {

// Bytes of bits a band may take, so that it stays in the second-level cache; and the most bands of a canvas, so that
// drawing a capsule band by band costs less than its pixels.
constexpr int kBandBytes = 1 << 20, kMostBands = 64;

// What a thread may keep between canvases: a sketch of a million points is drawn, not remembered.
constexpr std::size_t kKeptMarks = std::size_t{1} << 16;

// Work, in points and pixels, below which another thread costs more than it brings.
constexpr std::int64_t kPixelsPerThread = 1 << 18, kPixelsPerPoint = 64;

// A capsule of a sketch is an index into the blocks of `capsules`, or ~ an index into `wide`.
using Mark = std::int32_t;

// What one thread needs to draw; kept from canvas to canvas.
class Scratch {
public:
    void draw(const SketchBatchView& batch, const Canvas& canvas, const Kernel& kernel) {
        resize(canvas.size);
        collect(batch, canvas);
        kernel.prepare(segments_.data(), (count_ + kGroup - 1) / kGroup, capsules_.data());
        find_arcs();
        marks_of_all_ = in_order_.data();
        marks_count_ = count_ + static_cast<std::int64_t>(wide_.size());
        if (!wide_.empty()) {
            list_marks();
            marks_of_all_ = marks_.data();
        }
        sorted_ = false;
        if (band_rows_ < canvas.size) assign_bands(canvas.size);
        std::uint8_t* pixels = canvas.pixels;
        for (int first = 0, part = 0; first < canvas.size; first += band_rows_, ++part) {
            band_.first_row = first;
            band_.rows = std::min(band_rows_, canvas.size - first);
            if (sorted_) {
                draw_band(kernel, band_marks_.data() + band_offsets_[part], band_offsets_[part + 1] - band_offsets_[part]);
            } else {
                draw_band(kernel, marks_of_all_, marks_count_);
            }
            kernel.resolve(band_, pixels);
            pixels += static_cast<std::size_t>(band_.rows) * canvas.size;
        }
        if (in_order_.size() > kKeptMarks) release();
    }

private:
    struct Free {
        void operator()(std::uint16_t* p) const { ::operator delete[](p, std::align_val_t{64}); }
    };

    void resize(int size) {
        const auto even = [](int rows) { return (rows + 1) / 2 * 2; };
        const std::size_t row_words = static_cast<std::size_t>(size) * kLines * (kSamples / kTileSamples);
        const int rows = std::max(kBandBytes / static_cast<int>(row_words * sizeof(std::uint16_t)), size / kMostBands);
        for (band_shift_ = 1; (2 << band_shift_) <= rows; ++band_shift_) {}
        band_rows_ = std::min(1 << band_shift_, even(size));
        band_.size = size;
        band_.stride = size / 64 + 2;
        const std::size_t words = row_words * static_cast<std::size_t>(band_rows_);
        if (words > words_count_) {
            words_.reset();
            words_count_ = 0;
            words_.reset(static_cast<std::uint16_t*>(::operator new[](words * sizeof(std::uint16_t), std::align_val_t{64})));
            std::fill_n(words_.get(), words, std::uint16_t{0});
            words_count_ = words;
        }
        const auto touched = static_cast<std::size_t>(band_rows_ / 2 * band_.stride);
        if (touched > touched_.size()) touched_.assign(touched, 0);
        band_.words = words_.get();
        band_.touched = touched_.data();
    }

    void release() {
        segments_ = {};
        capsules_ = {};
        erase_ = {};
        wide_ = {};
        wide_before_ = {};
        in_order_ = {};
        marks_ = {};
        band_marks_ = {};
    }

    // The segments of the canvas' sketch in drawing order.
    void collect(const SketchBatchView& batch, const Canvas& canvas) {
        wide_.clear();
        wide_before_.clear();
        erase_.clear();
        count_ = 0;
        const int size = canvas.size;
        const auto scale = static_cast<float>(size);
        const std::int64_t first = batch.sketch_offsets[canvas.sketch], last = batch.sketch_offsets[canvas.sketch + 1];
        points_ = batch.stroke_offsets[last] - batch.stroke_offsets[first];
        make_room(points_);
        for (std::int64_t s = first; s < last; ++s) {
            const double stated = batch.stroke_widths ? batch.stroke_widths[s] : batch.line_width;
            const double radius = 0.5 * (batch.widths_in_pixels ? stated : std::max(1.0, stated * size));
            const bool erase = batch.erasers != nullptr && batch.erasers[s];
            const std::int64_t begin = batch.stroke_offsets[s], end = batch.stroke_offsets[s + 1];
            const float* p = batch.points + 2 * begin;
            const float* const last_point = batch.points + 2 * (end - 1);
            const int next = end - begin == 1 ? 0 : 2;  // one point is a dot
            const auto narrow = static_cast<float>(radius);
            // Whether the point is at most radius + 1 pixels outside the canvas.
            const float middle = 0.5f * scale, away = radius > kMostRadius ? -1.0f : middle + narrow + 1;
            const auto near = [&](float x, float y) { return std::max(std::abs(x - middle), std::abs(y - middle)) <= away; };
            float x0 = p[0] * scale, y0 = p[1] * scale;
            bool near0 = near(x0, y0);
            std::int32_t count = count_;
            do {
                const float x1 = p[next] * scale, y1 = p[next + 1] * scale;
                const bool near1 = near(x1, y1);
                if (near0 && near1 && std::abs(x1 - x0) <= kMostExtent) {
                    put(count++, x0, y0, x1, y1, narrow);
                } else {
                    count_ = count;
                    put_clipped(p, p + next, size, radius, erase);
                    count = count_;
                }
                x0 = x1, y0 = y1, near0 = near1;
                p += 2;
            } while (p < last_point);
            count_ = count;
            if (batch.erasers != nullptr) erase_.resize(static_cast<std::size_t>(count_), erase);
        }
    }

    // For so many more segments.
    void make_room(std::int64_t more) {
        const auto blocks = static_cast<std::size_t>((count_ + more + kGroup - 1) / kGroup);
        if (segments_.size() >= blocks) return;
        segments_.resize(std::max(blocks, segments_.size() * 3 / 2));
        capsules_.resize(segments_.size());
        for (auto i = static_cast<Mark>(in_order_.size()); in_order_.size() < segments_.size() * kGroup; ++i) {
            in_order_.push_back(i);
        }
    }

    void put(std::int32_t place, float xa, float ya, float xb, float yb, float radius) {
        const auto i = static_cast<std::uint32_t>(place);
        SegmentBlock& block = segments_[i / kGroup];
        const std::uint32_t lane = i % kGroup;
        block.xa[lane] = xa, block.ya[lane] = ya, block.xb[lane] = xb, block.yb[lane] = yb;
        block.radius[lane] = radius;
    }

    // A piece that may reach out of the canvas, is long or wide.
    void put_clipped(const float* a, const float* b, int size, double radius, bool erase) {
        Segment segment;
        if (!place(a, b, size, radius, segment)) return;
        if (radius > kMostRadius) {
            wide_.push_back(make_wide_capsule(segment, radius, erase, size));
            wide_before_.push_back(count_);
            return;
        }
        const double x = segment.xa * size, y = segment.ya * size, dx = segment.xb * size - x, dy = segment.yb * size - y;
        const int parts = static_cast<int>(std::abs(dx) / (kMostExtent - 1)) + 1;
        make_room(points_ + parts);
        // Cut at whole 1/1024 pixels, so that mirrored pieces have mirrored ends.
        const auto at = [&](double start, double extent, int i) {
            const double place = start + extent * i / parts;
            return static_cast<float>(i == 0 || i == parts ? place : std::nearbyint(place * 1024) / 1024);
        };
        for (int i = 0; i < parts; ++i) {
            put(count_++, at(x, dx, i), at(y, dy, i), at(x, dx, i + 1), at(y, dy, i + 1), static_cast<float>(radius));
        }
    }

    // Tables of arcs for all capsules: runs of the same radius share one.
    void find_arcs() {
        arcs_.begin_canvas();
        loose_ = false;
        for (std::uint32_t i = 0, count = static_cast<std::uint32_t>(count_); i < count;) {
            const std::uint32_t from = i;
            const float radius = radius_of(i);
            std::uint64_t phases = 0;
            for (; i < count && radius_of(i) == radius; ++i) {
                const CapsuleBlock& c = capsules_[i / kGroup];
                phases |= std::uint64_t{1} << c.phase0[i % kGroup] | std::uint64_t{1} << c.phase1[i % kGroup];
            }
            const Arc table = arcs_.find(radius, phases);
            loose_ |= table == nullptr;
            for (std::uint32_t k = from; k < i; ++k) capsules_[k / kGroup].arcs[k % kGroup] = table;
        }
    }

    float radius_of(std::uint32_t i) const { return segments_[i / kGroup].radius[i % kGroup]; }

    // All marks in drawing order.
    void list_marks() {
        marks_.clear();
        std::int32_t next = 0;
        for (std::size_t i = 0; i < wide_.size(); ++i) {
            for (; next < wide_before_[i]; ++next) marks_.push_back(next);
            marks_.push_back(~static_cast<Mark>(i));
        }
        for (; next < count_; ++next) marks_.push_back(next);
    }

    // Sorts the marks by the bands that they reach, each kept in drawing order: a band then costs its own marks only.
    // Where most marks reach many bands that would cost more memory than it saves time: every band then meets all.
    void assign_bands(int size) {
        constexpr int kLineShift = 4;
        static_assert(kLines == 1 << kLineShift);
        const int bands = ((size - 1) >> band_shift_) + 1, shift = band_shift_ + kLineShift;
        band_offsets_.assign(static_cast<std::size_t>(bands) + 1, 0);
        const auto reach = [&](Mark mark) {
            if (mark >= 0) {
                const CapsuleBlock& c = capsules_[static_cast<std::uint32_t>(mark) / kGroup];
                const auto lane = static_cast<std::uint32_t>(mark) % kGroup;
                return std::pair<int, int>(std::max(c.first[lane] >> shift, 0), std::min(c.last[lane] >> shift, bands - 1));
            }
            // One pixel more on either side: more than rounding could need.
            const WideCapsule& c = wide_[static_cast<std::size_t>(~mark)];
            const double top = (c.y0 - c.radius - 1) / band_rows_, bottom = (c.y1 + c.radius + 1) / band_rows_;
            return std::pair<int, int>(static_cast<int>(std::clamp(top, 0.0, bands - 1.0)),
                                       static_cast<int>(std::clamp(bottom, 0.0, bands - 1.0)));
        };
        for (std::int64_t i = 0; i < marks_count_; ++i) {
            const auto [first, last] = reach(marks_of_all_[i]);
            for (int band = first; band <= last; ++band) ++band_offsets_[band + 1];
        }
        for (int band = 0; band < bands; ++band) band_offsets_[band + 1] += band_offsets_[band];
        sorted_ = band_offsets_[bands] <= marks_count_ * std::max(bands / 4, 4);
        if (!sorted_) return;
        band_marks_.resize(band_offsets_[bands]);
        next_.assign(band_offsets_.begin(), band_offsets_.end() - 1);
        for (std::int64_t i = 0; i < marks_count_; ++i) {
            const Mark mark = marks_of_all_[i];
            const auto [first, last] = reach(mark);
            for (int band = first; band <= last; ++band) band_marks_[next_[band]++] = mark;
        }
    }

    void draw_band(const Kernel& kernel, const Mark* marks, std::int64_t count) {
        const std::uint8_t* erase = erase_.empty() ? nullptr : erase_.data();
        if (wide_.empty() && !loose_) {
            kernel.draw(band_, capsules_.data(), marks, count, erase);
            return;
        }
        for (std::int64_t i = 0; i < count; ++i) {
            if (marks[i] < 0) {
                draw_wide(band_, wide_[~marks[i]]);
            } else if (capsules_[static_cast<std::size_t>(marks[i] / kGroup)].arcs[marks[i] % kGroup] != nullptr) {
                kernel.draw(band_, capsules_.data(), marks + i, 1, erase);
            } else {
                draw_loose(kernel, marks[i], erase);
            }
        }
    }

    // A capsule whose arcs there is no room for is drawn with arcs of its own.
    void draw_loose(const Kernel& kernel, Mark mark, const std::uint8_t* erase) {
        const int lane = mark % kGroup;
        CapsuleBlock& c = capsules_[static_cast<std::size_t>(mark / kGroup)];
        const CapsuleBlock kept = c;
        const float radius = radius_of(static_cast<std::uint32_t>(mark));
        const int length = arc_length(arc_reach(radius));
        own_arcs_.resize(2 * static_cast<std::size_t>(length));
        Arcs::write(radius, c.phase0[lane], own_arcs_.data());
        Arcs::write(radius, c.phase1[lane], own_arcs_.data() + length);
        c.arcs[lane] = own_arcs_.data();
        c.offset0[lane] = length / 2;
        c.offset1[lane] = length + length / 2;
        kernel.draw(band_, capsules_.data(), &mark, 1, erase);
        c = kept;
    }

    int band_rows_ = 0, band_shift_ = 0;  // 2^band_shift_, or all rows of the canvas
    bool sorted_ = false;  // whether band_marks_ is in use
    bool loose_ = false;   // whether a capsule has no arcs
    Band band_{};
    std::unique_ptr<std::uint16_t[], Free> words_;
    std::size_t words_count_ = 0;
    std::vector<std::uint64_t> touched_;
    std::int64_t points_ = 0;              // of the sketch: no more segments follow, but those of long ones
    std::int32_t count_ = 0;               // of segments
    std::int64_t marks_count_ = 0;
    std::vector<SegmentBlock> segments_;
    std::vector<CapsuleBlock> capsules_;   // of the segments
    std::vector<std::uint8_t> erase_;      // whether a segment erases; empty where none does
    std::vector<std::int16_t> own_arcs_;
    std::vector<WideCapsule> wide_;
    std::vector<std::int32_t> wide_before_;  // the segment that follows a wide capsule
    std::vector<Mark> in_order_;             // 0, 1, 2, ...
    std::vector<Mark> marks_, band_marks_;
    const Mark* marks_of_all_ = nullptr;
    std::vector<std::int64_t> band_offsets_, next_;
    Arcs arcs_;
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
        thread_local std::unique_ptr<Scratch> kept;
        try {
            if (kept == nullptr) kept = std::make_unique<Scratch>();
            Scratch& scratch = *kept;
            for (std::int64_t i = next++; i < count; i = next++) scratch.draw(batch, canvases[i], kernel);
        } catch (...) {
            kept.reset();  // its bits may not be clear
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
