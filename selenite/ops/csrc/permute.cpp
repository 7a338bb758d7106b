// Rows of bfloat16 gathered into a new order, sums of rows gathered, and rows of any kind put in slots.

#include <algorithm>

#include "numbers.h"
#include "tape.h"

// `out[x] = row source[x]`.
extern "C" void gather_rows(const bf16* x_TD, const std::int64_t* source_X, bf16* out_XD,
                            std::int64_t rows, std::int64_t width, std::int64_t threads) {
#pragma omp parallel for num_threads(threads) if (rows * width > 16384)
    for (std::int64_t r = 0; r < rows; ++r) {
        const bf16* from = x_TD + source_X[r] * width;
        std::copy(from, from + width, out_XD + r * width);
    }
}
RECORDABLE(gather_rows)

// `out[t] = sum over k of row places[t, k]`, in the order of k in float32, rounded once.
extern "C" void gather_sum(const bf16* x_XD, const std::int64_t* places_TK, bf16* out_TD,
                           std::int64_t rows, std::int64_t places, std::int64_t width,
                           std::int64_t threads) {
    const std::int64_t block = 256;  // so many sums are kept in the nearest cache
#pragma omp parallel for num_threads(threads) if (rows * width > 8192)
    for (std::int64_t t = 0; t < rows; ++t) {
        float sum[block];
        for (std::int64_t first = 0; first < width; first += block) {
            const std::int64_t length = std::min(block, width - first);
            std::fill(sum, sum + length, 0.0f);
            for (std::int64_t k = 0; k < places; ++k) {
                const bf16* row = x_XD + places_TK[t * places + k] * width + first;
#pragma omp simd
                for (std::int64_t d = 0; d < length; ++d) sum[d] += to_float(row[d]);
            }
            bf16* out = out_TD + t * width + first;
#pragma omp simd
            for (std::int64_t d = 0; d < length; ++d) out[d] = to_bf16(sum[d]);
        }
    }
}

// Row t of `x` becomes row slots[t] of the dense `out`; a slot of -1 stores nothing. A row is `heads`
// pieces of `bytes` bytes; rows of `x` and their pieces are `row_stride` and `head_stride` bytes apart.
extern "C" void store_rows(const char* x, std::int64_t row_stride, std::int64_t head_stride,
                           const std::int64_t* slots, char* out, std::int64_t rows, std::int64_t heads,
                           std::int64_t bytes, std::int64_t threads) {
#pragma omp parallel for num_threads(threads) if (rows * heads * bytes > (1 << 18))
    for (std::int64_t t = 0; t < rows; ++t) {
        if (slots[t] < 0) continue;
        for (std::int64_t m = 0; m < heads; ++m)
            std::memcpy(out + (slots[t] * heads + m) * bytes, x + t * row_stride + m * head_stride, bytes);
    }
}
RECORDABLE(store_rows)
