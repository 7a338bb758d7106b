// Loops whose turns threads share. A loop opens a parallel region or, while a tape is played, is done by
// the crew that stays with the tape: it waits by spinning, which costs less than a region.
#pragma once

#include <immintrin.h>
#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>

namespace crew {

constexpr int kMostThreads = 64;

// 0 .. count - 1, of which each thread takes its part and then what is left of the others'.
class Turns {
  public:
    explicit Turns(int threads) : threads_(std::min(threads, kMostThreads)) {}

    void set(long count) {
        for (long t = 0; t < threads_; t++) {
            parts_[t].next.store(count * t / threads_, std::memory_order_relaxed);
            parts_[t].stop = count * (t + 1) / threads_;
        }
    }

    template <class Turn>
    void take(int thread, const Turn& turn) {
        for (int t = 0; t < threads_; t++) {
            Part& part = parts_[(thread + t) % threads_];
            for (long i; (i = part.next.fetch_add(1, std::memory_order_relaxed)) < part.stop;) turn(i);
        }
    }

    int threads() const { return threads_; }

  private:
    struct alignas(64) Part {
        std::atomic<long> next;
        long stop;
    };
    const int threads_;
    Part parts_[kMostThreads];
};

// The threads of a parallel region in which a tape is played: the first does what the tape says, the
// others `follow` until it ends, and all of them share its loops. Nobody waits for a thread that has
// not come to a loop in time, because something else has its core: the others take its turns.
class Crew {
  public:
    explicit Crew(int threads) : turns_(threads) {}

    template <class Turn>
    void share(long count, const Turn& turn) {
        turns_.set(count);
        turn_ = &turn;
        loop_ = [](Crew& crew, int thread) {
            crew.turns_.take(thread, *static_cast<const Turn*>(crew.turn_));
        };
        open();
        loop_(*this, 0);
        gate_.fetch_and(~kOpen, std::memory_order_acq_rel);
        spin_until([&] { return gate_.load(std::memory_order_acquire) % kOpen == 0; });
    }

    void follow(int thread) {
        for (std::uint64_t last = 0;;) {
            std::uint64_t gate;
            spin_until([&] {
                gate = gate_.load(std::memory_order_acquire);
                return gate & kOpen && gate / kRound > last;
            });
            if (!gate_.compare_exchange_strong(gate, gate + 1, std::memory_order_acq_rel)) continue;
            last = gate / kRound;
            const auto loop = loop_;
            if (loop) loop(*this, thread);
            gate_.fetch_sub(1, std::memory_order_release);
            if (!loop) return;
        }
    }

    void end() {
        loop_ = nullptr;
        open();
    }

  private:
    static constexpr long kSpins = 20000;  // then another process may want the core
    // The gate of a loop: its number, whether it may be entered, and how many threads are inside.
    static constexpr std::uint64_t kOpen = 1 << 16, kRound = kOpen << 1;

    template <class Condition>
    static void spin_until(const Condition& condition) {
        for (long spins = 0; !condition(); spins++) spins < kSpins ? _mm_pause() : std::this_thread::yield();
    }

    void open() { gate_.store(++round_ * kRound | kOpen, std::memory_order_release); }

    Turns turns_;
    const void* turn_ = nullptr;
    void (*loop_)(Crew&, int) = nullptr;
    std::uint64_t round_ = 0;
    alignas(64) std::atomic<std::uint64_t> gate_{0};
};

inline thread_local Crew* present = nullptr;  // of the tape that this thread plays

// Calls turn(i) for all of 0 .. count - 1, on `threads` threads if that is worth it.
template <class Turn>
void share(long count, bool is_worth, int threads, const Turn& turn) {
    if (!is_worth || threads == 1 || count == 1) {
        for (long i = 0; i < count; i++) turn(i);
    } else if (present) {
        present->share(count, turn);
    } else {
        Turns turns(threads);
        turns.set(count);
#pragma omp parallel num_threads(turns.threads())
        turns.take(omp_get_thread_num(), turn);
    }
}

}  // namespace crew
