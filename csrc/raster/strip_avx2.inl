// The pixels of a strip, eight at a time; the arithmetic is that of strip_portable.inl. Nothing here branches on a pixel:
// what the branch would save is less than what its wrong predictions cost.

namespace sketchynet {
namespace {

struct HalfPlane {
    __m256 corner, flat, bend, per_a;

    explicit HalfPlane(const Strip& strip)
        : corner(_mm256_set1_ps(strip.corner)),
          flat(_mm256_set1_ps(strip.flat)),
          bend(_mm256_set1_ps(strip.bend)),
          per_a(_mm256_set1_ps(strip.per_a)) {}

    __m256 operator()(__m256 depth) const {
        const __m256 sign = _mm256_and_ps(depth, _mm256_set1_ps(-0.0f));
        const __m256 m = _mm256_min_ps(_mm256_xor_ps(depth, sign), corner);
        const __m256 q = _mm256_max_ps(_mm256_sub_ps(m, flat), _mm256_setzero_ps());
        const __m256 bent = _mm256_mul_ps(_mm256_mul_ps(q, q), bend);
        return _mm256_xor_ps(_mm256_sub_ps(_mm256_mul_ps(m, per_a), bent), sign);
    }
};

// 8 lanes of 16 bits, all ones from lane `from` on, to lane `to` at most.
inline __m128i lanes_between(int from, int to) {
    alignas(64) static const std::int16_t kOnes[32] = {0,  0,  0,  0,  0,  0,  0,  0,  -1, -1, -1, -1, -1, -1, -1, -1,
                                                       -1, -1, -1, -1, -1, -1, -1, -1, 0,  0,  0,  0,  0,  0,  0,  0};
    const auto load = [](int at) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(kOnes + at)); };
    return _mm_and_si128(load(8 - from), load(23 - smaller_int(to, 7)));
}

