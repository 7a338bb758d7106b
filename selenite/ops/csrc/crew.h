// Loops whose turns threads share. A loop opens a parallel region or, while a tape is played, is done by
// the crew that stays with the tape: it waits by spinning, which costs less than a region.
#pragma once

#include <immintrin.h>
#include <omp.h>

#include <algorithm>
#include <atomic>
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
// others `follow` until it ends, and all of them share its loops.
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
        start();
        loop_(*this, 0);
        spin_until([&] { return done_.load(std::memory_order_acquire) == turns_.threads() - 1; });
    }

    void follow(int thread) {
        for (long round = 1;; round++) {
            spin_until([&] { return round_.load(std::memory_order_acquire) == round; });
            if (!loop_) return;
            loop_(*this, thread);
            done_.fetch_add(1, std::memory_order_release);
        }
    }

    void end() {
        loop_ = nullptr;
        start();
    }

  private:
    static constexpr long kSpins = 20000;  // then another process may want the core

    template <class Condition>
    static void spin_until(const Condition& condition) {
        for (long spins = 0; !condition(); spins++) spins < kSpins ? _mm_pause() : std::this_thread::yield();
    }

    void start() {
        done_.store(0, std::memory_order_relaxed);
        round_.store(round_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
    }

    Turns turns_;
    const void* turn_ = nullptr;
    void (*loop_)(Crew&, int) = nullptr;
    alignas(64) std::atomic<long> round_{0};
    alignas(64) std::atomic<int> done_{0};
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
