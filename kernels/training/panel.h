/* What differs by type: a matrix of activations, a weight's copy into a panel, and the inner loops, which keep
 * an R x P tile of the result in registers. In bf16 two neighbours of the sum are one operand. */
#ifndef PANEL_H
#define PANEL_H

#include "vectors.h"

/* The same values twice in bf16: `rows` [panel][row][P], two columns to a pair; `pairs` [panel][row / 2][P][2],
 * two rows to a pair. */
struct matrix_float {
    float *rows, *pairs;
};
struct matrix_bf16 {
    bf16 *rows, *pairs;
};

static inline struct matrix_float matrix_float(float *block, long size) {
    (void)size;
    return (struct matrix_float){block, block};
}

/* Rows r (even) and r + 1 of a panel, 2 P values, to where row r lies. */
static inline void put_float(struct matrix_float m, long at, const float *two) {
    memcpy(m.rows + at, two, sizeof(float) * 2 * P);
}

/* `count` rows from k and `width` <= P columns from n of B, zero-padded; B is a weight [K, N] of row length
 * ld, or the transpose of one [N, K]. */
static void pack_float(const float *weight, long ld, int transposed, long k, long count, long n, long width,
                       float *panel) {
    if (width < P) memset(panel, 0, sizeof(float) * P * count);
    if (!transposed) {
        for (long i = 0; i < count; i++) copy(panel + i * P, weight + (k + i) * ld + n, width);
        return;
    }
    for (long j = 0; j < width; j += VL)
        for (long i = 0; i < count; i += VL) {
            const float *from = weight + (n + j) * ld + k + i;
            if (j + VL <= width && i + VL <= count) {
                vec square[VL];
                for (int x = 0; x < VL; x++) square[x] = load(from + x * ld);
                transpose(square);
                for (int y = 0; y < VL; y++) store(panel + (i + y) * P + j, square[y]);
            } else
                for (long x = 0; x < at_most(VL, width - j); x++)
                    for (long y = 0; y < at_most(VL, count - i); y++)
                        panel[(i + y) * P + j + x] = from[x * ld + y];
        }
}

/* acc[i][j] += sum over k of a[i step + k jump] b[k P + j], for i < tall. */
static inline __attribute__((always_inline)) void multiply_add(int tall, long count, const float *a, long step,
                                                               long jump, const float *b, vec acc[][2]) {
    for (long k = 0; k < count; k++) {
        const vec b0 = held(load(b + k * P)), b1 = held(load(b + k * P + VL));
#pragma GCC unroll 8
        for (int i = 0; i < tall; i++) {
            const float s = a[i * step + k * jump];
            acc[i][0] += s * b0;
            acc[i][1] += s * b1;
        }
    }
}

/* Rows of one panel, from `rows`, times `count` <= P rows of a packed panel. */
static inline __attribute__((always_inline)) void multiply_rows_float(long count, const float *a, const float *b,
                                                                      vec acc[R][2]) {
    multiply_add(R, count, a, P, 1, b, acc);
}

/* Columns of one panel times a panel, both from `pairs`: M products each. */
static inline __attribute__((always_inline)) void multiply_columns_float(long M, const float *a, const float *b,
                                                                         vec acc[G][2]) {
    multiply_add(G, M, a, 1, P, b, acc);
}

#if defined(__AVX512BF16__) && defined(__AVX512BW__)
#include <immintrin.h>
#define HAS_BF16

static inline struct matrix_bf16 matrix_bf16(float *block, long size) {
    return (struct matrix_bf16){(bf16 *)block, (bf16 *)block + size};
}

/* low and high of 16 pairs. */
static inline __m512i pair(__m512 low, __m512 high) {
    const __m512i l = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(low));
    return _mm512_or_si512(l, _mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(high)), 16));
}

static inline void put_bf16(struct matrix_bf16 m, long at, const float *two) {
    const __m512 a0 = _mm512_loadu_ps(two), a1 = _mm512_loadu_ps(two + VL), b0 = _mm512_loadu_ps(two + P),
                 b1 = _mm512_loadu_ps(two + P + VL);
    _mm512_storeu_si512(m.rows + at, (__m512i)_mm512_cvtne2ps_pbh(a1, a0));
    _mm512_storeu_si512(m.rows + at + P, (__m512i)_mm512_cvtne2ps_pbh(b1, b0));
    _mm512_storeu_si512(m.pairs + at, pair(a0, b0));
    _mm512_storeu_si512(m.pairs + at + P, pair(a1, b1));
}

static void pack_bf16(const float *weight, long ld, int transposed, long k, long count, long n, long width,
                      bf16 *panel) {
    for (long j = 0; j < P; j += VL)
        for (long i = 0; i < count; i += 2 * VL) {
            const long wide = at_most(VL, width - j), tall = at_most(2 * VL, count - i);
            __m512i out[VL];
            if (transposed) { /* a row's neighbours are the pairs already */
                vec square[VL];
                for (int x = 0; x < VL; x++) {
                    const float *from = weight + (n + j + x) * ld + k + i;
                    const __mmask32 live = x < wide ? (__mmask32)((1ull << tall) - 1) : 0;
                    const __m512 a = _mm512_maskz_loadu_ps((__mmask16)live, from);
                    const __m512 b = _mm512_maskz_loadu_ps((__mmask16)(live >> 16), from + VL);
                    square[x] = (vec)_mm512_cvtne2ps_pbh(b, a);
                }
                transpose(square);
                for (int y = 0; y < VL; y++) out[y] = (__m512i)square[y];
            } else {
                const __mmask16 live = wide > 0 ? (__mmask16)((1u << wide) - 1) : 0;
                for (int y = 0; y < VL; y++) {
                    const float *from = weight + (k + i + 2 * y) * ld + n + j;
                    out[y] = pair(_mm512_maskz_loadu_ps(2 * y < tall ? live : 0, from),
                                  _mm512_maskz_loadu_ps(2 * y + 1 < tall ? live : 0, from + ld));
                }
            }
            for (int y = 0; y < at_most(VL, (tall + 1) / 2); y++)
                _mm512_storeu_si512(panel + (i + 2 * y) * P + 2 * j, out[y]);
        }
}

static inline __attribute__((always_inline)) void multiply_pairs(long count, const bf16 *a, long step, long jump,
                                                                 const bf16 *b, vec acc[R][2]) {
    for (long k = 0; k < count; k++) {
        const __m512bh b0 = (__m512bh)_mm512_loadu_si512(b + 2 * k * P);
        const __m512bh b1 = (__m512bh)_mm512_loadu_si512(b + 2 * k * P + P);
#pragma GCC unroll 8
        for (int i = 0; i < R; i++) {
            int32_t two;
            memcpy(&two, a + 2 * (i * step + k * jump), 4);
            const __m512bh s = (__m512bh)_mm512_set1_epi32(two);
            acc[i][0] = (vec)_mm512_dpbf16_ps((__m512)acc[i][0], s, b0);
            acc[i][1] = (vec)_mm512_dpbf16_ps((__m512)acc[i][1], s, b1);
        }
    }
}

static inline __attribute__((always_inline)) void multiply_rows_bf16(long count, const bf16 *a, const bf16 *b,
                                                                     vec acc[R][2]) {
    multiply_pairs((count + 1) / 2, a, P / 2, 1, b, acc);
}

static inline __attribute__((always_inline)) void multiply_columns_bf16(long M, const bf16 *a, const bf16 *b,
                                                                        vec acc[G][2]) {
    multiply_pairs((M + 1) / 2, a, 1, P, b, acc);
}
#endif

#endif
