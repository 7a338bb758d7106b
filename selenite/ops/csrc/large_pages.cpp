// Large pages, where the system gives them on request: for what a step reads from end to end.

#include <sys/mman.h>

#include <cstdint>

// Of memory that is not written yet.
extern "C" void prefer_large_pages(char* memory, std::int64_t bytes, std::int64_t) {
#ifdef MADV_HUGEPAGE
    constexpr std::uintptr_t page = 4096;
    const std::uintptr_t first = (reinterpret_cast<std::uintptr_t>(memory) + page - 1) / page * page;
    const std::uintptr_t stop = (reinterpret_cast<std::uintptr_t>(memory) + bytes) / page * page;
    if (first < stop) madvise(reinterpret_cast<void*>(first), stop - first, MADV_HUGEPAGE);
#endif
}
