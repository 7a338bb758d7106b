// Sums of bfloat16 values, each rounded once.

#include <algorithm>

#include "crew.h"
#include "numbers.h"
#include "tape.h"

extern "C" void add_values(const bf16* x, const bf16* y, bf16* out, std::int64_t count,
                           std::int64_t threads) {
    constexpr std::int64_t kBlock = 8192;
    crew::share((count + kBlock - 1) / kBlock, count > 32768, threads, [=](long b) {
        const std::int64_t stop = std::min(count, (b + 1) * kBlock);
#pragma omp simd
        for (std::int64_t i = b * kBlock; i < stop; ++i) out[i] = to_bf16(to_float(x[i]) + to_float(y[i]));
    });
}
RECORDABLE(add_values)
