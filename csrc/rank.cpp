#include "rank.hpp"

#include <algorithm>

#include "threads.hpp"

namespace sketchynet {
namespace {

constexpr std::int64_t kLanes = 8;    // partial sums, which the compiler keeps in vector registers
constexpr std::int64_t kBlock = 256;  // comparisons between two looks for unsure ones

double folded(const double (&sums)[kLanes]) {
    return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

double squared_distance(const float* x, const float* y, std::int64_t dim) {
    double sums[kLanes] = {};
    std::int64_t k = 0;
    for (; k + kLanes <= dim; k += kLanes) {
        for (std::int64_t lane = 0; lane < kLanes; ++lane) {
            const double apart = static_cast<double>(x[k + lane]) - static_cast<double>(y[k + lane]);
            sums[lane] += apart * apart;
        }
    }
    for (; k < dim; ++k) {
        const double apart = static_cast<double>(x[k]) - static_cast<double>(y[k]);
        sums[k % kLanes] += apart * apart;
    }
    return folded(sums);
}

double squared_norm(const float* x, std::int64_t dim) {
    double sums[kLanes] = {};
    std::int64_t k = 0;
    for (; k + kLanes <= dim; k += kLanes) {
        for (std::int64_t lane = 0; lane < kLanes; ++lane) {
            const double value = x[k + lane];
            sums[lane] += value * value;
        }
    }
    for (; k < dim; ++k) sums[k % kLanes] += static_cast<double>(x[k]) * static_cast<double>(x[k]);
    return folded(sums);
}

std::int64_t nearer_in_row(const RankChunk& chunk, std::int64_t b) {
    const float* products = chunk.products + b * chunk.gallery_count;
    const float* query = chunk.queries + b * chunk.dim;
    const float low = chunk.low[b], high = chunk.high[b];
    std::int64_t total = 0;
    for (std::int64_t first = 0; first < chunk.gallery_count; first += kBlock) {
        const std::int64_t last = std::min(first + kBlock, chunk.gallery_count);
        std::int32_t nearer = 0, farther = 0;
        for (std::int64_t j = first; j < last; ++j) {
            nearer += chunk.above[j] - products[j] < low;
            farther += chunk.below[j] - products[j] > high;
        }
        total += nearer;
        if (nearer + farther == last - first) continue;
        for (std::int64_t j = first; j < last; ++j) {
            // A comparison with NaN is false on both sides: unsure.
            if (chunk.above[j] - products[j] < low || chunk.below[j] - products[j] > high) continue;
            total += squared_distance(query, chunk.gallery + j * chunk.dim, chunk.dim) <= chunk.true_squared[b];
        }
    }
    return total;
}

}  // namespace

void row_squares(const float* rows, std::int64_t count, std::int64_t dim, int threads, double* out) {
    in_threads(count, threads, [=](std::int64_t first, std::int64_t last) {
        for (std::int64_t i = first; i < last; ++i) out[i] = squared_norm(rows + i * dim, dim);
    });
}

void row_distances(const float* x, const float* y, std::int64_t count, std::int64_t dim, double* out) {
    for (std::int64_t i = 0; i < count; ++i) out[i] = squared_distance(x + i * dim, y + i * dim, dim);
}

void count_nearer(const RankChunk& chunk, int threads, std::int64_t* counts) {
    in_threads(chunk.queries_count, threads, [&chunk, counts](std::int64_t first, std::int64_t last) {
        for (std::int64_t b = first; b < last; ++b) counts[b] += nearer_in_row(chunk, b);
    });
}

}  // namespace sketchynet
