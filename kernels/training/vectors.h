/* Vectors of this processor's width, and matrices as panels of two vectors' width.
 *
 * A matrix of activations [M, N] is kept as N / P panels, each [rows(M)][P], zero beyond N. A panel is the
 * right-hand factor of a weight gradient without a copy, and its rows are read in order as a left-hand
 * factor. Only weights are copied into panels, CHUNK rows at a time, which fit the first-level cache. */
#ifndef VECTORS_H
#define VECTORS_H

#include "../cpu/scalar.h"
#include "team.h"

/* Tiles of the result in registers: R rows of a product, G of a weight gradient, by two vectors. */
#if defined(__AVX512F__)
enum { VL = 16, R = 8, G = 8 };
#define FIRST_HALVES 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define SECOND_HALVES 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif defined(__AVX__)
enum { VL = 8, R = 6, G = 4 };
#define FIRST_HALVES 0, 8, 1, 9, 2, 10, 3, 11
#define SECOND_HALVES 4, 12, 5, 13, 6, 14, 7, 15
#else
enum { VL = 4, R = 8, G = 8 };
#define FIRST_HALVES 0, 4, 1, 5
#define SECOND_HALVES 2, 6, 3, 7
#endif
enum { P = 2 * VL, CHUNK = 256 }; /* G divides P, R is even */

typedef float vec __attribute__((vector_size(4 * VL), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * VL), aligned(4), may_alias));

static inline vec load(const float *p) { return *(const vec *)p; }
static inline void store(float *p, vec v) { *(vec *)p = v; }
/* v in a register; otherwise gcc reads it from memory at each use. */
static inline vec held(vec v) {
#if defined(__x86_64__)
    __asm__("" : "+v"(v));
#endif
    return v;
}

static inline long at_most(long a, long b) { return a < b ? a : b; }
static inline long panels(long n) { return (n + P - 1) / P; }
static inline long rows(long m) { return (m + R - 1) / R * R; }
static inline long size_of(long m, long n) { return panels(n) * P * rows(m); }

/* Where entry (r, j) of a matrix with M rows lies. */
static inline long place(long M, long r, long j) {
    return ((unsigned long)j / P * rows(M) + r) * P + (unsigned long)j % P;
}

static inline void copy(float *to, const float *from, long width) { /* up to a panel's row */
    if (width == P) memcpy(to, from, sizeof(float) * P);
    else memcpy(to, from, sizeof(float) * width);
}

/* The two halves of a and b interleaved: a0 b0 a1 b1 ... */
#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (ivec){__VA_ARGS__})
#endif

/* The VL x VL matrix of vectors a, transposed. */
static inline __attribute__((always_inline)) void transpose(vec a[VL]) {
    vec b[VL];
#pragma GCC unroll 4
    for (int done = 1; done < VL; done *= 2) {
#pragma GCC unroll 8
        for (int i = 0; i < VL / 2; i++) {
            b[2 * i] = SHUFFLE(a[i], a[i + VL / 2], FIRST_HALVES);
            b[2 * i + 1] = SHUFFLE(a[i], a[i + VL / 2], SECOND_HALVES);
        }
#pragma GCC unroll 16
        for (int i = 0; i < VL; i++) a[i] = b[i];
    }
}

#endif
