// Counts the samples of the touched pixels, two at a time, one above the other.

namespace sketchynet {
namespace {

void resolve(const Band& band, std::uint8_t* pixels) {
    __builtin_memset(pixels, 0, static_cast<std::size_t>(band.rows) * static_cast<std::size_t>(band.size));
    for_touched(band, [&](int pair, int column) {
        const std::ptrdiff_t place = static_cast<std::ptrdiff_t>(pair) * band.size + column;
        std::uint16_t* const left = band.words + place * 2 * kTileLines;
        std::uint16_t* const right = left + kTileLines;
        std::uint8_t* const pixel = pixels + place + static_cast<std::ptrdiff_t>(pair) * band.size;
        pixel[0] = coverage(Lanes::count_bits(left) + Lanes::count_bits(right));
        if (2 * pair + 1 < band.rows) {
            pixel[band.size] = coverage(Lanes::count_bits(left + kLines) + Lanes::count_bits(right + kLines));
        }
        __builtin_memset(left, 0, 2 * kTileLines * sizeof(std::uint16_t));
    });
}

}  // namespace
}  // namespace sketchynet
