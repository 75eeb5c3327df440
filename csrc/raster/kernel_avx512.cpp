// The inner loops for AVX-512 (F, BW, VL) and POPCNT: a pixel's 16 sub-lines are one vector.
#include <immintrin.h>

#include <cstddef>

#include "raster/coverage.hpp"

namespace sketchynet {
namespace {

struct Lanes {
    using Floats = __m512;
    using Ints = __m512i;
    static constexpr int kCount = 16;

    static Floats set(float v) { return _mm512_set1_ps(v); }
    static Ints set(int v) { return _mm512_set1_epi32(v); }
    // Where the sub-lines of a block lie below its upper side, in samples.
    static Floats offsets() { return _mm512_setr_ps(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31); }
    static Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
    static Floats sub(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
    static Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
    static Floats min(Floats a, Floats b) { return _mm512_min_ps(a, b); }
    static Floats max(Floats a, Floats b) { return _mm512_max_ps(a, b); }
    static Floats sqrt(Floats a) { return _mm512_sqrt_ps(a); }
    // p - q (p + q) where a < b, else `no`.
    static Floats sub_where_less(Floats a, Floats b, Floats no, Floats p, Floats q) {
        return _mm512_mask_sub_ps(no, _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), p, q);
    }
    static Floats add_where_less(Floats a, Floats b, Floats no, Floats p, Floats q) {
        return _mm512_mask_add_ps(no, _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), p, q);
    }
    // v rounded towards zero where low <= a <= high, else 0.
    static Ints truncate_between(Floats a, Floats low, Floats high, Floats v) {
        const __mmask16 inside = _mm512_cmp_ps_mask(low, a, _CMP_LE_OQ);
        return _mm512_maskz_cvttps_epi32(_mm512_mask_cmp_ps_mask(inside, a, high, _CMP_LE_OQ), v);
    }
    static Ints sub(Ints a, Ints b) { return _mm512_sub_epi32(a, b); }
    // Sets (or clears) in 16 words the bits [begin, end), as far as they lie in [0, 32).
    template <bool kErase>
    static void mark(std::uint32_t* words, Ints begin, Ints end) {
        const Ints ones = _mm512_set1_epi32(-1), zero = _mm512_setzero_si512();
        const Ints from = _mm512_sllv_epi32(ones, _mm512_max_epi32(begin, zero));
        const Ints beyond = _mm512_sllv_epi32(ones, _mm512_max_epi32(end, zero));
        // old | (from & ~beyond), or old & ~(from & ~beyond)
        store(words, _mm512_ternarylogic_epi32(load(words), from, beyond, kErase ? 0xb0 : 0xf4));
    }
    static Ints load(const std::uint32_t* p) { return _mm512_load_si512(p); }
    static void store(std::uint32_t* p, Ints v) { _mm512_store_si512(p, v); }
    static unsigned count_bits(const std::uint32_t* words) {
        unsigned total = 0;
        for (int i = 0; i < kLines / 2; ++i) {
            total += static_cast<unsigned>(_mm_popcnt_u64(reinterpret_cast<const unsigned long long*>(words)[i]));
        }
        return total;
    }
};

}  // namespace
}  // namespace sketchynet

#include "raster/shared.inl"
#include "raster/strip_avx2.inl"
#include "raster/prepare.inl"
#include "raster/kernel.inl"

namespace sketchynet {
const Kernel kAvx512Kernel{prepare, draw, resolve, draw_strips, settle_doubts};
}
