// AVX-512 with VPOPCNTDQ, which counts bits by itself: Intel since Ice Lake, AMD since Zen 4.
#include <immintrin.h>

namespace sketchynet {
namespace {

__m512i count_bits(__m512i a, __m512i b) {
    return _mm512_add_epi64(_mm512_popcnt_epi64(a), _mm512_popcnt_epi64(b));
}

}  // namespace
}  // namespace sketchynet

#include "raster/kernel_avx512.inl"

namespace sketchynet {
const Kernel kAvx512Kernel{prepare, draw, resolve};
}  // namespace sketchynet
