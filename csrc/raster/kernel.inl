// The inner loops, written over `Lanes`, which the including file defines in an unnamed namespace: a file for every
// instruction set, compiled with its flags. All here has internal linkage and calls no function of the standard
// library: a linker that merges inline functions could otherwise carry wide instructions into portable code.

namespace sketchynet {
namespace {

inline float smaller(float a, float b) { return a < b ? a : b; }
inline float greater(float a, float b) { return a > b ? a : b; }
inline int smaller_int(int a, int b) { return a < b ? a : b; }

// Sets (or clears) the samples of the sub-lines that one vector holds.
template <bool kErase>
inline void draw_capsule(const Band& band, const Capsule<float>& c) {
    using F = Lanes::Floats;
    using I = Lanes::Ints;
    constexpr int kBlock = Lanes::kCount;  // sub-lines a vector
    constexpr int kBlocksPerRow = kLines / kBlock;
    const float tie = static_cast<float>(band.tie());
    const float top = c.y0 - c.radius, bottom = c.y1 + c.radius;
    const float blocks = static_cast<float>(band.rows * kBlocksPerRow);
    const float first_row = static_cast<float>(band.first_row);
    // Clamped before the conversion, which truncates: the numbers are not negative.
    const float from = (top - tie - first_row) * kBlocksPerRow, to = (bottom + tie - first_row) * kBlocksPerRow;
    if (!(from < blocks) || !(to >= 0)) return;
    const int first = static_cast<int>(greater(from, 0)), last = static_cast<int>(smaller(to, blocks - 1));

    const float x_low = smaller(c.x0, c.x1) - c.radius - tie, x_high = greater(c.x0, c.x1) + c.radius + tie;
    if (!(x_low < band.size) || !(x_high >= 0)) return;
    const float last_column = static_cast<float>(band.size - 1);

    const F x0 = Lanes::set(c.x0), y0 = Lanes::set(c.y0), x1 = Lanes::set(c.x1), y1 = Lanes::set(c.y1);
    const F radius = Lanes::set(c.radius), slope = Lanes::set(c.slope), zero = Lanes::set(0.0f);
    const F left_start = Lanes::set(c.left_start), left_end = Lanes::set(c.left_end), left_x = Lanes::set(c.left_x);
    const F right_start = Lanes::set(c.right_start), right_end = Lanes::set(c.right_end);
    const F right_x = Lanes::set(c.right_x);
    const F v_top = Lanes::set(top), v_bottom = Lanes::set(bottom);
    const F v_from = Lanes::set(top - tie), v_to = Lanes::set(bottom + tie);
    const F scale = Lanes::set(static_cast<float>(kColumns)), width = Lanes::set(static_cast<float>(band.size * kColumns));
    const F left_shift = Lanes::set(0.5f - kColumns * tie), right_shift = Lanes::set(0.5f + kColumns * tie);
    const I pixel = Lanes::set(kColumns);
    const bool level = c.slope == 0 && c.x0 != c.x1;

    for (int block = first; block <= last; ++block) {
        const float block_top = first_row + static_cast<float>(block) * (1.0f / kBlocksPerRow);
        const F line = Lanes::add(Lanes::set(block_top), Lanes::offsets());
        const F y = Lanes::min(Lanes::max(line, v_top), v_bottom);

        const F d0 = Lanes::sub(y, y0), d1 = Lanes::sub(y, y1);
        const F h0 = Lanes::sqrt(Lanes::max(Lanes::mul(Lanes::sub(radius, d0), Lanes::add(radius, d0)), zero));
        const F h1 = Lanes::sqrt(Lanes::max(Lanes::mul(Lanes::sub(radius, d1), Lanes::add(radius, d1)), zero));
        F left = Lanes::add(left_x, Lanes::mul(Lanes::sub(y, left_start), slope));
        F right = Lanes::add(right_x, Lanes::mul(Lanes::sub(y, right_start), slope));
        left = Lanes::where_less(y, left_start, Lanes::sub(x0, h0), left);
        left = Lanes::where_less(left_end, y, Lanes::sub(x1, h1), left);
        right = Lanes::where_less(y, right_start, Lanes::add(x0, h0), right);
        right = Lanes::where_less(right_end, y, Lanes::add(x1, h1), right);

        // Samples [begin, end) of the line, counted from the canvas' left edge.
        const F begin_at = Lanes::min(Lanes::max(Lanes::add(Lanes::mul(left, scale), left_shift), zero), width);
        const F end_at = Lanes::min(Lanes::max(Lanes::add(Lanes::mul(right, scale), right_shift), zero), width);
        I begin = Lanes::truncate(Lanes::zero_outside(line, v_from, v_to, begin_at));
        I end = Lanes::truncate(Lanes::zero_outside(line, v_from, v_to, end_at));

        // The columns that any of the lines may reach: an edge's line bounds a convex shape from outside.
        float low = x_low, high = x_high;
        if (!level) {
            const float above = block_top, below = block_top + 1.0f / kBlocksPerRow;
            const float left_above = c.left_x + (above - c.left_start) * c.slope;
            const float left_below = c.left_x + (below - c.left_start) * c.slope;
            const float right_above = c.right_x + (above - c.right_start) * c.slope;
            const float right_below = c.right_x + (below - c.right_start) * c.slope;
            low = greater(low, smaller(left_above, left_below) - 2 * tie);
            high = smaller(high, greater(right_above, right_below) + 2 * tie);
        }
        const int column = static_cast<int>(smaller(greater(low, 0), last_column));
        const int last_in = static_cast<int>(greater(smaller(high, last_column), 0));

        const int row = block / kBlocksPerRow;
        std::uint32_t* words = band.words + (static_cast<std::size_t>(row) * band.size + column) * kLines +
                               block % kBlocksPerRow * kBlock;
        begin = Lanes::sub(begin, Lanes::set(column * kColumns));
        end = Lanes::sub(end, Lanes::set(column * kColumns));
        for (int i = column; i <= last_in; ++i, words += kLines) {
            const I samples = Lanes::between(begin, end);
            const I old = Lanes::load(words);
            Lanes::store(words, kErase ? Lanes::without(old, samples) : Lanes::either(old, samples));
            begin = Lanes::sub(begin, pixel);
            end = Lanes::sub(end, pixel);
        }

        if (!kErase) {
            std::uint64_t* touched = band.touched + static_cast<std::size_t>(row) * band.touched_stride;
            for (int i = column; i <= last_in; i = (i | 63) + 1) {
                const int stop = smaller_int(i | 63, last_in);
                touched[i / 64] |= ~std::uint64_t{0} >> (63 - (stop - i)) << (i % 64);
            }
        }
    }
}

void draw(const Band& band, const Capsule<float>* capsules, const std::int32_t* order, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) {
        const Capsule<float>& capsule = capsules[order[i]];
        if (capsule.erase) {
            draw_capsule<true>(band, capsule);
        } else {
            draw_capsule<false>(band, capsule);
        }
    }
}

void resolve(const Band& band, std::uint8_t* pixels) {
    constexpr unsigned kSamples = kLines * kColumns;
    std::uint8_t* out = pixels;
    for (int row = 0; row < band.rows; ++row, out += band.size) {
        std::uint64_t* touched = band.touched + static_cast<std::size_t>(row) * band.touched_stride;
        std::uint32_t* words = band.words + static_cast<std::size_t>(row) * band.size * kLines;
        for (int i = 0; i < band.size; ++i) out[i] = 0;
        for (int part = 0; part < band.touched_stride; ++part) {
            std::uint64_t left = touched[part];
            touched[part] = 0;
            for (; left; left &= left - 1) {
                const int column = part * 64 + __builtin_ctzll(left);
                std::uint32_t* own = words + static_cast<std::size_t>(column) * kLines;
                out[column] = static_cast<std::uint8_t>((Lanes::count_bits(own) * 255 + kSamples / 2) / kSamples);
                for (int i = 0; i < kLines; i += Lanes::kCount) Lanes::store(own + i, Lanes::set(0));
            }
        }
    }
}

}  // namespace
}  // namespace sketchynet
