#include "raster/coverage.hpp"

#include <cstring>

namespace sketchynet {
namespace {

// Bytes of bits a band may take: it stays in the second-level cache.
constexpr std::size_t kBandBytes = std::size_t{1} << 20;

// Half-open ranges of samples include a sample that lies on an outline, on either side of the ink, within this
// many samples: mirrored drawings then give mirrored pixels although their sums round differently.
constexpr double kTie = 1e-6;

// The samples i with i + 0.5 in [low, high], clamped to [0, count): a half-open range. low and high in samples.
struct Range {
    int begin, end;
};

inline Range samples_between(double low, double high, double count) {
    // Clamped before the conversion, which truncates: the numbers are not negative.
    const double begin = std::min(std::max(low + (0.5 - kTie), 0.0), count);
    const double end = std::min(std::max(high + (0.5 + kTie), 0.0), count);
    return {static_cast<int>(begin), static_cast<int>(end)};
}

// Set bits of a pixel's kLines words. Plain arithmetic that compilers turn into SIMD: without -march flags there is
// no population-count instruction to rely on.
inline unsigned count_bits(const std::uint64_t* words) {
    std::uint64_t total = 0;
    for (int i = 0; i < Coverage::kLines; ++i) {
        std::uint64_t w = words[i];
        w -= (w >> 1) & 0x5555555555555555u;
        w = (w & 0x3333333333333333u) + ((w >> 2) & 0x3333333333333333u);
        w = (w + (w >> 4)) & 0x0f0f0f0f0f0f0f0fu;  // bytes of at most 8
        total += w;                                // bytes of at most 128
    }
    total = (total & 0x00ff00ff00ff00ffu) + ((total >> 8) & 0x00ff00ff00ff00ffu);
    return static_cast<unsigned>((total * 0x0001000100010001u) >> 48);
}

}  // namespace

Coverage::Coverage(int size) : size_(size) {
    const std::size_t row_bytes = static_cast<std::size_t>(size) * kLines * sizeof(std::uint64_t);
    band_rows_ = static_cast<int>(std::clamp<std::size_t>(kBandBytes / row_bytes, 1, size));
    bits_.assign(static_cast<std::size_t>(band_rows_) * size * kLines, 0);
    touched_.assign(static_cast<std::size_t>(band_rows_) * size, 0);
}

template <bool kErase>
void Coverage::draw_lines(Capsule capsule, int first_row) {
    const Range lines = samples_between((capsule.top() - first_row) * kLines, (capsule.bottom() - first_row) * kLines,
                                        static_cast<double>(band_rows_) * kLines);
    const int size = size_;
    const double width = static_cast<double>(size) * kColumns;
    std::uint64_t* const bits = bits_.data();
    std::uint8_t* const touched = touched_.data();
    for (int line = lines.begin; line < lines.end; ++line) {
        const Interval cut = capsule.chord(first_row + (line + 0.5) / kLines);
        const Range span = samples_between(cut.left * kColumns, cut.right * kColumns, width);
        if (span.begin >= span.end) continue;

        const unsigned first = static_cast<unsigned>(span.begin) / kColumns;
        const unsigned last = static_cast<unsigned>(span.end - 1) / kColumns;
        const std::uint64_t head = ~std::uint64_t{0} << (static_cast<unsigned>(span.begin) % kColumns);
        const std::uint64_t tail = ~std::uint64_t{0} >> (kColumns - 1 - static_cast<unsigned>(span.end - 1) % kColumns);
        const std::size_t row = static_cast<std::size_t>(line / kLines) * size;
        std::uint64_t* const words = bits + row * kLines + line % kLines;
        const auto mark = [&](unsigned column, std::uint64_t mask) {
            std::uint64_t& word = words[static_cast<std::size_t>(column) * kLines];
            if (kErase) {
                word &= ~mask;
            } else {
                word |= mask;
                touched[row + column] = 1;
            }
        };
        if (first == last) {
            mark(first, head & tail);
        } else {
            mark(first, head);
            for (unsigned column = first + 1; column < last; ++column) mark(column, ~std::uint64_t{0});
            mark(last, tail);
        }
    }
}

void Coverage::draw(const Capsule& capsule, int first_row, bool erase) {
    if (capsule.right() < 0 || capsule.left() > size_) return;
    if (erase) {
        draw_lines<true>(capsule, first_row);
    } else {
        draw_lines<false>(capsule, first_row);
    }
}

void Coverage::resolve(int rows, std::uint8_t* pixels) {
    constexpr unsigned kSamples = kLines * kColumns;
    const std::size_t count = static_cast<std::size_t>(rows) * size_;
    std::memset(pixels, 0, count);
    for (std::size_t i = 0; i < count; ++i) {
        if (!touched_[i]) continue;
        std::uint64_t* words = bits_.data() + i * kLines;
        pixels[i] = static_cast<std::uint8_t>((count_bits(words) * 255 + kSamples / 2) / kSamples);
        std::memset(words, 0, kLines * sizeof(*words));
        touched_[i] = 0;
    }
}

}  // namespace sketchynet
