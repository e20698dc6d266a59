/* Products of small matrices at the rate of the core's multiply-add units.
 *
 * A matrix of activations [M, N] is kept as panels: N / P of them, each [rows(M)][P], zero beyond N. A panel
 * is the right-hand factor of a weight gradient as it lies, and its rows are read in order as a left-hand
 * factor; only weights are copied into a panel (at most CHUNK rows of one, which the first cache holds).
 * The inner loop keeps an R x P tile of the result in registers.
 */
#ifndef PRODUCT_H
#define PRODUCT_H

#include <stdint.h>
#include <string.h>

#include "team.h"

#if defined(__AVX512F__)
enum { VL = 16, R = 8 };
#elif defined(__AVX__)
enum { VL = 8, R = 4 };
#else
enum { VL = 4, R = 8 };
#endif
enum { P = 2 * VL, CHUNK = 256 }; /* R divides P */

typedef float vec __attribute__((vector_size(4 * VL), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * VL), aligned(4), may_alias));

static inline vec load(const float *p) { return *(const vec *)p; }
static inline void store(float *p, vec v) { *(vec *)p = v; }
static inline vec where_positive(vec gate, vec v) { return (vec)((ivec)(gate > 0) & (ivec)v); }
static inline long at_most(long a, long b) { return a < b ? a : b; }
static inline long panels(long n) { return (n + P - 1) / P; }
static inline long rows(long m) { return (m + R - 1) / R * R; }
static inline long size_of(long m, long n) { return panels(n) * P * rows(m); }

static inline void copy(float *to, const float *from, long width) { /* up to a panel's row */
    if (width == P) memcpy(to, from, sizeof(float) * P);
    else memcpy(to, from, sizeof(float) * width);
}

/* The two halves of a and b's entries in turn: a0 b0 a1 b1 ... */
#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (ivec){__VA_ARGS__})
#endif
#if defined(__AVX512F__)
#define FIRST_HALVES 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define SECOND_HALVES 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif defined(__AVX__)
#define FIRST_HALVES 0, 8, 1, 9, 2, 10, 3, 11
#define SECOND_HALVES 4, 12, 5, 13, 6, 14, 7, 15
#else
#define FIRST_HALVES 0, 4, 1, 5
#define SECOND_HALVES 2, 6, 3, 7
#endif

/* The VL x VL entries from `from`, rows ld apart, transposed to rows P apart. */
static inline void transpose(const float *from, long ld, float *to) {
    vec a[VL], b[VL];
#pragma GCC unroll 16
    for (int i = 0; i < VL; i++) a[i] = load(from + i * ld);
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
#pragma GCC unroll 16
    for (int i = 0; i < VL; i++) store(to + i * P, a[i]);
}

/* The `width` <= P columns from `n` and `count` rows from `k` of B, zero-padded; B is a weight [K, N] of row
 * length ld, or the transpose of one [N, K]. */
static void pack(const float *weight, long ld, int transposed, long k, long count, long n, long width,
                 float *panel) {
    if (width < P) memset(panel, 0, sizeof(float) * P * count);
    if (!transposed) {
        for (long i = 0; i < count; i++) copy(panel + i * P, weight + (k + i) * ld + n, width);
        return;
    }
    for (long j = 0; j < width; j += VL)
        for (long i = 0; i < count; i += VL) {
            const float *from = weight + (n + j) * ld + k + i;
            if (j + VL <= width && i + VL <= count) transpose(from, ld, panel + i * P + j);
            else
                for (long x = 0; x < at_most(VL, width - j); x++)
                    for (long y = 0; y < at_most(VL, count - i); y++)
                        panel[(i + y) * P + j + x] = from[x * ld + y];
        }
}

