// Attention of a step's rows over cached entries, which are read where they lie in the pool.
//
// A task is some rows of a sequence, one key/value head or all of them, and a range of keys; a query
// is a row with one of the query heads that share its key/value head. Keys come in blocks of 64,
// counted from the sequence's first: order and borders of all sums depend on positions alone, never
// on pages, threads or other sequences.
//
// - Few queries (decoding): a task has all key/value heads, so that it reads memory in one stream,
//   and the queries of a head share each load (arXiv 2305.13245). The next block is prefetched.
// - Many queries (prompts, latent attention): keys and values of a block are packed, and products of
//   packed operands run from registers (as in causal_attention.cpp).
//
// Where a sequence has few rows its keys are cut into ranges, whose results are merged in order at
// the end (flash-decoding), so that one long sequence keeps all threads busy.
//
// Keys that no query of a task sees are replaced by a row of zeros and never read.

#include <algorithm>
#include <utility>
#include <vector>

#include "attention_bf16.h"
#include "attention_float.h"
#include "attention_pages.h"
#include "crew.h"
#include "tape.h"

namespace paged {
namespace {

constexpr long kFewQueries = 8;             // of a key/value head
constexpr long kTileQueries = 48;           // whose logits stay in the first cache
constexpr long kManyRange = 512;            // keys of a range, with many queries
constexpr long kFewRangeBytes = 128 << 10;  // of a range's entries, with few

// The results of queries over ranges of keys, to be merged: a result a query, range after range.
struct Merge : Queries {
    long partial, ranges;
};

struct Plan {
    std::vector<Task> tasks;
    std::vector<Merge> merges;
    long partials = 0;
};

template <class E>
Plan plan_of(const Step<E>& step) {
    Plan plan;
    const long group = step.group();
    const long entry_bytes = step.kv_heads * (step.width + step.value_width) * sizeof(E);
    const long few_range = std::clamp(kFewRangeBytes / entry_bytes / kBlock * kBlock, kBlock, 16 * kBlock);
    for (long b = 0; b < step.sequences; b++) {
        const long rows = step.stop(b) - step.start(b);
        const bool few = rows * group <= kFewQueries;
        const long rows_of_task = few ? rows : std::max(1L, kMostRows / group);
        const bool cut = rows <= rows_of_task;
        const long heads = few ? step.kv_heads : 1;
        for (long r = 0; r < rows; r += rows_of_task) {
            const long count = std::min(rows_of_task, rows - r);
            // In a token tree the rows' own entries come in any order.
            const long own = step.parent ? rows : r + count;
            const long keys = step.first(b) + (step.sees_step ? own : 0);
            const long most = cut ? (few ? few_range : kManyRange) : keys;
            const long ranges = (keys + most - 1) / most, blocks = (keys + kBlock - 1) / kBlock;
            const long range = (blocks + ranges - 1) / ranges * kBlock;  // about equal ones
            for (long m = 0; m < step.kv_heads; m += heads) {
                const Queries queries{b, step.start(b) + r, count, m, heads, group};
                if (ranges > 1)
                    plan.merges.push_back({queries, plan.partials, (keys + range - 1) / range});
                for (long key = 0; key < keys; key += range) {
                    const long partial = ranges > 1 ? plan.partials : -1;
                    plan.tasks.push_back({queries, key, std::min(key + range, keys), partial});
                    if (ranges > 1) plan.partials += queries.count();
                }
            }
        }
    }
    // The longest first: the short ones fill what is left of the threads' time.
    std::stable_sort(plan.tasks.begin(), plan.tasks.end(),
                     [](const Task& a, const Task& b) { return a.cost() > b.cost(); });
    return plan;
}

template <class P>
void write(const Step<typename P::Element>& step, long t, long n, const float* sums, const Running& row) {
    P::store_row(step.out + (t * step.heads + n) * step.value_width, sums, 1.0f / row.sum, step.value_width);
    step.lse[t * step.heads + n] = row.maximum * step.scale + std::log(row.sum);
    step.maxima[t * step.heads + n] = row.sum == row.sum ? row.maximum * step.scale : NAN;
}

thread_local Scratch scratch, partial_scratch;

// A task while it is computed.
template <class P>
class Work {
    using E = typename P::Element;
    using Query = typename P::Query;
    using Probability = typename P::Probability;
    using Packed = typename P::Packed;

