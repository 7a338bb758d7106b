// y = x W^T in bfloat16 for few rows of x: what decoding multiplies by. The weights are read once,
// row after row as they lie, and are most of the work; x stays in the caches.
//
// For each row of W a vector of float32 sums is kept for each of up to six rows of x (several, so
// that no sum waits for the one before); its lanes are added up for sixteen sums at a time.

#ifdef __AVX512BF16__

#include <immintrin.h>

#include <algorithm>

#include "numbers.h"
#include "tape.h"

namespace {

constexpr long kLanes = 32;  // bfloat16 values of a register
constexpr long kBlock = 16;  // rows of W that a thread takes at once
// From so many rows of x on, four rows of W share each load of x. Below, reading W in its order is
// worth more.
constexpr long kMany = 24;

inline __m512bh load(const bf16* from) { return (__m512bh)_mm512_loadu_si512(from); }
inline __m512bh load_first(const bf16* from, __mmask32 lanes) {
    return (__m512bh)_mm512_maskz_loadu_epi16(lanes, from);
}

// The sums of 16 vectors' lanes, as the lanes of one.
inline __m512 add_lanes(const __m512* v) {
    __m512 half[8], quarter[4], eighth[2];
    for (int i = 0; i < 8; i++)
        half[i] = _mm512_add_ps(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]),
                                _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
    for (int i = 0; i < 4; i++) {
        const __m512d a = _mm512_castps_pd(half[2 * i]), b = _mm512_castps_pd(half[2 * i + 1]);
        quarter[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
                                   _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    for (int i = 0; i < 2; i++)
        eighth[i] = _mm512_add_ps(_mm512_shuffle_f32x4(quarter[2 * i], quarter[2 * i + 1], 0x88),
                                  _mm512_shuffle_f32x4(quarter[2 * i], quarter[2 * i + 1], 0xdd));
    return _mm512_add_ps(_mm512_shuffle_f32x4(eighth[0], eighth[1], 0x88),
                         _mm512_shuffle_f32x4(eighth[0], eighth[1], 0xdd));
}

// sums[i * X + j]: row i of W by row j of x, lanes not added yet. S sums side by side over k.
template <int W, int X, int S>
inline void multiply(const bf16* w, const bf16* x, long x_stride, long width, __m512* sums) {
    __m512 sum[S][W][X];
    for (int s = 0; s < S; s++)
        for (int i = 0; i < W; i++)
            for (int j = 0; j < X; j++) sum[s][i][j] = _mm512_setzero_ps();
    long k = 0;
    for (; k + S * kLanes <= width; k += S * kLanes)
        for (int s = 0; s < S; s++) {
            __m512bh row[X];
            for (int j = 0; j < X; j++) row[j] = load(x + j * x_stride + k + s * kLanes);
            for (int i = 0; i < W; i++) {
                const __m512bh weight = load(w + i * width + k + s * kLanes);
                for (int j = 0; j < X; j++)
                    sum[s][i][j] = _mm512_dpbf16_ps(sum[s][i][j], weight, row[j]);
            }
        }
    for (; k < width; k += kLanes) {
        const __mmask32 lanes = width - k >= kLanes ? 0xffffffff : (1u << (width - k)) - 1;
        for (int i = 0; i < W; i++)
            for (int j = 0; j < X; j++)
                sum[0][i][j] = _mm512_dpbf16_ps(sum[0][i][j], load_first(w + i * width + k, lanes),
                                                load_first(x + j * x_stride + k, lanes));
    }
    for (int i = 0; i < W; i++)
        for (int j = 0; j < X; j++) {
            sums[i * X + j] = sum[0][i][j];
            for (int s = 1; s < S; s++)
                sums[i * X + j] = _mm512_add_ps(sums[i * X + j], sum[s][i][j]);
        }
}

// Up to 16 rows of W, in groups of G, by X rows of x.
template <int G, int X, int S>
inline void block(const bf16* w, long count, const bf16* x, long x_stride, long width, bf16* y,
                  long y_stride) {
    __m512 sums[kBlock * X];
    long i = 0;
    for (; i + G <= count; i += G)
        multiply<G, X, S>(w + i * width, x, x_stride, width, sums + i * X);
    for (; i < count; i++) multiply<1, X, 1>(w + i * width, x, x_stride, width, sums + i * X);
    for (i *= X; i < kBlock * X; i++) sums[i] = _mm512_setzero_ps();
    float total[kBlock * X];
    for (int j = 0; j < X; j++) _mm512_storeu_ps(total + 16 * j, add_lanes(sums + 16 * j));
    for (int j = 0; j < X; j++)
        for (i = 0; i < count; i++) y[j * y_stride + i] = to_bf16(total[i * X + j]);
}

}  // namespace

extern "C" void few_rows_linear(const bf16* x_TI, std::int64_t x_stride, const bf16* w_OI,
                                bf16* y_TO, std::int64_t rows, std::int64_t inputs,
                                std::int64_t outputs, std::int64_t threads) {
    const long blocks = (outputs + kBlock - 1) / kBlock;
#pragma omp parallel for schedule(static) num_threads(threads) if (inputs * outputs > 65536)
    for (long b = 0; b < blocks; b++) {
        const long first = b * kBlock, count = std::min(kBlock, long(outputs) - first);
        const bf16* w = w_OI + first * inputs;
        for (long t = 0; t < rows; t += 6) {
            const bf16* x = x_TI + t * x_stride;
            bf16* y = y_TO + t * outputs + first;
            const bool many = rows >= kMany;
            switch (std::min(6L, long(rows) - t)) {
                case 1: block<1, 1, 4>(w, count, x, x_stride, inputs, y, outputs); break;
                case 2: block<1, 2, 4>(w, count, x, x_stride, inputs, y, outputs); break;
                case 3: block<1, 3, 2>(w, count, x, x_stride, inputs, y, outputs); break;
                case 4: block<1, 4, 2>(w, count, x, x_stride, inputs, y, outputs); break;
                case 5: block<1, 5, 2>(w, count, x, x_stride, inputs, y, outputs); break;
                case 6:
                    if (many)
                        block<4, 6, 1>(w, count, x, x_stride, inputs, y, outputs);
                    else
                        block<1, 6, 2>(w, count, x, x_stride, inputs, y, outputs);
            }
        }
    }
}
RECORDABLE(few_rows_linear)

#endif
