// The products of attention over pages with float32 operands, whatever the pool holds: what
// `Work` in paged_attention.cpp asks for, in C++ that the compiler vectorises.
#pragma once

#include <algorithm>

#include "attention_block.h"

namespace paged {

#ifdef __AVX512F__
constexpr int kLanes = 16, kColumns = 4, kAtOnce = 3;  // of few queries
#else
constexpr int kLanes = 8, kColumns = 2, kAtOnce = 2;
#endif
constexpr int kTileRows = 6;
typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float))));

inline Lanes load_lanes(const float* from) {
    Lanes x;
    std::memcpy(&x, from, sizeof x);
    return x;
}

// Of less than all lanes; the others are 0.
template <class E>
inline Lanes load_lanes(const E* from, long count) {
    float x[kLanes] = {};
    for (long i = 0; i < std::min(count, long(kLanes)); i++) x[i] = to_float(from[i]);
    return load_lanes(x);
}

inline Lanes load_lanes(const bf16* from) { return load_lanes(from, kLanes); }

inline __m128 sums_of_4(const Lanes x[4]) {
    __m256 half[4];
    for (int i = 0; i < 4; i++) {
#ifdef __AVX512F__
        half[i] = _mm256_add_ps(_mm512_castps512_ps256(x[i]), _mm512_extractf32x8_ps(x[i], 1));
#else
        half[i] = x[i];
#endif
    }
    const __m256 sums = _mm256_hadd_ps(_mm256_hadd_ps(half[0], half[1]), _mm256_hadd_ps(half[2], half[3]));
    return _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1));
}

// C[m][n] (+)= sum_k A[m][k] B[k][n], R rows and V registers of columns.
template <int R, int V>
inline void float_tile(const float* a, long lda, const float* b, long ldb, long depth, float* c, long ldc,
                       bool add, const Ahead ahead) {
    Lanes sum[R][V];
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) sum[r][v] = add ? load_lanes(c + r * ldc + v * kLanes) : Lanes{};
    for (long k = 0; k < depth; k++) {
        ahead.at(k);
        Lanes column[V];
        for (int v = 0; v < V; v++) column[v] = load_lanes(b + k * ldb + v * kLanes);
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V; v++) sum[r][v] += a[r * lda + k] * column[v];
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) std::memcpy(c + r * ldc + v * kLanes, &sum[r][v], sizeof(Lanes));
}

template <int V>
inline void float_columns(long m, const float* a, long lda, const float* b, long ldb, long depth, float* c,
                          long ldc, bool add, Ahead& ahead) {
    for (; m >= kTileRows; m -= kTileRows, a += kTileRows * lda, c += kTileRows * ldc, ahead.after(depth))
        float_tile<kTileRows, V>(a, lda, b, ldb, depth, c, ldc, add, ahead);
    for (; m > 0; m--, a += lda, c += ldc, ahead.after(depth))
        float_tile<1, V>(a, lda, b, ldb, depth, c, ldc, add, ahead);
}

// `n` is a multiple of kLanes.
inline void float_product(long m, long n, long depth, const float* a, long lda, const float* b, long ldb,
                          float* c, long ldc, bool add, Ahead& ahead) {
    for (; n >= kColumns * kLanes; n -= kColumns * kLanes, b += kColumns * kLanes, c += kColumns * kLanes)
        float_columns<kColumns>(m, a, lda, b, ldb, depth, c, ldc, add, ahead);
    for (; n > 0; n -= kLanes, b += kLanes, c += kLanes)
        float_columns<1>(m, a, lda, b, ldb, depth, c, ldc, add, ahead);
}

template <class E>
struct FloatProducts {
    using Element = E;
    using Query = float;
    using Probability = float;
    using Packed = float;

    static long query_room(long width) { return (width + kLanes - 1) / kLanes * kLanes; }
    static long value_room(long width) { return (width + kLanes - 1) / kLanes * kLanes; }
    static long packed_keys(long width) { return width * kBlock; }
    static long packed_values(long width) { return kBlock * value_room(width); }
    static Query query(Element x) { return to_float(x); }
    static void store_row(Element* to, const float* from, float factor, long width) {
        for (long w = 0; w < width; w++) store(to + w, from[w] * factor);
    }

