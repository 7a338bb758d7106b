// Causal attention over packed documents in bfloat16, forward and backward (FlashAttention-2,
// arXiv 2307.08691): blocks of 64 queries by 64 keys, the softmax kept as a running maximum and sum.
//
// A task is one document, with all that goes on from it, and one key/value head with the query heads
// that share it, so that nothing is added up between threads. What goes on from a document sees all
// of it, and itself. Operands are packed once a task, each part by itself. In the backward pass logits
// are computed with keys as rows: their bfloat16 form is then what the products for the gradients of
// keys and values read, and only the one for queries packs it.
//
// Logits are float32 sums of exact products; probabilities and their gradients are rounded to
// bfloat16 before they are multiplied, as in torch's kernel.

#ifdef __AVX512BF16__

#include <algorithm>
#include <cmath>
#include <vector>

#include "attention_block.h"

using namespace bf16_product;

namespace {

// Rows of one head: element [t][n][h] at t * row + n * head + h.
struct Rows {
    bf16* data;
    long row, head;
    bf16* at(long t, long n) const { return data + t * row + n * head; }
};

inline auto rows_of(const bf16* first, long stride) {
    return [=](long i) { return first + i * stride; };
}

struct Shape {
    long heads, kv_heads, width, value_width;
    long group() const { return heads / kv_heads; }
};

inline long whole_blocks(long length) { return (length + kBlock - 1) / kBlock * kBlock; }

// Rows that see each other: a document, or what goes on from one.
struct Part {
    long start, length, base;  // base: its first place where parts lie packed, a multiple of a block
    long whole() const { return whole_blocks(length); }
};

struct Task {
    std::vector<Part> parts;  // the document, then what goes on from it
    long kv_head, rows;
    long whole() const { return parts.back().base + parts.back().whole(); }
};

thread_local Scratch scratch;

// `prefixes` has, for each segment, the one that it goes on from, or -1.
std::vector<Task> tasks_of(const std::int64_t* segments, const std::int64_t* prefixes, long count,
                           long kv_heads) {
    std::vector<Task> trees;
    std::vector<long> tree_of(count);
    for (long s = 0; s < count; s++)
        if (prefixes[s] < 0) {
            tree_of[s] = trees.size();
            trees.push_back({{{segments[2 * s], segments[2 * s + 1] - segments[2 * s], 0}}, 0, 0});
        }
    for (long s = 0; s < count; s++)
        if (prefixes[s] >= 0) {
            Task& tree = trees[tree_of[prefixes[s]]];
            tree.parts.push_back({segments[2 * s], segments[2 * s + 1] - segments[2 * s], tree.whole()});
        }
    std::vector<Task> tasks;
    for (Task& tree : trees) {
        for (const Part& part : tree.parts) tree.rows += part.length;
        for (tree.kv_head = 0; tree.kv_head < kv_heads; tree.kv_head++) tasks.push_back(tree);
    }
    // The longest first: the short ones fill what is left of the threads' time.
    std::stable_sort(tasks.begin(), tasks.end(),
                     [](const Task& a, const Task& b) { return a.rows > b.rows; });
    return tasks;
}

void forward_task(const Task& task, const Shape& shape, Rows q, Rows k, Rows v, float scale, bf16* out,
                  float* lse_nt, long num_rows, float* maxima) {
    const long whole = task.whole();
    const long width = shape.width, value_width = shape.value_width, room = padded(value_width);
    scratch.reset((packed_words(width / 2, whole) + packed_words(whole / 2, value_width)) * 4 +
                  kBlock * (kBlock * 6 + room * 4) + 4096);
    auto* keys = scratch.take<std::uint32_t>(packed_words(width / 2, whole));
    auto* values = scratch.take<std::uint32_t>(packed_words(whole / 2, value_width));
    auto* logits = scratch.take<float>(kBlock * kBlock);
    auto* sums = scratch.take<float>(kBlock * room);
    auto* probability = scratch.take<bf16>(kBlock * kBlock);
    const auto keys_of = [&](const Part& part) { return keys + packed_words(width / 2, part.base); };
    const auto values_of = [&](const Part& part) { return values + packed_words(part.base / 2, value_width); };
    for (const Part& part : task.parts) {
        pack_transposed(rows_of(k.at(part.start, task.kv_head), k.row), part.length, width, keys_of(part));
        pack(rows_of(v.at(part.start, task.kv_head), v.row), part.length, part.whole(), value_width,
             values_of(part));
    }
    for (long g = 0; g < shape.group(); g++) {
        const long n = task.kv_head * shape.group() + g;
        float largest = -INFINITY;  // NaN once a row is
        for (const Part& part : task.parts)
            for (long first = 0; first < part.length; first += kBlock) {
                const long rows = std::min(kBlock, part.length - first);
                Running softmax[kBlock];
                bool is_begun = false;
                // Row r sees `seen + r * more` keys of the block, or all.
                const auto read = [&](const Part& from, long key, long seen, long more) {
                    product(rows, kBlock, width / 2, q.at(part.start + first, n), q.row,
                            keys_of(from) + key * (width / 2), width / 2, 0, logits, kBlock, false);
                    for (long r = 0; r < rows; r++) {
                        const float kept = add_block(logits + r * kBlock, nullptr, first_bits(seen + r * more),
                                                     scale, softmax[r], probability + r * kBlock);
                        if (is_begun && kept != 1.0f)
                            for (long w = 0; w < room; w++) sums[r * room + w] *= kept;
                    }
                    product(rows, value_width, kBlock / 2, probability, kBlock, values_of(from),
                            from.whole() / 2, key / 2, sums, room, is_begun);
                    is_begun = true;
                };
                const Part& document = task.parts[0];
                if (&part != &document)
                    for (long key = 0; key < document.length; key += kBlock)
                        read(document, key, document.length - key, 0);
                for (long key = 0; key <= first; key += kBlock) read(part, key, first + 1 - key, 1);
                for (long r = 0; r < rows; r++) {
                    const long t = part.start + first + r;
                    store_rounded(out + (t * shape.heads + n) * value_width, sums + r * room,
                                  1.0f / softmax[r].sum, value_width);
                    const float lse = softmax[r].maximum * scale + std::log(softmax[r].sum);
                    lse_nt[n * num_rows + t] = lse;
                    largest = lse != lse || largest != largest ? NAN : std::max(softmax[r].maximum, largest);
                }
            }
#pragma omp critical
        maxima[n] = largest != largest || maxima[n] != maxima[n] ? NAN : std::max(largest * scale, maxima[n]);
    }
}

// Two rows (keys) of a block, against 64 queries: probabilities and the logits' gradients.
struct Block {
    float *logits, *dp;            // [key][query]
    bf16 *probability, *gradient;  // [key][query]
    std::uint32_t* packed;         // gradient, pairs of keys side by side
};

inline void probabilities_and_gradients(const Block& block, const float* lse2, const float* delta,
                                        long first_visible, float factor, float scale) {
    for (long key = 0; key < kBlock; key += 2) {
        for (long v = 0; v < kBlock; v += kVector) {
            __m256i half[2];
            for (long i = 0; i < 2; i++) {
                const long at = (key + i) * kBlock + v;
                // Query lanes before the key do not see it.
                const __mmask16 sees = __mmask16(~first_lanes(first_visible + key + i - v));
                const __m512 x = _mm512_fmsub_ps(_mm512_loadu_ps(block.logits + at),
                                                 _mm512_set1_ps(factor), _mm512_loadu_ps(lse2 + v));
                const __m512 p = _mm512_maskz_mov_ps(sees, exp2_vector(x));
                const __m512 d = _mm512_sub_ps(_mm512_loadu_ps(block.dp + at), _mm512_loadu_ps(delta + v));
                const __m512 ds = _mm512_mul_ps(_mm512_mul_ps(p, d), _mm512_set1_ps(scale));
                _mm256_storeu_si256((__m256i*)(block.probability + at), (__m256i)_mm512_cvtneps_pbh(p));
                half[i] = (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_mov_ps(sees, ds));
                _mm256_storeu_si256((__m256i*)(block.gradient + at), half[i]);
            }
            _mm512_storeu_si512(
                block.packed + key / 2 * kBlock + v,
                _mm512_or_si512(_mm512_cvtepu16_epi32(half[0]),
                                _mm512_slli_epi32(_mm512_cvtepu16_epi32(half[1]), 16)));
        }
    }
}

void backward_task(const Task& task, const Shape& shape, Rows q, Rows k, Rows v, const bf16* out,
                   const bf16* dout, const float* lse_nt, long num_rows, float scale, bf16* dq, bf16* dk,
                   bf16* dv) {
    const long whole = task.whole();
    const long width = shape.width, value_width = shape.value_width;
    const long room = padded(width), value_room = padded(value_width);
    const long out_row = shape.heads * value_width;
    scratch.reset(whole * (2 * width + 4 * room + 4 * value_room +  // kt, dk, dv
                           2 * width + 2 * value_width +            // q, dout by lanes
                           2 * value_room + 2 * room +              // dout, q by rows
                           4 * width + 8) +                         // dq, lse, delta
                  kBlock * kBlock * 16 + 16384);
    auto* kt = scratch.take<bf16>(width * whole);  // of each part [width][its blocks]
    auto* dk_sum = scratch.take<float>(whole * room);
    auto* dv_sum = scratch.take<float>(whole * value_room);
    auto* q_lanes = scratch.take<std::uint32_t>(width / 2 * whole);
    auto* dout_lanes = scratch.take<std::uint32_t>(value_width / 2 * whole);
    auto* dout_rows = scratch.take<std::uint32_t>(packed_words(whole / 2, value_width));
    auto* q_rows = scratch.take<std::uint32_t>(packed_words(whole / 2, width));
    auto* dqt_sum = scratch.take<float>(width * whole);  // [block of queries][width][64]
    auto* lse2 = scratch.take<float>(whole);
    auto* delta = scratch.take<float>(whole);
    const Block block{scratch.take<float>(kBlock * kBlock), scratch.take<float>(kBlock * kBlock),
                      scratch.take<bf16>(kBlock * kBlock), scratch.take<bf16>(kBlock * kBlock),
                      scratch.take<std::uint32_t>(kBlock * kBlock / 2)};
    const float factor = scale * kLog2E;

    std::memset(kt, 0, width * whole * sizeof *kt);
    for (const Part& part : task.parts) {
        const bf16* keys = k.at(part.start, task.kv_head);
        for (long t = 0; t < part.length; t++)
            for (long h = 0; h < width; h++)
                kt[part.base * width + h * part.whole() + t] = keys[t * k.row + h];
    }
    std::memset(dk_sum, 0, whole * room * sizeof *dk_sum);
    std::memset(dv_sum, 0, whole * value_room * sizeof *dv_sum);

    for (long g = 0; g < shape.group(); g++) {
        const long n = task.kv_head * shape.group() + g;
        std::memset(dqt_sum, 0, width * whole * sizeof *dqt_sum);
        for (const Part& part : task.parts) {
            const bf16* queries = q.at(part.start, n);
            const bf16* douts = dout + part.start * out_row + n * value_width;
            const bf16* outs = out + part.start * out_row + n * value_width;
            const long base = part.base, length = part.length;
            pack_transposed(rows_of(queries, q.row), length, width, q_lanes + width / 2 * base);
            pack_transposed(rows_of(douts, out_row), length, value_width, dout_lanes + value_width / 2 * base);
            pack(rows_of(douts, out_row), length, part.whole(), value_width,
                 dout_rows + packed_words(base / 2, value_width));
            pack(rows_of(queries, q.row), length, part.whole(), width, q_rows + packed_words(base / 2, width));
            for (long t = 0; t < part.whole(); t++) {
                float sum = 0;
                if (t < length)
                    for (long w = 0; w < value_width; w++)
                        sum += to_float(douts[t * out_row + w]) * to_float(outs[t * out_row + w]);
                delta[base + t] = sum;
                // Rows that are only padding get probability 0.
                lse2[base + t] = t < length ? lse_nt[n * num_rows + part.start + t] * kLog2E : INFINITY;
            }
        }
        for (const Part& part : task.parts)
            for (long key = 0; key < part.length; key += kBlock) {
                const long rows = std::min(kBlock, part.length - key);
                const bf16* keys = k.at(part.start + key, task.kv_head);
                const bf16* values = v.at(part.start + key, task.kv_head);
                // Query i of the block sees key j where j + hidden <= i.
                // Keys beyond the part: their logits are whatever was there, their products are not read.
                const auto read_by = [&](const Part& by, long query, long hidden) {
                    const long place = by.base + query;
                    product(rows, kBlock, width / 2, keys, k.row, q_lanes + place * (width / 2), width / 2, 0,
                            block.logits, kBlock, false);
                    product(rows, kBlock, value_width / 2, values, v.row,
                            dout_lanes + place * (value_width / 2), value_width / 2, 0, block.dp, kBlock,
                            false);
                    for (long r = rows * kBlock; r < kBlock * kBlock; r++) block.logits[r] = block.dp[r] = 0;
                    probabilities_and_gradients(block, lse2 + place, delta + place, hidden, factor, scale);
                    product(rows, value_width, kBlock / 2, block.probability, kBlock,
                            dout_rows + packed_words(by.base / 2, value_width), by.whole() / 2, query / 2,
                            dv_sum + (part.base + key) * value_room, value_room, true);
                    product(rows, width, kBlock / 2, block.gradient, kBlock,
                            q_rows + packed_words(by.base / 2, width), by.whole() / 2, query / 2,
                            dk_sum + (part.base + key) * room, room, true);
                    product(width, kBlock, kBlock / 2, kt + part.base * width + key, part.whole(), block.packed,
                            kBlock / 2, 0, dqt_sum + place * width, kBlock, true);
                };
                for (long query = key; query < part.length; query += kBlock) read_by(part, query, key - query);
                if (&part == &task.parts[0])
                    for (std::size_t i = 1; i < task.parts.size(); i++)
                        for (long query = 0; query < task.parts[i].length; query += kBlock)
                            read_by(task.parts[i], query, -kBlock);
            }
        for (const Part& part : task.parts)
            for (long t = 0; t < part.length; t++) {
                bf16* to = dq + ((part.start + t) * shape.heads + n) * width;
                const float* from = dqt_sum + (part.base + t / kBlock * kBlock) * width + t % kBlock;
                for (long h = 0; h < width; h++) to[h] = to_bf16(from[h * kBlock]);
            }
    }
    for (const Part& part : task.parts)
        for (long t = 0; t < part.length; t++) {
            const long at = (part.start + t) * shape.kv_heads + task.kv_head;
            store_rounded(dk + at * width, dk_sum + (part.base + t) * room, 1.0f, width);
            store_rounded(dv + at * value_width, dv_sum + (part.base + t) * value_room, 1.0f, value_width);
        }
}

}  // namespace

