// bfloat16 and exp, written so that compilers vectorise the loops around them.
#pragma once

#include <cstdint>
#include <cstring>

using bf16 = std::uint16_t;  // the bits of a bfloat16

inline float from_bits(std::uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

inline std::uint32_t to_bits(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

inline float to_float(bf16 x) { return from_bits(std::uint32_t(x) << 16); }
inline float to_float(float x) { return x; }

// Round to nearest, ties to even, as torch does; NaN stays NaN.
inline bf16 to_bf16(float x) {
    const std::uint32_t bits = to_bits(x);
    const std::uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return bf16(x != x ? 0x7fc0 : rounded);
}

inline void store(bf16* to, float x) { *to = to_bf16(x); }
inline void store(float* to, float x) { *to = x; }

constexpr float kExpMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer

// e^x = result * 2^n, where n is `shifted` - kExpMagic, and the lowest bits of `shifted` too.
inline float exp_parts(float x, float& shifted) {
    shifted = x * 1.44269504f + kExpMagic;
    const float n = shifted - kExpMagic;
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return (p * r) * r + r + 1.0f;
}

// e^x within 2 units in the last place; 0 below -87.3, infinity above 88.7.
inline float exp_float(float x) {
    const float clamped = x < -87.3f ? -87.3f : (x > 88.7f ? 88.7f : x);
    float shifted;
    float p = exp_parts(clamped, shifted);
    // Two factors, so that neither leaves the range of exponents.
    const std::int32_t n = std::int32_t(shifted - kExpMagic), half = n / 2, rest = n - half;
    p = p * from_bits(std::uint32_t(half + 127) << 23) * from_bits(std::uint32_t(rest + 127) << 23);
    p = x < -87.3f ? 0.0f : p;
    p = x > 88.7f ? from_bits(0x7f800000) : p;
    return x != x ? x : p;
}
