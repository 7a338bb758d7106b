// Sums of values, bfloat16 (each rounded once) or float32.

#include <algorithm>

#include "crew.h"
#include "numbers.h"
#include "tape.h"

namespace {

template <class T>
void add(const T* x, const T* y, T* out, std::int64_t count, std::int64_t threads) {
    constexpr std::int64_t kBlock = 8192;
    crew::share((count + kBlock - 1) / kBlock, count > 32768, threads, [=](long b) {
        const std::int64_t stop = std::min(count, (b + 1) * kBlock);
#pragma omp simd
        for (std::int64_t i = b * kBlock; i < stop; ++i) store(out + i, to_float(x[i]) + to_float(y[i]));
    });
}

}  // namespace

extern "C" void add_values(const bf16* x, const bf16* y, bf16* out, std::int64_t count,
                           std::int64_t threads) {
    add(x, y, out, count, threads);
}
RECORDABLE(add_values)

extern "C" void add_values_float(const float* x, const float* y, float* out, std::int64_t count,
                                 std::int64_t threads) {
    add(x, y, out, count, threads);
}
RECORDABLE(add_values_float)
