// AVX-512 without VPOPCNTDQ: Intel's Skylake and Cascade Lake. Bits are counted by halves of a byte in a table.
#include <immintrin.h>

namespace sketchynet {
namespace {

__m512i count_bits(__m512i a, __m512i b) {
    const __m512i counts = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const __m512i low = _mm512_set1_epi8(15);
    const auto bytes = [&](__m512i v) {  // at most 8 each
        return _mm512_add_epi8(_mm512_shuffle_epi8(counts, _mm512_and_si512(v, low)),
                               _mm512_shuffle_epi8(counts, _mm512_and_si512(_mm512_srli_epi16(v, 4), low)));
    };
    return _mm512_sad_epu8(_mm512_add_epi8(bytes(a), bytes(b)), _mm512_setzero_si512());
}

}  // namespace
}  // namespace sketchynet

#include "raster/kernel_avx512.inl"

namespace sketchynet {
const Kernel kAvx512BwKernel{prepare, draw, resolve};
}  // namespace sketchynet
