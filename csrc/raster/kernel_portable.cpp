// The inner loops in plain C++, for processors without a file of their own; compilers turn the short loops over lanes
// into whatever vectors there are (NEON on Arm).
#include <cstddef>

#include "raster/coverage.hpp"

namespace sketchynet {
namespace {

struct Lanes {
    static constexpr int kCount = 8;
    static constexpr int kFloats = 4;  // numbers of 32 bits a vector
    using Vector = std::int16_t __attribute__((vector_size(16)));
    using Unsigned = std::uint16_t __attribute__((vector_size(16)));

    static Vector set(int v) { return Vector{} + static_cast<std::int16_t>(v); }
    static Vector load(const std::int16_t* p) {
        Vector v;
        __builtin_memcpy(&v, p, sizeof v);
        return v;
    }
    static Vector load_any(const std::int16_t* p) { return load(p); }
    static Vector add(Vector a, Vector b) { return signed_of(unsigned_of(a) + unsigned_of(b)); }
    static Vector sub(Vector a, Vector b) { return signed_of(unsigned_of(a) - unsigned_of(b)); }
    // Where the signs say that the sum (difference) does not fit, it is the greatest or least number.
    static Vector add_saturated(Vector a, Vector b) {
        const Vector sum = add(a, b);
        return ((sum ^ a) & (sum ^ b)) < 0 ? (a < 0 ? set(-32768) : set(32767)) : sum;
    }
    static Vector sub_saturated(Vector a, Vector b) {
        const Vector difference = sub(a, b);
        return ((difference ^ a) & (a ^ b)) < 0 ? (a < 0 ? set(-32768) : set(32767)) : difference;
    }
    // At least 0; without a sign.
    static Vector sub_clamped(Vector a, Vector b) { return unsigned_of(a) < unsigned_of(b) ? Vector{} : sub(a, b); }
    static Vector min(Vector a, Vector b) { return a < b ? a : b; }
    static Vector max(Vector a, Vector b) { return a < b ? b : a; }
    static Vector multiply(Vector a, Vector b) { return signed_of(unsigned_of(a) * unsigned_of(b)); }
    // The upper half of a b, without a sign.
    static Vector multiply_high(Vector a, Vector b) {
        Vector high;
        for (int i = 0; i < kCount; ++i) {
            const std::uint32_t product = std::uint32_t{static_cast<std::uint16_t>(a[i])} * static_cast<std::uint16_t>(b[i]);
            high[i] = static_cast<std::int16_t>(product >> 16);
        }
        return high;
    }
    // v + 1 where a < b, without a sign.
    static Vector one_more_where_less(Vector v, Vector a, Vector b) { return sub(v, unsigned_of(a) < unsigned_of(b)); }
    // v - 1 where a is 0.
    static Vector one_less_where_zero(Vector v, Vector a) { return add(v, a == 0); }
    static Vector shift_right_4(Vector a) { return signed_of(unsigned_of(a) >> 4); }
    // min (max) of a and b where low <= v <= high, else a.
    static Vector min_between(Vector low, Vector v, Vector high, Vector a, Vector b) {
        return ((low <= v) & (v <= high) & (b < a)) ? b : a;
    }
    static Vector max_between(Vector low, Vector v, Vector high, Vector a, Vector b) {
        return ((low <= v) & (v <= high) & (b > a)) ? b : a;
    }
    // Sets (or clears) on every line the bits [begin, end), as far as they lie in [0, 16).
    template <bool kErase>
    static void mark(std::uint16_t* words, Vector begin, Vector end) {
        Vector old;
        __builtin_memcpy(&old, words, sizeof old);
        const Vector bits = ones_from(begin) & ~ones_from(end), marked = kErase ? old & ~bits : old | bits;
        __builtin_memcpy(words, &marked, sizeof marked);
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
    static Unsigned unsigned_of(Vector v) { return reinterpret_cast<Unsigned>(v); }
    static Vector signed_of(Unsigned v) { return reinterpret_cast<Vector>(v); }
    // 0xffff << place, 0 from 16 on: -(2^place), a product of the powers that its bits stand for.
    static Vector ones_from(Vector place) {
        const auto power = [&](int bit, int factor) { return (place & set(1 << bit)) == 0 ? set(1) : set(factor); };
        const Vector product = multiply(multiply(power(0, 2), power(1, 4)), multiply(power(2, 16), power(3, 256)));
        return sub(Vector{}, product) & (place < kTileSamples);
    }
};

}  // namespace
}  // namespace sketchynet

#include "raster/prepare.inl"
#include "raster/kernel.inl"
#include "raster/resolve.inl"

namespace sketchynet {
const Kernel kPortableKernel{prepare, draw, resolve};
}
