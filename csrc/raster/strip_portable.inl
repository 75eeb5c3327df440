// Pixels of a strip, one at a time. strip_avx2.inl does the same arithmetic for eight at once.

namespace sketchynet {
namespace {

// The share of a pixel that a half-plane covers, less 1/2; see Strip.
inline float half_plane(const Strip& strip, float depth) {
    const float deep = depth < 0 ? -depth : depth;
    const float m = deep < strip.corner ? deep : strip.corner;
    const float q = m - strip.flat > 0 ? m - strip.flat : 0;
    const float v = m * strip.per_a - q * q * strip.bend;
    return depth < 0 ? -v : v;
}

template <bool kOpen, bool kThin>
inline void draw_strip_rows(const StripBand& band, const Strip& strip, StripRow row, int first, int last, Reach reach) {
    for (int line = first; line <= last; ++line, row.next(band), reach.next()) {
        const int from = greater_int(row.first, reach.first() + row.column);
        const int to = smaller_int(row.last, reach.last() + row.column);
        const float y = static_cast<float>(line) + 0.5f;
        const float row_t = y * strip.uy - strip.t0, row_s = -y * strip.ux - strip.s0;
        for (int column = from; column <= to; ++column) {
            const float x = static_cast<float>(column - row.column) + 0.5f;
            const float t = x * strip.ux + row_t, signed_s = x * strip.uy + row_s;
            const float s = signed_s < 0 ? -signed_s : signed_s;
            int ink = 0;
            bool doubt = false;
            if (t >= strip.first && t <= strip.last) {
                float area = 0.5f + half_plane(strip, strip.radius - s);
                if (kThin) area = area + (half_plane(strip, strip.radius + s) - 0.5f);
                ink = static_cast<int>(area * 255.0f + 0.5f);
            } else if (kOpen && (t < strip.first ? strip.open_start : strip.open_end)) {
                const float beyond = t < strip.first ? t - strip.first : t - strip.last;
                const float squared = beyond * beyond + s * s;
                ink = squared < strip.reach ? 1 : 0;
                if (squared <= strip.core) ink = 255;
                doubt = ink == 1;
            }
            if (ink == 0) continue;
            const int old = row.pixels[column];
            const auto before = static_cast<std::uint16_t>(row.owners[column] - band.base);
            doubt = doubt || (ink < 255 && before < strip.joined);
            row.owners[column] = row.owner;
            if (old < ink) row.pixels[column] = static_cast<std::uint8_t>(ink);
            if (doubt && old < 255) row.doubted[column / 64] |= std::uint64_t{1} << (column % 64);
        }
    }
}

}  // namespace
}  // namespace sketchynet
