// Segments into capsules and strips, sixteen at once: short loops over arrays that compilers turn into vectors.

namespace sketchynet {
namespace {

constexpr int kGroup = 16;

inline float inverse_or_zero(float v) { return v > 0 ? 1 / v : 0.0f; }

// Capsules, and strips with both ends open where `strips` is not null, of at most kGroup segments.
inline void prepare_group(const Segment* segments, int count, int size, Capsule* capsules, Strip* strips) {
    // So flat an edge that it rises less than a thousandth of a pixel over the largest canvas counts as level.
    constexpr float kLevel = 1 << 22;
    // A bound of the relative error of a capsule's numbers: a few units in the last place.
    constexpr double kError = 1.0 / (1 << 20);

    double xa[kGroup], ya[kGroup], xb[kGroup], yb[kGroup], radius[kGroup];
    for (int i = 0; i < kGroup; ++i) {
        const Segment& s = segments[i < count ? i : 0];
        xa[i] = s.xa, ya[i] = s.ya, xb[i] = s.xb, yb[i] = s.yb, radius[i] = s.radius;
    }
    double column[kGroup], row[kGroup];
    float x0[kGroup], y0[kGroup], x1[kGroup], y1[kGroup], reach[kGroup];
    for (int i = 0; i < kGroup; ++i) {
        const double x = xa[i] * size, y = ya[i] * size, u = xb[i] * size, v = yb[i] * size;
        const double left = x < u ? x : u, right = x < u ? u : x;
        const double wide = radius[i] + ((right - left) + (v - y) + 2 * radius[i]) * kError;
        const double c = __builtin_floor(left - wide), r = __builtin_floor(y - wide);
        x0[i] = static_cast<float>((x - c) * kColumns), y0[i] = static_cast<float>((y - r) * kColumns);
        x1[i] = static_cast<float>((u - c) * kColumns), y1[i] = static_cast<float>((v - r) * kColumns);
        reach[i] = static_cast<float>(wide * kColumns);
        column[i] = c, row[i] = r;
    }
    float across_x[kGroup], across_y[kGroup], slope[kGroup], length[kGroup], per_length[kGroup];
    for (int i = 0; i < kGroup; ++i) {
        const float dx = x1[i] - x0[i], dy = y1[i] - y0[i];
        length[i] = __builtin_sqrtf(dx * dx + dy * dy);
        per_length[i] = inverse_or_zero(length[i]);
        // The direction has uy >= 0; any will do for a dot.
        across_x[i] = length[i] > 0 ? dy * per_length[i] * reach[i] : reach[i];
        across_y[i] = dx * per_length[i] * reach[i];
        slope[i] = (dx < 0 ? -dx : dx) < kLevel * dy ? dx / dy : 0.0f;
    }
    for (int i = 0; i < count; ++i) {
        const float left = smaller(x0[i], x1[i]), right = greater(x0[i], x1[i]), r = reach[i];
        capsules[i] = {static_cast<std::int32_t>(column[i]),
                       static_cast<std::int32_t>(row[i]),
                       x0[i],
                       y0[i],
                       x1[i],
                       y1[i],
                       r * r,
                       y0[i] + across_y[i],
                       y1[i] + across_y[i],
                       x0[i] - across_x[i],
                       y0[i] - across_y[i],
                       y1[i] - across_y[i],
                       x0[i] + across_x[i],
                       slope[i],
                       left - r,
                       right + r,
                       y0[i] - r,
                       y1[i] + r,
                       slope[i] == 0 && x0[i] != x1[i],
                       segments[i].erase};
    }
    if (!strips) return;

    constexpr float kPixels = 1.0f / kColumns, kHalfDiagonal = 0.70711f;
    float ux[kGroup], uy[kGroup], t0[kGroup], s0[kGroup], per_a[kGroup], corner[kGroup], flat[kGroup], bend[kGroup];
    for (int i = 0; i < kGroup; ++i) {
        ux[i] = (x1[i] - x0[i]) * per_length[i];
        uy[i] = length[i] > 0 ? (y1[i] - y0[i]) * per_length[i] : 1.0f;
        t0[i] = (x0[i] * ux[i] + y0[i] * uy[i]) * kPixels;
        s0[i] = (x0[i] * uy[i] - y0[i] * ux[i]) * kPixels;
        const float across = ux[i] < 0 ? -ux[i] : ux[i];
        const float a = greater(across, uy[i]), b = smaller(across, uy[i]);
        per_a[i] = 1 / a;
        corner[i] = 0.5f * (a + b);
        flat[i] = 0.5f * (a - b);
        bend[i] = b > 1e-6f ? 1 / (2 * a * b) : 0.0f;
    }
    for (int i = 0; i < count; ++i) {
        const float r = static_cast<float>(radius[i]), core = r - kHalfDiagonal, end = length[i] * kPixels;
        // The end of a thin strip matters to pixels whose centre lies before it too.
        const bool thin = r < kHalfDiagonal;
        const float inset = thin ? kHalfDiagonal : 0.0f, reach = r + kHalfDiagonal + inset;
        strips[i] = {ux[i],     uy[i],
                     t0[i],     s0[i],
                     end,       r,
                     per_a[i],  corner[i],
                     flat[i],   bend[i],
                     inset,     end - inset,
                     core > 0 ? core * core : -1.0f,
                     reach * reach,
                     true,      true,
                     thin,      0};
    }
}

void prepare(const Segment* segments, std::int64_t count, int size, Capsule* capsules, Strip* strips) {
    for (std::int64_t i = 0; i < count; i += kGroup) {
        const int own = count - i < kGroup ? static_cast<int>(count - i) : kGroup;
        prepare_group(segments + i, own, size, capsules + i, strips ? strips + i : nullptr);
    }
}

}  // namespace
}  // namespace sketchynet
