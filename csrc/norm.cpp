#include "norm.hpp"

#include <algorithm>
#include <vector>

#include "threads.hpp"

namespace sketchynet {
namespace {

constexpr std::int64_t kParts = 32;       // whatever the number of threads, so that sums do not depend on it
constexpr std::int64_t kBlock = 64;       // steps whose sums are taken in single precision, then added in double
constexpr std::int64_t kLeastWidth = 64;  // elements of a step: narrow rows are taken several at a time

// Rows of few channels are read as wider ones, `copies` at a time; the sums of the copies are added in the end.
struct Steps {
    std::int64_t channels, copies, width;

    explicit Steps(std::int64_t channels_)
        : channels(channels_),
          copies(std::max<std::int64_t>(1, kLeastWidth / channels_)),
          width(channels_ * copies) {}

    std::vector<float> repeated(const float* values) const {
        std::vector<float> wide(static_cast<std::size_t>(width));
        for (std::int64_t i = 0; i < width; ++i) wide[static_cast<std::size_t>(i)] = values[i % channels];
        return wide;
    }
};

struct Moments {
    double count = 0;
    std::vector<double> mean, squares;

    explicit Moments(std::int64_t channels)
        : mean(static_cast<std::size_t>(channels)), squares(static_cast<std::size_t>(channels)) {}

    // Chan, Golub and LeVeque 1983: the moments of two sets of values, put together.
    template <typename T>
    void merge(double others, const T* other_mean, const T* other_squares) {
        const double total = count + others, share = others / total;
        for (std::size_t c = 0; c < mean.size(); ++c) {
            const double apart = static_cast<double>(other_mean[c]) - mean[c];
            mean[c] += apart * share;
            squares[c] += static_cast<double>(other_squares[c]) + apart * apart * count * share;
        }
        count = total;
    }
};

// The same code for several instruction sets, chosen when it is loaded; the numbers are the same in each.
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define SKETCHYNET_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define SKETCHYNET_CLONES
#endif

// Means and sums of squares around them, of `count` steps. Squares are taken around the first step: one pass, and what
// cancels is bounded by a block's length.
SKETCHYNET_CLONES
void block_moments(const float* x, std::int64_t count, std::int64_t width, float* __restrict mean,
                   float* __restrict squares) {
    std::fill_n(mean, width, 0.0f);
    std::fill_n(squares, width, 0.0f);
    for (std::int64_t s = 1; s < count; ++s) {
        const float* row = x + s * width;
        for (std::int64_t i = 0; i < width; ++i) {
            const float apart = row[i] - x[i];
            mean[i] += apart;
            squares[i] += apart * apart;
        }
    }
    const float inverse = 1.0f / static_cast<float>(count);
    for (std::int64_t i = 0; i < width; ++i) {
        const float rest = squares[i] - mean[i] * (mean[i] * inverse);
        squares[i] = rest < 0.0f ? 0.0f : rest;
        mean[i] = x[i] + mean[i] * inverse;
    }
}

inline float before_activation(float x, float mean, float scale, float bias) { return (x - mean) * scale + bias; }

inline float gradient_before(float dy, float z, float low, float high) { return z > low && z < high ? dy : 0.0f; }

SKETCHYNET_CLONES
void forward_steps(const float* x, std::int64_t count, std::int64_t width, const NormAffine& affine,
                   float* __restrict y) {
    const float *mean = affine.mean, *scale = affine.scale, *bias = affine.bias;
    const float low = affine.low, high = affine.high;
    for (std::int64_t s = 0; s < count; ++s, x += width, y += width) {
        for (std::int64_t i = 0; i < width; ++i) {
            const float z = before_activation(x[i], mean[i], scale[i], bias[i]);
            const float bounded = z < low ? low : z;  // NaN stays what it is
            y[i] = bounded > high ? high : bounded;
        }
    }
}

SKETCHYNET_CLONES
void add_gradients(const float* x, const float* dy, std::int64_t count, std::int64_t width, const NormAffine& affine,
                   float* __restrict plain, float* __restrict scaled) {
    const float *mean = affine.mean, *scale = affine.scale, *bias = affine.bias;
    const float low = affine.low, high = affine.high;
    for (std::int64_t s = 0; s < count; ++s, x += width, dy += width) {
        for (std::int64_t i = 0; i < width; ++i) {
            const float z = before_activation(x[i], mean[i], scale[i], bias[i]);
            const float g = gradient_before(dy[i], z, low, high);
            plain[i] += g;
            scaled[i] += g * (x[i] - mean[i]);
        }
    }
}

SKETCHYNET_CLONES
void backward_steps(const float* x, const float* dy, std::int64_t count, std::int64_t width, const NormAffine& affine,
                    const float* slope, const float* offset, float* __restrict dx) {
    const float *mean = affine.mean, *scale = affine.scale, *bias = affine.bias;
    const float low = affine.low, high = affine.high;
    for (std::int64_t s = 0; s < count; ++s, x += width, dy += width, dx += width) {
        for (std::int64_t i = 0; i < width; ++i) {
            const float z = before_activation(x[i], mean[i], scale[i], bias[i]);
            const float g = gradient_before(dy[i], z, low, high);
            dx[i] = scale[i] * g + ((x[i] - mean[i]) * slope[i] + offset[i]);
        }
    }
}

// Calls work(part, first row, rows), in threads, on parts whose borders depend on the shape alone.
template <typename Work>
void in_parts(NormShape shape, int threads, const Work& work) {
    in_threads(kParts, threads, [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t part = first; part < last; ++part) {
            const std::int64_t begin = shape.rows * part / kParts, end = shape.rows * (part + 1) / kParts;
            if (begin < end) work(part, begin, end - begin);
        }
    });
}

// Calls work(first float, steps, width) on blocks of whole steps, and on the rows left over, which make narrow steps.
template <typename Work>
void in_blocks(const Steps& steps, std::int64_t begin, std::int64_t rows, const Work& work) {
    const std::int64_t whole = rows / steps.copies, left = rows - whole * steps.copies;
    const std::int64_t first = begin * steps.channels;
    for (std::int64_t s = 0; s < whole; s += kBlock) {
        work(first + s * steps.width, std::min(kBlock, whole - s), steps.width);
    }
    if (left) work(first + whole * steps.width, left, steps.channels);
}

// Values of the channels, repeated over the width of a step.
struct WideAffine {
    std::vector<float> mean, scale, bias;
    NormAffine affine;

