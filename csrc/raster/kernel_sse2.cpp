// The inner loops for SSE2, which every x86-64 processor has: a quarter of a tile's lines are one vector.
#include <emmintrin.h>

#include <cstddef>

#include "raster/coverage.hpp"

namespace sketchynet {
namespace {

struct Lanes {
    using Vector = __m128i;
    static constexpr int kCount = 8;
    static constexpr int kFloats = 4;  // numbers of 32 bits a vector

    static Vector set(int v) { return _mm_set1_epi16(static_cast<short>(v)); }
    static Vector load(const std::int16_t* p) { return _mm_load_si128(reinterpret_cast<const __m128i*>(p)); }
    static Vector load_any(const std::int16_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
    static Vector add(Vector a, Vector b) { return _mm_add_epi16(a, b); }
    static Vector sub(Vector a, Vector b) { return _mm_sub_epi16(a, b); }
    static Vector add_saturated(Vector a, Vector b) { return _mm_adds_epi16(a, b); }
    static Vector sub_saturated(Vector a, Vector b) { return _mm_subs_epi16(a, b); }
    static Vector sub_clamped(Vector a, Vector b) { return _mm_subs_epu16(a, b); }  // at least 0
    static Vector min(Vector a, Vector b) { return _mm_min_epi16(a, b); }
    static Vector max(Vector a, Vector b) { return _mm_max_epi16(a, b); }
    static Vector multiply(Vector a, Vector b) { return _mm_mullo_epi16(a, b); }
    static Vector multiply_high(Vector a, Vector b) { return _mm_mulhi_epu16(a, b); }  // the upper half of a b
    // v + 1 where a < b, without a sign.
    static Vector one_more_where_less(Vector v, Vector a, Vector b) {
        const Vector not_less = _mm_cmpeq_epi16(_mm_subs_epu16(b, a), _mm_setzero_si128());
        return add(v, add(not_less, set(1)));
    }
    // v - 1 where a is 0.
    static Vector one_less_where_zero(Vector v, Vector a) { return add(v, _mm_cmpeq_epi16(a, _mm_setzero_si128())); }
    static Vector shift_right_4(Vector a) { return _mm_srli_epi16(a, 4); }
    // min (max) of a and b where low <= v <= high, else a.
    static Vector min_between(Vector low, Vector v, Vector high, Vector a, Vector b) {
        return choose(outside(low, v, high), a, min(a, b));
    }
    static Vector max_between(Vector low, Vector v, Vector high, Vector a, Vector b) {
        return choose(outside(low, v, high), a, max(a, b));
    }
    // Sets (or clears) on every line the bits [begin, end), as far as they lie in [0, 16).
    template <bool kErase>
    static void mark(std::uint16_t* words, Vector begin, Vector end) {
        auto* const place = reinterpret_cast<__m128i*>(words);
        const Vector bits = _mm_andnot_si128(ones_from(end), ones_from(begin)), old = _mm_load_si128(place);
        _mm_store_si128(place, kErase ? _mm_andnot_si128(bits, old) : _mm_or_si128(bits, old));
    }
    // Of kLines words.
    static unsigned count_bits(const std::uint16_t* words) {
        const auto* const halves = reinterpret_cast<const __m128i*>(words);
        return count_bits(_mm_load_si128(halves)) + count_bits(_mm_load_si128(halves + 1));
    }

private:
    static Vector choose(Vector mask, Vector yes, Vector no) {
        return _mm_or_si128(_mm_and_si128(mask, yes), _mm_andnot_si128(mask, no));
    }
    static Vector outside(Vector low, Vector v, Vector high) {
        return _mm_or_si128(_mm_cmpgt_epi16(low, v), _mm_cmpgt_epi16(v, high));
    }
    // 0xffff << place, 0 from 16 on: -(2^place), a product of the powers that its bits stand for.
    static Vector ones_from(Vector place) {
        const auto power = [&](int bit, int factor) {
            const Vector set_bit = _mm_cmpeq_epi16(_mm_and_si128(place, set(1 << bit)), set(1 << bit));
            return add(set(1), _mm_and_si128(set_bit, set(factor - 1)));
        };
        const Vector product = multiply(multiply(power(0, 2), power(1, 4)), multiply(power(2, 16), power(3, 256)));
        return _mm_and_si128(sub(set(0), product), _mm_cmplt_epi16(place, set(16)));
    }
    static unsigned count_bits(Vector v) {
        const auto masked = [](Vector a, char mask) { return _mm_and_si128(a, _mm_set1_epi8(mask)); };
        v = _mm_sub_epi8(v, masked(_mm_srli_epi16(v, 1), 0x55));
        v = _mm_add_epi8(masked(v, 0x33), masked(_mm_srli_epi16(v, 2), 0x33));
        v = masked(_mm_add_epi8(v, _mm_srli_epi16(v, 4)), 0x0f);
        v = _mm_sad_epu8(v, _mm_setzero_si128());
        return static_cast<unsigned>(_mm_cvtsi128_si32(v) + _mm_extract_epi16(v, 4));
    }
};

}  // namespace
}  // namespace sketchynet

#include "raster/prepare.inl"
#include "raster/kernel.inl"
#include "raster/resolve.inl"

namespace sketchynet {
const Kernel kSse2Kernel{prepare, draw, resolve};
}
