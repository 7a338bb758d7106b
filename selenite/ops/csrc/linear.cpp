// y = x W^T of bfloat16 rows. W is packed once (or, for a single product, on the
// way): rows of it side by side in panels of 32, two values of k in 32 bits, [k / 2][32][2]. Each
// sum runs over k in order, whatever the number of rows: a row's bits do not depend on the others.
//
// Few rows read the weights in one stream, at the memory's speed; many use them from the caches.
//
// Weights are bfloat16, or int8 with a scale for each row of W. Their integers are bfloat16 values
// too, found in a table, so that products are exact, and a sum is scaled and rounded once.

#ifdef __AVX512BF16__

#include <algorithm>
#include <type_traits>
#include <vector>

#include "bf16_product.h"
#include "crew.h"
#include "tape.h"

namespace {

using bf16_product::kVector;

constexpr long kVectors = 2;                   // of a panel
constexpr long kOutputs = kVectors * kVector;  // rows of W in a panel
constexpr long kWidened = 32;  // rows of x from which on int8 is made bfloat16 once for all of them
constexpr long kTwoPanels = 48;  // from which on two panels that are packed on the way are faster
constexpr long kChunk = 576, kSmallChunk = 96;  // rows of x that a thread takes at once
constexpr long kFewBlocks = 8;                  // which threads would share unevenly

// V registers of bfloat16 values for each pair of k.
template <long V>
struct Bf16Columns {
    using Weight = bf16;
    static constexpr int kColumns = V;

    static inline void load(const bf16* w, long k, __m512bh* columns) {
        for (int v = 0; v < V; v++)
            columns[v] = (__m512bh)_mm512_loadu_si512(w + (k * V + v) * 2 * kVector);
    }
};

// int8 values as bfloat16. A panel's 64 values of a pair of k lie so that the halves of each 16 of
// them, widened, are the two registers.
struct Int8Columns {
    using Weight = std::int8_t;
    static constexpr int kColumns = kVectors;

    Int8Columns() {
        alignas(64) std::uint8_t high[128], low[128];
        for (int i = 0; i < 128; i++) {
            const bf16 bits = to_bf16(float(i));
            high[i] = bits >> 8;
            low[i] = bits & 0xff;
        }
        for (int i = 0; i < 2; i++) {
            high_[i] = _mm512_load_si512(high + 64 * i);
            low_[i] = _mm512_load_si512(low + 64 * i);
        }
    }

    inline void load(const std::int8_t* from, long k, __m512bh* columns) const {
        const __m512i w = _mm512_loadu_si512(from + k * 2 * kOutputs), size = _mm512_abs_epi8(w);
        const __m512i low = _mm512_permutex2var_epi8(low_[0], size, low_[1]);
        const __m512i high = _mm512_permutex2var_epi8(high_[0], size, high_[1]);
        // The sign of w above the bits of its size: high | (w & 0x80).
        const __m512i with_sign = _mm512_ternarylogic_epi64(high, w, _mm512_set1_epi8(-128), 0xf8);
        columns[0] = (__m512bh)_mm512_unpacklo_epi8(low, with_sign);
        columns[1] = (__m512bh)_mm512_unpackhi_epi8(low, with_sign);
    }

    // Where value `i` of the panel's 64 (output i / 2, k i % 2) lies among them.
    static constexpr long place(long i) { return i % 32 / 8 * 16 + i / 32 * 8 + i % 8; }

  private:
    __m512i high_[2], low_[2];  // bytes of the bfloat16 of 0 to 127
};

// R rows of x by the columns of W, of which `count` are real. Given `ahead`, it asks for a line of
// memory from there on with each pair of k.
template <int R, bool Asks, class Columns>
inline void tile(const Columns& columns, const typename Columns::Weight* w, const bf16* x, long x_stride,
                 long pairs, const float* scale, long count, bf16* y, long y_stride, const char* ahead) {
    constexpr int V = Columns::kColumns;
    __m512 sum[R][V];
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) sum[r][v] = _mm512_setzero_ps();
    for (long k = 0; k < pairs; k++) {
        __m512bh column[V];
        if (Asks) _mm_prefetch(ahead + 64 * k, _MM_HINT_T1);
        columns.load(w, k, column);
        for (int r = 0; r < R; r++) {
            int pair;
            std::memcpy(&pair, x + r * x_stride + 2 * k, sizeof pair);
            const __m512bh row = (__m512bh)_mm512_set1_epi32(pair);
            for (int v = 0; v < V; v++) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], row, column[v]);
        }
    }
    for (int v = 0; v < V && v * kVector < count; v++) {
        const long left = count - v * kVector;
        const __mmask16 lanes = left >= kVector ? 0xffff : (1u << left) - 1;
        const __m512 by = scale ? _mm512_maskz_loadu_ps(lanes, scale + v * kVector) : _mm512_set1_ps(1.0f);
        for (int r = 0; r < R; r++)
            _mm256_mask_storeu_epi16(y + r * y_stride + v * kVector, lanes,
                                     (__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(sum[r][v], by)));
    }
}

