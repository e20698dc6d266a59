/* The CPU path's loops between oneDNN's products, one fused pass over memory each. Plain C, compiled
 * for this machine by `kernels.cpu.c_loops`; the vectors are the compiler's work.
 *
 * Shapes are row-major and contiguous: M rows, H hidden, W the wide layer, D entries of z. The file
 * includes itself once for each type T of activations: float, and bf16 as its 16 bits.
 */
#ifndef T

#include "scalar.h"

static inline double uniform(uint32_t word) { return ((double)(word >> 9) + 0.5) * 0x1p-23; }

/* Standard normals [M, D] of one step for candidate and state words [M]; zero beyond D. */
void normals(long M, long D, const int64_t *candidates, const int64_t *states, uint32_t step, uint32_t k0,
             uint32_t k1, float *out) {
    for (long r = 0; r < M; r++)
        for (long block = 0; 4 * block < D; block++) {
            const uint32_t counter[4] = {(uint32_t)candidates[r], (uint32_t)states[r], step, (uint32_t)block};
            uint32_t w[4];
            float four[4];
            philox(counter, k0, k1, w);
            for (int pair = 0; pair < 2; pair++) {
                double radius = sqrt(-2.0 * log(uniform(w[2 * pair])));
                double angle = 6.283185307179586 * uniform(w[2 * pair + 1]);
                four[2 * pair] = (float)(radius * cos(angle));
                four[2 * pair + 1] = (float)(radius * sin(angle));
            }
            for (long i = 0; i < 4 && 4 * block + i < D; i++) out[r * D + 4 * block + i] = four[i];
        }
}

/* h = vectors[owners] + time + z W_in, [M, H]; W_in is given as [D, H]. */
void input_layer(long M, long H, long D, const float *z, const float *vectors, const int64_t *owners,
                 const float *time, const float *weight, float *h) {
    for (long r = 0; r < M; r++) {
        float *row = h + r * H;
        const float *vector = vectors + owners[r] * H;
        for (long i = 0; i < H; i++) row[i] = vector[i] + time[i];
        for (long d = 0; d < D; d++) {
            const float scale = z[r * D + d];
            for (long i = 0; i < H; i++) row[i] += scale * weight[d * H + i];
        }
    }
}

/* out = g W_in^T, [M, D]. */
void input_vjp(long M, long H, long D, const float *g, const float *weight, float *out) {
    for (long r = 0; r < M; r++)
        for (long d = 0; d < D; d++) {
            float sum = 0;
            for (long i = 0; i < H; i++) sum += g[r * H + i] * weight[d * H + i];
            out[r * D + d] = sum;
        }
}

static inline float clamp(float v, float low, float high) { return v < low ? low : v > high ? high : v; }

static void clip_latent(long D, float *z, float w_min, float w_max) {
    for (long d = 0; d < D - 1; d++) z[d] = clamp(z[d], -1.0f, 1.0f);
    z[D - 1] = clamp(z[D - 1], w_min, w_max);
}

/* The columns of the sampler's table, in the order of kernels.shared.sampler_table.COLUMNS. */
enum { SIGMA, READOUT, GUIDANCE, CLEAN_SCALE, STATE, EPSILON, CLEAN, NOISE, PREVIOUS };

/* One row of the sampler's table applied to z [M, D] in place. `weight` [M] becomes the new weight before any
 * clip, and `gradient` [M, D] the gradient of its logarithm, zero where no `vjp` is given. `last` [M, D], where
 * given, holds the x0 of the row before and becomes this row's. */
