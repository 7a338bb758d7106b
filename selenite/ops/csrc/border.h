// Where a filter of logits ends (top-k, top-p), found without sorting the vocabulary.
//
// Of the tokens in descending order of their logits, equal ones in ascending order of their ids, a
// filter keeps those before which less weight stands than its target. A token weighs 1 for top-k
// and its share of the mass for top-p. The weight of ranges of logits (bins) is added up first; of
// the one range in which the target is reached, the border is found by partitions (quickselect).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "numbers.h"

constexpr long kBlock = 64;  // tokens with a maximum of their own

struct Border {
    float value;
    long last_id;  // of the tokens whose logit is `value`, those up to this one are kept

    bool keeps(float x, long id) const { return x > value || (x == value && id <= last_id); }
};

// One row's logits in float32 and what is known of them. Blocks are whole: behind the vocabulary
// stand logits of -infinity. A block without any token that is kept has the maximum -infinity, and
// what its logits and weights hold is not read.
struct Scores {
    long vocab, blocks;
    std::vector<float> logits, weights, block_max;
    std::vector<double> block_sum;  // of the weights
    float largest;

    explicit Scores(long vocab)
        : vocab(vocab),
          blocks((vocab + kBlock - 1) / kBlock),
          logits(blocks * kBlock),
          weights(blocks * kBlock),
          block_max(blocks),
          block_sum(blocks),
          bins(blocks * kBlock) {}

    std::vector<std::uint16_t> bins;  // scratch of find_border
};

struct Candidate {
    float logit, weight;
    std::int32_t id;
};

// Never above the `count`-th largest logit: each block has one that is its maximum.
inline float at_most_largest(const Scores& row, long count) {
    if (count > row.blocks) return -INFINITY;
    std::vector<float> maxima(row.block_max);
    std::nth_element(maxima.begin(), maxima.begin() + (count - 1), maxima.end(),
                     [](float a, float b) { return a > b; });
    return maxima[count - 1];
}

// The border among candidates in ascending order of ids; `before` weighs what stands above all.
inline Border border_among(std::vector<Candidate> candidates, double before, double target) {
    std::vector<Candidate> above, equal, below;
    for (;;) {
        const long count = long(candidates.size());
        const float a = candidates[0].logit, b = candidates[count / 2].logit,
                    c = candidates[count - 1].logit;
        const float pivot = std::max(std::min(a, b), std::min(std::max(a, b), c));
        above.clear(), equal.clear(), below.clear();
        double weight_above = 0.0;
        for (const Candidate& x : candidates) {
            if (x.logit > pivot) {
                above.push_back(x);
                weight_above += x.weight;
            } else {
                (x.logit == pivot ? equal : below).push_back(x);
            }
        }
        if (before + weight_above >= target) {
            candidates.swap(above);
            continue;
        }
        before += weight_above;
        Border border{pivot, -1};
        for (const Candidate& x : equal) {
            if (before >= target) return border;
            border.last_id = x.id;
            before += x.weight;
        }
        if (before >= target || below.empty()) return border;
        candidates.swap(below);
    }
}

// The border among logits of `lowest` (finite) and more; those below it are kept in no case.
// Counts tokens, or adds up their weights.
template <bool kByWeight>
Border find_border(Scores& row, float lowest, double target) {
    constexpr int kBins = 2048;
    std::vector<Candidate> candidates;
    const auto collect = [&](auto is_candidate) {
        for (long b = 0; b < row.blocks; b++) {
            if (!(row.block_max[b] >= lowest)) continue;
            int any = 0;  // most blocks have none
#pragma omp simd reduction(| : any)
            for (long v = b * kBlock; v < (b + 1) * kBlock; v++) any |= is_candidate(v);
            if (!any) continue;
            std::int32_t ids[kBlock];
            int count = 0;
            for (long v = b * kBlock; v < (b + 1) * kBlock; v++) {
                ids[count] = std::int32_t(v);
                count += is_candidate(v);
            }
            for (int i = 0; i < count; i++) {
                const std::int32_t id = ids[i];
                candidates.push_back({row.logits[id], kByWeight ? row.weights[id] : 1.0f, id});
            }
        }
    };
    const Border all{lowest, row.vocab};
    const long num_blocks = std::count_if(row.block_max.begin(), row.block_max.end(),
                                          [&](float x) { return x >= lowest; });
    double before = 0.0;
    if (num_blocks <= 16) {
        const float* logits = row.logits.data();
        collect([logits, lowest](long v) { return logits[v] >= lowest; });
    } else {
        const float width = row.largest - lowest;
        const float scale = width > 0 && std::isfinite(width) ? (kBins - 1) / width : 0.0f;
        // What is below goes to bins behind, neighbours to different ones, so that no addition waits
        // for the one before.
        double sum[kBins + kBlock] = {};
        for (long b = 0; b < row.blocks; b++) {
            if (!(row.block_max[b] >= lowest)) continue;
            const float* logits = &row.logits[b * kBlock];
            const float* weights = &row.weights[b * kBlock];
            std::uint16_t* bins = &row.bins[b * kBlock];
#pragma omp simd
            for (std::int32_t i = 0; i < kBlock; i++) {
                const float below = (row.largest - logits[i]) * scale;
                bins[i] = std::uint16_t(logits[i] >= lowest ? std::int32_t(below) : kBins + i);
            }
            for (long i = 0; i < kBlock; i++) sum[bins[i]] += kByWeight ? double(weights[i]) : 1.0;
        }
        int border = 0;
        while (border < kBins && before + sum[border] < target) before += sum[border++];
        if (border == kBins) return all;
        const std::uint16_t* bins = row.bins.data();
        collect([bins, border = std::uint16_t(border)](long v) { return bins[v] == border; });
    }
    return candidates.empty() ? all : border_among(std::move(candidates), before, target);
}
