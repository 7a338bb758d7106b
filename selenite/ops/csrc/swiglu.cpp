// SwiGLU of rows, each row times a weight or not: bfloat16 with gradients, float32 without. Computed in
// float32 and rounded once; the gradients recompute the sigmoid instead of reading it.

#include "crew.h"
#include "numbers.h"
#include "tape.h"

namespace {

inline float sigmoid(float x) { return 1.0f / (1.0f + exp_float(-x)); }

template <class T>
void forward(const T* gate_TF, const T* up_TF, const float* weight_T, T* out_TF, std::int64_t rows,
             std::int64_t width, std::int64_t threads) {
    crew::share(rows, rows * width > 4096, threads, [=](long t) {
        const T *gate = gate_TF + t * width, *up = up_TF + t * width;
        T* out = out_TF + t * width;
        const float weight = weight_T ? weight_T[t] : 1.0f;
#pragma omp simd
        for (std::int64_t f = 0; f < width; ++f) {
            const float x = to_float(gate[f]);
            store(out + f, x * sigmoid(x) * to_float(up[f]) * weight);
        }
    });
}

}  // namespace

// silu(gate) * up * weight of the row; `weight_T` may be null. All rows are dense.
extern "C" void swiglu_forward(const bf16* gate_TF, const bf16* up_TF, const float* weight_T,
                               bf16* out_TF, std::int64_t rows, std::int64_t width,
                               std::int64_t threads) {
    forward(gate_TF, up_TF, weight_T, out_TF, rows, width, threads);
}
RECORDABLE(swiglu_forward)

extern "C" void swiglu_forward_float(const float* gate_TF, const float* up_TF, const float* weight_T,
                                     float* out_TF, std::int64_t rows, std::int64_t width,
                                     std::int64_t threads) {
    forward(gate_TF, up_TF, weight_T, out_TF, rows, width, threads);
}
RECORDABLE(swiglu_forward_float)

// `dweight_T` is null where `weight_T` is.
extern "C" void swiglu_backward(const bf16* gate_TF, const bf16* up_TF, const float* weight_T,
                                const bf16* grad_TF, bf16* dgate_TF, bf16* dup_TF,
                                float* dweight_T, std::int64_t rows, std::int64_t width,
                                std::int64_t threads) {
#pragma omp parallel for num_threads(threads)
    for (std::int64_t t = 0; t < rows; ++t) {
        const bf16 *gate = gate_TF + t * width, *up = up_TF + t * width, *grad = grad_TF + t * width;
        bf16 *dgate = dgate_TF + t * width, *dup = dup_TF + t * width;
        const float weight = weight_T ? weight_T[t] : 1.0f;
        float dweight = 0.0f;
#pragma omp simd reduction(+ : dweight)
        for (std::int64_t f = 0; f < width; ++f) {
            const float x = to_float(gate[f]), y = to_float(up[f]), g = to_float(grad[f]);
            const float s = sigmoid(x), silu = x * s;
            dgate[f] = to_bf16(g * weight * y * (s + silu * (1.0f - s)));
            dup[f] = to_bf16(g * weight * silu);
            dweight += g * silu * y;
        }
        if (dweight_T) dweight_T[t] = dweight;
    }
}
