// The inner loops for AVX2 and POPCNT: half a tile's lines are one vector.
#include <immintrin.h>

#include <cstddef>

#include "raster/coverage.hpp"

namespace sketchynet {
namespace {

struct Lanes {
    using Vector = __m256i;
    static constexpr int kCount = 16;
    static constexpr int kFloats = 8;  // numbers of 32 bits a vector

    static Vector set(int v) { return _mm256_set1_epi16(static_cast<short>(v)); }
    static Vector load(const std::int16_t* p) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(p)); }
    static Vector load_any(const std::int16_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
    static Vector add(Vector a, Vector b) { return _mm256_add_epi16(a, b); }
    static Vector sub(Vector a, Vector b) { return _mm256_sub_epi16(a, b); }
    static Vector add_saturated(Vector a, Vector b) { return _mm256_adds_epi16(a, b); }
    static Vector sub_saturated(Vector a, Vector b) { return _mm256_subs_epi16(a, b); }
    static Vector sub_clamped(Vector a, Vector b) { return _mm256_subs_epu16(a, b); }  // at least 0
    static Vector min(Vector a, Vector b) { return _mm256_min_epi16(a, b); }
    static Vector max(Vector a, Vector b) { return _mm256_max_epi16(a, b); }
    static Vector multiply(Vector a, Vector b) { return _mm256_mullo_epi16(a, b); }
    static Vector multiply_high(Vector a, Vector b) { return _mm256_mulhi_epu16(a, b); }  // the upper half of a b
    // v + 1 where a < b, without a sign.
    static Vector one_more_where_less(Vector v, Vector a, Vector b) {
        const Vector not_less = _mm256_cmpeq_epi16(_mm256_subs_epu16(b, a), _mm256_setzero_si256());
        return add(v, add(not_less, set(1)));
    }
    // v - 1 where a is 0.
    static Vector one_less_where_zero(Vector v, Vector a) { return add(v, _mm256_cmpeq_epi16(a, _mm256_setzero_si256())); }
    static Vector shift_right_4(Vector a) { return _mm256_srli_epi16(a, 4); }
    // min (max) of a and b where low <= v <= high, else a.
    static Vector min_between(Vector low, Vector v, Vector high, Vector a, Vector b) {
        return _mm256_blendv_epi8(min(a, b), a, outside(low, v, high));
    }
    static Vector max_between(Vector low, Vector v, Vector high, Vector a, Vector b) {
        return _mm256_blendv_epi8(max(a, b), a, outside(low, v, high));
    }
    // Sets (or clears) on every line the bits [begin, end), as far as they lie in [0, 16).
    template <bool kErase>
    static void mark(std::uint16_t* words, Vector begin, Vector end) {
        auto* const place = reinterpret_cast<__m256i*>(words);
        const Vector bits = _mm256_andnot_si256(ones_from(end), ones_from(begin)), old = _mm256_load_si256(place);
        _mm256_store_si256(place, kErase ? _mm256_andnot_si256(bits, old) : _mm256_or_si256(bits, old));
    }
    // Of kLines words.
    static unsigned count_bits(const std::uint16_t* words) {
        const auto* const parts = reinterpret_cast<const unsigned long long*>(words);
        return static_cast<unsigned>(_mm_popcnt_u64(parts[0]) + _mm_popcnt_u64(parts[1]) + _mm_popcnt_u64(parts[2]) +
                                     _mm_popcnt_u64(parts[3]));
    }

private:
    static Vector outside(Vector low, Vector v, Vector high) {
        return _mm256_or_si256(_mm256_cmpgt_epi16(low, v), _mm256_cmpgt_epi16(v, high));
    }
    // 0xffff << place, 0 from 16 on: each byte by a table of the eight shifts of its own bits.
    static Vector ones_from(Vector place) {
        const Vector both = _mm256_mullo_epi16(_mm256_min_epu16(place, set(16)), set(0x0101));
        const Vector own = _mm256_adds_epu8(_mm256_subs_epu8(both, set(0x0800)), set(0x7878));
        return _mm256_shuffle_epi8(
            _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, -1, -2, -4, -8, -16, -32, -64, -128)), own);
    }
};

}  // namespace
}  // namespace sketchynet

#include "raster/prepare.inl"
#include "raster/kernel.inl"
#include "raster/resolve.inl"

namespace sketchynet {
const Kernel kAvx2Kernel{prepare, draw, resolve};
}
