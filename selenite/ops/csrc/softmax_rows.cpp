// Log-sum-exp of rows of logits, and the gradient of a log-probability by them.
//
// A row is read twice in each function and stays in the cache between. Rows are independent: no
// result depends on the number of threads.

#include <cmath>

#include "numbers.h"

namespace {

// Whether `target` is the first of the row's largest logits; NaN counts as the largest, as in
// torch's argmax.
bool is_greedy(const bf16* row, std::int64_t target, float largest, bool has_nan) {
    const auto wins = [&](std::int64_t v) {
        const float x = to_float(row[v]);
        return has_nan ? x != x : x == largest;
    };
    if (!wins(target)) return false;
    for (std::int64_t v = 0; v < target; ++v)
        if (wins(v)) return false;
    return true;
}

}  // namespace

// Writes the log-sum-exp of each row, and whether its target is the greedy token unless `hit_T` is
// null. Targets lie within the vocabulary.
extern "C" void softmax_rows_forward(const bf16* logits_TV, const std::int64_t* target_T,
                                     float* lse_T, bool* hit_T, std::int64_t rows,
                                     std::int64_t vocab, std::int64_t threads) {
#pragma omp parallel for num_threads(threads)
    for (std::int64_t t = 0; t < rows; ++t) {
        const bf16* row = logits_TV + t * vocab;
        float largest = -INFINITY;  // of the numbers: comparing with NaN is false
#pragma omp simd reduction(max : largest)
        for (std::int64_t v = 0; v < vocab; ++v) {
            const float x = to_float(row[v]);
            largest = x > largest ? x : largest;
        }
        // Without it, infinity minus infinity would be NaN.
        const float shift = std::isinf(largest) ? 0.0f : largest;
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (std::int64_t v = 0; v < vocab; ++v) sum += exp_float(to_float(row[v]) - shift);
        lse_T[t] = std::log(sum) + shift;
        if (hit_T) hit_T[t] = is_greedy(row, target_T[t], largest, std::isnan(sum));
    }
}

// Replaces logits by the gradient of sum(grad * (logit of the target - lse)) by them:
// grad * (one-hot - softmax).
extern "C" void softmax_rows_backward(bf16* logits_TV, const std::int64_t* target_T,
                                      const float* lse_T, const float* grad_T, std::int64_t rows,
                                      std::int64_t vocab, std::int64_t threads) {
#pragma omp parallel for num_threads(threads)
    for (std::int64_t t = 0; t < rows; ++t) {
        bf16* row = logits_TV + t * vocab;
        const float lse = lse_T[t], grad = grad_T[t];
        const float chosen = exp_float(to_float(row[target_T[t]]) - lse);
#pragma omp simd
        for (std::int64_t v = 0; v < vocab; ++v)
            row[v] = to_bf16(exp_float(to_float(row[v]) - lse) * -grad);
        row[target_T[t]] = to_bf16(chosen * -grad + grad);
    }
}
