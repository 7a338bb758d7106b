// y = x W^T of float32 for few rows of x: W is read once, as it lies, in one stream.
//
// Each sum runs over k in order, eight lanes side by side, whatever the number of rows: a row's bits do
// not depend on the others.

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "crew.h"
#include "tape.h"

namespace {

constexpr long kLanes = 8;
constexpr int kRows = 4, kOutputs = 3;  // of a tile: 12 sums, 3 registers of W, one of x
constexpr long kPanel = 12;             // rows of W that stay in a cache while all rows of x go by

inline float sum_of(__m256 lanes) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
    four = _mm_hadd_ps(four, four);
    return _mm_cvtss_f32(_mm_hadd_ps(four, four));
}

inline __m256i first_lanes(long count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(int(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

// Asks for memory that comes next, some lines at a time: as many as make it last for what is done
// meanwhile, since asking for all at once is slower.
class Ahead {
  public:
    Ahead(const float* next, const float* end, int lines)
        : next_(reinterpret_cast<const char*>(next)), end_(reinterpret_cast<const char*>(end)), lines_(lines) {}

    void ask() {
        for (int line = 0; line < lines_ && next_ < end_; line++, next_ += 64)
            _mm_prefetch(next_, _MM_HINT_T1);
    }

  private:
    const char *next_, *end_;
    const int lines_;
};

// R rows of x by O rows of W, which lie `inputs` values apart.
template <int R, int O>
inline void tile(const float* x, long x_stride, const float* w, long inputs, float* y, long y_stride,
                 Ahead& ahead) {
    __m256 sum[R][O];
    for (int r = 0; r < R; r++)
        for (int o = 0; o < O; o++) sum[r][o] = _mm256_setzero_ps();
    long k = 0;
    const auto add = [&](const auto& load) {
        __m256 column[O];
        ahead.ask();
        for (int o = 0; o < O; o++) column[o] = load(w + o * inputs + k);
        for (int r = 0; r < R; r++) {
            const __m256 row = load(x + r * x_stride + k);
            for (int o = 0; o < O; o++) sum[r][o] = _mm256_fmadd_ps(row, column[o], sum[r][o]);
        }
    };
    for (; k + kLanes <= inputs; k += kLanes) add([](const float* from) { return _mm256_loadu_ps(from); });
    if (k < inputs) {
        const __m256i lanes = first_lanes(inputs - k);
        add([&](const float* from) { return _mm256_maskload_ps(from, lanes); });
    }
    for (int r = 0; r < R; r++)
        for (int o = 0; o < O; o++) y[r * y_stride + o] = sum_of(sum[r][o]);
}

// R rows of x by `count` rows of W.
template <int R>
inline void strip(const float* x, long x_stride, const float* w, long inputs, long count, float* y,
                  long y_stride, Ahead& ahead) {
    for (; count >= kOutputs; count -= kOutputs, w += kOutputs * inputs, y += kOutputs)
        tile<R, kOutputs>(x, x_stride, w, inputs, y, y_stride, ahead);
    if (count == 2) tile<R, 2>(x, x_stride, w, inputs, y, y_stride, ahead);
    if (count == 1) tile<R, 1>(x, x_stride, w, inputs, y, y_stride, ahead);
}

}  // namespace

// x_TI has rows `x_stride` values apart.
extern "C" void linear_float(const float* x_TI, std::int64_t x_stride, const float* w_OI, float* y_TO,
                             std::int64_t rows, std::int64_t inputs, std::int64_t outputs,
                             std::int64_t threads) {
    const long panels = (outputs + kPanel - 1) / kPanel;
    crew::share(panels, rows * inputs * outputs > 65536, threads, [&](long panel) {
        const long first = panel * kPanel, count = std::min(kPanel, outputs - first);
        const float *w = w_OI + first * inputs, *x = x_TI;
        float* y = y_TO + first;
        long left = rows;
        const float* next = w + count * inputs;  // likely this thread's, too
        Ahead ahead(next, next + std::min(kPanel, outputs - first - count) * inputs, rows <= kRows ? 2 : 1);
        for (; left >= kRows; left -= kRows, x += kRows * x_stride, y += kRows * outputs)
            strip<kRows>(x, x_stride, w, inputs, count, y, outputs, ahead);
        if (left == 3) strip<3>(x, x_stride, w, inputs, count, y, outputs, ahead);
        if (left == 2) strip<2>(x, x_stride, w, inputs, count, y, outputs, ahead);
        if (left == 1) strip<1>(x, x_stride, w, inputs, count, y, outputs, ahead);
    });
}
RECORDABLE(linear_float)
