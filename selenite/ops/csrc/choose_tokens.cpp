// The tokens that rows attend to most, of each set of heads (ops/token_attention.py).
//
// What a row chooses depends on its own logits alone. Of tokens with the same attention the first are
// taken; NaN counts as the most.

#include <algorithm>
#include <functional>
#include <vector>

#include "crew.h"
#include "numbers.h"
#include "tape.h"

namespace {

// Attention that `heads` rows of logits, `stride` apart, give to the tokens first .. stop - 1.
void add_up(const float* logits, const float* lse, long heads, long stride, long first, long stop, float* mass) {
    std::fill(mass, mass + (stop - first), 0.0f);
    for (long n = 0; n < heads; n++) {
        const float *row = logits + n * stride + first, shift = lse[n];
#pragma omp simd
        for (long i = 0; i < stop - first; i++) mass[i] += exp_float(row[i] - shift);
    }
}

// Calls taken(i) for the `most` largest values, in order of i. Attention is not negative, so that its
// bits are ordered as it is.
template <class Taken>
void take_largest(const float* mass, long count, long most, const Taken& taken) {
    if (most == 0) return;
    thread_local std::vector<std::uint32_t> keys, ordered;
    keys.resize(count);
    for (long i = 0; i < count; i++) keys[i] = to_bits(mass[i]) & 0x7fffffff;
    ordered = keys;
    std::nth_element(ordered.begin(), ordered.begin() + most - 1, ordered.end(), std::greater<>());
    const std::uint32_t least = ordered[most - 1];
    long tied = most - std::count_if(ordered.begin(), ordered.begin() + most,
                                     [=](std::uint32_t key) { return key > least; });
    for (long i = 0; i < count; i++)
        if (keys[i] > least || (keys[i] == least && tied-- > 0)) taken(i);
}

}  // namespace

// logits [T, N, stride] by place; lse [T, N]; table [T, P]: pages of the rows' sequences; segments
// [T, 3], of which the last is the place of the row's own token; limits [T, 3]: how many tokens a row
// reads, of these the first ones that it reads in any case, and the last ones. The numbers: T, N, sets
// of heads C, stride, P, slots of a page, K. slots [T, C, K]: of the chosen tokens, by place, as
// many as a row has or may read; segments_out [T, 3]: for a kernel that reads these as pages of one slot.
extern "C" void choose_tokens(const float* logits, const float* lse, const std::int64_t* table,
                              const std::int64_t* segments, const std::int64_t* limits,
                              const std::int64_t* numbers, std::int64_t* slots, std::int64_t* segments_out,
                              std::int64_t threads) {
    const long rows = numbers[0], heads = numbers[1], sets = numbers[2], stride = numbers[3];
    const long pages = numbers[4], page_size = numbers[5], room = numbers[6], together = heads / sets;
    crew::share(rows * sets, true, threads, [=](long turn) {
        const long t = turn / sets, set = turn % sets, n = t * heads + set * together;
        const long count = segments[t * 3 + 2] + 1, budget = limits[t * 3];
        std::int64_t *to = slots + turn * room, *segment = segments_out + t * 3;
        const auto take = [&](long place) {
            *to++ = table[t * pages + place / page_size] * page_size + place % page_size;
        };
        if (set == 0) {
            segment[0] = t;
            segment[1] = t + 1;
            segment[2] = std::min(count, budget) - 1;
        }
        const bool all = count <= budget;
        const long first = all ? count : limits[t * 3 + 1], stop = all ? count : count - limits[t * 3 + 2];
        for (long place = 0; place < first; place++) take(place);
        if (!all) {
            thread_local std::vector<float> mass;
            mass.resize(stop - first);
            add_up(logits + n * stride, lse + n, together, stride, first, stop, mass.data());
            take_largest(mass.data(), stop - first, budget - first - limits[t * 3 + 2],
                         [&](long i) { take(first + i); });
        }
        for (long place = stop; place < count; place++) take(place);
    });
}
RECORDABLE(choose_tokens)
