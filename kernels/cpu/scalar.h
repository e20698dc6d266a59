/* What the C files share: bf16 as its 16 bits, the logistic function, Philox, and names by type. */
#ifndef SCALAR_H
#define SCALAR_H

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef uint16_t bf16;

static inline float from_bf16(bf16 v) {
    uint32_t bits = (uint32_t)v << 16;
    float out;
    memcpy(&out, &bits, 4);
    return out;
}

static inline bf16 to_bf16(float v) { /* to nearest, ties to even; NaN stays NaN */
    uint32_t bits;
    memcpy(&bits, &v, 4);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : (bf16)rounded;
}

#if defined(__FMA__) || defined(__aarch64__)
#define MULTIPLY_ADD(a, b, c) fmaf(a, b, c)
#else
#define MULTIPLY_ADD(a, b, c) ((a) * (b) + (c))
#endif

static inline float from_float(float v) { return v; }
static inline float to_float(float v) { return v; }

/* 1 / (1 + exp(-a)) to 4e-7: 2^n times a polynomial of the rest, on [-1/2, 1/2]. Below -88.7 the power
 * is infinity and the result 0. NaN passes. */
static inline float sigmoid(float a) {
    a = a < -89.0f ? -89.0f : a;
    a = a > 87.0f ? 87.0f : a;
    float n = rintf(a * -1.44269504f);
    float f = MULTIPLY_ADD(a, -1.44269504f, -n); /* exact where one rounding does */
    f += a * -1.92596299e-8f;                     /* what is left of log2(e) */
    float p = 1.5403530e-4f;
    p = p * f + 1.3333558e-3f;
    p = p * f + 9.6181291e-3f;
    p = p * f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f;
    p = p * f + 6.9314718e-1f;
    p = p * f + 1.0f;
    uint32_t bits = (uint32_t)((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &bits, 4);
    return 1.0f / (1.0f + p * scale);
}

/* Philox-4x32-10: the four words of one counter. */
static inline void philox(const uint32_t counter[4], uint32_t k0, uint32_t k1, uint32_t out[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)c0 * 0xD2511F53u, p1 = (uint64_t)c2 * 0xCD9E8D57u;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

/* `name` for the type T that is being compiled for. */
#define PASTE(name, type) name##_##type
#define NAME2(name, type) PASTE(name, type)
#define NAME(name) NAME2(name, T)

#endif
