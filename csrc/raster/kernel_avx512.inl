// The inner loops for AVX-512 (F, BW, VL): the lines of a tile are one vector. Whoever includes this defines before, in
// sketchynet's unnamed namespace, how bits are counted:
//   __m512i count_bits(__m512i a, __m512i b): the bits of a and b together, in each part of 64.
#include <immintrin.h>

#include <cstddef>

#include "raster/coverage.hpp"

namespace sketchynet {
namespace {

struct Lanes {
    using Vector = __m512i;
    static constexpr int kCount = 32;
    static constexpr int kFloats = 16;  // numbers of 32 bits a vector

    static Vector set(int v) { return _mm512_set1_epi16(static_cast<short>(v)); }
    static Vector load(const std::int16_t* p) { return _mm512_load_si512(p); }
    static Vector load_any(const std::int16_t* p) { return _mm512_loadu_si512(p); }
    static Vector add(Vector a, Vector b) { return _mm512_add_epi16(a, b); }
    static Vector sub(Vector a, Vector b) { return _mm512_sub_epi16(a, b); }
    static Vector add_saturated(Vector a, Vector b) { return _mm512_adds_epi16(a, b); }
    static Vector sub_saturated(Vector a, Vector b) { return _mm512_subs_epi16(a, b); }
    static Vector sub_clamped(Vector a, Vector b) { return _mm512_subs_epu16(a, b); }  // at least 0
    static Vector min(Vector a, Vector b) { return _mm512_min_epi16(a, b); }
    static Vector max(Vector a, Vector b) { return _mm512_max_epi16(a, b); }
    static Vector multiply(Vector a, Vector b) { return _mm512_mullo_epi16(a, b); }
    static Vector multiply_high(Vector a, Vector b) { return _mm512_mulhi_epu16(a, b); }  // the upper half of a b
    // v + 1 where a < b, without a sign.
    static Vector one_more_where_less(Vector v, Vector a, Vector b) {
        return _mm512_mask_add_epi16(v, _mm512_cmplt_epu16_mask(a, b), v, _mm512_set1_epi16(1));
    }
    // v - 1 where a is 0.
    static Vector one_less_where_zero(Vector v, Vector a) {
        return _mm512_mask_sub_epi16(v, _mm512_testn_epi16_mask(a, a), v, _mm512_set1_epi16(1));
    }
    static Vector shift_right_4(Vector a) { return _mm512_srli_epi16(a, 4); }
    // min (max) of a and b where low <= v <= high, else a.
    static Vector min_between(Vector low, Vector v, Vector high, Vector a, Vector b) {
        return _mm512_mask_min_epi16(a, between(low, v, high), a, b);
    }
    static Vector max_between(Vector low, Vector v, Vector high, Vector a, Vector b) {
        return _mm512_mask_max_epi16(a, between(low, v, high), a, b);
    }
    // Sets (or clears) on every line the bits [begin, end), as far as they lie in [0, 16).
    template <bool kErase>
    static void mark(std::uint16_t* words, Vector begin, Vector end) {
        const Vector ones = _mm512_set1_epi16(-1);
        const Vector from = _mm512_sllv_epi16(ones, begin), beyond = _mm512_sllv_epi16(ones, end);
        // old | (from & ~beyond), or old & ~(from & ~beyond)
        const Vector old = _mm512_load_si512(words);
        _mm512_store_si512(words, _mm512_ternarylogic_epi32(old, from, beyond, kErase ? 0xb0 : 0xf4));
    }

private:
    static __mmask32 between(Vector low, Vector v, Vector high) {
        return _mm512_mask_cmple_epi16_mask(_mm512_cmple_epi16_mask(low, v), v, high);
    }
};

}  // namespace
}  // namespace sketchynet

#include "raster/prepare.inl"
#include "raster/kernel.inl"

namespace sketchynet {
namespace {

// Counts the samples of four columns from a touched one on, two rows of pixels at a time.
void resolve(const Band& band, std::uint8_t* pixels) {
    __builtin_memset(pixels, 0, static_cast<std::size_t>(band.rows) * static_cast<std::size_t>(band.size));
    std::uint64_t* touched = band.touched;
    alignas(4) std::uint8_t beyond[4];  // stands for the lower row where there is none
    for (int pair = 0; pair < (band.rows + 1) / 2; ++pair) {
        std::uint8_t* const row = pixels + static_cast<std::ptrdiff_t>(2 * pair) * band.size;
        std::uint16_t* const words = band.words + static_cast<std::ptrdiff_t>(pair) * 2 * band.size * kTileLines;
        const bool two_rows = 2 * pair + 1 < band.rows;
        for (int part = 0; part < band.stride; ++part, ++touched) {
            for (std::uint64_t left = *touched; left;) {
                const int bit = __builtin_ctzll(left);
                left &= ~(std::uint64_t{15} << bit);
                if (bit > 60) touched[1] &= ~(std::uint64_t{15} >> (64 - bit));
                // At the end of a row the four begin earlier: what was counted before is clear by now, and adds nothing.
                const int column = smaller_int(part * 64 + bit, band.size - 4);
                __m512i* const tiles = reinterpret_cast<__m512i*>(words + static_cast<std::ptrdiff_t>(column) * 2 * kTileLines);
                const auto count = [&](int i) {
                    const __m512i inked = count_bits(_mm512_load_si512(tiles + 2 * i), _mm512_load_si512(tiles + 2 * i + 1));
                    return _mm512_slli_epi64(inked, static_cast<unsigned>(16 * i));
                };
                __m512i sums = _mm512_or_si512(_mm512_or_si512(count(0), count(1)), _mm512_or_si512(count(2), count(3)));
                for (int i = 0; i < 8; ++i) _mm512_store_si512(tiles + i, _mm512_setzero_si512());
                // Four counts of 16 bits in each part of 64; a row of pixels is four parts.
                sums = _mm512_add_epi64(sums, _mm512_permutex_epi64(sums, 0x4e));
                sums = _mm512_add_epi64(sums, _mm512_shuffle_epi32(sums, static_cast<_MM_PERM_ENUM>(0x4e)));
                const __m128i inked =
                    _mm_unpacklo_epi64(_mm512_castsi512_si128(sums), _mm512_extracti32x4_epi32(sums, 2));
                // (255 n + 256) / 512 for n in 0..512 is (n - (n > 257)) / 2.
                const __m128i ink =
                    _mm_srli_epi16(_mm_add_epi16(inked, _mm_cmpgt_epi16(inked, _mm_set1_epi16(257))), 1);
                const auto both = static_cast<std::uint64_t>(_mm_cvtsi128_si64(_mm_packus_epi16(ink, ink)));
                const auto add = [](std::uint8_t* four, std::uint32_t more) {
                    std::uint32_t old;
                    __builtin_memcpy(&old, four, 4);
                    old |= more;
                    __builtin_memcpy(four, &old, 4);
                };
                add(row + column, static_cast<std::uint32_t>(both));
                add(two_rows ? row + band.size + column : beyond, static_cast<std::uint32_t>(both >> 32));
            }
            *touched = 0;
        }
    }
}

}  // namespace
}  // namespace sketchynet