void update(long M, long D, const float *row, float w_min, float w_max, int clip_state, int clip_clean,
            const float *eps, const float *vjp, const float *noise, float *z, float *weight, float *gradient,
            float *last) {
    const float sigma = row[SIGMA], readout = row[READOUT], guidance = row[GUIDANCE], clean_scale = row[CLEAN_SCALE];
    for (long r = 0; r < M; r++) {
        const float *e = eps + r * D;
        float *x = z + r * D, *g = gradient + r * D, clean[64], clipped = 0;
        for (long d = 0; d < D; d++) g[d] = 0;
        if (vjp) {
            const float w = x[D - 1] - sigma * e[D - 1];
            const int inside = readout * w >= w_min && readout * w <= w_max;
            for (long d = 0; inside && d < D; d++) {
                const float v = ((d == D - 1) - sigma * vjp[r * D + d]) / w;
                g[d] = v == v ? v : 0.0f;
            }
        }
        for (long d = 0; d < D; d++) clean[d] = clean_scale * (x[d] - sigma * (e[d] - guidance * g[d]));
        if (clip_clean) {
            const float raw = clean[D - 1];
            clip_latent(D, clean, w_min, w_max);
            clipped = row[CLEAN] * (raw - clean[D - 1]);
        }
        for (long d = 0; d < D; d++)
            x[d] = row[STATE] * x[d] + row[EPSILON] * (e[d] - guidance * g[d]) + row[CLEAN] * clean[d]
                   + row[NOISE] * noise[r * D + d];
        if (row[PREVIOUS] != 0)
            for (long d = 0; d < D; d++) x[d] += row[PREVIOUS] * last[r * D + d];
        if (last) memcpy(last + r * D, clean, D * sizeof(float));
        weight[r] = x[D - 1] + clipped;
        if (clip_state) clip_latent(D, x, w_min, w_max);
    }
}

#ifdef __AVX512BF16__
#include <immintrin.h>
#define OWN_SILU_BF16

/* 16 sigmoids to 2^-14, a sixteenth of what bf16 can show. */
static inline __m512 sigmoid16(__m512 a) {
    const __m512 x = _mm512_mul_ps(a, _mm512_set1_ps(-1.44269504f));
    const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 f = _mm512_sub_ps(x, n);
    __m512 p = _mm512_set1_ps(9.6181291e-3f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5504109e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4022651e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9314718e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_rcp14_ps(_mm512_add_ps(_mm512_set1_ps(1.0f), _mm512_scalef_ps(p, n)));
}

/* `silu` below, for bf16 on processors that round to it by themselves. */
void silu_bf16(long n, bf16 *a, bf16 *slope) {
    for (long i = 0; i < n; i += 16) {
        const __mmask16 live = n - i >= 16 ? 0xffff : (__mmask16)((1u << (n - i)) - 1);
        const __m512i bits = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(live, a + i));
        const __m512 v = _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
        const __m512 s = sigmoid16(v), y = _mm512_mul_ps(v, s);
        _mm256_mask_storeu_epi16(a + i, live, (__m256i)_mm512_cvtneps_pbh(y));
        if (slope) {
            const __m512 rest = _mm512_fmadd_ps(y, _mm512_sub_ps(_mm512_set1_ps(1.0f), s), s);
            _mm256_mask_storeu_epi16(slope + i, live, (__m256i)_mm512_cvtneps_pbh(rest));
        }
    }
}
#endif

#define T float
#include "native.c"
#undef T
#define T bf16
#ifdef OWN_SILU_BF16
#define NO_SILU
#endif
#include "native.c"

#else

static inline float NAME(load)(T v) { return NAME(from)(v); }

#ifndef NO_SILU
/* a = SiLU(a), and its derivative to `slope` where that is given. */
void NAME(silu)(long n, T *a, T *slope) {
    if (slope)
        for (long i = 0; i < n; i++) {
            const float v = NAME(load)(a[i]), s = sigmoid(v), y = v * s;
            a[i] = NAME(to)(y);
            slope[i] = NAME(to)(s + y * (1.0f - s));
        }
    else
        for (long i = 0; i < n; i++) {
            const float v = NAME(load)(a[i]);
            a[i] = NAME(to)(v * sigmoid(v));
        }
}
#endif

/* a *= b. */
void NAME(multiply)(long n, T *a, const T *b) {
    for (long i = 0; i < n; i++) a[i] = NAME(to)(NAME(load)(a[i]) * NAME(load)(b[i]));
}

