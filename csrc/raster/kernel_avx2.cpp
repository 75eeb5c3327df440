// The inner loops for AVX2 and POPCNT: half a pixel's sub-lines are one vector.
#include <immintrin.h>

#include <cstddef>

#include "raster/coverage.hpp"

namespace sketchynet {
namespace {

struct Lanes {
    using Floats = __m256;
    using Ints = __m256i;
    static constexpr int kCount = 8;

    static Floats set(float v) { return _mm256_set1_ps(v); }
    static Ints set(int v) { return _mm256_set1_epi32(v); }
    // The sub-lines' places below the upper side of the first one.
    static Floats offsets() {
        return _mm256_setr_ps(1 / 32.f, 3 / 32.f, 5 / 32.f, 7 / 32.f, 9 / 32.f, 11 / 32.f, 13 / 32.f, 15 / 32.f);
    }
    static Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
    static Floats sub(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
    static Floats mul(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
    static Floats min(Floats a, Floats b) { return _mm256_min_ps(a, b); }
    static Floats max(Floats a, Floats b) { return _mm256_max_ps(a, b); }
    static Floats sqrt(Floats a) { return _mm256_sqrt_ps(a); }
    // `yes` where a < b, else `no`.
    static Floats where_less(Floats a, Floats b, Floats yes, Floats no) {
        return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_LT_OQ));
    }
    // v where low <= a <= high, else 0.
    static Floats zero_outside(Floats a, Floats low, Floats high, Floats v) {
        return _mm256_and_ps(v, _mm256_and_ps(_mm256_cmp_ps(low, a, _CMP_LE_OQ), _mm256_cmp_ps(a, high, _CMP_LE_OQ)));
    }
    static Ints truncate(Floats a) { return _mm256_cvttps_epi32(a); }
    static Ints sub(Ints a, Ints b) { return _mm256_sub_epi32(a, b); }
    static Ints either(Ints a, Ints b) { return _mm256_or_si256(a, b); }
    static Ints without(Ints a, Ints b) { return _mm256_andnot_si256(b, a); }
    // Words with the bits [begin, end) set, as far as they lie in [0, 32).
    static Ints between(Ints begin, Ints end) {
        const Ints ones = _mm256_set1_epi32(-1), zero = _mm256_setzero_si256();
        const Ints from = _mm256_sllv_epi32(ones, _mm256_max_epi32(begin, zero));
        return _mm256_andnot_si256(_mm256_sllv_epi32(ones, _mm256_max_epi32(end, zero)), from);
    }
    static Ints load(const std::uint32_t* p) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(p)); }
    static void store(std::uint32_t* p, Ints v) { _mm256_store_si256(reinterpret_cast<__m256i*>(p), v); }
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
const Kernel kAvx2Kernel{draw, resolve};
}
