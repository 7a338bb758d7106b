// Sums of bfloat16 values, each rounded once.

#include "numbers.h"
#include "tape.h"

extern "C" void add_values(const bf16* x, const bf16* y, bf16* out, std::int64_t count,
                           std::int64_t threads) {
#pragma omp parallel for simd num_threads(threads) if (count > 32768)
    for (std::int64_t i = 0; i < count; ++i) out[i] = to_bf16(to_float(x[i]) + to_float(y[i]));
}
RECORDABLE(add_values)
