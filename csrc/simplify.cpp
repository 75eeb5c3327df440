#include "simplify.hpp"

#include <algorithm>
#include <utility>

namespace sketchynet {
namespace {

// Squared distance from point p to the segment a-b (not to its line: a closed stroke has a == b).
double squared_distance(const float* p, const float* a, const float* b) {
    const double bx = static_cast<double>(b[0]) - a[0], by = static_cast<double>(b[1]) - a[1];
    double px = static_cast<double>(p[0]) - a[0], py = static_cast<double>(p[1]) - a[1];
    const double length = bx * bx + by * by;
    if (length > 0) {
        const double t = std::clamp((px * bx + py * by) / length, 0.0, 1.0);
        px -= t * bx;
        py -= t * by;
    }
    return px * px + py * py;
}

}  // namespace

Simplified simplify(const float* points, const std::int64_t* stroke_offsets, std::int64_t strokes, double tolerance) {
    Simplified result;
    result.stroke_offsets.reserve(static_cast<std::size_t>(strokes) + 1);
    result.stroke_offsets.push_back(0);
    const double limit = tolerance * tolerance;

    std::vector<char> keep;
    std::vector<std::pair<std::int64_t, std::int64_t>> open;  // pieces still to be split, ends included
    for (std::int64_t stroke = 0; stroke < strokes; ++stroke) {
        const std::int64_t begin = stroke_offsets[stroke], last = stroke_offsets[stroke + 1] - 1;
        keep.assign(static_cast<std::size_t>(last - begin + 1), 0);
        keep.front() = keep.back() = 1;
        open.assign(1, {begin, last});
        while (!open.empty()) {
            const auto [from, to] = open.back();
            open.pop_back();
            double farthest = limit;
            std::int64_t split = -1;
            for (std::int64_t i = from + 1; i < to; ++i) {
                const double distance = squared_distance(points + 2 * i, points + 2 * from, points + 2 * to);
                if (distance > farthest) {
                    farthest = distance;
                    split = i;
                }
            }
            if (split >= 0) {
                keep[static_cast<std::size_t>(split - begin)] = 1;
                open.emplace_back(from, split);
                open.emplace_back(split, to);
            }
        }
        for (std::int64_t i = begin; i <= last; ++i) {
            if (keep[static_cast<std::size_t>(i - begin)]) result.kept.push_back(i);
        }
        result.stroke_offsets.push_back(static_cast<std::int64_t>(result.kept.size()));
    }
    return result;
}

}  // namespace sketchynet