/* h += sums (where given), then x = (h - mean) / std and 1 / std [M]. */
void NAME(add_normalise)(long M, long H, float eps, float *h, const T *sums, T *x, float *rstd) {
    for (long r = 0; r < M; r++) {
        float *row = h + r * H;
        float mean = 0, square = 0;
        if (sums)
            for (long i = 0; i < H; i++) row[i] += NAME(load)(sums[r * H + i]);
        for (long i = 0; i < H; i++) mean += row[i];
        mean /= (float)H;
        for (long i = 0; i < H; i++) square += (row[i] - mean) * (row[i] - mean);
        const float inverse = 1.0f / sqrtf(square / (float)H + eps);
        for (long i = 0; i < H; i++) x[r * H + i] = NAME(to)((row[i] - mean) * inverse);
        rstd[r] = inverse;
    }
}

/* g += the cotangent `outer` taken back through the normalisation that gave x; g_low is g in T. */
void NAME(normalise_vjp)(long M, long H, const T *outer, const T *x, const float *rstd, float *g, T *g_low) {
    for (long r = 0; r < M; r++) {
        const T *o = outer + r * H, *v = x + r * H;
        float mean = 0, along = 0;
        for (long i = 0; i < H; i++) mean += NAME(load)(o[i]);
        for (long i = 0; i < H; i++) along += NAME(load)(o[i]) * NAME(load)(v[i]);
        mean /= (float)H, along /= (float)H;
        for (long i = 0; i < H; i++) {
            const float value = g[r * H + i] + rstd[r] * (NAME(load)(o[i]) - mean - NAME(load)(v[i]) * along);
            g[r * H + i] = value;
            g_low[r * H + i] = NAME(to)(value);
        }
    }
}

/* h += sums; eps[:, :K] = SiLU(h) weight^T + bias for weight [K, H]; where g is given, g = slope of
 * SiLU(h) times weight's last row, and g_low in T. eps has D columns. */
void NAME(read_out)(long M, long H, long D, long K, float *h, const T *sums, const T *weight, const float *bias,
                    float *eps, float *g, T *g_low) {
    float y[4096];
    for (long r = 0; r < M; r++) {
        float *row = h + r * H;
        if (sums)
            for (long i = 0; i < H; i++) row[i] += NAME(load)(sums[r * H + i]);
        if (g) {
            const T *last = weight + (K - 1) * H;
            for (long i = 0; i < H; i++) {
                const float s = sigmoid(row[i]), v = row[i] * s;
                const float slope = (s + v * (1.0f - s)) * NAME(load)(last[i]);
                y[i] = NAME(load)(NAME(to)(v));
                g[r * H + i] = slope;
                g_low[r * H + i] = NAME(to)(slope);
            }
        } else
            for (long i = 0; i < H; i++) y[i] = NAME(load)(NAME(to)(row[i] * sigmoid(row[i])));
        for (long k = 0; k < K; k++) {
            float sum = 0;
            for (long i = 0; i < H; i++) sum += y[i] * NAME(load)(weight[k * H + i]);
            eps[r * D + k] = sum + bias[k];
        }
    }
}

/* h += sums, and h in T to x: the early head's operand. */
void NAME(add)(long M, long H, float *h, const T *sums, T *x) {
    for (long i = 0; i < M * H; i++) {
        h[i] += NAME(load)(sums[i]);
        x[i] = NAME(to)(h[i]);
    }
}

/* eps[:, D-1] = SiLU(a) out + bias for the early head's a [M, E]; a becomes its slope. */
void NAME(early_head)(long M, long E, long D, T *a, const T *out, float bias, float *eps) {
    for (long r = 0; r < M; r++) {
        float sum = 0;
        for (long i = 0; i < E; i++) {
            const float v = NAME(load)(a[r * E + i]), s = sigmoid(v), y = v * s;
            sum += NAME(load)(NAME(to)(y)) * NAME(load)(out[i]);
            a[r * E + i] = NAME(to)(s + y * (1.0f - s));
        }
        eps[r * D + D - 1] = sum + bias;
    }
}

/* g = a in float: the way back begins with the early head's cotangent. */
void NAME(widen)(long n, const T *a, float *g) {
    for (long i = 0; i < n; i++) g[i] = NAME(load)(a[i]);
}

#endif
