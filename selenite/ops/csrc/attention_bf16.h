// The products of attention over pages in bfloat16 with avx512_bf16: what `Work` in
// paged_attention.cpp asks for. attention_float.h has the same for all else.
#pragma once

#ifdef __AVX512BF16__

#include "attention_block.h"

namespace paged {

using namespace bf16_product;

struct Bf16Products {
    using Element = bf16;          // of the pool
    using Query = bf16;            // of a task's queries
    using Probability = bf16;      // 64 keys of a query
    using Packed = std::uint32_t;  // of a block's keys and values

    // Queries have zeros up to a whole register.
    static long query_room(long width) { return (width + 31) / 32 * 32; }
    static long value_room(long width) { return (width + 31) / 32 * 32; }
    static long packed_keys(long width) { return packed_words((width + 1) / 2, kBlock); }
    static long packed_values(long width) { return packed_words(kBlock / 2, width); }
    static Query query(Element x) { return x; }
    static void store_row(Element* to, const float* from, float factor, long width) {
        store_rounded(to, from, factor, width);
    }

    // --- many queries: keys and values are packed, and products run from registers

    static void pack_keys(const Element* const* keys, long width, Packed* to) {
        pack_transposed([=](long i) { return keys[i]; }, kBlock, width, to);
    }
    static void pack_values(const Element* const* values, long width, Packed* to) {
        pack([=](long i) { return values[i]; }, kBlock, kBlock, width, to);
    }
    static void many_logits(const Query* q, long count, const Packed* keys, long width, float* logits,
                            Ahead& ahead) {
        const long pairs = (width + 1) / 2;
        product(count, kBlock, pairs, q, query_room(width), keys, pairs, 0, logits, kBlock, false, ahead);
    }
    static void many_values(const Probability* p, long count, const Packed* values, long width, float* sums,
                            Ahead& ahead) {
        product(count, width, kBlock / 2, p, kBlock, values, kBlock / 2, 0, sums, value_room(width), true,
                ahead);
    }
    // Steps of both, for so many queries at once.
    static long steps(long count, long width, long value_width) {
        const long tiles = (count + kRows - 1) / kRows, panels = (value_width + kPanel - 1) / kPanel;
        return tiles * ((width + 1) / 2 + panels * (kBlock / 2));
    }

    // --- few queries: keys and values are read once, as they lie

    static void few_logits(const Query* q, long count, const Element* const* keys,
                           const Element* const* next, long width, std::uint64_t any, float* logits) {
        for (; count > 0; count -= 4, q += 4 * query_room(width), logits += 4 * kBlock, next = nullptr) {
            for (long i = 0; i < kBlock; i += kVector) {
                if (!(any >> i & 0xffff)) continue;
                const Element* const* ahead = next ? next + i : nullptr;
                switch (count) {
                    case 1: logits_of_16<1>(q, keys + i, ahead, width, logits + i); break;
                    case 2: logits_of_16<2>(q, keys + i, ahead, width, logits + i); break;
                    case 3: logits_of_16<3>(q, keys + i, ahead, width, logits + i); break;
                    default: logits_of_16<4>(q, keys + i, ahead, width, logits + i); break;
                }
            }
        }
    }
    static void few_values(const Probability* p, long count, const Element* const* values,
                           const Element* const* next, long width, std::uint64_t any, float* sums) {
        for (; count > 0; count -= 4, p += 4 * kBlock, sums += 4 * value_room(width), next = nullptr) {
            switch (count) {
                case 1: values_of<1>(p, values, next, width, any, sums); break;
                case 2: values_of<2>(p, values, next, width, any, sums); break;
                case 3: values_of<3>(p, values, next, width, any, sums); break;
                default: values_of<4>(p, values, next, width, any, sums); break;
            }
        }
    }

