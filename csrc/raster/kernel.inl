// The inner loops, written over `Lanes`, which the including file defines in an unnamed namespace: a file for every
// instruction set, compiled with its flags. All that is compiled for one instruction set has internal linkage and calls no
// function of the standard library: a linker that merges inline functions could otherwise carry wide instructions into
// portable code.

namespace sketchynet {
namespace {

inline int greater_int(int a, int b) { return a > b ? a : b; }
inline int smaller_int(int a, int b) { return a < b ? a : b; }

// Bits [from, to] of a row of pixels, both in the same word.
inline std::uint64_t bits_between(unsigned from, unsigned to) {
    return ~std::uint64_t{0} >> (63 - (to - from)) << (from % 64);
}

struct LineTables {
    alignas(64) std::int16_t left_half[kTileLines], right_half[kTileLines], numbers[kTileLines];
};

constexpr LineTables line_tables() {
    LineTables tables{};
    for (int line = 0; line < kTileLines; ++line) {
        tables.left_half[line] = static_cast<std::int16_t>(kTileSamples / 2 - stagger(line));
        tables.right_half[line] = static_cast<std::int16_t>(kTileSamples / 2 + stagger(line));
        tables.numbers[line] = static_cast<std::int16_t>(line);
    }
    return tables;
}

template <bool kErase>
inline void draw_capsule(const Band& band, const CapsuleBlock& c, unsigned i) {
    using V = Lanes::Vector;  // 16 bits a line
    constexpr int kCount = Lanes::kCount, kParts = kTileLines / kCount;
    alignas(64) static constexpr LineTables kTables = line_tables();

    const int band_line = band.first_row * kLines;
    const int first = greater_int(c.first[i], band_line);
    const int last = smaller_int(c.last[i], band_line + band.rows * kLines - 1);
    const int column = c.column[i], half = c.half[i], slope = c.slope[i], reach = c.reach[i];
    const int least = -reach - kTileLines, line0 = c.line0[i], line1 = c.line1[i];
    const Arc arc0 = c.arcs[i] + c.offset0[i], arc1 = c.arcs[i] + c.offset1[i];
    const int low = greater_int(c.low[i], -column * kUnits);
    const int high = smaller_int(c.high[i], (band.size - column) * kUnits - 1);
    if (first > last || low > high) return;

    const V x0_left = Lanes::set(c.x0_left[i]), x0_right = Lanes::set(c.x0_right[i]);
    const V x1_left = Lanes::set(c.x1_left[i]), x1_right = Lanes::set(c.x1_right[i]);
    const V left_side = Lanes::set(half + 1), right_side = Lanes::set(half);
    const V left_first = Lanes::set(c.left_first[i]), left_last = Lanes::set(c.left_last[i]);
    const V right_first = Lanes::set(c.right_first[i]), right_last = Lanes::set(c.right_last[i]);
    const V zero = Lanes::set(0), samples_a_tile = Lanes::set(kTileSamples), samples_a_pixel = Lanes::set(kSamples);
    // The centres of a tile's lines less that of its first, whole units and a fraction of 16 bits. What does not fit 16
    // bits of whole units is cut off, and comes right again where the sum fits.
    const V slope_whole = Lanes::set(slope >> 16), slope_fraction = Lanes::set(slope & 0xffff);
    const auto lean_of = [&](int in_tile) {
        const V numbers = Lanes::load(kTables.numbers + in_tile);
        return Lanes::add(Lanes::multiply(numbers, slope_whole), Lanes::multiply_high(numbers, slope_fraction));
    };
    const auto fraction_of = [&](int in_tile) {
        return Lanes::multiply(Lanes::load(kTables.numbers + in_tile), slope_fraction);
    };
    const V first_lean = lean_of(0), first_fraction = fraction_of(0);
    const int tile = first & -kTileLines;
    // Where the segment's own line crosses the first line of the tile, in 2^-23 units. Counted from its middle, so that
    // the two directions of a drawing and its mirror images round alike.
    std::int64_t centre = static_cast<std::int64_t>(c.centre[i]) * 128 +
                          static_cast<std::int64_t>(2 * kPhases * tile + kPhases - c.ends[i]) * slope;
    static_assert(2 * kPhases == 128);
    const std::int64_t line_slope = static_cast<std::int64_t>(slope) * 128;
    const int span = static_cast<int>((static_cast<std::int64_t>(slope) * (kCount - 1)) >> 16);
    const int lean_left = smaller_int(span, 0) - half - 2, lean_right = greater_int(span, 0) + half + 2;

    const std::ptrdiff_t pair = static_cast<unsigned>(tile - band_line) / kTileLines, stride = band.stride;
    const std::ptrdiff_t row_words = static_cast<std::ptrdiff_t>(band.size) * 2 * kTileLines;
    std::uint16_t* row = band.words + pair * row_words + static_cast<std::ptrdiff_t>(column) * 2 * kTileLines;
    std::uint64_t* touched = band.touched + pair * stride;
    // Step by step, a vector's lines each.
    int part = kParts == 1 ? 0 : (first - tile) / kCount;
    for (int line = tile + part * kCount; line <= last; line += kCount) {
        // Pixels that the step may reach: the lines of the edges bound a convex shape from outside.
        const int at = static_cast<int>((centre + line_slope * (part * kCount)) >> 23);
        const int first_pixel = greater_int(at + lean_left, low) >> 9, last_pixel = smaller_int(at + lean_right, high) >> 9;
        static_assert(kUnits == 1 << 9);
        const int in_tile = part * kCount;
        const std::int64_t rounded = centre + (1 << 22);
        std::uint16_t* words = row + static_cast<std::ptrdiff_t>(first_pixel) * 2 * kTileLines + in_tile;
        std::uint64_t* const marks = touched;
        if (kParts == 1 || ++part == kParts) {
            part = 0;
            centre += line_slope * kTileLines;
            row += row_words;
            touched += stride;
        }
        if (first_pixel > last_pixel) continue;

        const auto chord = [&](Arc arc, int own_line) {
            return Lanes::load_any(arc + greater_int(smaller_int(line - own_line, reach), least));
        };
        const V h0 = chord(arc0, line0), h1 = chord(arc1, line1);
        const V lean = kParts == 1 ? first_lean : lean_of(in_tile), fraction = kParts == 1 ? first_fraction : fraction_of(in_tile);
        const V sum = Lanes::add(fraction, Lanes::set(static_cast<int>(rounded >> 7 & 0xffff)));
        const V whole = Lanes::add(lean, Lanes::set(static_cast<int>(rounded >> 23)));
        // Halves of a unit are rounded outwards, so that mirrored drawings give mirrored pixels.
        const V right_edge = Lanes::one_more_where_less(whole, sum, fraction);
        const V left_edge = Lanes::one_less_where_zero(right_edge, sum);
        V left = Lanes::min(Lanes::sub_saturated(x0_left, h0), Lanes::sub_saturated(x1_left, h1));
        V right = Lanes::max(Lanes::add_saturated(x0_right, h0), Lanes::add_saturated(x1_right, h1));
        const V lines = Lanes::add(Lanes::load(kTables.numbers), Lanes::set(line - kMiddleLine));
        left = Lanes::min_between(left_first, lines, left_last, left, Lanes::sub(left_edge, left_side));
        right = Lanes::max_between(right_first, lines, right_last, right, Lanes::add(right_edge, right_side));
        right = Lanes::max(right, zero);

        // Samples [begin, end) of each line, counted from the first pixel, for the left and the right halves of pixels.
        const V shift = Lanes::set(first_pixel * kSamples);
        const auto samples = [&](V x, const std::int16_t* table) {
            const V staggered = Lanes::add_saturated(x, Lanes::load(table + in_tile));
            return Lanes::sub_clamped(Lanes::shift_right_4(staggered), shift);
        };
        V begin = samples(left, kTables.left_half), end = samples(right, kTables.left_half);
        V begin_right = Lanes::sub_clamped(samples(left, kTables.right_half), samples_a_tile);
        V end_right = Lanes::sub_clamped(samples(right, kTables.right_half), samples_a_tile);
        for (int more = last_pixel - first_pixel;; --more, words += 2 * kTileLines) {
            Lanes::mark<kErase>(words, begin, end);
            Lanes::mark<kErase>(words + kTileLines, begin_right, end_right);
            if (more == 0) break;
            begin = Lanes::sub_clamped(begin, samples_a_pixel);
            end = Lanes::sub_clamped(end, samples_a_pixel);
            begin_right = Lanes::sub_clamped(begin_right, samples_a_pixel);
            end_right = Lanes::sub_clamped(end_right, samples_a_pixel);
        }
        if (!kErase) {
            const unsigned to = static_cast<unsigned>(column + last_pixel);
            for (unsigned x = static_cast<unsigned>(column + first_pixel); x <= to; x = (x | 63) + 1) {
                marks[x / 64] |= bits_between(x, (x | 63) < to ? x | 63 : to);
            }
        }
    }
}

void draw(const Band& band, const CapsuleBlock* capsules, const std::int32_t* order, std::int64_t count,
          const std::uint8_t* erase) {
    const Band own = band;
    for (std::int64_t n = 0; n < count; ++n) {
        const auto i = static_cast<unsigned>(order[n]);
        if (erase != nullptr && erase[i]) {
            draw_capsule<true>(own, capsules[i / kGroup], i % kGroup);
        } else {
            draw_capsule<false>(own, capsules[i / kGroup], i % kGroup);
        }
    }
}

// What `inked` samples of a pixel amount to, 0..255.
inline std::uint8_t coverage(unsigned inked) {
    constexpr unsigned kAll = kLines * kSamples;
    return static_cast<std::uint8_t>((inked * 255 + kAll / 2) / kAll);
}

// Calls visit(row pair, column) for the touched pixels of the band, row by row, and clears their marks.
template <typename Visit>
inline void for_touched(const Band& band, Visit visit) {
    std::uint64_t* touched = band.touched;
    for (int pair = 0; pair < (band.rows + 1) / 2; ++pair) {
        for (int part = 0; part < band.stride; ++part, ++touched) {
            for (std::uint64_t left = *touched; left; left &= left - 1) visit(pair, part * 64 + __builtin_ctzll(left));
            *touched = 0;
        }
    }
}

}  // namespace
}  // namespace sketchynet
