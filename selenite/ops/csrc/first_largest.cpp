// The first of the largest logits of each row.

#include <algorithm>
#include <cmath>

#include "crew.h"
#include "numbers.h"

namespace {

constexpr std::int64_t kBlock = 1024;

// NaN if one of the row is. A block's own largest is kept until a larger one comes.
template <class T>
float find(const T* row, std::int64_t count, std::int64_t& token) {
    float largest = -INFINITY;
    std::int64_t found = 0;
    bool has_nan = false;
    for (std::int64_t first = 0; first < count; first += kBlock) {
        const std::int64_t stop = std::min(count, first + kBlock);
        float most = -INFINITY;
        int nans = 0;
#pragma omp simd reduction(max : most) reduction(+ : nans)
        for (std::int64_t v = first; v < stop; v++) {
            const float x = to_float(row[v]);
            most = x > most ? x : most;
            nans += x != x;
        }
        has_nan |= nans > 0;
        if (most > largest) {
            largest = most;
            found = first;
        }
    }
    while (found < count && to_float(row[found]) != largest) found++;
    token = std::min(found, count - 1);
    return has_nan ? NAN : largest;
}

}  // namespace

extern "C" void first_largest(const void* logits_BV, std::int64_t is_bf16, std::int64_t* token_B,
                              float* largest_B, std::int64_t rows, std::int64_t count,
                              std::int64_t threads) {
    crew::share(rows, rows * count > 65536, threads, [=](long b) {
        largest_B[b] = is_bf16 ? find(static_cast<const bf16*>(logits_BV) + b * count, count, token_B[b])
                               : find(static_cast<const float*>(logits_BV) + b * count, count, token_B[b]);
    });
}
