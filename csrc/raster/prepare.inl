// Segments into capsules, Lanes::kFloats at once, in the vectors that GCC and Clang share: one source for every
// instruction set.

namespace sketchynet {
namespace {

using Floats = float __attribute__((vector_size(Lanes::kFloats * sizeof(float))));
using Ints = std::int32_t __attribute__((vector_size(Lanes::kFloats * sizeof(std::int32_t))));

inline Floats load(const float* p) {
    Floats v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
inline void store(std::int32_t* p, Ints v) { __builtin_memcpy(p, &v, sizeof v); }
inline Floats to_floats(Ints v) { return __builtin_convertvector(v, Floats); }
inline Ints to_ints(Floats v) { return __builtin_convertvector(v, Ints); }
// A comparison that holds is -1.
inline Ints floor_of(Floats v) {
    const Ints t = to_ints(v);
    return t + (v < to_floats(t));
}
inline Ints ceiling_of(Floats v) {
    const Ints t = to_ints(v);
    return t - (v > to_floats(t));
}
inline Floats smaller(Floats a, Floats b) { return a < b ? a : b; }
inline Floats greater(Floats a, Floats b) { return a > b ? a : b; }

// The lanes [lane, lane + kFloats) of a block.
inline void prepare_lanes(const SegmentBlock& s, CapsuleBlock& c, int lane) {
    // A segment that rises by less than kLeast pixels, or by a thousandth of its extent, is drawn level at its middle:
    // by less than a third of a line beside its place.
    constexpr float kLeast = 1.0f / 64, kFlat = 1000, kLinesOf = kLines, kUnitsOf = kUnits;
    const Floats zero = {}, one = zero + 1.0f;
    const Ints none = {};

    // One order for both directions of drawing, so that a reversed stroke gives the very same pixels.
    const Floats xa = load(s.xa + lane), ya = load(s.ya + lane), xb = load(s.xb + lane), yb = load(s.yb + lane), radius = load(s.radius + lane);
    const Ints reversed = (yb < ya) | ((yb == ya) & (xb < xa));
    Floats x0 = reversed ? xb : xa, y0 = reversed ? yb : ya, x1 = reversed ? xa : xb, y1 = reversed ? ya : yb;
    const Floats dx = x1 - x0, dy = y1 - y0;
    const Ints level = (dy < kLeast) | (greater(dx, -dx) > kFlat * dy);
    const Floats middle = 0.5f * (y0 + y1);
    y0 = level ? middle : y0;
    y1 = level ? middle : y1;

    // The own column begins a little left of the capsule, so that no unit is negative.
    const Ints column = floor_of(smaller(x0, x1) - radius - 0.01f);
    store(c.column + lane, column);
    x0 = (x0 - to_floats(column)) * kUnitsOf;
    x1 = (x1 - to_floats(column)) * kUnitsOf;
    // The sample that lies on an outline is inside on either side: left ends count one unit less, and halves are rounded
    // outwards.
    store(c.x0_left + lane, ceiling_of(x0 - 0.5f) - 1);
    store(c.x0_right + lane, to_ints(x0 + 0.5f));
    store(c.x1_left + lane, ceiling_of(x1 - 0.5f) - 1);
    store(c.x1_right + lane, to_ints(x1 + 0.5f));
    const Floats low = smaller(x0, x1) - radius * kUnitsOf, high = greater(x0, x1) + radius * kUnitsOf;
    store(c.low + lane, to_ints(low));
    store(c.high + lane, to_ints(high) + 1);

    const Ints end0 = floor_of(y0 * (kLinesOf * kPhases) + 0.5f), end1 = floor_of(y1 * (kLinesOf * kPhases) + 0.5f);
    store(c.line0 + lane, end0 >> 6);
    store(c.phase0 + lane, end0 & (kPhases - 1));
    store(c.line1 + lane, end1 >> 6);
    store(c.phase1 + lane, end1 & (kPhases - 1));
    static_assert(kPhases == 1 << 6);
    const Ints first = floor_of((y0 - radius) * kLinesOf);
    store(c.first + lane, first);
    store(c.last + lane, floor_of((y1 + radius) * kLinesOf));
    const Ints reach = to_ints(radius * kLinesOf) + 2, to_middle = reach + kTileLines;  // as arc_reach and arc_length
    store(c.reach + lane, reach);
    store(c.offset0 + lane, to_middle * (2 * (end0 & (kPhases - 1)) + 1));
    store(c.offset1 + lane, to_middle * (2 * (end1 & (kPhases - 1)) + 1));

    Floats length = dx * dx + dy * dy;
    for (int i = 0; i < Lanes::kFloats; ++i) length[i] = __builtin_sqrtf(length[i]);
    const Floats slope = dx / (level ? one : dy), across = dx / (level ? one : length) * radius;
    const Ints beyond = none + 0x7fff;
    const auto first_line = [&](Floats y) { return level ? beyond : ceiling_of(y * kLinesOf - 0.5f) - kMiddleLine; };
    const auto last_line = [&](Floats y) { return level ? -beyond : floor_of(y * kLinesOf - 0.5f) - kMiddleLine; };
    store(c.left_first + lane, first_line(y0 + across));
    store(c.left_last + lane, last_line(y1 + across));
    store(c.right_first + lane, first_line(y0 - across));
    store(c.right_last + lane, last_line(y1 - across));
    // Of a level one only the reach counts, which these bound.
    store(c.half + lane, to_ints((level ? high - low : radius * kUnitsOf * length / (level ? one : dy)) + 0.5f));
    store(c.slope + lane, to_ints(level ? zero : slope * (kUnitsOf / kLinesOf * 65536)));
    store(c.centre + lane, to_ints(0.5f * (x0 + x1) * 65536.0f));
    store(c.ends + lane, end0 + end1);
}

void prepare(const SegmentBlock* segments, std::int64_t blocks, CapsuleBlock* capsules) {
    for (std::int64_t i = 0; i < blocks; ++i) {
        for (int lane = 0; lane < kGroup; lane += Lanes::kFloats) prepare_lanes(segments[i], capsules[i], lane);
    }
}

}  // namespace
}  // namespace sketchynet