  public:
    Work(const Step<E>& step, const Ancestors& ancestors, const Task& task, const Task* following)
        : step_(step), task_(task), few_(task.of_head() <= kFewQueries),
          tile_(few_ ? kFewQueries : kTileQueries),
          biases_(!step.bias ? 0 : step.bias_columns == step.heads ? task.group : 1),
          query_room_(P::query_room(step.width)), room_(P::value_room(step.value_width)),
          zeros_(std::max(query_room_, room_)), memory_(take_memory()),
          block_(step, ancestors, task, following, memory_.zeros) {
        for (long i = 0; i < task.count(); i++) {
            const E* from = step.q.at(task.row_of(i), task.head_of(i));
            Query* to = memory_.queries + i * query_room_;
            for (long h = 0; h < step.width; h++) to[h] = P::query(from[h]);
            std::fill(to + step.width, to + query_room_, Query(0));
        }
        for (long i = 0; i < step.num_scores; i++)
            if (step.score_rows[i] >= task.row && step.score_rows[i] < task.row + task.rows)
                scored_.push_back({step.score_rows[i] - task.row, i});
    }

    void run() {
        for (long key = task_.key; key < task_.key_stop; key += kBlock) {
            block_.move_to(key);
            for (long m = 0; m < task_.kv_heads; m++) {
                block_.look(task_.kv_head + m);
                if (block_.any) attend(key, m);
            }
        }
    }

    void finish(Running* parts, float* part_sums) const {
        const long count = task_.count();
        if (task_.partial >= 0) {
            std::copy(memory_.rows, memory_.rows + count, parts + task_.partial);
            std::copy(memory_.sums, memory_.sums + count * room_, part_sums + task_.partial * room_);
            return;
        }
        for (long i = 0; i < count; i++)
            write<P>(step_, task_.row_of(i), task_.head_of(i), memory_.sums + i * room_, memory_.rows[i]);
    }

  private:
    struct Memory {
        float* sums;     // [queries][value room]
        Query* queries;  // [queries][query room]
        Running* rows;   // [queries]
        E* zeros;
        float* logits;  // [tile][64]
        Probability* probability;
        float* bias;  // [biases][64]
        Packed *keys, *values;
        const void** lines;  // of the next block
    };

    Memory take_memory() const {
        const long count = task_.count(), keys = P::packed_keys(step_.width);
        const long values = P::packed_values(step_.value_width);
        const long a_key = (step_.width + step_.value_width) * sizeof(E) / 64 + 2;
        const long lines = few_ ? 0 : kBlock * a_key + 1;
        scratch.reset(count * (room_ * sizeof(float) + query_room_ * sizeof(Query) + sizeof(Running)) +
                      zeros_ * sizeof(E) + (2 * tile_ + biases_) * kBlock * sizeof(float) +
                      (keys + values) * sizeof(Packed) + lines * sizeof(void*) + 16 * 64);
        Memory memory;
        memory.sums = scratch.take<float>(count * room_);
        memory.queries = scratch.take<Query>(count * query_room_);
        memory.rows = scratch.take<Running>(count);
        memory.zeros = scratch.take<E>(zeros_);
        memory.logits = scratch.take<float>(tile_ * kBlock);
        memory.probability = scratch.take<Probability>(tile_ * kBlock);
        memory.bias = scratch.take<float>(biases_ * kBlock);
        memory.keys = scratch.take<Packed>(keys);
        memory.values = scratch.take<Packed>(values);
        memory.lines = scratch.take<const void*>(lines);
        std::fill(memory.sums, memory.sums + count * room_, 0.0f);
        std::fill(memory.rows, memory.rows + count, Running());
        std::fill(memory.zeros, memory.zeros + zeros_, E(0));
        std::fill(memory.lines, memory.lines + lines, memory.zeros);
        return memory;
    }

