// Kernels with their arguments as an array of 64-bit words, so that a list of calls can be kept and
// made again (ops/tape.py). RECORDABLE(kernel), behind a kernel, exports kernel_packed.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

namespace tape {

template <class T>
inline T unpack(std::int64_t word) {
    T value;
    std::memcpy(&value, &word, sizeof value);  // a float lies in the lower half
    return value;
}

template <class... A, std::size_t... I>
inline void apply(void (*kernel)(A...), const std::int64_t* words, std::index_sequence<I...>) {
    kernel(unpack<A>(words[I])...);
}

template <class... A>
inline void apply(void (*kernel)(A...), const std::int64_t* words) {
    apply(kernel, words, std::index_sequence_for<A...>());
}

}  // namespace tape

#define RECORDABLE(KERNEL) \
    extern "C" void KERNEL##_packed(const std::int64_t* words) { tape::apply(&KERNEL, words); }
