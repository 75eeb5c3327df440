// The inner loops in plain C++, for processors without a file of their own; compilers turn the short loops over lanes
// into whatever vectors there are (NEON on Arm).
#include <cstddef>

#include "raster/coverage.hpp"

namespace sketchynet {
namespace {

struct Lanes {
    static constexpr int kCount = 8;
    struct Vector {
        std::int16_t v[kCount];
    };

    template <typename Function>
    static Vector each(Function value) {
        Vector result;
        for (int i = 0; i < kCount; ++i) result.v[i] = static_cast<std::int16_t>(value(i));
        return result;
    }
    static int saturated(int v) { return v < -32768 ? -32768 : v > 32767 ? 32767 : v; }

    static Vector set(int v) {
        return each([&](int) { return v; });
    }
    static Vector load(const std::int16_t* p) {
        return each([&](int i) { return p[i]; });
    }
    static Vector load_any(const std::int16_t* p) { return load(p); }
    static Vector add(Vector a, Vector b) {
        return each([&](int i) { return a.v[i] + b.v[i]; });
    }
    static Vector sub(Vector a, Vector b) {
        return each([&](int i) { return a.v[i] - b.v[i]; });
    }
    static Vector add_saturated(Vector a, Vector b) {
        return each([&](int i) { return saturated(a.v[i] + b.v[i]); });
    }
    static Vector sub_saturated(Vector a, Vector b) {
        return each([&](int i) { return saturated(a.v[i] - b.v[i]); });
    }
    // At least 0; neither is negative.
    static Vector sub_clamped(Vector a, Vector b) {
        return each([&](int i) { return a.v[i] < b.v[i] ? 0 : a.v[i] - b.v[i]; });
    }
    static Vector min(Vector a, Vector b) {
        return each([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
    }
    static Vector max(Vector a, Vector b) {
        return each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
    }
    static Vector multiply(Vector a, Vector b) {
        return each([&](int i) { return a.v[i] * b.v[i]; });
    }
    // The upper half of a b, 16 bits without a sign each.
    static Vector multiply_high(Vector a, Vector b) {
        return each([&](int i) { return (std::uint32_t{std::uint16_t(a.v[i])} * std::uint16_t(b.v[i])) >> 16; });
    }
    // v + 1 where a < b, without a sign.
    static Vector one_more_where_less(Vector v, Vector a, Vector b) {
        return each([&](int i) { return v.v[i] + (std::uint16_t(a.v[i]) < std::uint16_t(b.v[i])); });
    }
    // v - 1 where a is 0.
    static Vector one_less_where_zero(Vector v, Vector a) {
        return each([&](int i) { return v.v[i] - (a.v[i] == 0); });
    }
    static Vector shift_right_4(Vector a) {
        return each([&](int i) { return a.v[i] >> 4; });
    }
    // min (max) of a and b where low <= v <= high, else a.
    static Vector min_between(Vector low, Vector v, Vector high, Vector a, Vector b) {
        return each([&](int i) { return low.v[i] <= v.v[i] && v.v[i] <= high.v[i] && b.v[i] < a.v[i] ? b.v[i] : a.v[i]; });
    }
    static Vector max_between(Vector low, Vector v, Vector high, Vector a, Vector b) {
        return each([&](int i) { return low.v[i] <= v.v[i] && v.v[i] <= high.v[i] && b.v[i] > a.v[i] ? b.v[i] : a.v[i]; });
    }
    // Sets (or clears) on every line the bits [begin, end), as far as they lie in [0, 16).
    template <bool kErase>
    static void mark(std::uint16_t* words, Vector begin, Vector end) {
        for (int i = 0; i < kCount; ++i) {
            const unsigned bits = ones_from(begin.v[i]) & ~ones_from(end.v[i]);
            words[i] = static_cast<std::uint16_t>(kErase ? words[i] & ~bits : words[i] | bits);
        }
    }
    // Of kLines words.
    static unsigned count_bits(const std::uint16_t* words) {
        unsigned total = 0;
        for (int i = 0; i < kLines; ++i) {
            unsigned w = words[i];
            w -= (w >> 1) & 0x5555u;
            w = (w & 0x3333u) + ((w >> 2) & 0x3333u);
            total += (w + (w >> 4)) & 0x0f0fu;  // bytes of at most 8 a word: 128 in all
        }
        return (total & 0xffu) + (total >> 8);
    }

private:
    static unsigned ones_from(int place) { return 0xffffu << (place < kTileSamples ? place : kTileSamples); }
};

}  // namespace
}  // namespace sketchynet

#include "raster/prepare.inl"
#include "raster/kernel.inl"
#include "raster/resolve.inl"

namespace sketchynet {
const Kernel kPortableKernel{prepare, draw, resolve};
}
