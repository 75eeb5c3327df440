// Batch norm of images in channels-last layout, with the activation behind it, in as few passes over memory as the
// statistics allow: training on a CPU waits for memory more than for arithmetic.
#pragma once

#include <cstdint>

namespace sketchynet {

// Pixels of a batch, one row of channels after another.
struct NormShape {
    std::int64_t rows, channels;
};

// The norm of one channel set: z = (x - mean) * scale + bias, then clamped to [low, high].
struct NormAffine {
    const float* mean;   // (channels)
    const float* scale;  // (channels): weight / sqrt(variance + eps)
    const float* bias;   // (channels)
    float low, high;     // infinite where there is no activation
};

// Mean and (biased) variance of every channel. Blocks are summed around their first values and merged in double, in an
// order that no number of threads changes.
void norm_statistics(const float* x, NormShape shape, int threads, double* mean, double* variance);

void norm_forward(const float* x, NormShape shape, const NormAffine& affine, int threads, float* y);

// Sums over the rows of the gradient before the activation, g, and of g * (x - mean).
void norm_gradient_sums(const float* x, const float* dy, NormShape shape, const NormAffine& affine, int threads,
                        double* plain, double* scaled);

// dx = scale * g + (x - mean) * slope + offset, slope and offset (channels).
void norm_backward(const float* x, const float* dy, NormShape shape, const NormAffine& affine, const float* slope,
                   const float* offset, int threads, float* dx);

}  // namespace sketchynet
