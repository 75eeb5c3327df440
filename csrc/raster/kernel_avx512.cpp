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
    // The sub-lines' places below the upper side of the first one.
    static Floats offsets() {
        return _mm512_setr_ps(1 / 32.f, 3 / 32.f, 5 / 32.f, 7 / 32.f, 9 / 32.f, 11 / 32.f, 13 / 32.f, 15 / 32.f,
                              17 / 32.f, 19 / 32.f, 21 / 32.f, 23 / 32.f, 25 / 32.f, 27 / 32.f, 29 / 32.f, 31 / 32.f);
    }
    static Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
    static Floats sub(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
    static Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
    static Floats min(Floats a, Floats b) { return _mm512_min_ps(a, b); }
    static Floats max(Floats a, Floats b) { return _mm512_max_ps(a, b); }
    static Floats sqrt(Floats a) { return _mm512_sqrt_ps(a); }
    // `yes` where a < b, else `no`.
    static Floats where_less(Floats a, Floats b, Floats yes, Floats no) {
        return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
    }
    // v where low <= a <= high, else 0.
    static Floats zero_outside(Floats a, Floats low, Floats high, Floats v) {
        const __mmask16 inside = _mm512_cmp_ps_mask(low, a, _CMP_LE_OQ);
        return _mm512_maskz_mov_ps(_mm512_mask_cmp_ps_mask(inside, a, high, _CMP_LE_OQ), v);
    }
    static Ints truncate(Floats a) { return _mm512_cvttps_epi32(a); }
    static Ints sub(Ints a, Ints b) { return _mm512_sub_epi32(a, b); }
    static Ints either(Ints a, Ints b) { return _mm512_or_si512(a, b); }
    static Ints without(Ints a, Ints b) { return _mm512_andnot_si512(b, a); }
    // Words with the bits [begin, end) set, as far as they lie in [0, 32).
    static Ints between(Ints begin, Ints end) {
        const Ints ones = _mm512_set1_epi32(-1), zero = _mm512_setzero_si512();
        const Ints from = _mm512_sllv_epi32(ones, _mm512_max_epi32(begin, zero));
        return _mm512_andnot_si512(_mm512_sllv_epi32(ones, _mm512_max_epi32(end, zero)), from);
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

#include "raster/kernel.inl"

namespace sketchynet {
const Kernel kAvx512Kernel{draw, resolve};
}
