// RMSNorm of rows by a float32 gain: bfloat16 with gradients, float32 without (the formula is in
// ops/norm.py).

#include <algorithm>
#include <cmath>

#include "crew.h"
#include "numbers.h"
#include "tape.h"

namespace {

template <class T>
void forward(const T* x_TD, std::int64_t stride, const float* gain_D, T* out_TD, float* scale_T, float eps,
             std::int64_t rows, std::int64_t width, std::int64_t threads) {
    crew::share(rows, rows * width > 8192, threads, [=](long t) {
        const T* x = x_TD + t * stride;
        T* out = out_TD + t * width;
        float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
        for (std::int64_t d = 0; d < width; ++d) squares += to_float(x[d]) * to_float(x[d]);
        const float scale = 1.0f / std::sqrt(squares / float(width) + eps);
        scale_T[t] = scale;
#pragma omp simd
        for (std::int64_t d = 0; d < width; ++d) store(out + d, to_float(x[d]) * scale * gain_D[d]);
    });
}

}  // namespace

// Rows may lie `stride` values apart; `out_TD` is dense. Writes `1 / rms` of each row for backward.
extern "C" void rms_norm_forward(const bf16* x_TD, std::int64_t stride, const float* gain_D,
                                 bf16* out_TD, float* scale_T, float eps, std::int64_t rows,
                                 std::int64_t width, std::int64_t threads) {
    forward(x_TD, stride, gain_D, out_TD, scale_T, eps, rows, width, threads);
}
RECORDABLE(rms_norm_forward)

extern "C" void rms_norm_forward_float(const float* x_TD, std::int64_t stride, const float* gain_D,
                                       float* out_TD, float* scale_T, float eps, std::int64_t rows,
                                       std::int64_t width, std::int64_t threads) {
    forward(x_TD, stride, gain_D, out_TD, scale_T, eps, rows, width, threads);
}
RECORDABLE(rms_norm_forward_float)

// `dgain_BD` gets a row for each block of `block` rows, summed in an order that does not depend on
// the number of threads. `grad_TD` and `dx_TD` are dense.
extern "C" void rms_norm_backward(const bf16* x_TD, std::int64_t stride, const float* gain_D,
                                  const float* scale_T, const bf16* grad_TD, bf16* dx_TD,
                                  float* dgain_BD, std::int64_t block, std::int64_t rows,
                                  std::int64_t width, std::int64_t threads) {
    const std::int64_t blocks = (rows + block - 1) / block;
#pragma omp parallel for num_threads(threads)
    for (std::int64_t b = 0; b < blocks; ++b) {
        float* dgain = dgain_BD + b * width;
        std::fill(dgain, dgain + width, 0.0f);
        for (std::int64_t t = b * block; t < std::min(rows, (b + 1) * block); ++t) {
            const bf16 *x = x_TD + t * stride, *grad = grad_TD + t * width;
            bf16* dx = dx_TD + t * width;
            const float scale = scale_T[t];
            float product = 0.0f;
#pragma omp simd reduction(+ : product)
            for (std::int64_t d = 0; d < width; ++d) {
                const float normed = to_float(x[d]) * scale, by_normed = to_float(grad[d]) * normed;
                dgain[d] += by_normed;
                product += by_normed * gain_D[d];
            }
            const float mean = product / float(width);
#pragma omp simd
            for (std::int64_t d = 0; d < width; ++d) {
                const float normed = to_float(x[d]) * scale;
                dx[d] = to_bf16((to_float(grad[d]) * gain_D[d] - normed * mean) * scale);
            }
        }
    }
}
