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

// What a product does beside each pair of k; see `Ahead` in attention_block.h.
struct Nothing {
    void at(long) const {}
    void after(long) {}
};

template <int R, int V, class Beside>
inline void tile(const bf16* a, long lda, const std::uint32_t* b, long pairs, float* c, long ldc,
                 bool add, const Beside beside) {
    __m512 sum[R][V];
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++)
            sum[r][v] = add ? _mm512_loadu_ps(c + r * ldc + v * kVector) : _mm512_setzero_ps();
    for (long k = 0; k < pairs; k++) {
        beside.at(k);
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

template <int V, class Beside>
inline void panel(long m, const bf16* a, long lda, const std::uint32_t* b, long pairs, float* c,
                  long ldc, bool add, Beside& beside) {
    for (; m >= kRows; m -= kRows, a += kRows * lda, c += kRows * ldc, beside.after(pairs))
        tile<kRows, V>(a, lda, b, pairs, c, ldc, add, beside);
    switch (m) {
        case 0: return;
        case 1: tile<1, V>(a, lda, b, pairs, c, ldc, add, beside); break;
        case 2: tile<2, V>(a, lda, b, pairs, c, ldc, add, beside); break;
        case 3: tile<3, V>(a, lda, b, pairs, c, ldc, add, beside); break;
        case 4: tile<4, V>(a, lda, b, pairs, c, ldc, add, beside); break;
        case 5: tile<5, V>(a, lda, b, pairs, c, ldc, add, beside); break;
    }
    beside.after(pairs);
}

// A[m][2 * pairs] times the rows of packed B from pair `first_pair` on. B's panels are `panel_pairs`
// pairs high. C has room for padded(n) columns.
template <class Beside>
inline void product(long m, long n, long pairs, const bf16* a, long lda, const std::uint32_t* b,
                    long panel_pairs, long first_pair, float* c, long ldc, bool add, Beside& beside) {
    for (long first = 0; first < n; first += kPanel) {
        const long width = padded(n - first < kPanel ? n - first : kPanel);
        const std::uint32_t* here = b + first * panel_pairs + first_pair * width;
        switch (width / kVector) {
            case 1: panel<1>(m, a, lda, here, pairs, c + first, ldc, add, beside); break;
            case 2: panel<2>(m, a, lda, here, pairs, c + first, ldc, add, beside); break;
            case 3: panel<3>(m, a, lda, here, pairs, c + first, ldc, add, beside); break;
            case 4: panel<4>(m, a, lda, here, pairs, c + first, ldc, add, beside); break;
        }
    }
}

inline void product(long m, long n, long pairs, const bf16* a, long lda, const std::uint32_t* b,
                    long panel_pairs, long first_pair, float* c, long ldc, bool add) {
    Nothing nothing;
    product(m, n, pairs, a, lda, b, panel_pairs, first_pair, c, ldc, add, nothing);
}

// Packs B[k][n] = row(k)[n] of `width` columns. From `count` on rows are zeros, up to
// `padded_count` (even).
template <class Row>
inline void pack(Row row, long count, long padded_count, long width, std::uint32_t* packed_b) {
    const long pairs = padded_count / 2;
    for (long first = 0; first < width; first += kPanel) {
        const long real = width - first < kPanel ? width - first : kPanel, lanes = padded(real);
        std::uint32_t* to = packed_b + first * pairs;
        for (long k = 0; k < pairs; k++, to += lanes) {
            if (2 * k >= count) {
                std::memset(to, 0, lanes * sizeof *to);
                continue;
            }
            const bf16* low = row(2 * k) + first;
            if (2 * k + 1 < count) {
                const bf16* high = row(2 * k + 1) + first;
                for (long n = 0; n < real; n++) to[n] = low[n] | std::uint32_t(high[n]) << 16;
            } else {
                for (long n = 0; n < real; n++) to[n] = low[n];
            }
            for (long n = real; n < lanes; n++) to[n] = 0;
        }
    }
}

// Transposes 16 x 16 words: word j of from[i] becomes word i of to[j].
inline void transpose(const __m512i from[16], __m512i to[16]) {
    __m512i pair[16], quad[16], half[16];
    for (int i = 0; i < 16; i += 2) {
        pair[i] = _mm512_unpacklo_epi32(from[i], from[i + 1]);
        pair[i + 1] = _mm512_unpackhi_epi32(from[i], from[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            quad[i + 2 * j] = _mm512_unpacklo_epi64(pair[i + j], pair[i + 2 + j]);
            quad[i + 2 * j + 1] = _mm512_unpackhi_epi64(pair[i + j], pair[i + 2 + j]);
        }
    // quad[4 * i + j] holds columns j, 4 + j, 8 + j, 12 + j of rows 4 i to 4 i + 3.
    for (int j = 0; j < 4; j++)
        for (int i = 0; i < 2; i++) {
            half[8 * i + j] = _mm512_shuffle_i32x4(quad[8 * i + j], quad[8 * i + 4 + j], 0x88);
            half[8 * i + 4 + j] = _mm512_shuffle_i32x4(quad[8 * i + j], quad[8 * i + 4 + j], 0xdd);
        }
    for (int j = 0; j < 4; j++) {
        to[j] = _mm512_shuffle_i32x4(half[j], half[8 + j], 0x88);
        to[4 + j] = _mm512_shuffle_i32x4(half[4 + j], half[12 + j], 0x88);
        to[8 + j] = _mm512_shuffle_i32x4(half[j], half[8 + j], 0xdd);
        to[12 + j] = _mm512_shuffle_i32x4(half[4 + j], half[12 + j], 0xdd);
    }
}

// Packs B[k][n] = row(n)[k] of `width` k: rows lie side by side in panels of 64. From `count` on
// they are zeros, up to a whole panel; so is k `width` where that is odd.
template <class Row>
inline void pack_transposed(Row row, long count, long width, std::uint32_t* packed_b) {
    const long pairs = (width + 1) / 2;
    for (long first = 0; first < count; first += kPanel, packed_b += pairs * kPanel) {
        for (long v = 0; v < kPanel; v += kVector) {
            const long real = count - first - v;
            for (long k = 0; k < pairs; k += kVector) {
                const long left = width - 2 * k;
                const __mmask32 mask = left >= 32 ? ~0u : (1u << left) - 1;
                __m512i words[kVector];
                for (long i = 0; i < kVector; i++)
                    words[i] = i < real ? _mm512_maskz_loadu_epi16(mask, row(first + v + i) + 2 * k)
                                        : _mm512_setzero_si512();
                transpose(words, words);
                const long some = pairs - k < kVector ? pairs - k : kVector;
                for (long j = 0; j < some; j++)
                    _mm512_storeu_si512(packed_b + (k + j) * kPanel + v, words[j]);
            }
        }
    }
}

}  // namespace bf16_product

#endif