// q [T, N, H], k [T, M, H], v [T, M, W] with their row and head strides in elements; segments
// [count][2] rows, prefixes [count] the segment that each goes on from, or -1; out [T, N, W], lse [N, T], maxima [N] (set to -inf before).
extern "C" void causal_attention_forward(bf16* q, bf16* k, bf16* v, const std::int64_t* strides,
                                         const std::int64_t* segments, const std::int64_t* prefixes,
                                         std::int64_t count, const std::int64_t* dims, float scale, bf16* out, float* lse_nt,
                                         float* maxima, std::int64_t threads) {
    const Shape shape{dims[1], dims[2], dims[3], dims[4]};
    const std::vector<Task> tasks = tasks_of(segments, prefixes, count, shape.kv_heads);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (std::size_t i = 0; i < tasks.size(); i++)
        forward_task(tasks[i], shape, {q, strides[0], strides[1]}, {k, strides[2], strides[3]},
                     {v, strides[4], strides[5]}, scale, out, lse_nt, dims[0], maxima);
}

// The gradients of contiguous out [T, N, W]: dq [T, N, H], dk [T, M, H], dv [T, M, W].
extern "C" void causal_attention_backward(bf16* q, bf16* k, bf16* v, const std::int64_t* strides,
                                          const std::int64_t* segments, const std::int64_t* prefixes,
                                          std::int64_t count, const std::int64_t* dims, float scale, const bf16* out,
                                          const bf16* dout, const float* lse_nt, bf16* dq, bf16* dk, bf16* dv,
                                          std::int64_t threads) {
    const Shape shape{dims[1], dims[2], dims[3], dims[4]};
    const std::vector<Task> tasks = tasks_of(segments, prefixes, count, shape.kv_heads);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (std::size_t i = 0; i < tasks.size(); i++)
        backward_task(tasks[i], shape, {q, strides[0], strides[1]}, {k, strides[2], strides[3]},
                      {v, strides[4], strides[5]}, out, dout, lse_nt, dims[0], scale, dq, dk, dv);
}

#endif
