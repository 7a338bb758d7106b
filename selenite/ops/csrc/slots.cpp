// Cached entries are stored in their slots.

#include <cstdint>
#include <cstring>

#include "crew.h"
#include "tape.h"

// Row t of `x` becomes row slots[t] of the dense `out`; a slot of -1 stores nothing. A row is `heads`
// pieces of `bytes` bytes; rows of `x` and their pieces are `row_stride` and `head_stride` bytes apart.
extern "C" void store_rows(const char* x, std::int64_t row_stride, std::int64_t head_stride,
                           const std::int64_t* slots, char* out, std::int64_t rows, std::int64_t heads,
                           std::int64_t bytes, std::int64_t threads) {
    crew::share(rows, rows * heads * bytes > (1 << 18), threads, [=](long t) {
        if (slots[t] < 0) return;
        for (std::int64_t m = 0; m < heads; ++m)
            std::memcpy(out + (slots[t] * heads + m) * bytes, x + t * row_stride + m * head_stride, bytes);
    });
}
RECORDABLE(store_rows)