// All rows of x by the columns: tiles of 24 sums, then what is left of the rows. Meanwhile they ask for
// `next_bytes` from `next` on, which come after: with more than one tile there is time for it.
template <class Columns>
void by_columns(const Columns& columns, const typename Columns::Weight* w, const bf16* x, long x_stride,
                long rows, long pairs, const float* scale, long count, bf16* y, long y_stride,
                const char* next, long next_bytes) {
    constexpr long kTile = 24 / Columns::kColumns;
    if (rows <= kTile) next_bytes = 0;
    const auto some = [&](auto size) {
        constexpr long R = decltype(size)::value;
        if (next_bytes > 0)
            tile<R, true>(columns, w, x, x_stride, pairs, scale, count, y, y_stride, next);
        else
            tile<R, false>(columns, w, x, x_stride, pairs, scale, count, y, y_stride, next);
        next += 64 * pairs;
        next_bytes -= 64 * pairs;
        x += R * x_stride;
        y += R * y_stride;
        rows -= R;
    };
    while (rows >= kTile) some(std::integral_constant<long, kTile>());
    if (kTile > 8 && rows >= 8) some(std::integral_constant<long, 8>());
    if (rows >= 4) some(std::integral_constant<long, 4>());
    if (rows >= 2) some(std::integral_constant<long, 2>());
    if (rows >= 1) some(std::integral_constant<long, 1>());
}

// A panel as bfloat16.
inline void widen(const Int8Columns& columns, const std::int8_t* w, long pairs, bf16* to) {
    for (long k = 0; k < pairs; k++, to += 2 * kOutputs) {
        __m512bh column[kVectors];
        columns.load(w, k, column);
        for (long v = 0; v < kVectors; v++) _mm512_storeu_si512(to + v * 2 * kVector, (__m512i)column[v]);
    }
}

// Calls `product` with all pairs of a block of rows of x and `width` rows of W: the first of each, and
// how many they are.
template <class Product>
void by_blocks(long rows, long inputs, long outputs, long width, int threads, const Product& product) {
    const long blocks = (outputs + width - 1) / width;
    const long chunk = blocks < kFewBlocks ? kSmallChunk : kChunk, chunks = (rows + chunk - 1) / chunk;
    crew::share(chunks * blocks, rows * inputs * outputs > 65536, threads, [&](long i) {
        const long t = i / blocks * chunk, o = i % blocks * width;
        product(t, std::min(chunk, rows - t), o, std::min(width, outputs - o));
    });
}

template <class Columns>
void by_packed(const bf16* x, long x_stride, const typename Columns::Weight* packed, const float* scale_O,
               bf16* y, long rows, long inputs, long outputs, int threads) {
    const Columns columns;
    const long pairs = inputs / 2, panel = kOutputs * inputs;
    by_blocks(rows, inputs, outputs, kOutputs, threads, [&](long t, long here, long o, long count) {
        const float* scale = scale_O ? scale_O + o : nullptr;
        const auto* w = packed + o * inputs;
        const auto product = [&](const auto& columns, const auto* w) {
            // The next panel is likely this thread's, too.
            by_columns(columns, w, x + t * x_stride, x_stride, here, pairs, scale, count,
                       y + t * outputs + o, outputs, reinterpret_cast<const char*>(packed + o * inputs + panel),
                       panel * sizeof *packed);
        };
        if constexpr (std::is_same_v<Columns, Int8Columns>)
            if (here >= kWidened) {
                static thread_local std::vector<bf16> wide;
                wide.resize(panel);
                widen(columns, w, pairs, wide.data());
                return product(Bf16Columns<kVectors>(), wide.data());
            }
        product(columns, w);
    });
}

