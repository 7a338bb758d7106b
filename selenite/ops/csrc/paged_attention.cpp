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
#include <vector>

#include "attention_bf16.h"
#include "attention_float.h"
#include "attention_pages.h"
#include "tape.h"

namespace paged {
namespace {

constexpr long kFewQueries = 8;    // of a key/value head
constexpr long kTileQueries = 48;   // whose logits stay in the first cache
constexpr long kManyRange = 512;    // keys of a range, with many queries
constexpr long kFewRangeBytes = 256 << 10;  // of a range's entries, with few

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
            const long keys = step.first(b) + (step.parent ? rows : r + count);
            const long range = cut ? (few ? few_range : kManyRange) : keys;
            const long ranges = (keys + range - 1) / range;
            for (long m = 0; m < step.kv_heads; m += heads) {
                const Queries queries{b, step.start(b) + r, count, m, heads, group};
                if (ranges > 1) plan.merges.push_back({queries, plan.partials, ranges});
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

inline float to_probability(float p) { return p; }
inline float to_probability(bf16 p) { return to_float(p); }

template <class P>
void write(const Step<typename P::Element>& step, long t, long n, const float* sums, const Running& row) {
    P::store_row(step.out + (t * step.heads + n) * step.value_width, sums, 1.0f / row.sum, step.value_width);
    step.lse[t * step.heads + n] = row.maximum * step.scale + std::log(row.sum);
    step.maxima[t * step.heads + n] = row.sum == row.sum ? row.maximum * step.scale : NAN;
}

thread_local Scratch scratch, partial_scratch;

template <class P>
void run_task(const Step<typename P::Element>& step, const Ancestors& ancestors, const Task& task,
              const Task* following, Running* parts, float* part_sums) {
    using E = typename P::Element;
    const long group = step.group(), width = step.width, value_width = step.value_width;
    const long queries = task.of_head(), total = task.count();
    const long query_room = P::query_room(width), room = P::value_room(value_width);
    const bool few = queries <= kFewQueries;
    const long tile = few ? kFewQueries : kTileQueries;
    const long biases = step.bias ? (step.bias_columns == step.heads ? group : 1) : 0;
    scratch.reset(total * (room * sizeof(float) + query_room * sizeof(typename P::Query) + sizeof(Running)) +
                  std::max(query_room, room) * sizeof(E) + tile * kBlock * 8 + biases * kBlock * 4 +
                  (P::packed_keys(width) + P::packed_values(value_width)) * 4 + 1024);
    float* sums = scratch.take<float>(total * room);
    auto* q = scratch.take<typename P::Query>(total * query_room);
    Running* softmax = scratch.take<Running>(total);
    E* zeros = scratch.take<E>(std::max(query_room, room));
    float* logits = scratch.take<float>(tile * kBlock);
    auto* probability = scratch.take<typename P::Probability>(tile * kBlock);
    float* bias = scratch.take<float>(biases * kBlock);
    auto* packed_keys = scratch.take<typename P::Packed>(P::packed_keys(width));
    auto* packed_values = scratch.take<typename P::Packed>(P::packed_values(value_width));
    std::fill(sums, sums + total * room, 0.0f);
    std::fill(softmax, softmax + total, Running());
    std::fill(zeros, zeros + std::max(query_room, room), E(0));
    for (long i = 0; i < total; i++) {
        const E* from = step.q.at(task.row_of(i), task.head_of(i));
        auto* to = q + i * query_room;
        for (long h = 0; h < width; h++) to[h] = P::query(from[h]);
        std::fill(to + width, to + query_room, typename P::Query(0));
    }
    std::vector<long> score_of(step.num_scores ? task.rows : 0, -1);
    for (long i = 0; i < step.num_scores; i++)
        if (step.score_rows[i] >= task.row && step.score_rows[i] < task.row + task.rows)
            score_of[step.score_rows[i] - task.row] = i;

    Block<E> block(step, ancestors, task, following, zeros);
    for (long key = task.key; key < task.key_stop; key += kBlock) {
        block.move_to(key);
        for (long m = 0; m < task.kv_heads; m++) {
            block.look(task.kv_head + m);
            if (!block.any) continue;
            for (long i = 0; i < biases; i++)
                block.bias((task.kv_head + m) * biases + i, 1.0f / step.scale, bias + i * kBlock);
            const bool careful = block.any != block.all && block.spoils();
            if (few) {
                block.look_ahead(task.kv_head + m);
            } else {
                P::pack_keys(block.keys, width, packed_keys);
                P::pack_values(block.values, value_width, packed_values);
            }
            long first = 0;  // the rows before it see nothing
            while (!block.seen[first]) first++;
            for (long begin = first * group; begin < queries; begin += tile) {
                const long count = std::min(tile, queries - begin), at = m * queries + begin;
                if (few)
                    P::few_logits(q + at * query_room, count, block.keys, block.next_keys, width, block.any, logits);
                else
                    P::many_logits(q + at * query_room, count, packed_keys, width, logits);
                for (long i = 0; i < count; i++) {
                    const long r = (begin + i) / group, g = (begin + i) % group;
                    const float* by_key = biases ? bias + g % biases * kBlock : nullptr;
                    const float kept = add_block(logits + i * kBlock, by_key, block.seen[r], step.scale,
                                                 softmax[at + i], probability + i * kBlock);
                    if (kept != 1.0f)
                        for (long w = 0; w < room; w++) sums[(at + i) * room + w] *= kept;
                    if (step.num_scores && score_of[r] >= 0) {
                        const long n = (task.kv_head + m) * group + g;
                        float* to = step.scores + (score_of[r] * step.heads + n) * step.score_stride + key;
                        for (long k = 0; k < kBlock; k++)
                            if (block.seen[r] >> k & 1)
                                to[k] = (logits[i * kBlock + k] + (by_key ? by_key[k] : 0.0f)) * step.scale;
                    }
                }
                if (careful) {
                    for (long i = 0; i < count; i++)
                        for (long k = 0; k < kBlock; k++) {
                            if (!(block.seen[(begin + i) / group] >> k & 1)) continue;
                            const float p = to_probability(probability[i * kBlock + k]);
                            for (long w = 0; w < value_width; w++)
                                sums[(at + i) * room + w] += p * to_float(block.values[k][w]);
                        }
                } else if (few) {
                    P::few_values(probability, count, block.values, block.next_values, value_width, block.any,
                                  sums + at * room);
                } else {
                    P::many_values(probability, count, packed_values, value_width, sums + at * room);
                }
            }
        }
    }
    if (task.partial >= 0) {
        std::copy(softmax, softmax + total, parts + task.partial);
        std::copy(sums, sums + total * room, part_sums + task.partial * room);
        return;
    }
    for (long i = 0; i < total; i++)
        write<P>(step, task.row_of(i), task.head_of(i), sums + i * room, softmax[i]);
}

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
#pragma omp parallel num_threads(threads) if (tasks > 1)
    {
#pragma omp for schedule(dynamic, 1)
        for (long i = 0; i < tasks; i++)
            run_task<P>(step, ancestors, plan.tasks[i], i + threads < tasks ? &plan.tasks[i + threads] : nullptr,
                        parts, part_sums);
#pragma omp for schedule(dynamic, 1)
        for (long i = 0; i < long(plan.merges.size()); i++)
            merge<P>(step, plan.merges[i], parts, part_sums);
    }
}

template <class P>
void run(const void* q, const void* k, const void* v, const std::int64_t* table, const std::int64_t* segments,
         const std::int64_t* numbers, float scale, const float* bias, const std::int64_t* parent,
         const bool* select, const std::int64_t* score_rows, float* scores, void* out, float* softmax,
         std::int64_t threads) {
    using E = typename P::Element;
    const std::int64_t *n = numbers, *strides = numbers + 11;
    const auto rows = [&](const void* x, int i) {
        return Rows<E>{static_cast<const E*>(x), strides[2 * i], strides[2 * i + 1]};
    };
    run<P>({rows(q, 0), rows(k, 1), rows(v, 2), n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], table,
            segments, scale, bias, n[8], parent, select, strides[6], strides[7], score_rows, n[9], n[10],
            scores, static_cast<E*>(out), softmax, softmax + n[0] * n[1]},
           threads);
}

}  // namespace
}  // namespace paged

// q [T, N, H], k [S, M, H], v [S, M, W]; table [B, P]: pages of the sequences; segments [B, 3]: first
// row, row after the last, position of the first. The numbers: T, N, M, H, W, page size, P, B,
// columns of bias, number and stride of scores, then the strides of rows and heads, in elements, of
// q, k, v and select. Null where not used: bias [S, M or N], parent [T], select [T, M, S], score rows
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
