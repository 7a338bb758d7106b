// What a step's rows see of the pool: positions to slots, and masks of 64 keys for every row.
#pragma once

#include <algorithm>
#include <vector>

#include "attention_block.h"

namespace paged {

constexpr long kMostRows = 192;  // of a task

// Rows of one head: element [t][n][h] at t * row + n * head + h.
template <class E>
struct Rows {
    const E* data;
    long row, head;
    const E* at(long t, long n) const { return data + t * row + n * head; }
};

// A step as the caller gave it; `bias`, `parent`, `select` and the scores are null where not used.
template <class E>
struct Step {
    Rows<E> q, k, v;
    long rows, heads, kv_heads, width, value_width;
    long page_size, table_row, sequences;
    const std::int64_t *table, *segments;  // [B, P], [B, 3]
    float scale;
    const float* bias;  // by slot
    long bias_columns;
    const std::int64_t* parent;  // a row of the step, or -1
    const bool* select;  // by row, key/value head and slot
    long select_row, select_head;
    const std::int64_t* score_rows;
    long num_scores, score_stride;
    float* scores;  // [scores][N][score_stride] by position
    E* out;         // [T, N, W]
    float *lse, *maxima;  // [T, N]

    long group() const { return heads / kv_heads; }
    long start(long b) const { return segments[3 * b]; }
    long stop(long b) const { return segments[3 * b + 1]; }
    long first(long b) const { return segments[3 * b + 2]; }
};

// The queries of some rows of one sequence: their heads of some key/value heads, counted by
// key/value head, row and head.
struct Queries {
    long sequence, row, rows, kv_head, kv_heads, group;
    long of_head() const { return rows * group; }
    long count() const { return kv_heads * of_head(); }
    long row_of(long i) const { return row + i % of_head() / group; }
    long head_of(long i) const { return (kv_head + i / of_head()) * group + i % group; }
};

// What one thread computes at a time: queries over the keys of a range of positions.
struct Task : Queries {
    long key, key_stop;
    long partial;  // where its results go; -1: to the output
    double cost() const { return double(count()) * (key_stop - key); }
};

// Which of the rows before it in its sequence, and itself, a row of a token tree sees.
class Ancestors {
  public:
    template <class E>
    explicit Ancestors(const Step<E>& step) : offset_(step.parent ? step.rows : 0) {
        if (!step.parent) return;
        for (long b = 0; b < step.sequences; b++) {
            const long start = step.start(b), words = (step.stop(b) - start + 63) / 64 + 1;
            for (long t = start; t < step.stop(b); t++) {
                offset_[t] = bits_.size();
                bits_.resize(bits_.size() + words);
                std::uint64_t* own = bits_.data() + offset_[t];
                for (long i = t; i >= 0; i = step.parent[i]) own[(i - start) / 64] |= std::uint64_t(1) << (i - start) % 64;
            }
        }
    }
    // 64 bits from the sequence's row `from` on, which is above -64.
    std::uint64_t bits(long t, long from) const {
        const std::uint64_t* own = bits_.data() + offset_[t];
        if (from < 0) return own[0] << -from;
        const long shift = from % 64;
        own += from / 64;
        return shift ? own[0] >> shift | own[1] << (64 - shift) : own[0];
    }

  private:
    std::vector<std::size_t> offset_;
    std::vector<std::uint64_t> bits_;
};

// A block of keys for one key/value head: where they lie, and who sees them.
template <class E>
struct Block {
    const E *keys[kBlock], *values[kBlock];  // the row of zeros, where nobody sees them
    std::uint64_t any, all;                  // seen by any of the task's rows, by all of them
    std::uint64_t seen[kMostRows];        // by each row
};

template <class E>
class Blocks {
  public:
    Blocks(const Step<E>& step, const Ancestors& ancestors, const Task& task, const E* zeros)
        : step_(step), ancestors_(ancestors), task_(task), zeros_(zeros) {}

    // Fills the block from position `key` on.
    void locate(long key, long kv_head, Block<E>& block) {
        if (key != key_) find_slots(key);
        block.any = 0;
        block.all = ~std::uint64_t(0);
        for (long r = 0; r < task_.rows; r++) {
            std::uint64_t seen = seen_by(r) & first_bits(count_);
            if (step_.select) seen &= selected(task_.row + r, kv_head);
            block.seen[r] = seen;
            block.any |= seen;
            block.all &= seen;
        }
        for (long i = 0; i < kBlock; i++) {
            const bool seen = block.any >> i & 1;
            block.keys[i] = seen ? step_.k.at(slots_[i], kv_head) : zeros_;
            block.values[i] = seen ? step_.v.at(slots_[i], kv_head) : zeros_;
        }
    }

    // The bias of a block that was located last, by key.
    void bias(long column, float factor, float* to) const {
        for (long i = 0; i < kBlock; i++)
            to[i] = step_.bias[slots_[i] * step_.bias_columns + column] * factor;
    }

  private:
    void find_slots(long key) {
        key_ = key;
        count_ = std::min(kBlock, task_.key_stop - key);
        const std::int64_t* pages = step_.table + task_.sequence * step_.table_row;
        for (long i = 0; i < count_;) {
            const long offset = (key + i) % step_.page_size;
            const long slot = pages[(key + i) / step_.page_size] * step_.page_size + offset;
            const long run = std::min(step_.page_size - offset, count_ - i);
            for (long j = 0; j < run; j++) slots_[i + j] = slot + j;
            i += run;
        }
        for (long i = count_; i < kBlock; i++) slots_[i] = slots_[0];
    }
    std::uint64_t seen_by(long r) const {
        const long first = step_.first(task_.sequence), start = step_.start(task_.sequence);
        const long t = task_.row + r;
        if (!step_.parent) return first_bits(first + t - start + 1 - key_);
        const std::uint64_t history = first_bits(first - key_);
        return key_ + kBlock > first ? history | ancestors_.bits(t, key_ - first) : history;
    }
    std::uint64_t selected(long t, long kv_head) const {
        const bool* by_slot = step_.select + t * step_.select_row + kv_head * step_.select_head;
        std::uint64_t bits = 0;
        for (long i = 0; i < kBlock; i++) bits |= std::uint64_t(by_slot[slots_[i]]) << i;
        return bits;
    }

    const Step<E>& step_;
    const Ancestors& ancestors_;
    const Task& task_;
    const E* zeros_;
    long key_ = -1, count_ = 0;
    long slots_[kBlock];
};

// Whether a value that only some of the rows see would spoil the others': 0 times it is not 0.
template <class E>
bool spoils(const Block<E>& block, long width) {
    std::uint64_t some = block.any & ~block.all;
    for (long i = 0; some; i++, some >>= 1) {
        if (!(some & 1)) continue;
        bool finite = true;
        for (long w = 0; w < width; w++) finite &= to_float(block.values[i][w]) - to_float(block.values[i][w]) == 0;
        if (!finite) return true;
    }
    return false;
}

}  // namespace paged
