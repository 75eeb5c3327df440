// What strips and capsules share. All that is compiled for one instruction set has internal linkage and calls no
// function of the standard library: a linker that merges inline functions could otherwise carry wide instructions into
// portable code.

namespace sketchynet {
namespace {

inline float smaller(float a, float b) { return a < b ? a : b; }
inline float greater(float a, float b) { return a > b ? a : b; }
inline int greater_int(int a, int b) { return a > b ? a : b; }
inline int smaller_int(int a, int b) { return a < b ? a : b; }

// Bits [from, to] of a row of pixels, both in the same word.
inline std::uint64_t bits_between(int from, int to) { return ~std::uint64_t{0} >> (63 - (to - from)) << (from % 64); }

// Bits [at, last] of a row of pixels, the first 64 of them; a row has one word more than its bits need.
inline std::uint64_t bits_at(const std::uint64_t* words, int at, int last) {
    const std::uint64_t* word = words + at / 64;
    const int shift = at % 64, count = last - at;
    const std::uint64_t bits = word[0] >> shift | word[1] << 1 << (63 - shift);
    return count < 63 ? bits & (~std::uint64_t{0} >> (63 - count)) : bits;
}

inline bool any_bit(const std::uint64_t* words, int from, int to) {
    for (; from <= to; from += 64) {
        if (bits_at(words, from, to)) return true;
    }
    return false;
}

// The columns that a capsule may reach on a block of its lines: an edge's line bounds a convex shape from outside. The
// places of those lines on the upper or lower side of the block, whichever is farther out, move on with `next`.
class Reach {
public:
    Reach(const Capsule& c, float block_height, int first_block) : low_(c.low), high_(c.high) {
        constexpr float kFar = 1e9f, kMargin = 1;
        lean_ = c.slope * block_height;
        const float y = static_cast<float>(first_block) * block_height;
        left_ = c.level ? -kFar : c.left_x + (y - c.left_start) * c.slope + smaller(lean_, 0) - kMargin;
        right_ = c.level ? kFar : c.right_x + (y - c.right_start) * c.slope + greater(lean_, 0) + kMargin;
    }
    // Inside [low, high] in any case: the edges of a nearly level capsule cross a block far away.
    int first() const { return static_cast<int>(smaller(greater(left_, low_), high_) * (1.0f / kColumns)); }
    int last() const { return static_cast<int>(greater(smaller(right_, high_), low_) * (1.0f / kColumns)); }
    void next() { left_ += lean_, right_ += lean_; }

private:
    float low_, high_, lean_, left_, right_;
};

// Where a strip's pixels of one row lie, as the row moves down.
struct StripRow {
    std::uint8_t* pixels;
    std::uint16_t* owners;
    std::uint64_t* doubted;
    int first, last;  // columns of the canvas
    int column;       // of the capsule's own pixel
    std::uint16_t owner;

    void next(const StripBand& band) {
        pixels += band.size;
        owners += band.size;
        doubted += band.stride;
    }
};

}  // namespace
}  // namespace sketchynet
