// Products of bfloat16 matrices with float32 sums, in tiles that stay in registers.
//
// C[m][n] (+)= sum_k A[m][k] B[k][n]. A is as it lies in memory, row after row. B is packed: pairs
// of k side by side in 32 bits, columns in panels of 64 (the last one 16, 32, 48 or 64 wide), each
// panel [k / 2][width]. A panel of a usual head fits in the first cache beside a tile's rows of A.
#pragma once

#ifdef __AVX512BF16__

#include <immintrin.h>

#include "numbers.h"

namespace bf16_product {

constexpr long kPanel = 64;   // columns
constexpr long kVector = 16;  // columns of a register
constexpr int kRows = 6;      // of a tile: 6 x 4 sums, 4 registers of B, one of A

inline long padded(long n) { return (n + kVector - 1) / kVector * kVector; }

// 32-bit words of a packed B with `pairs` pairs of k and `n` columns.
inline long packed_words(long pairs, long n) { return pairs * padded(n); }

template <int R, int V>
inline void tile(const bf16* a, long lda, const std::uint32_t* b, long pairs, float* c, long ldc,
                 bool add) {
    __m512 sum[R][V];
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++)
            sum[r][v] = add ? _mm512_loadu_ps(c + r * ldc + v * kVector) : _mm512_setzero_ps();
    for (long k = 0; k < pairs; k++) {
        __m512bh column[V];
        for (int v = 0; v < V; v++)
            column[v] = (__m512bh)_mm512_loadu_si512(b + (k * V + v) * kVector);
        for (int r = 0; r < R; r++) {
            int pair;
            std::memcpy(&pair, a + r * lda + 2 * k, sizeof pair);
            const __m512bh row = (__m512bh)_mm512_set1_epi32(pair);
            for (int v = 0; v < V; v++) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], row, column[v]);
        }
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) _mm512_storeu_ps(c + r * ldc + v * kVector, sum[r][v]);
}

template <int V>
inline void panel(long m, const bf16* a, long lda, const std::uint32_t* b, long pairs, float* c,
                  long ldc, bool add) {
    long r = 0;
    for (; r + kRows <= m; r += kRows)
        tile<kRows, V>(a + r * lda, lda, b, pairs, c + r * ldc, ldc, add);
    a += r * lda;
    c += r * ldc;
    switch (m - r) {
        case 1: return tile<1, V>(a, lda, b, pairs, c, ldc, add);
        case 2: return tile<2, V>(a, lda, b, pairs, c, ldc, add);
        case 3: return tile<3, V>(a, lda, b, pairs, c, ldc, add);
        case 4: return tile<4, V>(a, lda, b, pairs, c, ldc, add);
        case 5: return tile<5, V>(a, lda, b, pairs, c, ldc, add);
    }
}

// A[m][2 * pairs] times the rows of packed B from pair `first_pair` on. B's panels are `panel_pairs`
// pairs high. C has room for padded(n) columns.
inline void product(long m, long n, long pairs, const bf16* a, long lda, const std::uint32_t* b,
                    long panel_pairs, long first_pair, float* c, long ldc, bool add) {
    for (long first = 0; first < n; first += kPanel) {
        const long width = padded(n - first < kPanel ? n - first : kPanel);
        const std::uint32_t* here = b + first * panel_pairs + first_pair * width;
        switch (width / kVector) {
            case 1: panel<1>(m, a, lda, here, pairs, c + first, ldc, add); break;
            case 2: panel<2>(m, a, lda, here, pairs, c + first, ldc, add); break;
            case 3: panel<3>(m, a, lda, here, pairs, c + first, ldc, add); break;
            case 4: panel<4>(m, a, lda, here, pairs, c + first, ldc, add); break;
        }
    }
}

// Packs B[k][n] = rows[k][n]. Rows beyond `count` are zeros, up to `padded_count` (even).
inline void pack(const bf16* rows, long stride, long count, long padded_count, long width,
                 std::uint32_t* packed_b) {
    const long pairs = padded_count / 2;
    for (long first = 0; first < width; first += kPanel) {
        const long real = width - first < kPanel ? width - first : kPanel, lanes = padded(real);
        std::uint32_t* to = packed_b + first * pairs;
        for (long k = 0; k < pairs; k++, to += lanes) {
            const bf16* low = rows + 2 * k * stride + first;
            const bf16* high = low + stride;
            const std::uint32_t has_low = 2 * k < count ? 0xffff : 0;
            if (!has_low) {
                std::memset(to, 0, lanes * sizeof *to);
            } else if (2 * k + 1 < count) {
                for (long n = 0; n < real; n++) to[n] = low[n] | std::uint32_t(high[n]) << 16;
                for (long n = real; n < lanes; n++) to[n] = 0;
            } else {
                for (long n = 0; n < real; n++) to[n] = low[n];
                for (long n = real; n < lanes; n++) to[n] = 0;
            }
        }
    }
}

// Packs B[k][n] = rows[n][k]: rows lie side by side in panels of 64. Rows beyond `count` are zeros,
// up to a whole panel. `width` is even.
inline void pack_transposed(const bf16* rows, long stride, long count, long width,
                            std::uint32_t* packed_b) {
    const long pairs = width / 2;
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i offset = _mm512_mullo_epi32(lane, _mm512_set1_epi32(int(stride)));
    for (long first = 0; first < count; first += kPanel, packed_b += pairs * kPanel) {
        for (long v = 0; v < kPanel; v += kVector) {
            const long real = count - first - v;
            const __mmask16 mask =
                real >= kVector ? 0xffff : (real <= 0 ? 0 : (1 << real) - 1);
            const bf16* from = rows + (first + v) * stride;
            for (long k = 0; k < pairs; k++)
                _mm512_storeu_si512(packed_b + k * kPanel + v,
                                    _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), mask, offset,
                                                                from + 2 * k, sizeof(bf16)));
        }
    }
}

}  // namespace bf16_product

#endif