/* acc[i][j] += sum over k of a[i step + k jump] b[k P + j]. */
static inline __attribute__((always_inline)) void multiply_add(long count, const float *a, long step, long jump,
                                                               const float *b, vec acc[R][2]) {
    for (long k = 0; k < count; k++) {
        const vec b0 = load(b + k * P), b1 = load(b + k * P + VL);
#pragma GCC unroll 8
        for (int i = 0; i < R; i++) {
            const float s = a[i * step + k * jump];
            acc[i][0] += s * b0;
            acc[i][1] += s * b1;
        }
    }
}

/* y = x B + bias, then ReLU or only where gate > 0. x [M, K], y and gate [M, N] in panels. */
struct product {
    long M, K, N;
    const float *x, *weight;
    long ld;
    int transposed;
    const float *bias;
    int relu;
    const float *gate;
    float *y;
};

static void product(struct team *team, long index, struct product p) {
    const long height = rows(p.M);
    float panel[CHUNK * P] __attribute__((aligned(64)));
    long first, last;
    share(team, index, panels(p.N), &first, &last);
    for (long q = first; q < last; q++) {
        const long n = q * P, width = at_most(P, p.N - n);
        float bias[P] = {0}, *out = p.y + q * height * P;
        if (p.bias) memcpy(bias, p.bias + n, sizeof(float) * width);
        for (long k = 0; k < p.K; k += CHUNK) {
            const long count = at_most(CHUNK, p.K - k);
            const int last_chunk = k + count == p.K;
            pack(p.weight, p.ld, p.transposed, k, count, n, width, panel);
            for (long r = 0; r < height; r += R) {
                vec acc[R][2];
#pragma GCC unroll 8
                for (int i = 0; i < R; i++)
#pragma GCC unroll 2
                    for (int j = 0; j < 2; j++)
                        acc[i][j] = load(k ? out + (r + i) * P + j * VL : bias + j * VL);
                for (long l = 0; l < count; l += P)
                    multiply_add(at_most(P, count - l), p.x + (k + l) * height + r * P, P, 1, panel + l * P, acc);
#pragma GCC unroll 8
                for (int i = 0; i < R; i++)
#pragma GCC unroll 2
                    for (int j = 0; j < 2; j++) {
                        vec v = acc[i][j];
                        const long at = (r + i) * P + j * VL;
                        if (last_chunk && p.relu) v = where_positive(v, v);
                        if (last_chunk && p.gate) v = where_positive(load(p.gate + q * height * P + at), v);
                        store(out + at, v);
                    }
            }
        }
    }
}

/* g = a^T b, [I, N] with row length N, over the M rows of a [M, I] and b [M, N] in panels. */
struct gradient {
    long M, I, N;
    const float *a, *b;
    float *g;
};

static void gradient(struct team *team, long index, struct gradient p) {
    const long height = rows(p.M), tall = panels(p.I);
    long first, last;
    share(team, index, tall * panels(p.N), &first, &last);
    for (long task = first; task < last; task++) {
        const long q = task / tall, n = q * P, width = at_most(P, p.N - n), top = task % tall * P;
        const float *b = p.b + n * height;
        for (long i = top; i < at_most(top + P, p.I); i += R) {
            vec acc[R][2] = {0};
            multiply_add(p.M, p.a + top * height + i - top, 1, P, b, acc);
            for (int l = 0; l < at_most(R, p.I - i); l++)
                copy(p.g + (i + l) * p.N + n, (const float *)acc[l], width);
        }
    }
}

/* g[n] = sum over rows of scale[r] y[r, n], with scale 1 where none is given. y [M, N] in panels. */
static void column_sums(struct team *team, long index, long M, long N, const float *scale, const float *y,
                        float *g) {
    long first, last;
    share(team, index, panels(N), &first, &last);
    for (long q = first; q < last; q++) {
        vec sums[2] = {0};
        for (long r = 0; r < M; r++)
            for (int j = 0; j < 2; j++) {
                const vec v = load(y + (q * rows(M) + r) * P + j * VL);
                sums[j] += (scale ? scale[r] : 1.0f) * v;
            }
        memcpy(g + q * P, sums, sizeof(float) * at_most(P, N - q * P));
    }
}

#endif
