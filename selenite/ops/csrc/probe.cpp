// What a new library is tried with, in a process of its own: it dies there if the machine reports
// instructions that it does not have.

#include <immintrin.h>

#include "numbers.h"

extern "C" int selenite_probe() {
    alignas(64) float sums[16];
    volatile float one = 1.0f;
#ifdef __AVX512BF16__
    const __m512 ones = _mm512_set1_ps(one);
    const __m512bh pairs = _mm512_cvtne2ps_pbh(ones, ones);
    _mm512_store_ps(sums, _mm512_dpbf16_ps(_mm512_set1_ps(one * 40.0f), pairs, pairs));
#else
    const __m256 ones = _mm256_set1_ps(one);
    _mm256_store_ps(sums, _mm256_fmadd_ps(ones, ones, _mm256_set1_ps(one * 41.0f)));
#endif
    return int(sums[7] * exp_float(one - 1.0f));
}
