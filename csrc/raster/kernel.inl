// The inner loops, written over `Lanes`, which the including file defines in an unnamed namespace: a file for every
// instruction set, compiled with its flags. All that is compiled for one instruction set has internal linkage and calls no
// function of the standard library: a linker that merges inline functions could otherwise carry wide instructions into
// portable code.

namespace sketchynet {
namespace {

inline int greater_int(int a, int b) { return a > b ? a : b; }
inline int smaller_int(int a, int b) { return a < b ? a : b; }

// Bits [from, to] of a row of pixels, both in the same word.
inline std::uint64_t bits_between(int from, int to) { return ~std::uint64_t{0} >> (63 - (to - from)) << (from % 64); }

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
inline void draw_capsule(const Band& band, const CapsuleBlock& c, int i) {
    using V = Lanes::Vector;  // 16 bits a line
    constexpr int kCount = Lanes::kCount;
    alignas(64) static constexpr LineTables kTables = line_tables();

    const int band_line = band.first_row * kLines;
    const int first = greater_int(c.first[i], band_line);
    const int last = smaller_int(c.last[i], band_line + band.rows * kLines - 1);
    const int column = c.column[i], half = c.half[i], slope = c.slope[i], reach = c.reach[i];
    const int line0 = c.line0[i], line1 = c.line1[i];
    const Arc arc0 = c.arc0[i], arc1 = c.arc1[i];
    const int low = greater_int(c.low[i], -column * kUnits);
    const int high = smaller_int(c.high[i], (band.size - column) * kUnits - 1);
    if (first > last || low > high) return;

    const V x0_left = Lanes::set(c.x0_left[i]), x0_right = Lanes::set(c.x0_right[i]);
    const V x1_left = Lanes::set(c.x1_left[i]), x1_right = Lanes::set(c.x1_right[i]);
    const V left_side = Lanes::set(half + 1), right_side = Lanes::set(half);
    const V zero = Lanes::set(0), samples_a_tile = Lanes::set(kTileSamples), samples_a_pixel = Lanes::set(kSamples);
    // The centres of a tile's lines less that of its first, whole units and a fraction of 16 bits. What does not fit 16
    // bits of whole units is cut off, and comes right again where the sum fits.
    const V slope_whole = Lanes::set(slope >> 16), slope_fraction = Lanes::set(slope & 0xffff);
    const auto lean_of = [&](int part) {
        const V numbers = Lanes::load(kTables.numbers + part * kCount);
        return Lanes::add(Lanes::multiply(numbers, slope_whole), Lanes::multiply_high(numbers, slope_fraction));
    };
    const auto fraction_of = [&](int part) {
        return Lanes::multiply(Lanes::load(kTables.numbers + part * kCount), slope_fraction);
    };
    const V first_lean = lean_of(0), first_fraction = fraction_of(0);
    const int tile = first & -kTileLines;
    std::int64_t centre = static_cast<std::int64_t>(c.centre[i]) * 0x10000 + c.centre_fraction[i] +
                          static_cast<std::int64_t>(tile - c.first[i]) * slope;
    const int span = static_cast<int>((static_cast<std::int64_t>(slope) * (kCount - 1)) >> 16);
    const int lean_left = smaller_int(span, 0) - half - 2, lean_right = greater_int(span, 0) + half + 2;

    // Step by step, a vector's lines each.
    int part = (first - tile) / kCount;
    for (int line = tile + part * kCount; line <= last; line += kCount, ++part) {
        if (part == kTileLines / kCount) {
            part = 0;
            centre += static_cast<std::int64_t>(slope) * kTileLines;
        }
        // Pixels that the step may reach: the lines of the edges bound a convex shape from outside.
        const int at = static_cast<int>((centre + static_cast<std::int64_t>(slope) * part * kCount) >> 16);
        const int first_pixel = greater_int(at + lean_left, low) >> 9, last_pixel = smaller_int(at + lean_right, high) >> 9;
        static_assert(kUnits == 1 << 9);
        if (first_pixel > last_pixel) continue;

        const auto chord = [&](Arc arc, int own_line) {
            return Lanes::load_any(arc + greater_int(smaller_int(line - own_line, reach), -reach - kTileLines));
        };
        const V h0 = chord(arc0, line0), h1 = chord(arc1, line1);
        const V lean = kCount == kTileLines ? first_lean : lean_of(part);
        const V fraction = kCount == kTileLines ? first_fraction : fraction_of(part);
        const std::int64_t rounded = centre + 0x8000;
        const V edge = Lanes::add(Lanes::add(lean, Lanes::set(static_cast<int>(rounded >> 16))),
                                  Lanes::carry(fraction, Lanes::set(static_cast<int>(rounded & 0xffff))));
        V left = Lanes::min(Lanes::sub_saturated(x0_left, h0), Lanes::sub_saturated(x1_left, h1));
        V right = Lanes::max(Lanes::add_saturated(x0_right, h0), Lanes::add_saturated(x1_right, h1));
        left = Lanes::min_on(c.left_first[i] - line, c.left_last[i] - line, left, Lanes::sub(edge, left_side));
        right = Lanes::max_on(c.right_first[i] - line, c.right_last[i] - line, right, Lanes::add(edge, right_side));
        right = Lanes::max(right, zero);

        // Samples [begin, end) of each line, counted from the first pixel, for the left and the right halves of pixels.
        const V shift = Lanes::set(first_pixel * 2 * kTileSamples);
        const auto samples = [&](V x, const std::int16_t* table) {
            const V staggered = Lanes::add_saturated(x, Lanes::load(table + line % kTileLines));
            return Lanes::sub_clamped(Lanes::shift_right_4(staggered), shift);
        };
        V begin = samples(left, kTables.left_half), end = samples(right, kTables.left_half);
        V begin_right = Lanes::sub_clamped(samples(left, kTables.right_half), samples_a_tile);
        V end_right = Lanes::sub_clamped(samples(right, kTables.right_half), samples_a_tile);

        const int pair = (line - band_line) / kTileLines, from = column + first_pixel, to = column + last_pixel;
        std::uint16_t* words = band.words + (static_cast<std::ptrdiff_t>(pair) * band.size + from) * 2 * kTileLines +
                               line % kTileLines;
        for (int count = to - from;; --count, words += 2 * kTileLines) {
            Lanes::mark<kErase>(words, begin, end);
            Lanes::mark<kErase>(words + kTileLines, begin_right, end_right);
            if (count == 0) break;
            begin = Lanes::sub_clamped(begin, samples_a_pixel);
            end = Lanes::sub_clamped(end, samples_a_pixel);
            begin_right = Lanes::sub_clamped(begin_right, samples_a_pixel);
            end_right = Lanes::sub_clamped(end_right, samples_a_pixel);
        }
        if (!kErase) {
            std::uint64_t* touched = band.touched + static_cast<std::ptrdiff_t>(pair) * band.stride;
            for (int x = from; x <= to; x = (x | 63) + 1) touched[x / 64] |= bits_between(x, smaller_int(x | 63, to));
        }
    }
}

void draw(const Band& band, const CapsuleBlock* capsules, const std::int32_t* order, std::int64_t count,
          const std::uint8_t* erase) {
    for (std::int64_t n = 0; n < count; ++n) {
        const int i = order[n];
        const CapsuleBlock& block = capsules[i / kGroup];
        if (erase != nullptr && erase[i]) {
            draw_capsule<true>(band, block, i % kGroup);
        } else {
            draw_capsule<false>(band, block, i % kGroup);
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