template <bool kOpen, bool kThin>
inline void draw_strip_rows(const StripBand& band, const Strip& strip, StripRow row, int first, int last, Reach reach) {
    const HalfPlane half_plane(strip);
    const __m256 ux = _mm256_set1_ps(strip.ux), uy = _mm256_set1_ps(strip.uy), radius = _mm256_set1_ps(strip.radius);
    const __m256 start = _mm256_set1_ps(strip.first), end = _mm256_set1_ps(strip.last), half = _mm256_set1_ps(0.5f);
    const __m256 sign = _mm256_set1_ps(-0.0f), full_area = _mm256_set1_ps(255.0f);
    const __m256 centres = _mm256_setr_ps(0.5f, 1.5f, 2.5f, 3.5f, 4.5f, 5.5f, 6.5f, 7.5f);
    const __m256 near = _mm256_set1_ps(strip.reach), core = _mm256_set1_ps(strip.core);
    const __m256 open_start = _mm256_castsi256_ps(_mm256_set1_epi32(strip.open_start ? -1 : 0));
    const __m256 open_end = _mm256_castsi256_ps(_mm256_set1_epi32(strip.open_end ? -1 : 0));
    const __m128i full = _mm_set1_epi16(255), zero = _mm_setzero_si128();
    const __m128i base = _mm_set1_epi16(static_cast<short>(band.base)), owner = _mm_set1_epi16(static_cast<short>(row.owner));
    const __m128i joined = _mm_set1_epi16(static_cast<short>(strip.joined));
    const int most_left = band.size - 8;

    for (int line = first; line <= last; ++line, row.next(band), reach.next()) {
        const int from = greater_int(row.first, reach.first() + row.column);
        const int to = smaller_int(row.last, reach.last() + row.column);
        const float y = static_cast<float>(line) + 0.5f;
        const __m256 row_t = _mm256_set1_ps(y * strip.uy - strip.t0), row_s = _mm256_set1_ps(-y * strip.ux - strip.s0);
        for (int at = from; at <= to; at += 8) {
            // Eight pixels inside the row; those outside [from, to] or done before are left alone.
            const int column = smaller_int(at, most_left);
            const __m256 x = _mm256_add_ps(_mm256_set1_ps(static_cast<float>(column - row.column)), centres);
            const __m256 t = _mm256_add_ps(_mm256_mul_ps(x, ux), row_t);
            const __m256 s = _mm256_andnot_ps(sign, _mm256_add_ps(_mm256_mul_ps(x, uy), row_s));
            const __m256 before = _mm256_cmp_ps(t, start, _CMP_LT_OQ), after = _mm256_cmp_ps(t, end, _CMP_GT_OQ);
            __m256 area = _mm256_add_ps(half, half_plane(_mm256_sub_ps(radius, s)));
            if (kThin) area = _mm256_add_ps(area, _mm256_sub_ps(half_plane(_mm256_add_ps(radius, s)), half));
            const __m256 scaled = _mm256_add_ps(_mm256_mul_ps(area, full_area), half);
            __m256i ink = _mm256_cvttps_epi32(_mm256_andnot_ps(_mm256_or_ps(before, after), scaled));
            __m128i doubt = zero;
            if (kOpen) {
                const __m256 open = _mm256_or_ps(_mm256_and_ps(before, open_start), _mm256_and_ps(after, open_end));
                const __m256 beyond = _mm256_sub_ps(t, _mm256_blendv_ps(end, start, before));
                const __m256 squared = _mm256_add_ps(_mm256_mul_ps(beyond, beyond), _mm256_mul_ps(s, s));
                const __m256 is_near = _mm256_and_ps(open, _mm256_cmp_ps(squared, near, _CMP_LT_OQ));
                const __m256 is_core = _mm256_and_ps(open, _mm256_cmp_ps(squared, core, _CMP_LE_OQ));
                const __m256i wide_doubt = _mm256_castps_si256(_mm256_andnot_ps(is_core, is_near));
                ink = _mm256_or_si256(ink, _mm256_srli_epi32(wide_doubt, 31));
                ink = _mm256_or_si256(ink, _mm256_srli_epi32(_mm256_castps_si256(is_core), 24));
                doubt = _mm_packs_epi32(_mm256_castsi256_si128(wide_doubt), _mm256_extracti128_si256(wide_doubt, 1));
            }

            // From here on 16 bits a pixel.
            __m128i ink16 = _mm_packs_epi32(_mm256_castsi256_si128(ink), _mm256_extracti128_si256(ink, 1));
            ink16 = _mm_and_si128(ink16, lanes_between(at - column, to - column));
            __m128i* const pixels = reinterpret_cast<__m128i*>(row.pixels + column);
            __m128i* const owners = reinterpret_cast<__m128i*>(row.owners + column);
            const __m128i old = _mm_cvtepu8_epi16(_mm_loadl_epi64(pixels)), owned = _mm_loadu_si128(owners);
            const __m128i blank = _mm_cmpeq_epi16(ink16, zero);
            const __m128i apart = _mm_cmpeq_epi16(_mm_subs_epu16(joined, _mm_sub_epi16(owned, base)), zero);
            const __m128i clash = _mm_andnot_si128(apart, _mm_cmpgt_epi16(full, ink16));
            const __m128i certain = _mm_or_si128(blank, _mm_cmpeq_epi16(old, full));
            const __m128i doubted = _mm_andnot_si128(certain, _mm_or_si128(doubt, clash));
            _mm_storeu_si128(owners, _mm_blendv_epi8(owner, owned, blank));
            const __m128i most = _mm_max_epi16(old, ink16);
            _mm_storel_epi64(pixels, _mm_packus_epi16(most, most));
            const auto bits = static_cast<std::uint64_t>(_mm_movemask_epi8(_mm_packs_epi16(doubted, zero)));
            row.doubted[column / 64] |= bits << (column % 64);
            row.doubted[column / 64 + 1] |= bits >> 1 >> (63 - column % 64);
        }
    }
}

}  // namespace
}  // namespace sketchynet
