// Rotary embedding of heads, bfloat16 or float32: the first values of a head are copied, the rest rotated.
// Turned by the negative angles, it is its own gradient.

#include <algorithm>

#include "crew.h"
#include "numbers.h"
#include "tape.h"

namespace {

// Pairs (i, i + pairs).
template <class T>
void rotate_halves(const T* x, T* out, const float* cosine, const float* sine, float turn,
                   std::int64_t pairs) {
#pragma omp simd
    for (std::int64_t c = 0; c < pairs; ++c) {
        const float a = to_float(x[c]), b = to_float(x[c + pairs]), s = sine[c] * turn;
        store(out + c, a * cosine[c] - b * s);
        store(out + c + pairs, b * cosine[c] + a * s);
    }
}

// Pairs (2i, 2i + 1), each read and written as one word: the first is its lower half.
void rotate_neighbours(const bf16* x, bf16* out, const float* cosine, const float* sine,
                       float turn, std::int64_t pairs) {
#pragma omp simd
    for (std::int64_t c = 0; c < pairs; ++c) {
        std::uint32_t pair;
        std::memcpy(&pair, x + 2 * c, sizeof pair);
        const float a = from_bits(pair << 16), b = from_bits(pair & 0xffff0000), s = sine[c] * turn;
        const std::uint32_t first = to_bf16(a * cosine[c] - b * s);
        const std::uint32_t second = to_bf16(b * cosine[c] + a * s);
        pair = second << 16 | first;
        std::memcpy(out + 2 * c, &pair, sizeof pair);
    }
}

void rotate_neighbours(const float* x, float* out, const float* cosine, const float* sine, float turn,
                       std::int64_t pairs) {
#pragma omp simd
    for (std::int64_t c = 0; c < pairs; ++c) {
        const float a = x[2 * c], b = x[2 * c + 1], s = sine[c] * turn;
        out[2 * c] = a * cosine[c] - b * s;
        out[2 * c + 1] = b * cosine[c] + a * s;
    }
}

template <class T>
void rotate(const T* x_TNH, std::int64_t row_stride, std::int64_t head_stride, const std::int64_t* position_T,
            const float* cos_JC, const float* sin_JC, T* out_TNH, float turn, std::int64_t interleaved,
            std::int64_t rows, std::int64_t heads, std::int64_t copied, std::int64_t pairs,
            std::int64_t threads) {
    const std::int64_t width = copied + 2 * pairs;
    crew::share(rows, rows * heads * width > 8192, threads, [=](long t) {
        const float *cosine = cos_JC + position_T[t] * pairs, *sine = sin_JC + position_T[t] * pairs;
        for (std::int64_t n = 0; n < heads; ++n) {
            const T* x = x_TNH + t * row_stride + n * head_stride;
            T* out = out_TNH + (t * heads + n) * width;
            std::copy(x, x + copied, out);
            if (interleaved)
                rotate_neighbours(x + copied, out + copied, cosine, sine, turn, pairs);
            else
                rotate_halves(x + copied, out + copied, cosine, sine, turn, pairs);
        }
    });
}

}  // namespace

// `x_TNH` has rows `row_stride` and heads `head_stride` values apart; `out_TNH` is dense and does
// not overlap it. A head is `copied` values and `2 * pairs` rotated ones. The tables have `pairs`
// values for each position; `turn` is 1, or -1 for the gradient.
extern "C" void rope_rotate(const bf16* x_TNH, std::int64_t row_stride, std::int64_t head_stride,
                            const std::int64_t* position_T, const float* cos_JC,
                            const float* sin_JC, bf16* out_TNH, float turn,
                            std::int64_t interleaved, std::int64_t rows, std::int64_t heads,
                            std::int64_t copied, std::int64_t pairs, std::int64_t threads) {
    rotate(x_TNH, row_stride, head_stride, position_T, cos_JC, sin_JC, out_TNH, turn, interleaved, rows, heads,
           copied, pairs, threads);
}
RECORDABLE(rope_rotate)

extern "C" void rope_rotate_float(const float* x_TNH, std::int64_t row_stride, std::int64_t head_stride,
                                  const std::int64_t* position_T, const float* cos_JC,
                                  const float* sin_JC, float* out_TNH, float turn,
                                  std::int64_t interleaved, std::int64_t rows, std::int64_t heads,
                                  std::int64_t copied, std::int64_t pairs, std::int64_t threads) {
    rotate(x_TNH, row_stride, head_stride, position_T, cos_JC, sin_JC, out_TNH, turn, interleaved, rows, heads,
           copied, pairs, threads);
}
RECORDABLE(rope_rotate_float)