    // The block, by the queries of the task's m-th key/value head.
    void attend(long key, long m) {
        const long width = step_.width, value_width = step_.value_width, queries = task_.of_head();
        for (long i = 0; i < biases_; i++)
            block_.bias((task_.kv_head + m) * biases_ + i, 1.0f / step_.scale, memory_.bias + i * kBlock);
        const bool careful = block_.any != block_.all && block_.spoils();
        long first = 0;  // the rows before it see nothing
        while (!block_.seen[first]) first++;
        Ahead ahead;
        if (few_) {
            block_.look_ahead(task_.kv_head + m);
        } else {
            P::pack_keys(block_.keys, width, memory_.keys);
            P::pack_values(block_.values, value_width, memory_.values);
            const long lines = block_.lines_ahead(task_.kv_head + m, memory_.lines);
            ahead.spread(memory_.lines, lines, steps(queries - first * task_.group));
        }
        for (long begin = first * task_.group; begin < queries; begin += tile_) {
            const long count = std::min(tile_, queries - begin), at = m * queries + begin;
            const Query* q = memory_.queries + at * query_room_;
            float* sums = memory_.sums + at * room_;
            if (few_)
                P::few_logits(q, count, block_.keys, block_.next_keys, width, block_.any, memory_.logits);
            else
                P::many_logits(q, count, memory_.keys, width, memory_.logits, ahead);
            softmax(m, begin, count);
            if (!scored_.empty()) keep_scores(key, m, begin, count);
            if (careful)
                add_one_by_one(begin, count, sums);
            else if (few_)
                P::few_values(memory_.probability, count, block_.values, block_.next_values, value_width,
                              block_.any, sums);
            else
                P::many_values(memory_.probability, count, memory_.values, value_width, sums, ahead);
        }
    }

    // Of all products over a block.
    long steps(long queries) const {
        const long rest = queries % tile_;
        return queries / tile_ * P::steps(tile_, step_.width, step_.value_width) +
               (rest ? P::steps(rest, step_.width, step_.value_width) : 0);
    }

    void softmax(long m, long begin, long count) {
        const long queries = task_.of_head();
        for (long i = 0; i < count; i++) {
            const long query = begin + i;
            const std::uint64_t seen = block_.seen[query / task_.group];
            const float kept = add_block(memory_.logits + i * kBlock, bias_of(query), seen, step_.scale,
                                         memory_.rows[m * queries + query],
                                         memory_.probability + i * kBlock);
            if (kept == 1.0f) continue;
            float* sums = memory_.sums + (m * queries + query) * room_;
            for (long w = 0; w < room_; w++) sums[w] *= kept;
        }
    }

    const float* bias_of(long query) const {
        return biases_ ? memory_.bias + query % task_.group % biases_ * kBlock : nullptr;
    }

    void keep_scores(long key, long m, long begin, long count) {
        for (const auto& [row, score] : scored_)
            for (long g = 0; g < task_.group; g++) {
                const long query = row * task_.group + g, n = (task_.kv_head + m) * task_.group + g;
                if (query < begin || query >= begin + count) continue;
                const float *logits = memory_.logits + (query - begin) * kBlock, *bias = bias_of(query);
                float* to = step_.scores + (score * step_.heads + n) * step_.score_stride + key;
                for (long k = 0; k < kBlock; k++)
                    if (block_.seen[row] >> k & 1)
                        to[k] = (logits[k] + (bias ? bias[k] : 0.0f)) * step_.scale;
            }
    }

    void add_one_by_one(long begin, long count, float* sums) const {
        for (long i = 0; i < count; i++, sums += room_)
            for (long k = 0; k < kBlock; k++) {
                if (!(block_.seen[(begin + i) / task_.group] >> k & 1)) continue;
                const float p = to_float(memory_.probability[i * kBlock + k]);
                for (long w = 0; w < step_.value_width; w++) sums[w] += p * to_float(block_.values[k][w]);
            }
    }

