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
    bool sees_step;  // or the entries from before it alone
    const std::int64_t *table, *segments;  // [B, P], [B, 3]
    float scale;
    const float* bias;  // by slot
    long bias_columns;
    const std::int64_t* parent;  // a row of the step, or -1
    const bool* select;          // by row, key/value head and slot
    long select_row, select_head;
    const std::int64_t* score_rows;
    long num_scores, score_stride;
    float* scores;        // [scores][N][score_stride] by position
    E* out;               // [T, N, W]
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
                for (long i = t; i >= 0; i = step.parent[i])
                    own[(i - start) / 64] |= std::uint64_t(1) << (i - start) % 64;
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

// Where 64 positions of a sequence lie.
struct Slots {
    long key = -1, count = 0;
    long slot[kBlock];  // from `count` on: the first one's

    void find(const std::int64_t* pages, long page_size, long first, long stop) {
        key = first;
        count = std::clamp(stop - first, 0L, kBlock);
        for (long i = 0; i < count;) {
            const long offset = (key + i) % page_size, run = std::min(page_size - offset, count - i);
            const long from = pages[(key + i) / page_size] * page_size + offset;
            for (long j = 0; j < run; j++) slot[i + j] = from + j;
            i += run;
        }
        std::fill(slot + count, slot + kBlock, count ? slot[0] : 0);
    }
};

// The block of keys that a task is at, and one key/value head's view of it.
template <class E>
class Block {
  public:
    const E *keys[kBlock], *values[kBlock];  // a row of zeros, where nobody sees them
    const E *next_keys[kBlock], *next_values[kBlock];
    std::uint64_t any, all;         // seen by any of the task's rows, by all of them
    std::uint64_t seen[kMostRows];  // by each row

    Block(const Step<E>& step, const Ancestors& ancestors, const Task& task, const Task* following,
          const E* zeros)
        : step_(step), ancestors_(ancestors), task_(task), following_(following), zeros_(zeros),
          pages_(step.table + task.sequence * step.table_row) {
        next_.find(pages_, step.page_size, task.key, task.key_stop);
    }

    void move_to(long key) {
        now_ = next_;
        if (key + kBlock < task_.key_stop)
            next_.find(pages_, step_.page_size, key + kBlock, task_.key_stop);
        else if (following_)
            find_following();
    }

    void look(long kv_head) {
        any = 0;
        all = ~std::uint64_t(0);
        for (long r = 0; r < task_.rows; r++) {
            seen[r] = seen_by(r) & first_bits(now_.count);
            if (step_.select) seen[r] &= selected(now_, task_.row + r, kv_head);
            any |= seen[r];
            all &= seen[r];
        }
        if (any) point(now_, kv_head, any, keys, values);
    }

    // Points at the head's part of the next block, to be prefetched if it is read, too.
    void look_ahead(long kv_head) {
        std::uint64_t read = first_bits(next_.count);
        if (step_.select && next_.key != now_.key + kBlock) read = 0;  // another task's
        if (step_.select && read) read &= selected(next_, task_.row, kv_head);
        point(next_, kv_head, read, next_keys, next_values);
    }

    // The lines of memory that it takes up. Returns how many they are.
    long lines_ahead(long kv_head, const void** lines) const {
        const void** to = lines;
        const auto add = [&](const E* row, long width) {
            for (long i = 0; i < width; i += 64 / long(sizeof(E))) *to++ = row + i;
        };
        for (long i = 0; i < next_.count; i++) {
            add(step_.k.at(next_.slot[i], kv_head + heads_ahead_), step_.width);
            if (step_.v.data != step_.k.data)
                add(step_.v.at(next_.slot[i], kv_head + heads_ahead_), step_.value_width);
        }
        return to - lines;
    }

    void bias(long column, float factor, float* to) const {
        for (long i = 0; i < kBlock; i++)
            to[i] = step_.bias[now_.slot[i] * step_.bias_columns + column] * factor;
    }

    // Whether a value that only some of the rows see would spoil the others': 0 times it is not 0.
    bool spoils() const {
        std::uint64_t some = any & ~all;
        for (long i = 0; some; i++, some >>= 1) {
            if (!(some & 1)) continue;
            bool finite = true;
            for (long w = 0; w < step_.value_width; w++) {
                const float x = to_float(values[i][w]);
                finite &= x - x == 0.0f;
            }
            if (!finite) return true;
        }
        return false;
    }

  private:
    void find_following() {
        next_.find(step_.table + following_->sequence * step_.table_row, step_.page_size, following_->key,
                   following_->key_stop);
        heads_ahead_ = following_->kv_heads == task_.kv_heads ? following_->kv_head - task_.kv_head : 0;
    }
    void point(const Slots& slots, long kv_head, std::uint64_t read, const E** to_keys,
               const E** to_values) const {
        for (long i = 0; i < kBlock; i++) {
            to_keys[i] = step_.k.at(slots.slot[i], kv_head);
            to_values[i] = step_.v.at(slots.slot[i], kv_head);
        }
        if (~read)
            for (long i = 0; i < kBlock; i++)
                if (!(read >> i & 1)) to_keys[i] = to_values[i] = zeros_;
    }
    std::uint64_t seen_by(long r) const {
        const long first = step_.first(task_.sequence), start = step_.start(task_.sequence);
        const long t = task_.row + r, key = now_.key;
        if (!step_.sees_step) return first_bits(first - key);
        if (!step_.parent) return first_bits(first + t - start + 1 - key);
        const std::uint64_t history = first_bits(first - key);
        return key + kBlock > first ? history | ancestors_.bits(t, key - first) : history;
    }
    std::uint64_t selected(const Slots& slots, long t, long kv_head) const {
        const bool* by_slot = step_.select + t * step_.select_row + kv_head * step_.select_head;
        std::uint64_t bits = 0;
        if (step_.page_size % 16)
            for (long i = 0; i < kBlock; i++) bits |= std::uint64_t(by_slot[slots.slot[i]]) << i;
        else
            for (long i = 0; i < kBlock; i += 16) {  // which lie side by side
                const __m128i bytes = _mm_loadu_si128((const __m128i*)(by_slot + slots.slot[i]));
                bits |= std::uint64_t(_mm_movemask_epi8(_mm_slli_epi16(bytes, 7))) << i;
            }
        return bits;
    }

    const Step<E>& step_;
    const Ancestors& ancestors_;
    const Task& task_;
    const Task* following_;
    const E* zeros_;
    const std::int64_t* pages_;
    Slots now_, next_;
    long heads_ahead_ = 0;  // of the next block, where it is another task's
};

}  // namespace paged
