// What the attention kernels share: a thread's working memory, and the softmax of a block of keys.
//
// The softmax is kept as a running maximum and sum. Logits stay in the unit of the dot products
// until they are exponentiated: `scale`, which is above 0, is multiplied in there.
#pragma once

#include <cmath>
#include <cstdlib>

#include <immintrin.h>

#include "bf16_product.h"
#include "numbers.h"

// Working memory, kept between calls: fresh pages would be cleared by the system.
class Scratch {
  public:
    void reset(std::size_t bytes) {
        if (bytes > size_) {
            std::free(data_);
            size_ = (bytes + 4095) / 4096 * 4096;
            data_ = static_cast<char*>(std::aligned_alloc(4096, size_));
            if (!data_) std::abort();
        }
        used_ = 0;
    }
    template <class T>
    T* take(long count) {
        T* here = reinterpret_cast<T*>(data_ + used_);
        used_ += (count * sizeof(T) + 63) / 64 * 64;
        return here;
    }
    ~Scratch() { std::free(data_); }

  private:
    char* data_ = nullptr;
    std::size_t size_ = 0, used_ = 0;
};

constexpr long kBlock = 64;  // keys
constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;

// Asks for memory: into the second cache, which takes more requests at a time. Requests that come
// many at once are lost, so they are made in between other work.
inline void prefetch(const void* line) { _mm_prefetch(static_cast<const char*>(line), _MM_HINT_T1); }

template <class E>
inline void prefetch(const E* row, long width) {
    for (long i = 0; i < width; i += 64 / long(sizeof(E))) prefetch(row + i);
}

// Lines of memory to be asked for, spread evenly over the steps of some products.
class Ahead {
  public:
    void spread(const void** lines, long count, long steps) {
        lines_ = lines;
        share_ = (count << 16) / steps;
        done_ = 0;
    }
    void at(long step) const { prefetch(lines_[(done_ + step) * share_ >> 16]); }
    void after(long steps) { done_ += steps; }

  private:
    const void** lines_ = nullptr;
    long share_ = 0, done_ = 0;
};

// Bit i of a mask is key i of a block.
inline std::uint64_t first_bits(long count) {
    return count >= 64 ? ~std::uint64_t(0) : (count <= 0 ? 0 : (std::uint64_t(1) << count) - 1);
}

// The softmax of a row so far.
struct Running {
    float maximum = -INFINITY, sum = 0.0f;
};

// Takes a block's logits into a row's softmax. Returns what earlier sums are multiplied by.
// `bias`, if there is one, is by key and already divided by `scale`.
inline float add_block(const float* logits, const float* bias, std::uint64_t visible, float scale,
                       Running& row, float* probability) {
    float x[kBlock], most = row.maximum;
    for (long i = 0; i < kBlock; i++) {
        const float logit = bias ? logits[i] + bias[i] : logits[i];
        x[i] = visible >> i & 1 ? logit : -INFINITY;
    }
    // Comparing with NaN is false; the sum becomes NaN all the same.
#pragma omp simd reduction(max : most)
    for (long i = 0; i < kBlock; i++) most = x[i] > most ? x[i] : most;
    const float shift = most == -INFINITY ? 0.0f : most;
    float total = 0.0f;
#pragma omp simd reduction(+ : total)
    for (long i = 0; i < kBlock; i++) {
        probability[i] = exp_float((x[i] - shift) * scale);
        total += probability[i];
    }
    const float kept = row.maximum == most ? 1.0f : std::exp((row.maximum - most) * scale);
    row.sum = row.sum * kept + total;
    row.maximum = most;
    return kept;
}

#ifdef __AVX512BF16__

using bf16_product::kVector;
static_assert(kBlock == bf16_product::kPanel);

// 2^x for x <= 0 and about: a polynomial on [-0.5, 0.5], relative error below 2e-7.
inline __m512 exp2_vector(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-126.0f), x);  // in this order NaN stays
    const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 f = _mm512_sub_ps(x, n);
    __m512 p = _mm512_set1_ps(1.5403530e-4f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.3333558e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.6181291e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5504109e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4022651e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9314718e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

inline __mmask16 first_lanes(long count) { return __mmask16(first_bits(count)); }

inline void store_rounded(bf16* to, const float* from, float factor, long count) {
    for (long i = 0; i < count; i += kVector) {
        const __m512 x = _mm512_mul_ps(_mm512_loadu_ps(from + i), _mm512_set1_ps(factor));
        _mm256_mask_storeu_epi16(to + i, first_lanes(count - i), (__m256i)_mm512_cvtneps_pbh(x));
    }
}

inline float add_block(const float* logits, const float* bias, std::uint64_t visible, float scale,
                       Running& row, bf16* probability) {
    __m512 x[kBlock / kVector];
    __m512 most = _mm512_set1_ps(row.maximum);
    for (long v = 0; v < kBlock / kVector; v++) {
        x[v] = _mm512_loadu_ps(logits + v * kVector);
        if (bias) x[v] = _mm512_add_ps(x[v], _mm512_loadu_ps(bias + v * kVector));
        const __mmask16 mask = __mmask16(visible >> v * kVector);
        x[v] = _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), mask, x[v]);
        most = _mm512_max_ps(most, x[v]);
    }
    const float now = _mm512_reduce_max_ps(most), factor = scale * kLog2E;
    const __m512 shift = _mm512_set1_ps(now == -INFINITY ? 0.0f : now * factor);
    __m512 total = _mm512_setzero_ps();
    for (long v = 0; v < kBlock / kVector; v += 2) {
        const __m512 a = exp2_vector(_mm512_fmsub_ps(x[v], _mm512_set1_ps(factor), shift));
        const __m512 b = exp2_vector(_mm512_fmsub_ps(x[v + 1], _mm512_set1_ps(factor), shift));
        const __m512 pa = _mm512_maskz_mov_ps(__mmask16(visible >> v * kVector), a);
        const __m512 pb = _mm512_maskz_mov_ps(__mmask16(visible >> (v + 1) * kVector), b);
        total = _mm512_add_ps(total, _mm512_add_ps(pa, pb));
        _mm512_storeu_si512(probability + v * kVector, (__m512i)_mm512_cvtne2ps_pbh(pb, pa));
    }
    const float kept = row.maximum == now ? 1.0f : std::exp2((row.maximum - now) * factor);
    row.sum = row.sum * kept + _mm512_reduce_add_ps(total);
    row.maximum = now;
    return kept;
}

#endif