    const Step<E>& step_;
    const Task& task_;
    const bool few_;
    const long tile_, biases_, query_room_, room_, zeros_;
    const Memory memory_;
    Block<E> block_;
    std::vector<std::pair<long, long>> scored_;  // rows of the task, and which score each is
};

template <class P>
void merge(const Step<typename P::Element>& step, const Merge& merge, const Running* parts,
           const float* part_sums) {
    const long room = P::value_room(step.value_width), count = merge.count();
    scratch.reset(room * sizeof(float));
    float* sums = scratch.take<float>(room);
    for (long i = 0; i < count; i++) {
        const long first = merge.partial + i, stop = first + merge.ranges * count;
        Running row;
        for (long p = first; p < stop; p += count) row.maximum = std::max(row.maximum, parts[p].maximum);
        std::fill(sums, sums + room, 0.0f);
        for (long p = first; p < stop; p += count) {
            if (parts[p].sum == 0.0f) continue;  // it saw no key
            const float weight = std::exp((parts[p].maximum - row.maximum) * step.scale);
            row.sum += parts[p].sum * weight;
            for (long w = 0; w < room; w++) sums[w] += part_sums[p * room + w] * weight;
        }
        write<P>(step, merge.row_of(i), merge.head_of(i), sums, row);
    }
}

template <class P>
void run(const Step<typename P::Element>& step, int threads) {
    const Plan plan = plan_of(step);
    const Ancestors ancestors(step);
    const long room = P::value_room(step.value_width), tasks = plan.tasks.size();
    partial_scratch.reset(plan.partials * (sizeof(Running) + room * sizeof(float)) + 128);
    Running* parts = partial_scratch.take<Running>(plan.partials);
    float* part_sums = partial_scratch.take<float>(plan.partials * room);
    crew::share(tasks, true, threads, [&](long i) {
        // Likely this thread's next one.
        const Task* following = i + 1 < tasks ? &plan.tasks[i + 1] : nullptr;
        Work<P> work(step, ancestors, plan.tasks[i], following);
        work.run();
        work.finish(parts, part_sums);
    });
    crew::share(plan.merges.size(), true, threads,
                [&](long i) { merge<P>(step, plan.merges[i], parts, part_sums); });
}

template <class P>
void run(const void* q, const void* k, const void* v, const std::int64_t* table,
         const std::int64_t* segments, const std::int64_t* numbers, float scale, const float* bias,
         const std::int64_t* parent, const bool* select, const std::int64_t* score_rows, float* scores,
         void* out, float* softmax, std::int64_t threads) {
    using E = typename P::Element;
    const std::int64_t *n = numbers, *strides = numbers + 12;
    const auto rows = [&](const void* x, int i) {
        return Rows<E>{static_cast<const E*>(x), strides[2 * i], strides[2 * i + 1]};
    };
    run<P>({rows(q, 0), rows(k, 1), rows(v, 2), n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7],
            n[11] != 0, table, segments, scale, bias, n[8], parent, select, strides[6], strides[7], score_rows, n[9], n[10],
            scores, static_cast<E*>(out), softmax, softmax + n[0] * n[1]},
           threads);
}

}  // namespace
}  // namespace paged

// q [T, N, H], k [S, M, H], v [S, M, W]; table [B, P]: pages of the sequences; segments [B, 3]: first
// row, row after the last, position of the first. The numbers: T, N, M, H, W, page size, P, B,
// columns of bias, number and stride of scores, whether rows see rows, then the strides of rows and
// heads, in elements, of q, k, v and select. Null where not used: bias [S, M or N], parent [T], select [T, M, S], score rows
// and scores. out [T, N, W]; softmax [2, T, N]: log-sum-exps and maxima.
#define PAGED_ATTENTION(NAME, PRODUCTS)                                                                \
    extern "C" void NAME(const void* q, const void* k, const void* v, const std::int64_t* table,      \
                         const std::int64_t* segments, const std::int64_t* numbers, float scale,      \
                         const float* bias, const std::int64_t* parent, const bool* select,           \
                         const std::int64_t* score_rows, float* scores, void* out, float* softmax,    \
                         std::int64_t threads) {                                                      \
        paged::run<PRODUCTS>(q, k, v, table, segments, numbers, scale, bias, parent, select,          \
                             score_rows, scores, out, softmax, threads);                              \
    }                                                                                                  \
    RECORDABLE(NAME)

PAGED_ATTENTION(paged_attention_float, paged::FloatProducts<float>)
#ifdef __AVX512BF16__
PAGED_ATTENTION(paged_attention_bf16, paged::Bf16Products)
#else
PAGED_ATTENTION(paged_attention_bf16, paged::FloatProducts<bf16>)
#endif
