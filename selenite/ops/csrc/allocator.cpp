// Where torch's CPU tensors live in a process that trains (ops/allocator.py installs it).
//
//   tensor of 64 KiB or more -> the smallest hole that fits, else pages newly mapped
//   smaller ones             -> torch's own allocator (posix_memalign)
//
// A freed block becomes a hole, merged with the holes beside it, and keeps its pages: the next step
// makes the same tensors again. Before more is mapped than the most that was ever live and a slack
// on top, the largest holes are unmapped. What a process holds for tensors can so be told from its
// live bytes alone (train/memory.py).
//
// Addresses are the kernel's choice. It puts a new mapping below the last one, so blocks of
// different mappings are neighbours and merge: no range is reserved, and an address-space limit
// counts what is held.

#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <set>
#include <unordered_map>
#include <utility>

namespace {

constexpr std::size_t kPage = 4096;  // x86 has no other size that mmap counts in
constexpr std::size_t kSmallest = 64 * 1024;
// As in ops/allocator.py.
constexpr std::size_t kLeastSlack = 8 << 20;
constexpr std::size_t kSlackShare = 32;  // of the most that was live

using Address = char*;

struct Counters {  // in bytes; the order is that of ops/allocator.py
    std::int64_t live = 0, most_live = 0, held = 0, most_held = 0, unmapped = 0;
};

class Heap {
  public:
    // The address of `size` bytes, or none when memory is out.
    Address allocate(std::size_t size) {
        const std::lock_guard<std::mutex> guard(mutex_);
        size = (size + kPage - 1) / kPage * kPage;
        Address at = from_hole(size);
        if (!at) at = from_system(size);
        if (!at) return nullptr;
        blocks_.emplace(at, size);
        count_.live += size;
        count_.most_live = std::max(count_.most_live, count_.live);
        return at;
    }

    // Whether `at` was a block of this heap; it is then a hole.
    bool free(Address at) {
        const std::lock_guard<std::mutex> guard(mutex_);
        const auto block = blocks_.find(at);
        if (block == blocks_.end()) return false;
        std::size_t size = block->second;
        count_.live -= size;
        blocks_.erase(block);
        const auto after = holes_.lower_bound(at);
        if (after != holes_.begin()) {
            const auto [start, before] = *std::prev(after);
            if (start + before == at) {
                take(start, before);
                at = start;
                size += before;
            }
        }
        if (after != holes_.end() && after->first == at + size) {
            const std::size_t behind = after->second;
            take(at + size, behind);
            size += behind;
        }
        put(at, size);
        return true;
    }

    Counters counters() {
        const std::lock_guard<std::mutex> guard(mutex_);
        return count_;
    }

    // A forked child gets the mutex as it is: no other thread may hold it at that moment.
    void before_fork() { mutex_.lock(); }
    void after_fork() { mutex_.unlock(); }

  private:
    Address from_hole(std::size_t size) {
        const auto best = by_size_.lower_bound({size, nullptr});
        if (best == by_size_.end()) return nullptr;
        const auto [found, at] = *best;
        take(at, found);
        if (found > size) put(at + size, found - size);
        return at;
    }

    Address from_system(std::size_t size) {
        const std::size_t live = count_.live + size;
        const std::size_t most = std::max<std::size_t>(count_.most_live, live);
        const std::size_t limit = most + std::max(kLeastSlack, most / kSlackShare);
        if (count_.held + size > limit) unmap(count_.held + size - limit);
        void* at = map(size);
        if (at == MAP_FAILED) {
            unmap(count_.held);  // all holes
            at = map(size);
        }
        if (at == MAP_FAILED) return nullptr;
        count_.held += size;
        count_.most_held = std::max(count_.most_held, count_.held);
        return static_cast<Address>(at);
    }

    static void* map(std::size_t size) {
        return mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }

    // Gives `size` bytes of holes back, those of the largest first, or all that there are.
    void unmap(std::size_t size) {
        while (size > 0 && !by_size_.empty()) {
            const auto [largest, at] = *by_size_.rbegin();
            const std::size_t part = std::min(largest, (size + kPage - 1) / kPage * kPage);
            // Fails where the process has as many mappings as it may: the hole then stays.
            if (munmap(at, part) != 0) return;
            take(at, largest);
            if (largest > part) put(at + part, largest - part);
            count_.held -= part;
            count_.unmapped += part;
            size -= std::min(size, part);
        }
    }

    void put(Address at, std::size_t size) {
        holes_.emplace(at, size);
        by_size_.emplace(size, at);
    }

    void take(Address at, std::size_t size) {
        holes_.erase(at);
        by_size_.erase({size, at});
    }

    std::mutex mutex_;
    Counters count_;
    std::unordered_map<Address, std::size_t> blocks_;
    std::map<Address, std::size_t> holes_;
    std::set<std::pair<std::size_t, Address>> by_size_;
};

// Never destroyed: tensors are freed until the process ends.
Heap& heap() {
    static Heap* const made = new Heap;
    return *made;
}

// Also frees what torch's own allocator gave out: oneDNN asks the allocator of the day.
void free_block(void* at) {
    if (!at) return;
    c10::profiledCPUMemoryReporter().Delete(at);
    const bool may_be_ours = reinterpret_cast<std::uintptr_t>(at) % kPage == 0;
    if (!may_be_ours || !heap().free(static_cast<Address>(at))) c10::free_cpu(at);
}

struct Allocator final : c10::Allocator {
    c10::DataPtr allocate(std::size_t size) override {
        void* const at = size < kSmallest ? c10::alloc_cpu(size) : heap().allocate(size);
        if (size >= kSmallest && !at) {
            c10::profiledCPUMemoryReporter().OutOfMemory(size);
            TORCH_CHECK(false, "can't allocate memory: you tried to allocate ", size, " bytes");
        }
        c10::profiledCPUMemoryReporter().New(at, size);
        return {at, at, free_block, c10::Device(c10::DeviceType::CPU)};
    }
    c10::DeleterFnPtr raw_deleter() const override { return free_block; }
    void copy_data(void* to, const void* from, std::size_t size) const override {
        default_copy_data(to, from, size);
    }
};

}  // namespace

// Tensors made from now on come from here; those that exist are freed as before.
extern "C" void selenite_install_allocator() {
    static const bool installed = [] {
        pthread_atfork([] { heap().before_fork(); }, [] { heap().after_fork(); },
                       [] { heap().after_fork(); });
        c10::SetCPUAllocator(new Allocator, /*priority=*/1);
        return true;
    }();
    (void)installed;
}

extern "C" void selenite_allocator_counters(std::int64_t* counters) {
    const Counters now = heap().counters();
    std::memcpy(counters, &now, sizeof now);
}
