// The inner loops in plain C++, for processors without a file of their own; compilers turn the short loops over lanes
// into whatever vectors there are (NEON on Arm).
#include <cmath>
#include <cstddef>

#include "raster/coverage.hpp"

namespace sketchynet {
namespace {

struct Lanes {
    static constexpr int kCount = 4;
    template <typename T>
    struct Vector {
        T v[kCount];
    };
    using Floats = Vector<float>;
    using Ints = Vector<std::int32_t>;

    template <typename T, typename Function>
    static Vector<T> each(Function value) {
        Vector<T> result;
        for (int i = 0; i < kCount; ++i) result.v[i] = value(i);
        return result;
    }

    static Floats set(float v) {
        return each<float>([&](int) { return v; });
    }
    static Ints set(int v) {
        return each<std::int32_t>([&](int) { return v; });
    }
    // Where the sub-lines of a block lie below its upper side, in samples.
    static Floats offsets() {
        return each<float>([&](int i) { return static_cast<float>(2 * i + 1); });
    }
    static Floats add(Floats a, Floats b) {
        return each<float>([&](int i) { return a.v[i] + b.v[i]; });
    }
    static Floats sub(Floats a, Floats b) {
        return each<float>([&](int i) { return a.v[i] - b.v[i]; });
    }
    static Floats mul(Floats a, Floats b) {
        return each<float>([&](int i) { return a.v[i] * b.v[i]; });
    }
    static Floats min(Floats a, Floats b) {
        return each<float>([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
    }
    static Floats max(Floats a, Floats b) {
        return each<float>([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
    }
    static Floats sqrt(Floats a) {
        return each<float>([&](int i) { return std::sqrt(a.v[i]); });
    }
    // p - q (p + q) where a < b, else `no`.
    static Floats sub_where_less(Floats a, Floats b, Floats no, Floats p, Floats q) {
        return each<float>([&](int i) { return a.v[i] < b.v[i] ? p.v[i] - q.v[i] : no.v[i]; });
    }
    static Floats add_where_less(Floats a, Floats b, Floats no, Floats p, Floats q) {
        return each<float>([&](int i) { return a.v[i] < b.v[i] ? p.v[i] + q.v[i] : no.v[i]; });
    }
    // v rounded towards zero where low <= a <= high, else 0.
    static Ints truncate_between(Floats a, Floats low, Floats high, Floats v) {
        return each<std::int32_t>([&](int i) {
            return static_cast<std::int32_t>(low.v[i] <= a.v[i] && a.v[i] <= high.v[i] ? v.v[i] : 0.0f);
        });
    }
    static Ints sub(Ints a, Ints b) {
        return each<std::int32_t>([&](int i) { return a.v[i] - b.v[i]; });
    }
    // Sets (or clears) in 4 words the bits [begin, end), as far as they lie in [0, 32).
    template <bool kErase>
    static void mark(std::uint32_t* words, Ints begin, Ints end) {
        for (int i = 0; i < kCount; ++i) {
            const std::uint32_t bits = begin.v[i] < end.v[i] ? power_of_two(end.v[i]) - power_of_two(begin.v[i]) : 0;
            words[i] = kErase ? words[i] & ~bits : words[i] | bits;
        }
    }
    static Ints load(const std::uint32_t* p) {
        return each<std::int32_t>([&](int i) { return static_cast<std::int32_t>(p[i]); });
    }
    static void store(std::uint32_t* p, Ints v) {
        for (int i = 0; i < kCount; ++i) p[i] = static_cast<std::uint32_t>(v.v[i]);
    }
    static unsigned count_bits(const std::uint32_t* words) {
        unsigned total = 0;
        for (int i = 0; i < kLines; ++i) {
            std::uint32_t w = words[i];
            w -= (w >> 1) & 0x55555555u;
            w = (w & 0x33333333u) + ((w >> 2) & 0x33333333u);
            total += (w + (w >> 4)) & 0x0f0f0f0fu;  // bytes of at most 8 a word: 128 in all
        }
        total = (total & 0x00ff00ffu) + ((total >> 8) & 0x00ff00ffu);
        return (total + (total >> 16)) & 0xffffu;
    }

private:
    // 2^n modulo 2^32, n clamped to [0, 32].
    static std::uint32_t power_of_two(std::int32_t n) {
        const std::int32_t shift = n < 0 ? 0 : n > 32 ? 32 : n;
        return static_cast<std::uint32_t>(std::uint64_t{1} << shift);
    }
};

}  // namespace
}  // namespace sketchynet

#include "raster/shared.inl"
#include "raster/strip_portable.inl"
#include "raster/prepare.inl"
#include "raster/kernel.inl"

namespace sketchynet {
const Kernel kPortableKernel{prepare, draw, resolve, draw_strips, settle_doubts};
}
