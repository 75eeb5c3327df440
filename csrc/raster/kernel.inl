// The inner loops, written over `Lanes`, which the including file defines in an unnamed namespace: a file for every
// instruction set, compiled with its flags.

namespace sketchynet {
namespace {

enum class Mode { kInk, kErase, kDoubted };

// Sets (or clears) the capsule's samples; kDoubted: only in the pixels that are marked as touched, whose samples lie
// where `slots` (rows, size) says.
template <Mode kMode>
inline void draw_capsule(const Band& band, const Capsule& c, const std::uint16_t* slots = nullptr) {
    using F = Lanes::Floats;
    using I = Lanes::Ints;
    constexpr int kBlock = Lanes::kCount;  // sub-lines a vector
    constexpr int kBlocksPerRow = kLines / kBlock;
    constexpr float kBlockHeight = static_cast<float>(kColumns) / kBlocksPerRow;
    // Blocks and columns count from the capsule's own pixel; those inside the band are:
    const int above = band.first_row - c.row, left_of = -c.column;
    const int first = greater_int(0, above * kBlocksPerRow);
    const int last = smaller_int(static_cast<int>(c.bottom * (1 / kBlockHeight)), (above + band.rows) * kBlocksPerRow - 1);
    const int first_column = greater_int(0, left_of), last_column = band.size - 1 + left_of;
    if (first > last || first_column > last_column) return;

    const F x0 = Lanes::set(c.x0), y0 = Lanes::set(c.y0), x1 = Lanes::set(c.x1), y1 = Lanes::set(c.y1);
    const F radius_squared = Lanes::set(c.radius_squared), slope = Lanes::set(c.slope), zero = Lanes::set(0.0f);
    const F left_start = Lanes::set(c.left_start), left_end = Lanes::set(c.left_end), left_x = Lanes::set(c.left_x);
    const F right_start = Lanes::set(c.right_start), right_end = Lanes::set(c.right_end);
    const F right_x = Lanes::set(c.right_x), top = Lanes::set(c.top), bottom = Lanes::set(c.bottom);
    const F half = Lanes::set(0.5f);
    const I pixel = Lanes::set(kColumns);

    Reach reach(c, kBlockHeight, first);
    std::uint32_t* block_words = band.words + static_cast<std::ptrdiff_t>(c.column) * kLines +
                                 static_cast<std::ptrdiff_t>(c.row - band.first_row) * band.size * kLines;
    for (int block = first; block <= last; ++block, reach.next()) {
        const int row = block / kBlocksPerRow;
        const int column = greater_int(first_column, reach.first());
        const int end_column = smaller_int(last_column, reach.last());
        if (column > end_column) continue;
        std::uint64_t* touched =
            band.touched + static_cast<std::ptrdiff_t>(c.row + row - band.first_row) * band.touched_stride;
        if (kMode == Mode::kDoubted && !any_bit(touched, column - left_of, end_column - left_of)) continue;
        const F y = Lanes::add(Lanes::set(static_cast<float>(block) * kBlockHeight), Lanes::offsets());
        const F d0 = Lanes::sub(y, y0), d1 = Lanes::sub(y, y1);
        const F h0 = Lanes::sqrt(Lanes::max(Lanes::sub(radius_squared, Lanes::mul(d0, d0)), zero));
        const F h1 = Lanes::sqrt(Lanes::max(Lanes::sub(radius_squared, Lanes::mul(d1, d1)), zero));
        F left = Lanes::add(left_x, Lanes::mul(Lanes::sub(y, left_start), slope));
        F right = Lanes::add(right_x, Lanes::mul(Lanes::sub(y, right_start), slope));
        left = Lanes::sub_where_less(y, left_start, left, x0, h0);
        left = Lanes::sub_where_less(left_end, y, left, x1, h1);
        right = Lanes::add_where_less(y, right_start, right, x0, h0);
        right = Lanes::add_where_less(right_end, y, right, x1, h1);

        // Samples [begin, end) of the line. What lies left of the capsule's pixel is cut off below, so that it does not
        // matter which way a negative number is rounded.
        const I shift = Lanes::set(column * kColumns);
        I begin = Lanes::sub(Lanes::truncate_between(y, top, bottom, Lanes::add(left, half)), shift);
        I end = Lanes::sub(Lanes::truncate_between(y, top, bottom, Lanes::add(right, half)), shift);

        std::uint32_t* words = block_words + (static_cast<std::ptrdiff_t>(row) * band.size + column) * kLines +
                               block % kBlocksPerRow * kBlock;
        if (kMode == Mode::kDoubted) {
            const std::uint16_t* slot = slots + static_cast<std::ptrdiff_t>(c.row + row - band.first_row) * band.size;
            std::uint32_t* const samples = band.words + block % kBlocksPerRow * kBlock;
            for (int at = column - left_of; at <= end_column - left_of; at += 64) {
                std::uint64_t bits = bits_at(touched, at, end_column - left_of);
                for (; bits; bits &= bits - 1) {
                    const int place = at + __builtin_ctzll(bits);
                    const I offset = Lanes::set((place + left_of - column) * kColumns);
                    Lanes::mark<false>(samples + slot[place] * kLines, Lanes::sub(begin, offset), Lanes::sub(end, offset));
                }
            }
            continue;
        }
        for (int i = column; i <= end_column; ++i, words += kLines) {
            Lanes::mark<kMode == Mode::kErase>(words, begin, end);
            begin = Lanes::sub(begin, pixel);
            end = Lanes::sub(end, pixel);
        }
        if (kMode == Mode::kInk) {
            const int stop = end_column - left_of;
            for (int i = column - left_of; i <= stop; i = (i | 63) + 1) {
                touched[i / 64] |= bits_between(i, smaller_int(i | 63, stop));
            }
        }
    }
}

void draw(const Band& band, const Capsule* capsules, const std::int32_t* order, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) {
        const Capsule& capsule = capsules[order[i]];
        if (capsule.erase) {
            draw_capsule<Mode::kErase>(band, capsule);
        } else {
            draw_capsule<Mode::kInk>(band, capsule);
        }
    }
}

// The coverage that a pixel's samples amount to, 0..255; clears them for their next use.
inline std::uint8_t coverage(std::uint32_t* words) {
    constexpr unsigned kSamples = kLines * kColumns;
    const unsigned inked = Lanes::count_bits(words);
    for (int i = 0; i < kLines; i += Lanes::kCount) Lanes::store(words + i, Lanes::set(0));
    return static_cast<std::uint8_t>((inked * 255 + kSamples / 2) / kSamples);
}

// Calls visit(row, column) for the touched pixels of the band, row by row.
template <typename Visit>
inline void for_touched(const Band& band, Visit visit) {
    const std::uint64_t* touched = band.touched;
    for (int row = 0; row < band.rows; ++row) {
        for (int part = 0; part < band.touched_stride; ++part, ++touched) {
            for (std::uint64_t left = *touched; left; left &= left - 1) visit(row, part * 64 + __builtin_ctzll(left));
        }
    }
}

inline void clear_touched(const Band& band) {
    for (int i = 0; i < band.rows * band.touched_stride; ++i) band.touched[i] = 0;
}

void resolve(const Band& band, std::uint8_t* pixels) {
    for (int i = 0; i < band.rows * band.size; ++i) pixels[i] = 0;
    for_touched(band, [&](int row, int column) {
        const std::ptrdiff_t place = static_cast<std::ptrdiff_t>(row) * band.size + column;
        pixels[place] = coverage(band.words + place * kLines);
    });
    clear_touched(band);
}

inline void draw_strip(const StripBand& band, const Capsule& c, const Strip& strip, int index) {
    const int above = band.first_row - c.row;
    const int first = greater_int(0, above);
    const int last = smaller_int(static_cast<int>(c.bottom * (1.0f / kColumns)), above + band.rows - 1);
    if (first > last) return;
    const std::ptrdiff_t line = c.row + first - band.first_row;
    const StripRow row{band.pixels + line * band.size,
                       band.owners + line * band.size,
                       band.doubted + line * band.stride,
                       0,
                       band.size - 1,
                       c.column,
                       static_cast<std::uint16_t>(band.base + index)};
    const Reach reach(c, kColumns, first);
    if (strip.thin) {
        if (strip.open_start || strip.open_end) {
            draw_strip_rows<true, true>(band, strip, row, first, last, reach);
        } else {
            draw_strip_rows<false, true>(band, strip, row, first, last, reach);
        }
    } else if (strip.open_start || strip.open_end) {
        draw_strip_rows<true, false>(band, strip, row, first, last, reach);
    } else {
        draw_strip_rows<false, false>(band, strip, row, first, last, reach);
    }
}

void draw_strips(const StripBand& band, const Capsule* capsules, const Strip* strips, const std::int32_t* order,
                 std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) draw_strip(band, capsules[order[i]], strips[order[i]], order[i]);
}

void settle_doubts(const Band& band, const StripBand& strips, const Capsule* capsules, const std::int32_t* order,
                   std::int64_t count) {
    // The samples of the doubted pixels lie side by side, in the order of the rows; `owners` says where.
    unsigned doubts = 0;
    for_touched(band, [&](int row, int column) {
        const std::uint32_t place = static_cast<std::uint32_t>(row) * static_cast<std::uint32_t>(band.size) + column;
        strips.places[doubts] = place;
        strips.owners[place] = static_cast<std::uint16_t>(doubts++);
    });
    if (doubts == 0) return;
    for (std::int64_t i = 0; i < count; ++i) draw_capsule<Mode::kDoubted>(band, capsules[order[i]], strips.owners);
    clear_touched(band);
    for (unsigned i = 0; i < doubts; ++i) {
        strips.pixels[strips.places[i]] = coverage(band.words + static_cast<std::ptrdiff_t>(i) * kLines);
        strips.owners[strips.places[i]] = 0;
    }
}

}  // namespace
}  // namespace sketchynet