    static void pack_keys(const Element* const* keys, long width, Packed* to) {
        for (long first = 0; first < width; first += kLanes)  // what is written stays in the first cache
            for (long i = 0; i < kBlock; i++)
                for (long h = first; h < std::min(first + kLanes, width); h++)
                    to[h * kBlock + i] = to_float(keys[i][h]);
    }
    static void pack_values(const Element* const* values, long width, Packed* to) {
        const long room = value_room(width);
        for (long i = 0; i < kBlock; i++, to += room) {
            for (long w = 0; w < width; w++) to[w] = to_float(values[i][w]);
            for (long w = width; w < room; w++) to[w] = 0.0f;
        }
    }
    static void many_logits(const Query* q, long count, const Packed* keys, long width, float* logits,
                            Ahead& ahead) {
        float_product(count, kBlock, width, q, query_room(width), keys, kBlock, logits, kBlock, false, ahead);
    }
    static void many_values(const Probability* p, long count, const Packed* values, long width,
                            float* sums, Ahead& ahead) {
        const long room = value_room(width);
        float_product(count, room, kBlock, p, kBlock, values, room, sums, room, true, ahead);
    }
    static long steps(long count, long width, long value_width) {
        const auto panels = [](long n) { return n / kLanes / kColumns + n / kLanes % kColumns; };
        const long tiles = count / kTileRows + count % kTileRows;
        return tiles * (panels(kBlock) * width + panels(value_room(value_width)) * kBlock);
    }

    static void few_logits(const Query* q, long count, const Element* const* keys,
                           const Element* const* next, long width, std::uint64_t any, float* logits) {
        for (long i = 0; i < kBlock; i += 4) {
            if (!(any >> i & 15)) continue;
            for (long j = 0; j < 4; j++) prefetch(next[i + j], width);
            for (long n = 0; n < count;) {
                const Query* from = q + n * query_room(width);
                float* to = logits + n * kBlock + i;
                if (count - n >= kAtOnce) {
                    logits_of_4<kAtOnce>(from, keys + i, width, to);
                    n += kAtOnce;
                } else {
                    logits_of_4<1>(from, keys + i, width, to);
                    n++;
                }
            }
        }
    }
    static void few_values(const Probability* p, long count, const Element* const* values,
                           const Element* const* next, long width, std::uint64_t any, float* sums) {
        const long room = value_room(width);
        for (long i = 0; i < kBlock; i += 4) {
            if (!(any >> i & 15)) continue;
            for (long j = 0; j < 4; j++) prefetch(next[i + j], width);
            const Element *a = values[i], *b = values[i + 1], *c = values[i + 2], *d = values[i + 3];
            for (long n = 0; n < count; n++) {
                const Probability* weight = p + n * kBlock + i;
                float* sum = sums + n * room;
#pragma omp simd
                for (long w = 0; w < width; w++)
                    sum[w] += (weight[0] * to_float(a[w]) + weight[1] * to_float(b[w])) +
                              (weight[2] * to_float(c[w]) + weight[3] * to_float(d[w]));
            }
        }
    }

  private:
    // Of Q queries and 4 keys.
    template <int Q>
    static void logits_of_4(const Query* q, const Element* const* keys, long width, float* logits) {
        const long room = query_room(width);
        Lanes sum[Q][4] = {};
        long h = 0;
        for (; h + kLanes <= width; h += kLanes)
            for (int i = 0; i < 4; i++) {
                const Lanes key = load_lanes(keys[i] + h);
                for (int n = 0; n < Q; n++) sum[n][i] += load_lanes(q + n * room + h) * key;
            }
        if (h < width)
            for (int i = 0; i < 4; i++) {
                const Lanes key = load_lanes(keys[i] + h, width - h);
                for (int n = 0; n < Q; n++) sum[n][i] += load_lanes(q + n * room + h) * key;
            }
        for (int n = 0; n < Q; n++) _mm_storeu_ps(logits + n * kBlock, sums_of_4(sum[n]));
    }
};

}  // namespace paged
