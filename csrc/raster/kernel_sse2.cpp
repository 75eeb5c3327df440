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
    // Where the sub-lines of a block lie below its upper side, in samples.
    static Floats offsets() { return _mm_setr_ps(1, 3, 5, 7); }
    static Floats add(Floats a, Floats b) { return _mm_add_ps(a, b); }
    static Floats sub(Floats a, Floats b) { return _mm_sub_ps(a, b); }
    static Floats mul(Floats a, Floats b) { return _mm_mul_ps(a, b); }
    static Floats min(Floats a, Floats b) { return _mm_min_ps(a, b); }
    static Floats max(Floats a, Floats b) { return _mm_max_ps(a, b); }
    static Floats sqrt(Floats a) { return _mm_sqrt_ps(a); }
    // p - q (p + q) where a < b, else `no`.
    static Floats sub_where_less(Floats a, Floats b, Floats no, Floats p, Floats q) {
        return blend(_mm_cmplt_ps(a, b), _mm_sub_ps(p, q), no);
    }
    static Floats add_where_less(Floats a, Floats b, Floats no, Floats p, Floats q) {
        return blend(_mm_cmplt_ps(a, b), _mm_add_ps(p, q), no);
    }
    // v rounded towards zero where low <= a <= high, else 0.
    static Ints truncate_between(Floats a, Floats low, Floats high, Floats v) {
        return _mm_cvttps_epi32(_mm_and_ps(v, _mm_and_ps(_mm_cmple_ps(low, a), _mm_cmple_ps(a, high))));
    }
    static Ints sub(Ints a, Ints b) { return _mm_sub_epi32(a, b); }
    // Sets (or clears) in 4 words the bits [begin, end), as far as they lie in [0, 32).
    template <bool kErase>
    static void mark(std::uint32_t* words, Ints begin, Ints end) {
        // Where nothing is inside, begin may exceed end.
        const Ints bits = _mm_andnot_si128(_mm_cmplt_epi32(end, begin), _mm_sub_epi32(power_of_two(end), power_of_two(begin)));
        store(words, kErase ? _mm_andnot_si128(bits, load(words)) : _mm_or_si128(bits, load(words)));
    }
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
    static Floats blend(Floats where, Floats yes, Floats no) {
        return _mm_or_ps(_mm_and_ps(where, yes), _mm_andnot_ps(where, no));
    }
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

#include "raster/shared.inl"
#include "raster/strip_portable.inl"
#include "raster/prepare.inl"
#include "raster/kernel.inl"

namespace sketchynet {
const Kernel kSse2Kernel{prepare, draw, resolve, draw_strips, settle_doubts};
}
