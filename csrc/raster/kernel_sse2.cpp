// The inner loops for SSE2, which every x86-64 has: a quarter of a pixel's sub-lines is one vector.
#include <emmintrin.h>

#include <cstddef>

#include "raster/coverage.hpp"

namespace sketchynet {
namespace {

struct Lanes {
    using Floats = __m128;
    using Ints = __m128i;
    static constexpr int kCount = 4;

    static Floats set(float v) { return _mm_set1_ps(v); }
    static Ints set(int v) { return _mm_set1_epi32(v); }
    // The sub-lines' places below the upper side of the first one.
    static Floats offsets() { return _mm_setr_ps(1 / 32.f, 3 / 32.f, 5 / 32.f, 7 / 32.f); }
    static Floats add(Floats a, Floats b) { return _mm_add_ps(a, b); }
    static Floats sub(Floats a, Floats b) { return _mm_sub_ps(a, b); }
    static Floats mul(Floats a, Floats b) { return _mm_mul_ps(a, b); }
    static Floats min(Floats a, Floats b) { return _mm_min_ps(a, b); }
    static Floats max(Floats a, Floats b) { return _mm_max_ps(a, b); }
    static Floats sqrt(Floats a) { return _mm_sqrt_ps(a); }
    // `yes` where a < b, else `no`.
    static Floats where_less(Floats a, Floats b, Floats yes, Floats no) {
        const Floats less = _mm_cmplt_ps(a, b);
        return _mm_or_ps(_mm_and_ps(less, yes), _mm_andnot_ps(less, no));
    }
    // v where low <= a <= high, else 0.
    static Floats zero_outside(Floats a, Floats low, Floats high, Floats v) {
        return _mm_and_ps(v, _mm_and_ps(_mm_cmple_ps(low, a), _mm_cmple_ps(a, high)));
    }
    static Ints truncate(Floats a) { return _mm_cvttps_epi32(a); }
    static Ints sub(Ints a, Ints b) { return _mm_sub_epi32(a, b); }
    static Ints either(Ints a, Ints b) { return _mm_or_si128(a, b); }
    static Ints without(Ints a, Ints b) { return _mm_andnot_si128(b, a); }
    // Words with the bits [begin, end) set, as far as they lie in [0, 32).
    static Ints between(Ints begin, Ints end) { return _mm_sub_epi32(power_of_two(end), power_of_two(begin)); }
    static Ints load(const std::uint32_t* p) { return _mm_load_si128(reinterpret_cast<const __m128i*>(p)); }
    static void store(std::uint32_t* p, Ints v) { _mm_store_si128(reinterpret_cast<__m128i*>(p), v); }
    static unsigned count_bits(const std::uint32_t* words) {
        const Ints two = _mm_set1_epi8(0x55), four = _mm_set1_epi8(0x33), eight = _mm_set1_epi8(0x0f);
        Ints total = _mm_setzero_si128();
        for (int i = 0; i < kLines; i += kCount) {
            Ints w = load(words + i);
            w = _mm_sub_epi8(w, _mm_and_si128(_mm_srli_epi32(w, 1), two));
            w = _mm_add_epi8(_mm_and_si128(w, four), _mm_and_si128(_mm_srli_epi32(w, 2), four));
            total = _mm_add_epi8(total, _mm_and_si128(_mm_add_epi8(w, _mm_srli_epi32(w, 4)), eight));
        }
        total = _mm_sad_epu8(total, _mm_setzero_si128());
        return static_cast<unsigned>(_mm_cvtsi128_si32(total) + _mm_cvtsi128_si32(_mm_srli_si128(total, 8)));
    }

private:
    // 2^n modulo 2^32, n clamped to [0, 32]. SSE2 cannot shift every lane by its own count: n becomes the exponent of a
    // float. Conversion gives 2^31 for 2^31 and for all that is greater, which is mended for 32.
    static Ints power_of_two(Ints n) {
        n = _mm_and_si128(n, _mm_cmpgt_epi32(n, _mm_setzero_si128()));
        const Ints over = _mm_cmpgt_epi32(n, _mm_set1_epi32(31));
        n = _mm_andnot_si128(over, n);
        const Floats power = _mm_castsi128_ps(_mm_slli_epi32(_mm_add_epi32(n, _mm_set1_epi32(127)), 23));
        return _mm_andnot_si128(over, _mm_cvttps_epi32(power));
    }
};

}  // namespace
}  // namespace sketchynet

#include "raster/kernel.inl"

namespace sketchynet {
const Kernel kSse2Kernel{draw, resolve};
}
