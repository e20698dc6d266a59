/* Products of small matrices at the rate of the core's multiply-add units; included once for each type T. */
#ifndef T

#include "panel.h"

/* What becomes of a product: written in T as it is, after a ReLU, where `factor` > 0, after a SiLU (its slope
 * to `slope`), or times `factor`; or in float32, written, times `factor` or added to `wide`. */
enum finish { KEEP, RELU, GATE, SILU, SCALE, WIDE, SCALE_WIDE, ADD };

/* Asks for a part of the next panel's weights, up to CHUNK rows from k of columns from n, while this one is used. */
static inline void prefetch(const float *weight, long ld, int transposed, long k, long K, long n, long N, long part,
                            long parts) {
    const long count = at_most(CHUNK, K - k), width = at_most(P, N - n), tall = transposed ? width : count;
    const float *from = transposed ? weight + n * ld + k : weight + k * ld + n;
    for (long i = tall * part / parts; i < tall * (part + 1) / parts; i++)
        for (long j = 0; j < (transposed ? count : width); j += 16) __builtin_prefetch(from + i * ld + j, 0, 2);
}

#define T float
#include "product.h"
#undef T
#ifdef HAS_BF16
#define T bf16
#include "product.h"
#undef T
#endif

#else

/* x B + bias for x [M, K], results [M, N]. B is a weight [K, N] of row length ld, or transposed [N, K]. */
struct NAME(product) {
    long M, K, N;
    const T *x; /* a matrix's rows */
    const float *weight;
    long ld;
    int transposed;
    const float *bias;
    enum finish finish;
    const T *factor;
    struct NAME(matrix) y;
    T *slope;
    float *wide;
};

static inline void NAME(finish)(const struct NAME(product) *p, long at, float tile[R * P]) {
    switch (p->finish) {
    case KEEP: break;
    case SCALE_WIDE:
        for (int i = 0; i < R * P; i++) p->wide[at + i] = tile[i] * NAME(from)(p->factor[at + i]);
        return;
    case WIDE: memcpy(p->wide + at, tile, sizeof(float) * R * P); return;
    case ADD:
        for (int i = 0; i < R * P; i++) p->wide[at + i] += tile[i];
        return;
    case RELU:
        for (int i = 0; i < R * P; i++) tile[i] = tile[i] > 0 ? tile[i] : 0.0f;
        break;
    case GATE:
        for (int i = 0; i < R * P; i++) tile[i] = NAME(from)(p->factor[at + i]) > 0 ? tile[i] : 0.0f;
        break;
    case SCALE:
        for (int i = 0; i < R * P; i++) tile[i] *= NAME(from)(p->factor[at + i]);
        break;
    case SILU:
        for (int i = 0; i < R * P; i++) {
            const float s = sigmoid(tile[i]), y = tile[i] * s;
            tile[i] = y;
            p->slope[at + i] = NAME(to)(s + y * (1.0f - s));
        }
        break;
    }
    for (int i = 0; i < R; i += 2) NAME(put)(p->y, at + i * P, tile + i * P);
}

static void NAME(product)(struct team *team, long index, struct NAME(product) p) {
    const long height = rows(p.M);
    T panel[CHUNK * P] __attribute__((aligned(64)));
    float *const sums = scratch(team, index); /* of the chunks so far, one panel */
    long first, last;
    share(team, index, panels(p.N), &first, &last);
    for (long q = first; q < last; q++) {
        const long n = q * P, width = at_most(P, p.N - n);
        float bias[P] = {0};
        if (p.bias) memcpy(bias, p.bias + n, sizeof(float) * width);
        for (long k = 0; k < p.K; k += CHUNK) {
            const long count = at_most(CHUNK, p.K - k);
            NAME(pack)(p.weight, p.ld, p.transposed, k, count, n, width, panel);
            const int more = k + count < p.K;
            for (long r = 0; r < height; r += R) {
                float tile[R * P];
                float *const out = more ? sums + r * P : tile;
                if (more || q + 1 < last)
                    prefetch(p.weight, p.ld, p.transposed, more ? k + count : 0, p.K, more ? n : n + P, p.N, r / R,
                             height / R);
                vec acc[R][2];
#pragma GCC unroll 8
                for (int i = 0; i < R; i++)
#pragma GCC unroll 2
                    for (int j = 0; j < 2; j++)
                        acc[i][j] = load(k ? sums + (r + i) * P + j * VL : bias + j * VL);
                for (long l = 0; l < count; l += P)
                    NAME(multiply_rows)(at_most(P, count - l), p.x + (k + l) * height + r * P, panel + l * P, acc);
#pragma GCC unroll 8
                for (int i = 0; i < R; i++)
#pragma GCC unroll 2
                    for (int j = 0; j < 2; j++) store(out + i * P + j * VL, acc[i][j]);
                if (out == tile) NAME(finish)(&p, q * height * P + r * P, tile);
            }
        }
    }
}

/* g = a^T b, [I, N] with row length ld, over the M rows of a [M, I] and b [M, N], matrices' pairs. */
struct NAME(gradient) {
    long M, I, N, ld;
    const T *a, *b;
    float *g;
};

static void NAME(gradient)(struct team *team, long index, struct NAME(gradient) p) {
    const long height = rows(p.M), tall = panels(p.I), across = panels(p.N);
    long first, last;
    share(team, index, tall * across, &first, &last);
    for (long task = first; task < last; task++) { /* the smaller matrix stays in the second cache */
        const long n = (p.I < p.N ? task / tall : task % across) * P, width = at_most(P, p.N - n);
        const long top = (p.I < p.N ? task % tall : task / across) * P;
        const T *b = p.b + n * height;
        for (long i = top; i < at_most(top + P, p.I); i += G) {
            vec acc[G][2] = {0};
            NAME(multiply_columns)(p.M, p.a + top * height + (i - top) * (long)(sizeof(float) / sizeof(T)), b, acc);
            for (int l = 0; l < at_most(G, p.I - i); l++)
                copy(p.g + (i + l) * p.ld + n, (const float *)acc[l], width);
        }
    }
}

/* g[n] = sum over rows of scale[r] y[r, n], with scale 1 where none is given. y: a matrix's rows, [M, N]. */
static void NAME(column_sums)(struct team *team, long index, long M, long N, const float *scale, const T *y,
                              float *g) {
    long first, last;
    share(team, index, panels(N), &first, &last);
    for (long q = first; q < last; q++) {
        float sums[P] = {0};
        for (long r = 0; r < M; r++)
            for (int j = 0; j < P; j++)
                sums[j] += (scale ? scale[r] : 1.0f) * NAME(from)(y[(q * rows(M) + r) * P + j]);
        memcpy(g + q * P, sums, sizeof(float) * at_most(P, N - q * P));
    }
}

#endif
