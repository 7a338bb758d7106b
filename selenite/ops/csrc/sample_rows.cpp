// Draws a token for each row of logits, as `sampling_logits` and `draw_token` in ops/sampling.py
// define it, and computes the log-probabilities that were asked for.
//
// A row is one thread's work and stays in its second-level cache: it is read once, scaled to
// float32, filtered by borders (border.h), and its weights exp(logit - largest) are added up by
// blocks of tokens, so that the token of a random number is found by blocks. No result depends on
// the other rows or on the number of threads.

#include <cstring>

#include "border.h"

namespace {

// One row; ops/sampling.py has the same record. The first part is read, the second written.
struct Row {
    const void* logits;     // that the token is drawn from
    const void* own;        // the model's own; null: no log-probabilities are asked for
    std::int64_t* top_ids;  // room for num_top
    float* top_logprobs;
    double temperature;  // 0: the first of the largest logits is taken, nothing is filtered
    double top_p, min_p;
    double uniform;  // in [0, 1)
    std::int64_t top_k;
    std::int64_t num_top;                     // likeliest tokens to report, within the vocabulary
    std::int64_t logits_are_bf16, own_is_bf16;

    std::int64_t token;  // -1: the largest logit is not finite, and nothing else was written
    float largest;       // of the logits; NaN if one of them is
    float logprob, sampled_logprob;  // of the token, in the model's own distribution and in that
                                     // which it was drawn from
};

// Reads logits, divided by the temperature. Returns the largest before that, or NaN.
template <class T>
float read(Scores& row, const T* from, float temperature) {
    float largest = -INFINITY;
    bool has_nan = false;
    for (long b = 0; b < row.blocks; b++) {
        T padded[kBlock];
        const T* block = from + b * kBlock;
        const long count = std::min(kBlock, row.vocab - b * kBlock);
        if (count < kBlock) {
            for (long i = 0; i < kBlock; i++) store(&padded[i], -INFINITY);
            std::memcpy(padded, block, count * sizeof(T));
            block = padded;
        }
        float* to = &row.logits[b * kBlock];
        float block_max = -INFINITY;
        int nans = 0;
#pragma omp simd reduction(max : block_max) reduction(+ : nans)
        for (long i = 0; i < kBlock; i++) {
            const float x = to_float(block[i]);
            to[i] = x / temperature;
            block_max = x > block_max ? x : block_max;
            nans += x != x;
        }
        largest = std::max(largest, block_max);
        has_nan |= nans > 0;
        row.block_max[b] = block_max / temperature;  // rounds as its logit does
    }
    row.largest = largest / temperature;
    return has_nan ? NAN : largest;
}

float read(Scores& row, const void* from, bool is_bf16, float temperature) {
    return is_bf16 ? read(row, static_cast<const bf16*>(from), temperature)
                   : read(row, static_cast<const float*>(from), temperature);
}

// exp_float of numbers up to 0, to the bit, in half the instructions: 2^n is a normal number.
inline float exp_of_negative(float x) {
    float shifted;
    const float p = exp_parts(x < -87.3f ? -87.3f : x, shifted);
    // n is added to the exponent.
    const float power = from_bits(to_bits(p) + (to_bits(shifted) << 23));
    return x < -87.3f ? 0.0f : power;
}

// Writes weights and their sums by blocks; returns the whole sum.
double weigh(Scores& row) {
    double total = 0.0;
    for (long b = 0; b < row.blocks; b++) {
        const float* logits = &row.logits[b * kBlock];
        float* weights = &row.weights[b * kBlock];
        double sum = 0.0;
        if (row.block_max[b] > -INFINITY) {
#pragma omp simd
            for (long i = 0; i < kBlock; i++) weights[i] = exp_of_negative(logits[i] - row.largest);
#pragma omp simd reduction(+ : sum)
            for (long i = 0; i < kBlock; i++) sum += double(weights[i]);
        }
        total += row.block_sum[b] = sum;
    }
    return total;
}

void exclude(Scores& row, Border border) {
    for (long b = 0; b < row.blocks; b++) {
        if (!(row.block_max[b] >= border.value)) {
            row.block_max[b] = -INFINITY;
            continue;
        }
        float* logits = &row.logits[b * kBlock];
        const std::int32_t last = std::int32_t(border.last_id - b * kBlock);
#pragma omp simd
        for (std::int32_t i = 0; i < kBlock; i++) {
            const float x = logits[i];
            const float tied = i <= last ? x : -INFINITY;
            logits[i] = x > border.value ? x : (x == border.value ? tied : -INFINITY);
        }
    }
}

// The same for the sums of weights, by blocks and the whole.
double sum_kept(Scores& row, Border border) {
    double total = 0.0;
    for (long b = 0; b < row.blocks; b++) {
        const float* logits = &row.logits[b * kBlock];
        const float* weights = &row.weights[b * kBlock];
        double sum = 0.0;
        if (row.block_max[b] >= border.value) {
            const std::int32_t last = std::int32_t(border.last_id - b * kBlock);
#pragma omp simd reduction(+ : sum)
            for (std::int32_t i = 0; i < kBlock; i++) {
                const float x = logits[i], w = weights[i];
                const float tied = x == border.value && i <= last ? w : 0.0f;
                sum += double(x > border.value ? w : tied);
            }
        }
        total += row.block_sum[b] = sum;
    }
    return total;
}

float lowest_finite(const Scores& row) {
    float lowest = row.largest;
#pragma omp simd reduction(min : lowest)
    for (long v = 0; v < row.vocab; v++) {
        const float x = row.logits[v];
        lowest = x > -INFINITY && x < lowest ? x : lowest;
    }
    return lowest;
}

// The border of top-p, which keeps more than nothing. Tokens that weigh so little that all of them
// together are less than what it excludes need not be looked at.
Border nucleus(Scores& row, double top_p, double total) {
    const double light = 0.99 * (1.0 - top_p) * total / double(row.vocab);
    const float lowest = row.largest + float(std::log(std::max(light, 1e-37)));
    return find_border<true>(row, std::nextafter(lowest, -INFINITY), top_p * total);
}

// The first token up to which those that the border keeps weigh more than `threshold`.
long draw(const Scores& row, Border border, double threshold) {
    double before = 0.0, before_last = 0.0;
    long block = -1;
    for (long b = 0; b < row.blocks; b++) {
        if (row.block_sum[b] <= 0.0) continue;
        block = b, before_last = before;
        before += row.block_sum[b];
        if (before > threshold) break;
    }
    long token = 0;
    before = before_last;
    for (long v = block * kBlock; v < (block + 1) * kBlock; v++) {
        if (!border.keeps(row.logits[v], v) || row.weights[v] == 0.0f) continue;
        token = v;  // the last one if rounding leaves none
        before += row.weights[v];
        if (before > threshold) break;
    }
    return token;
}

long first_largest(const Scores& row) {
    for (long b = 0;; b++)
        if (row.block_max[b] == row.largest)
            for (long v = b * kBlock;; v++)
                if (row.logits[v] == row.largest) return v;
}

void report_likeliest(const Scores& row, float lse, Row& to) {
    std::vector<Candidate> found;
    const float lowest = at_most_largest(row, to.num_top);
    for (long b = 0; b < row.blocks; b++)
        if (row.block_max[b] >= lowest)
            for (long v = b * kBlock; v < std::min((b + 1) * kBlock, row.vocab); v++)
                if (row.logits[v] >= lowest)
                    found.push_back({row.logits[v], 0.0f, std::int32_t(v)});
    const long count = std::min(long(to.num_top), long(found.size()));
    std::partial_sort(found.begin(), found.begin() + count, found.end(),
                      [](const Candidate& a, const Candidate& b) {
                          return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
                      });
    for (long i = 0; i < count; i++) {
        to.top_ids[i] = found[i].id;
        to.top_logprobs[i] = found[i].logit - lse;
    }
    to.num_top = count;
}

void sample(Scores& row, Row& to) {
    const bool is_greedy = to.temperature == 0.0;
    const float temperature = is_greedy ? 1.0f : float(to.temperature);
    float own_lse = 0.0f;
    double total = -1.0;  // negative: not weighed yet
    bool is_read = false;
    to.token = -1;
    if (to.own) {
        to.largest = read(row, to.own, to.own_is_bf16, 1.0f);
        is_read = to.own == to.logits && temperature == 1.0f;
        if (is_read && !std::isfinite(to.largest)) return;
        total = weigh(row);
        own_lse = row.largest + float(std::log(total));
        if (to.num_top > 0) report_likeliest(row, own_lse, to);
    }
    if (!is_read) {
        to.largest = read(row, to.logits, to.logits_are_bf16, temperature);
        if (std::isfinite(to.largest) && !std::isfinite(row.largest)) to.largest = row.largest;
        if (!std::isfinite(to.largest)) return;
        total = -1.0;
    }
    if (is_greedy) {
        to.token = first_largest(row);
        if (!to.own) return;
    } else {
        if (0 < to.top_k && to.top_k < row.vocab) {
            const float bound = at_most_largest(row, to.top_k);
            const float lowest = bound > -INFINITY ? bound : lowest_finite(row);
            exclude(row, find_border<false>(row, lowest, double(to.top_k)));
            total = -1.0;
        }
        if (to.min_p > 0.0) {
            exclude(row, {row.largest + float(std::log(to.min_p)), row.vocab});
            total = -1.0;
        }
    }
    if (total < 0.0) total = weigh(row);
    if (!is_greedy) {
        Border border{-INFINITY, -1};  // nothing is excluded but what has no weight
        if (to.top_p < 1.0) {
            border = nucleus(row, to.top_p, total);
            total = sum_kept(row, border);
        }
        to.token = draw(row, border, to.uniform * total);
    }
    if (to.own) {
        const float own = to.own_is_bf16 ? to_float(static_cast<const bf16*>(to.own)[to.token])
                                         : static_cast<const float*>(to.own)[to.token];
        to.logprob = own - own_lse;
        to.sampled_logprob = row.logits[to.token] - (row.largest + float(std::log(total)));
    }
}

}  // namespace

extern "C" void sample_rows(Row* rows, std::int64_t num_rows, std::int64_t vocab,
                            std::int64_t threads) {
#pragma omp parallel num_threads(std::min(threads, num_rows)) if (num_rows > 1)
    {
        // Kept for the next call: to get half a MiB from the system takes as long as a row.
        static thread_local Scores scores(0);
        if (scores.vocab != vocab) scores = Scores(vocab);
#pragma omp for schedule(dynamic)
        for (std::int64_t i = 0; i < num_rows; i++) sample(scores, rows[i]);
    }
}