// V * 16 rows of W from the first on; those that do not exist are zeros.
template <long V>
void pack_columns(const bf16* w_OI, long first, long inputs, long outputs, std::uint32_t* to) {
    const long pairs = inputs / 2;
    for (long v = 0; v < V; v++)
        for (long k = 0; k < pairs; k += kVector) {
            const long left = inputs - 2 * k, some = std::min(kVector, pairs - k);
            const __mmask32 lanes = left >= 2 * kVector ? ~0u : (1u << left) - 1;
            __m512i words[kVector];
            for (long i = 0; i < kVector; i++) {
                const long o = first + v * kVector + i;
                words[i] = o < outputs ? _mm512_maskz_loadu_epi16(lanes, w_OI + o * inputs + 2 * k)
                                       : _mm512_setzero_si512();
            }
            bf16_product::transpose(words, words);
            for (long j = 0; j < some; j++)
                _mm512_storeu_si512(to + ((k + j) * V + v) * kVector, words[j]);
        }
}

template <long V>
void by_rows(const bf16* x, long x_stride, const bf16* w_OI, bf16* y, long rows, long inputs, long outputs,
             int threads) {
    by_blocks(rows, inputs, outputs, V * kVector, threads, [&](long t, long here, long o, long count) {
        static thread_local std::vector<std::uint32_t> packed;
        packed.resize(inputs / 2 * V * kVector);
        pack_columns<V>(w_OI, o, inputs, outputs, packed.data());
        by_columns(Bf16Columns<V>(), reinterpret_cast<const bf16*>(packed.data()), x + t * x_stride, x_stride,
                   here, inputs / 2, nullptr, count, y + t * outputs + o, outputs, nullptr, 0);
    });
}

}  // namespace

// In all of these `inputs` is even, and x_TI has rows `x_stride` values apart.

// W as it lies: some rows of it are packed, used and forgotten.
extern "C" void linear_rows(const bf16* x_TI, std::int64_t x_stride, const bf16* w_OI, bf16* y_TO,
                            std::int64_t rows, std::int64_t inputs, std::int64_t outputs,
                            std::int64_t threads) {
    const auto product = rows >= kTwoPanels ? by_rows<2 * kVectors> : by_rows<kVectors>;
    product(x_TI, x_stride, w_OI, y_TO, rows, inputs, outputs, threads);
}
RECORDABLE(linear_rows)

extern "C" void linear_packed(const bf16* x_TI, std::int64_t x_stride, const bf16* packed,
                              bf16* y_TO, std::int64_t rows, std::int64_t inputs,
                              std::int64_t outputs, std::int64_t threads) {
    by_packed<Bf16Columns<kVectors>>(x_TI, x_stride, packed, nullptr, y_TO, rows, inputs, outputs, threads);
}
RECORDABLE(linear_packed)

extern "C" void linear_packed_int8(const bf16* x_TI, std::int64_t x_stride, const std::int8_t* packed,
                                   const float* scale_O, bf16* y_TO, std::int64_t rows,
                                   std::int64_t inputs, std::int64_t outputs, std::int64_t threads) {
    by_packed<Int8Columns>(x_TI, x_stride, packed, scale_O, y_TO, rows, inputs, outputs, threads);
}
RECORDABLE(linear_packed_int8)

extern "C" void pack_linear(const bf16* w_OI, std::uint32_t* packed, std::int64_t inputs,
                            std::int64_t outputs, std::int64_t threads) {
#pragma omp parallel for num_threads(threads)
    for (long o = 0; o < outputs; o += kOutputs)
        pack_columns<kVectors>(w_OI, o, inputs, outputs, packed + o * inputs / 2);
}

// Values are -127 to 127.
extern "C" void pack_linear_int8(const std::int8_t* w_OI, std::int8_t* packed, std::int64_t inputs,
                                 std::int64_t outputs, std::int64_t threads) {
#pragma omp parallel for num_threads(threads)
    for (long first = 0; first < outputs; first += kOutputs)
        for (long k = 0; k < inputs; k += 2)
            for (long i = 0; i < 2 * kOutputs; i++) {
                const long o = first + i / 2;
                packed[first * inputs + k * kOutputs + Int8Columns::place(i)] =
                    o < outputs ? w_OI[o * inputs + k + i % 2] : 0;
            }
}

#endif