    WideAffine(const Steps& steps, const NormAffine& narrow)
        : mean(steps.repeated(narrow.mean)),
          scale(steps.repeated(narrow.scale)),
          bias(steps.repeated(narrow.bias)),
          affine{mean.data(), scale.data(), bias.data(), narrow.low, narrow.high} {}
    WideAffine(const WideAffine&) = delete;
    WideAffine& operator=(const WideAffine&) = delete;
};

}  // namespace

void norm_statistics(const float* x, NormShape shape, int threads, double* mean, double* variance) {
    const std::int64_t channels = shape.channels;
    const Steps steps(channels);
    std::vector<Moments> parts(kParts, Moments(channels));
    in_parts(shape, threads, [&](std::int64_t part, std::int64_t begin, std::int64_t rows) {
        std::vector<float> means(static_cast<std::size_t>(steps.width)), squares(means.size());
        in_blocks(steps, begin, rows, [&](std::int64_t first, std::int64_t count, std::int64_t width) {
            block_moments(x + first, count, width, means.data(), squares.data());
            // Each copy of a channel is a set of values of its own.
            for (std::int64_t copy = 0; copy < width; copy += channels) {
                parts[static_cast<std::size_t>(part)].merge(static_cast<double>(count), means.data() + copy,
                                                            squares.data() + copy);
            }
        });
    });
    Moments all(channels);
    for (const Moments& part : parts) {
        if (part.count > 0) all.merge(part.count, part.mean.data(), part.squares.data());
    }
    for (std::int64_t c = 0; c < channels; ++c) {
        mean[c] = all.mean[static_cast<std::size_t>(c)];
        variance[c] = all.squares[static_cast<std::size_t>(c)] / all.count;
    }
}

void norm_forward(const float* x, NormShape shape, const NormAffine& affine, int threads, float* y) {
    const Steps steps(shape.channels);
    const WideAffine wide(steps, affine);
    in_parts(shape, threads, [&](std::int64_t, std::int64_t begin, std::int64_t rows) {
        in_blocks(steps, begin, rows, [&](std::int64_t first, std::int64_t count, std::int64_t width) {
            forward_steps(x + first, count, width, wide.affine, y + first);
        });
    });
}

void norm_gradient_sums(const float* x, const float* dy, NormShape shape, const NormAffine& affine, int threads,
                        double* plain, double* scaled) {
    const std::int64_t channels = shape.channels;
    const Steps steps(channels);
    const WideAffine wide(steps, affine);
    std::vector<double> sums(static_cast<std::size_t>(2 * channels * kParts));
    in_parts(shape, threads, [&](std::int64_t part, std::int64_t begin, std::int64_t rows) {
        double* own = sums.data() + 2 * channels * part;
        std::vector<float> block(static_cast<std::size_t>(2 * steps.width));
        in_blocks(steps, begin, rows, [&](std::int64_t first, std::int64_t count, std::int64_t width) {
            std::fill(block.begin(), block.end(), 0.0f);
            add_gradients(x + first, dy + first, count, width, wide.affine, block.data(), block.data() + width);
            for (std::int64_t copy = 0; copy < width; copy += channels) {
                for (std::int64_t c = 0; c < channels; ++c) {
                    own[c] += static_cast<double>(block[static_cast<std::size_t>(copy + c)]);
                    own[channels + c] += static_cast<double>(block[static_cast<std::size_t>(width + copy + c)]);
                }
            }
        });
    });
    std::fill_n(plain, channels, 0.0);
    std::fill_n(scaled, channels, 0.0);
    for (std::int64_t part = 0; part < kParts; ++part) {
        const double* own = sums.data() + 2 * channels * part;
        for (std::int64_t c = 0; c < channels; ++c) plain[c] += own[c];
        for (std::int64_t c = 0; c < channels; ++c) scaled[c] += own[channels + c];
    }
}

void norm_backward(const float* x, const float* dy, NormShape shape, const NormAffine& affine, const float* slope,
                   const float* offset, int threads, float* dx) {
    const Steps steps(shape.channels);
    const WideAffine wide(steps, affine);
    const std::vector<float> slopes = steps.repeated(slope), offsets = steps.repeated(offset);
    in_parts(shape, threads, [&](std::int64_t, std::int64_t begin, std::int64_t rows) {
        in_blocks(steps, begin, rows, [&](std::int64_t first, std::int64_t count, std::int64_t width) {
            backward_steps(x + first, dy + first, count, width, wide.affine, slopes.data(), offsets.data(), dx + first);
        });
    });
}

}  // namespace sketchynet
