/* The entries that dropout keeps: a pure function of (seed, step, block, row, column).
 *
 * Each group of 128 columns takes eight halves of 16 counters. Column c belongs to Philox's counter (row, 16
 * (c / 128) + c % 16, step, block) and is decided by its 16-bit half number c % 128 / 16, low halves first.
 * `swg_fast.training.dropout` is the plain form. */
#ifndef DROPOUT_H
#define DROPOUT_H

#include "../cpu/scalar.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

struct dropout {
    uint32_t k0, k1; /* the seed's halves */
    uint32_t least;  /* halves from here on are kept */
    float scale;     /* the factor of kept entries */
};

static struct dropout dropout(uint64_t seed, double rate) {
    return (struct dropout){(uint32_t)seed, (uint32_t)(seed >> 32), (uint32_t)rint(65536 * rate),
                            (float)(1 / (1 - rate))};
}

enum { LANES = 16, GROUP = 8 * LANES };

/* The four words of 16 counters (row, first.., step, block). */
#if defined(__AVX512F__)
static inline void both_halves(__m512i c, __m512i by, __m512i *high, __m512i *low) {
    const __m512i even = _mm512_mul_epu32(c, by), odd = _mm512_mul_epu32(_mm512_srli_epi64(c, 32), by);
    *high = _mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd);
    *low = _mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32));
}

static inline void counters(const struct dropout *d, uint32_t row, uint32_t first, uint32_t step, uint32_t block,
                            uint32_t words[4][LANES]) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i by0 = _mm512_set1_epi64(0xD2511F53), by1 = _mm512_set1_epi64(0xCD9E8D57);
    __m512i c0 = _mm512_set1_epi32((int)row), c1 = _mm512_add_epi32(_mm512_set1_epi32((int)first), lanes),
            c2 = _mm512_set1_epi32((int)step), c3 = _mm512_set1_epi32((int)block);
    uint32_t k0 = d->k0, k1 = d->k1;
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
        __m512i h0, l0, h1, l1;
        both_halves(c0, by0, &h0, &l0);
        both_halves(c2, by1, &h1, &l1);
        c0 = _mm512_xor_si512(_mm512_xor_si512(h1, c1), _mm512_set1_epi32((int)k0)), c1 = l1;
        c2 = _mm512_xor_si512(_mm512_xor_si512(h0, c3), _mm512_set1_epi32((int)k1)), c3 = l0;
    }
    _mm512_storeu_si512(words[0], c0), _mm512_storeu_si512(words[1], c1);
    _mm512_storeu_si512(words[2], c2), _mm512_storeu_si512(words[3], c3);
}

/* 16 entries times `scale` if their halves, from bit `shift` of the words, are high enough, else 0. */
static inline void scale_kept(const struct dropout *d, const uint32_t *words, int shift, float *x) {
    const __m512i shifted = _mm512_srli_epi32(_mm512_loadu_si512(words), (unsigned)shift);
    const __mmask16 kept = _mm512_cmpge_epu32_mask(_mm512_and_si512(shifted, _mm512_set1_epi32(0xffff)),
                                                   _mm512_set1_epi32((int)d->least));
    _mm512_storeu_ps(x, _mm512_maskz_mul_ps(kept, _mm512_loadu_ps(x), _mm512_set1_ps(d->scale)));
}
#else
static inline void scale_kept(const struct dropout *d, const uint32_t *words, int shift, float *x) {
    for (int l = 0; l < LANES; l++) x[l] *= (words[l] >> shift & 0xffff) >= d->least ? d->scale : 0.0f;
}

static inline void counters(const struct dropout *d, uint32_t row, uint32_t first, uint32_t step, uint32_t block,
                            uint32_t words[4][LANES]) {
    for (uint32_t l = 0; l < LANES; l++) {
        uint32_t out[4];
        philox((uint32_t[]){row, first + l, step, block}, d->k0, d->k1, out);
        for (int i = 0; i < 4; i++) words[i][l] = out[i];
    }
}
#endif

/* n entries of row `row`, a multiple of GROUP, times 0 or `scale`. */
static void drop(const struct dropout *d, uint32_t step, uint32_t block, uint32_t row, long n, float *x) {
    for (long base = 0; base < n; base += GROUP) {
        uint32_t words[4][LANES];
        counters(d, row, (uint32_t)(base / 8), step, block, words);
        for (int half = 0; half < 8; half++) scale_kept(d, words[half / 2], 16 * (half % 2), x + base + half * LANES);
    }
}

#endif