  private:
    // 32 values, or the first of them. Of masked loads the compiler does not know what they read, so
    // that sums would leave their registers: only what is at the end of a row takes one.
    template <bool Whole>
    static __m512i load(const Element* from, long left) {
        return Whole ? _mm512_loadu_si512(from) : _mm512_maskz_loadu_epi16((1u << left) - 1, from);
    }
    // Sums of 4 registers, each by quarter: [a, b, c, d] of the first quarter, and so on.
    static __m512 sum_quarters(const __m512 x[4]) {
        const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(x[0], x[1]), _mm512_unpackhi_ps(x[0], x[1]));
        const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(x[2], x[3]), _mm512_unpackhi_ps(x[2], x[3]));
        const __m512d p = _mm512_castps_pd(ab), q = _mm512_castps_pd(cd);
        return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(p, q)),
                             _mm512_castpd_ps(_mm512_unpackhi_pd(p, q)));
    }
    static __m512 sum_halves(__m512 x, __m512 y) {
        return _mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x88), _mm512_shuffle_f32x4(x, y, 0xdd));
    }

    // Of queries and 4 keys, over values h to h + 32.
    template <int Q, bool Whole>
    static void add_products(const Query* q, long room, const Element* const* keys, long h, long left,
                             __m512 sum[Q][4]) {
        __m512bh key[4];
        for (int i = 0; i < 4; i++) key[i] = (__m512bh)load<Whole>(keys[i] + h, left);
        for (int n = 0; n < Q; n++) {
            const __m512bh query = (__m512bh)_mm512_load_si512(q + n * room);
            for (int i = 0; i < 4; i++) sum[n][i] = _mm512_dpbf16_ps(sum[n][i], query, key[i]);
        }
    }

    template <int Q>
    static void logits_of_16(const Query* q, const Element* const* keys, const Element* const* next,
                             long width, float* logits) {
        const long room = query_room(width);
        __m512 quarters[Q][4];
        for (int j = 0; j < 4; j++) {
            __m512 sum[Q][4];
            for (int n = 0; n < Q; n++)
                for (int i = 0; i < 4; i++) sum[n][i] = _mm512_setzero_ps();
            long h = 0;
            for (; h + 32 <= width; h += 32) add_products<Q, true>(q + h, room, keys + 4 * j, h, 32, sum);
            if (h < width) add_products<Q, false>(q + h, room, keys + 4 * j, h, width - h, sum);
            if (next)
                for (int i = 0; i < 4; i++) prefetch(next[4 * j + i], width);
            for (int n = 0; n < Q; n++) quarters[n][j] = sum_quarters(sum[n]);
        }
        for (int n = 0; n < Q; n++)
            _mm512_storeu_ps(logits + n * kBlock, sum_halves(sum_halves(quarters[n][0], quarters[n][1]),
                                                             sum_halves(quarters[n][2], quarters[n][3])));
    }

    template <int Q>
    static void values_of(const Probability* p, const Element* const* values, const Element* const* next,
                          long width, std::uint64_t any, float* sums) {
        // What is not seen is left out before: a branch within would keep sums from registers, too.
        std::uint8_t seen[kBlock / 2];
        long pairs = 0;
        for (long i = 0; i < kBlock; i += 2) {
            seen[pairs] = std::uint8_t(i);
            pairs += (any >> i & 3) != 0;
        }
        for (long w = 0; w < width; next = nullptr) {
            if (width - w >= 64) {
                columns_of<Q, 2, true>(p, values, next, width, w, seen, pairs, sums);
                w += 64;
            } else {
                if (width - w >= 32)
                    columns_of<Q, 1, true>(p, values, next, width, w, seen, pairs, sums);
                else
                    columns_of<Q, 1, false>(p, values, next, width, w, seen, pairs, sums);
                w += 32;
            }
        }
    }

    // The sums' columns from w on, 32 times V. Rows of two keys are interleaved, by which columns come
    // in another order: sums are put in that order before and back after.
    template <int Q, int V, bool Whole>
    static void columns_of(const Probability* p, const Element* const* values, const Element* const* next,
                           long width, long w, const std::uint8_t* seen, long pairs, float* sums) {
        const __m512i to_low = _mm512_setr_epi32(0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
        const __m512i to_high = _mm512_add_epi32(to_low, _mm512_set1_epi32(4));
        const __m512i back = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
        const __m512i back_high = _mm512_add_epi32(back, _mm512_set1_epi32(8));
        const long room = value_room(width);
        __m512 low[Q][V], high[Q][V];
        for (int n = 0; n < Q; n++)
            for (int v = 0; v < V; v++) {
                const float* from = sums + n * room + w + 32 * v;
                const __m512 a = _mm512_loadu_ps(from), b = _mm512_loadu_ps(from + kVector);
                low[n][v] = _mm512_permutex2var_ps(a, to_low, b);
                high[n][v] = _mm512_permutex2var_ps(a, to_high, b);
            }
        for (long j = 0; j < pairs; j++) {
            const long i = seen[j];
            if (next) {
                prefetch(next[i], width);
                prefetch(next[i + 1], width);
            }
            __m512bh even[V], odd[V];
            for (int v = 0; v < V; v++) {
                const __m512i a = load<Whole>(values[i] + w + 32 * v, width - w);
                const __m512i b = load<Whole>(values[i + 1] + w + 32 * v, width - w);
                even[v] = (__m512bh)_mm512_unpacklo_epi16(a, b);
                odd[v] = (__m512bh)_mm512_unpackhi_epi16(a, b);
            }
            for (int n = 0; n < Q; n++) {
                int pair;
                std::memcpy(&pair, p + n * kBlock + i, sizeof pair);
                const __m512bh weight = (__m512bh)_mm512_set1_epi32(pair);
                for (int v = 0; v < V; v++) {
                    low[n][v] = _mm512_dpbf16_ps(low[n][v], weight, even[v]);
                    high[n][v] = _mm512_dpbf16_ps(high[n][v], weight, odd[v]);
                }
            }
        }
        for (int n = 0; n < Q; n++)
            for (int v = 0; v < V; v++) {
                float* to = sums + n * room + w + 32 * v;
                _mm512_storeu_ps(to, _mm512_permutex2var_ps(low[n][v], back, high[n][v]));
                _mm512_storeu_ps(to + kVector, _mm512_permutex2var_ps(low[n][v], back_high, high[n][v]));
            }
    }
};

}  // namespace paged

#endif
