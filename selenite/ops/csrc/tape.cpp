// Calls of kernels, one after another (tape.h).

#include <cstdint>

namespace {

struct Call {
    void (*kernel)(const std::int64_t*);
    const std::int64_t* words;
};

}  // namespace

extern "C" void tape_play(const Call* calls, std::int64_t count) {
    for (std::int64_t i = 0; i < count; i++) calls[i].kernel(calls[i].words);
}
