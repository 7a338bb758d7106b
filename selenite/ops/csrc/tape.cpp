// Calls of kernels, one after another (tape.h), by threads that stay together (crew.h).

#include <cstdint>
#include <optional>

#include "crew.h"

namespace {

struct Call {
    void (*kernel)(const std::int64_t*);
    const std::int64_t* words;
};

void play(const Call* calls, std::int64_t count) {
    for (std::int64_t i = 0; i < count; i++) calls[i].kernel(calls[i].words);
}

}  // namespace

extern "C" void tape_play(const Call* calls, std::int64_t count, std::int64_t threads) {
    if (threads == 1) return play(calls, count);
    std::optional<crew::Crew> crew;
#pragma omp parallel num_threads(std::min<std::int64_t>(threads, crew::kMostThreads))
    {
#pragma omp single
        crew.emplace(omp_get_num_threads());
        if (const int thread = omp_get_thread_num()) {
            crew->follow(thread);
        } else {
            crew::present = &*crew;
            play(calls, count);
            crew::present = nullptr;
            crew->end();
        }
    }
}
