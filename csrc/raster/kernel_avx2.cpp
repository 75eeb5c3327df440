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
    // Where the sub-lines of a block lie below its upper side, in samples.
    static Floats offsets() { return _mm256_setr_ps(1, 3, 5, 7, 9, 11, 13, 15); }
    static Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
    static Floats sub(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
    static Floats mul(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
    static Floats min(Floats a, Floats b) { return _mm256_min_ps(a, b); }
    static Floats max(Floats a, Floats b) { return _mm256_max_ps(a, b); }
    static Floats sqrt(Floats a) { return _mm256_sqrt_ps(a); }
    // p - q (p + q) where a < b, else `no`.
    static Floats sub_where_less(Floats a, Floats b, Floats no, Floats p, Floats q) {
        return _mm256_blendv_ps(no, _mm256_sub_ps(p, q), _mm256_cmp_ps(a, b, _CMP_LT_OQ));
    }
    static Floats add_where_less(Floats a, Floats b, Floats no, Floats p, Floats q) {
        return _mm256_blendv_ps(no, _mm256_add_ps(p, q), _mm256_cmp_ps(a, b, _CMP_LT_OQ));
    }
    // v rounded towards zero where low <= a <= high, else 0.
    static Ints truncate_between(Floats a, Floats low, Floats high, Floats v) {
        const Floats inside = _mm256_and_ps(_mm256_cmp_ps(low, a, _CMP_LE_OQ), _mm256_cmp_ps(a, high, _CMP_LE_OQ));
        return _mm256_cvttps_epi32(_mm256_and_ps(v, inside));
    }
    static Ints sub(Ints a, Ints b) { return _mm256_sub_epi32(a, b); }
    // Sets (or clears) in 8 words the bits [begin, end), as far as they lie in [0, 32).
    template <bool kErase>
    static void mark(std::uint32_t* words, Ints begin, Ints end) {
        const Ints ones = _mm256_set1_epi32(-1), zero = _mm256_setzero_si256();
        const Ints from = _mm256_sllv_epi32(ones, _mm256_max_epi32(begin, zero));
        const Ints bits = _mm256_andnot_si256(_mm256_sllv_epi32(ones, _mm256_max_epi32(end, zero)), from);
        store(words, kErase ? _mm256_andnot_si256(bits, load(words)) : _mm256_or_si256(bits, load(words)));
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

#include "raster/shared.inl"
#include "raster/strip_avx2.inl"
#include "raster/prepare.inl"
#include "raster/kernel.inl"

namespace sketchynet {
const Kernel kAvx2Kernel{prepare, draw, resolve, draw_strips, settle_doubts};
}
