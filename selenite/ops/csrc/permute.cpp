// Rows gathered into a new order, and sums of rows of bfloat16 gathered.

#include <algorithm>

#include "crew.h"
#include "numbers.h"
#include "tape.h"

// `out[x] = row source[x]`, of `bytes` bytes each.
extern "C" void gather_rows(const char* x_TD, const std::int64_t* source_X, char* out_XD,
                            std::int64_t rows, std::int64_t bytes, std::int64_t threads) {
    crew::share(rows, rows * bytes > 32768, threads,
                [=](long r) { std::memcpy(out_XD + r * bytes, x_TD + source_X[r] * bytes, bytes); });
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
