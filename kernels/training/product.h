/* Products of small matrices at nearly the full rate of the core's multiply-add units. The inner loop keeps a
 * tile of the result in registers. */
#ifndef PRODUCT_H
#define PRODUCT_H

#include "vectors.h"

/* How a product is written: plain, after a ReLU, zero unless `factor` > 0, after a SiLU (its slope to
 * `slope`), times `factor`, or added to the present value. */
enum finish { KEEP, RELU, GATE, SILU, SCALE, ADD };

/* Prefetches part of the next panel's weights: up to CHUNK rows from k, columns from n. */
static inline void prefetch(const float *weight, long ld, int transposed, long k, long K, long n, long N, long part,
                            long parts) {
    const long count = at_most(CHUNK, K - k), width = at_most(P, N - n), tall = transposed ? width : count;
    const float *from = transposed ? weight + n * ld + k : weight + k * ld + n;
    for (long i = tall * part / parts; i < tall * (part + 1) / parts; i++)
        for (long j = 0; j < (transposed ? count : width); j += 16) __builtin_prefetch(from + i * ld + j, 0, 2);
}

/* Copies `count` rows from k and `width` <= P columns from n of B, zero-padded; B is a weight [K, N] of row
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

/* x B + bias for x [M, K], results [M, N]. B is a weight [K, N] of row length ld, or transposed [N, K]. */
struct product {
    long M, K, N;
    const float *x;
    const float *weight;
    long ld;
    int transposed;
    const float *bias;
    enum finish finish;
    const float *factor;
    float *y, *slope;
};

static inline void finish(const struct product *p, long at, float tile[R * P]) {
    switch (p->finish) {
    case KEEP: break;
    case RELU:
        for (int i = 0; i < R * P; i++) tile[i] = tile[i] > 0 ? tile[i] : 0.0f;
        break;
    case GATE:
        for (int i = 0; i < R * P; i++) tile[i] = p->factor[at + i] > 0 ? tile[i] : 0.0f;
        break;
    case SILU:
        for (int i = 0; i < R * P; i++) {
            const float s = sigmoid(tile[i]), y = tile[i] * s;
            tile[i] = y;
            p->slope[at + i] = s + y * (1.0f - s);
        }
        break;
    case SCALE:
        for (int i = 0; i < R * P; i++) tile[i] *= p->factor[at + i];
        break;
    case ADD:
        for (int i = 0; i < R * P; i++) tile[i] += p->y[at + i];
        break;
    }
    memcpy(p->y + at, tile, sizeof(float) * R * P);
}

static void product(struct team *team, long index, struct product p) {
    const long height = rows(p.M);
    float panel[CHUNK * P] __attribute__((aligned(64)));
    float *const sums = scratch(team, index); /* the sum over earlier chunks, one panel */
    long first, last;
    share(team, index, panels(p.N), &first, &last);
    for (long q = first; q < last; q++) {
        const long n = q * P, width = at_most(P, p.N - n);
        float bias[P] = {0};
        if (p.bias) memcpy(bias, p.bias + n, sizeof(float) * width);
        for (long k = 0; k < p.K; k += CHUNK) {
            const long count = at_most(CHUNK, p.K - k);
            pack(p.weight, p.ld, p.transposed, k, count, n, width, panel);
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
                    multiply_add(R, at_most(P, count - l), p.x + (k + l) * height + r * P, P, 1, panel + l * P, acc);
#pragma GCC unroll 8
                for (int i = 0; i < R; i++)
#pragma GCC unroll 2
                    for (int j = 0; j < 2; j++) store(out + i * P + j * VL, acc[i][j]);
                if (out == tile) finish(&p, q * height * P + r * P, tile);
            }
        }
    }
}

/* g = a^T b, [I, N] with row length ld, over the M rows of a [M, I] and b [M, N]. */
struct gradient {
    long M, I, N, ld;
    const float *a, *b;
    float *g;
};

static void gradient(struct team *team, long index, struct gradient p) {
    const long height = rows(p.M), tall = panels(p.I), across = panels(p.N);
    long first, last;
    share(team, index, tall * across, &first, &last);
    for (long task = first; task < last; task++) { /* the smaller matrix stays in the second-level cache */
        const long n = (p.I < p.N ? task / tall : task % across) * P, width = at_most(P, p.N - n);
        const long top = (p.I < p.N ? task % tall : task / across) * P;
        const float *b = p.b + n * height;
        for (long i = top; i < at_most(top + P, p.I); i += G) {
            vec acc[G][2] = {0};
            multiply_add(G, p.M, p.a + top * height + (i - top), 1, P, b, acc);
            for (int l = 0; l < at_most(G, p.I - i); l++)
                copy(p.g + (i + l) * p.ld + n, (const float *)acc[l], width);
        }
    }
}

/* g[n] = sum over rows of scale[r] y[r, n], of y [M, N], with scale 1 if none is given. */
static void column_sums(struct team *team, long index, long M, long N, const float *scale, const float *y,
                        float *g) {
    long first, last;
    share(team, index, panels(N), &first, &last);
    for (long q = first; q < last; q++) {
        float sums[P] = {0};
        for (long r = 0; r < M; r++)
            for (int j = 0; j < P; j++)
                sums[j] += (scale ? scale[r] : 1.0f) * y[(q * rows(M) + r) * P + j];
        memcpy(g + q * P, sums, sizeof(float) * at_most(P, N - q * P));
    }
}

#endif
