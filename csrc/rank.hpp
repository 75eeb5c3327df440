// Comparisons of distances by their matrix products, and the exact differences that decide the close ones.
#pragma once

#include <cstdint>

namespace sketchynet {

// Squared norms of `count` rows of `dim` elements.
void row_squares(const float* rows, std::int64_t count, std::int64_t dim, int threads, double* out);

// Squared distance of row k of x to row k of y, for `count` rows: differences in double, summed in an order that
// depends on `dim` alone, so that equal rows give equal distances.
void row_distances(const float* x, const float* y, std::int64_t count, std::int64_t dim, double* out);

// B queries against a chunk of n gallery rows.
struct RankChunk {
    const float* products;  // (B, n): x·g
    const float* queries;   // (B, dim)
    const float* gallery;   // (n, dim)
    const float* above;     // (n): |g|²/2 and the row's part of the error bound, added
    const float* below;     // (n): subtracted
    const float* low;       // (B): above - product below it is nearer than the true row for sure
    const float* high;      // (B): below - product above it is farther for sure
    const double* true_squared;  // (B): squared distance to the true row
    std::int64_t queries_count, gallery_count, dim;
};

// Adds to counts (B) the number of rows at most as far as the true one.
void count_nearer(const RankChunk& chunk, int threads, std::int64_t* counts);

}  // namespace sketchynet
