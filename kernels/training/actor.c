/* The diffusion's whole step: the score network forwards and backwards, AdamW and the moving average.
 * `swg_fast.training.diffusion.DiffusionTrainer.step` in plain PyTorch is what it computes. The time's
 * embedding enters the input layer as a table of T rows, not once for each of the batch. Included once for
 * each type T of the products. */
#ifndef T

#include "actor.h"
#include "adam.h"
#include "dropout.h"
#include "product.h"

static float mean(const float *terms, long M) {
    double sum = 0;
    for (long r = 0; r < M; r++) sum += terms[r];
    return (float)(sum / (double)M);
}

static const float TURN = 6.283185307f;

#define T float
#include "actor.c"
#undef T
#ifdef HAS_BF16
#define T bf16
#include "actor.c"
#undef T
#endif

int has_bf16(void) {
#ifdef HAS_BF16
    return 1;
#else
    return 0;
#endif
}

/* The floats of memory that steps need; zero before the first call, and then as the last one left it. */
long actor_room(const struct actor *c) {
#ifdef HAS_BF16
    if (c->bf16) return actor_room_bf16(c);
#endif
    return actor_room_float(c);
}

/* `count` steps; 0, or 1 where memory ran out. */
int actor_steps(const struct actor *c, long threads, float *room) {
#ifdef HAS_BF16
    if (c->bf16) return actor_steps_bf16(c, threads, room);
#endif
    return actor_steps_float(c, threads, room);
}

#else

struct NAME(actor_work) {
    const struct actor *c;
    struct actor_parameters p, g;
    struct dropout dropout;
    float *gradient;
    struct NAME(matrix) input, features, time, embedding, d_time, d_embedding, d_table_low;
    T *time_slope;
    float *table, *d_table, *d_features; /* T rows */
    float *h, *d, *d_normal, *out, *out_weight, *terms, *weight_terms;
    struct {
        struct NAME(matrix) x, y; /* the wide layer's input and output */
        T *slope;
        float *normal, *inverse; /* LayerNorm's output before scale and shift, 1 / std */
    } blocks[MOST_BLOCKS];
    struct NAME(matrix) d_wide, d_low, branch, hidden, d_hidden, last, d_out, d_weight;
    T *hidden_slope, *last_slope;
};

/* y = x W^T + bias with W [N, K] of row length ld; what becomes of it is in `p`. */
static void NAME(dense)(struct team *team, long index, long M, long K, long N, long ld, const T *x,
                        const float *weight, const float *bias, struct NAME(product) p) {
    p.M = M, p.K = K, p.N = N, p.ld = ld, p.x = x, p.weight = weight, p.bias = bias, p.transposed = 1;
    NAME(product)(team, index, p);
}

/* d_x = d_y W with W [N, K] of row length ld. */
static void NAME(dense_back)(struct team *team, long index, long M, long K, long N, long ld, const T *d_y,
                             const float *weight, struct NAME(product) p) {
    p.M = M, p.K = N, p.N = K, p.ld = ld, p.x = d_y, p.weight = weight;
    NAME(product)(team, index, p);
}

/* The gradients of W [N, K] and, where given, of its bias. */
static void NAME(dense_weigh)(struct team *team, long index, long M, long K, long N, long ld,
                              struct NAME(matrix) d_y, struct NAME(matrix) x, float *weight, float *bias) {
    NAME(gradient)(team, index, (struct NAME(gradient)){M, N, K, ld, d_y.pairs, x.pairs, weight});
    if (bias) NAME(column_sums)(team, index, M, N, NULL, d_y.rows, bias);
}

/* Rows r and r + 1 of a matrix from two rows [.., stride], zero-padded to whole panels. */
static void NAME(put_rows)(struct NAME(matrix) m, long M, long r, long N, const float *two, long stride) {
    for (long j = 0; j < N; j += P) {
        float part[2 * P];
        memcpy(part, two + j, sizeof(float) * P);
        memcpy(part + P, two + stride + j, sizeof(float) * P);
        NAME(put)(m, place(M, r, j), part);
    }
}

/* m = wide in T; in float the two are one. */
static void NAME(narrow)(struct team *team, long index, long M, long N, const float *wide,
                         struct NAME(matrix) m) {
    if ((const void *)m.rows == wide) return;
    long first, last;
    share(team, index, size_of(M, N) / (2 * P), &first, &last);
    for (long i = first; i < last; i++) NAME(put)(m, 2 * P * i, wide + 2 * P * i);
    meet(team);
}

/* z_t and s of rows r and r + 1, and LayerNorm's padding aside, all that the network is given. */
static void NAME(gather)(const struct NAME(actor_work) *w, long at, long r) {
    const struct actor *c = w->c;
    const long D = c->A + 1, N = D + c->S, stride = panels(N) * P;
    float two[2 * stride];
    memset(two, 0, sizeof two);
    for (long i = 0; i < 2 && r + i < c->M; i++) {
        const long k = at * c->M + r + i;
        const float *row = c->data + c->rows[k] * N, *xi = c->xi + k * D;
        float *to = two + i * stride;
        for (long j = 0; j < D; j++) to[j] = c->signal[c->t[k]] * row[j] + c->noise[c->t[k]] * xi[j];
        memcpy(to + D, row + D, sizeof(float) * c->S);
    }
    NAME(put_rows)(w->input, c->M, r, N, two, stride);
}

static void NAME(fourier)(const struct NAME(actor_work) *w, long t) {
    const long half = w->c->E / 2, stride = panels(w->c->E) * P;
    float two[2 * stride];
    memset(two, 0, sizeof two);
    for (long i = 0; i < 2 && t + i < w->c->times; i++)
        for (long j = 0; j < half; j++) {
            const float phase = TURN * (float)(t + i) * w->p.frequencies[j];
            two[i * stride + j] = cosf(phase), two[i * stride + half + j] = sinf(phase);
        }
    NAME(put_rows)(w->features, w->c->times, t, w->c->E, two, stride);
}

static void NAME(fourier_back)(const struct NAME(actor_work) *w) {
    const long half = w->c->E / 2;
    for (long j = 0; j < half; j++) {
        float sum = 0;
        for (long t = 0; t < w->c->times; t++) {
            const float turns = TURN * (float)t, phase = turns * w->p.frequencies[j];
            sum += turns * (cosf(phase) * w->d_features[place(w->c->times, t, half + j)]
                            - sinf(phase) * w->d_features[place(w->c->times, t, j)]);
        }
        w->g.frequencies[j] = sum;
    }
}

/* Block i's way in for rows r and r + 1: dropout and LayerNorm. */
static void NAME(enter)(const struct NAME(actor_work) *w, long i, long step, long r) {
    const struct actor *c = w->c;
    const long H = c->H, M = c->M, stride = (H + GROUP - 1) / GROUP * GROUP;
    float two[2 * stride];
    memset(two, 0, sizeof two);
    for (long l = 0; l < 2 && r + l < M; l++) {
        float *x = two + l * stride, sum = 0, square = 0;
        for (long j = 0; j < H; j += P) copy(x + j, w->h + place(M, r + l, j), at_most(P, H - j));
        if (c->dropout > 0) drop(&w->dropout, (uint32_t)step, (uint32_t)i, (uint32_t)(r + l), stride, x);
        for (long j = 0; j < H; j++) sum += x[j];
        const float mean = sum / (float)H;
        for (long j = 0; j < H; j++) square += (x[j] - mean) * (x[j] - mean);
        const float inverse = 1.0f / sqrtf(square / (float)H + c->epsilon);
        for (long j = 0; j < H; j++) x[j] = (x[j] - mean) * inverse;
        w->blocks[i].inverse[r + l] = inverse;
        for (long j = 0; j < H; j += P) copy(w->blocks[i].normal + place(M, r + l, j), x + j, at_most(P, H - j));
        for (long j = 0; j < H; j++) x[j] = x[j] * w->p.blocks[i].scale[j] + w->p.blocks[i].shift[j];
    }
    NAME(put_rows)(w->blocks[i].x, M, r, H, two, stride);
}

/* d += block i's way back for row r, from its normalised input's cotangent. */
static void NAME(leave)(const struct NAME(actor_work) *w, long i, long step, long r) {
    const struct actor *c = w->c;
    const long H = c->H, M = c->M, stride = (H + GROUP - 1) / GROUP * GROUP;
    float d[stride], x[stride], mean = 0, along = 0;
    for (long j = 0; j < H; j += P) {
        copy(d + j, w->d_normal + place(M, r, j), at_most(P, H - j));
        copy(x + j, w->blocks[i].normal + place(M, r, j), at_most(P, H - j));
    }
    for (long j = 0; j < H; j++) d[j] *= w->p.blocks[i].scale[j];
    for (long j = 0; j < H; j++) mean += d[j], along += d[j] * x[j];
    mean /= (float)H, along /= (float)H;
    for (long j = 0; j < H; j++) d[j] = w->blocks[i].inverse[r] * (d[j] - mean - x[j] * along);
    if (c->dropout > 0) drop(&w->dropout, (uint32_t)step, (uint32_t)i, (uint32_t)r, stride, d);
    for (long j = 0; j < H; j += P) {
        float *to = w->d + place(M, r, j);
        for (long l = 0; l < at_most(P, H - j); l++) to[l] += d[j + l];
    }
}

/* The gradients of block i's LayerNorm. */
static void NAME(norm_weigh)(struct team *team, long index, const struct NAME(actor_work) *w, long i) {
    const long M = w->c->M;
    long first, last;
    share(team, index, panels(w->c->H), &first, &last);
    for (long q = first; q < last; q++) {
        float scale[P] = {0}, shift[P] = {0};
        const float *d = w->d_normal + q * P * rows(M), *x = w->blocks[i].normal + q * P * rows(M);
        for (long r = 0; r < M; r++)
            for (int j = 0; j < P; j++) scale[j] += d[r * P + j] * x[r * P + j], shift[j] += d[r * P + j];
        copy(w->g.blocks[i].scale + q * P, scale, at_most(P, w->c->H - q * P));
        copy(w->g.blocks[i].shift + q * P, shift, at_most(P, w->c->H - q * P));
    }
}

/* SiLU of the last h with its slope, rows r and r + 1. */
static void NAME(activate)(const struct NAME(actor_work) *w, long r) {
    for (long j = 0; j < w->c->H; j += P) {
        const long at = place(w->c->M, r, j);
        float part[2 * P];
        for (int l = 0; l < 2 * P; l++) {
            const float v = w->h[at + l], s = sigmoid(v), y = v * s;
            part[l] = y;
            w->last_slope[at + l] = NAME(to)(s + y * (1.0f - s));
        }
        NAME(put)(w->last, at, part);
    }
}

/* Rows r and r + 1: the losses, and the read-outs' cotangents. */
static void NAME(compare)(const struct NAME(actor_work) *w, long at, long r) {
    const struct actor *c = w->c;
    const long A = c->A, N = c->early ? A : A + 1, stride = panels(N) * P;
    float two[2 * stride], weight[2 * P] = {0};
    memset(two, 0, sizeof two);
    for (long i = 0; i < 2 && r + i < c->M; i++) {
        const float *xi = c->xi + (at * c->M + r + i) * (A + 1);
        float sum = 0;
        for (long j = 0; j <= A; j++) {
            const float eps = j < N ? w->out[place(c->M, r + i, j)] : w->out_weight[place(c->M, r + i, 0)];
            const float error = eps - xi[j], d = 2.0f * error / (float)c->M;
            *(j < N ? two + i * stride + j : weight + i * P) = j < A ? d : c->weight_loss * d;
            if (j < A) sum += error * error;
            else w->weight_terms[r + i] = error * error;
        }
        w->terms[r + i] = sum;
    }
    NAME(put_rows)(w->d_out, c->M, r, N, two, stride);
    if (c->early) NAME(put)(w->d_weight, place(c->M, r, 0), weight);
}

/* d_table[t] = the sum of d over the rows of step t. */
static void NAME(sum_by_time)(struct team *team, long index, const struct NAME(actor_work) *w, long at) {
    const struct actor *c = w->c;
    long first, last;
    share(team, index, panels(c->H), &first, &last);
    for (long q = first; q < last; q++) {
        float *sums = w->d_table + q * P * rows(c->times);
        memset(sums, 0, sizeof(float) * P * c->times);
        for (long r = 0; r < c->M; r++) {
            const float *row = w->d + (q * rows(c->M) + r) * P;
            float *to = sums + c->t[at * c->M + r] * P;
            for (int j = 0; j < P; j++) to[j] += row[j];
        }
    }
}

#define PAIRS(n, call)                                     \
    do {                                                   \
        long from, to;                                     \
        share(team, index, ((n) + 1) / 2, &from, &to);     \
        for (long r = 2 * from; r < 2 * to; r += 2) call;  \
    } while (0)
#define DENSE(...) NAME(dense)(team, index, __VA_ARGS__)
#define BACK(...) NAME(dense_back)(team, index, __VA_ARGS__)
#define WEIGH(...) NAME(dense_weigh)(team, index, __VA_ARGS__)
#define INTO(...) (struct NAME(product)){__VA_ARGS__}

static void NAME(forward)(struct team *team, long index, struct NAME(actor_work) *w, long at) {
    const struct actor *c = w->c;
    const struct actor_parameters *p = &w->p;
    const long M = c->M, H = c->H, N = c->A + 1 + c->S, wide = 2 * c->E, ld = N + wide;
    PAIRS(M, NAME(gather)(w, at, r));
    PAIRS(c->times, NAME(fourier)(w, r));
    meet(team);
    DENSE(M, N, H, ld, w->input.rows, p->input, NULL, INTO(.finish = WIDE, .wide = w->h));
    DENSE(c->times, c->E, wide, c->E, w->features.rows, p->time0, p->time0_bias,
          INTO(.finish = SILU, .y = w->time, .slope = w->time_slope));
    meet(team);
    DENSE(c->times, wide, wide, wide, w->time.rows, p->time2, p->time2_bias, INTO(.finish = KEEP, .y = w->embedding));
    meet(team);
    DENSE(c->times, wide, H, ld, w->embedding.rows, p->input + N, p->input_bias, INTO(.finish = WIDE, .wide = w->table));
    meet(team);
    long first, last;
    share(team, index, panels(H), &first, &last);
    for (long q = first; q < last; q++)
        for (long r = 0; r < M; r++)
            for (int j = 0; j < P; j++)
                w->h[(q * rows(M) + r) * P + j] += w->table[(q * rows(c->times) + c->t[at * M + r]) * P + j];
    meet(team);
    for (long i = 0; i < c->L; i++) {
        PAIRS(M, NAME(enter)(w, i, c->step + at, r));
        meet(team);
        DENSE(M, H, 4 * H, H, w->blocks[i].x.rows, p->blocks[i].up, p->blocks[i].up_bias,
              INTO(.finish = SILU, .y = w->blocks[i].y, .slope = w->blocks[i].slope));
        meet(team);
        DENSE(M, 4 * H, H, 4 * H, w->blocks[i].y.rows, p->blocks[i].down, p->blocks[i].down_bias,
              INTO(.finish = ADD, .wide = w->h));
        meet(team);
        if (c->early && i == 1) {
            share(team, index, size_of(M, H) / (2 * P), &first, &last);
            for (long k = first; k < last; k++) NAME(put)(w->branch, 2 * P * k, w->h + 2 * P * k);
            meet(team);
        }
    }
    PAIRS(M, NAME(activate)(w, r));
    if (c->early) DENSE(M, H, HEAD, H, w->branch.rows, p->hidden, p->hidden_bias,
                        INTO(.finish = SILU, .y = w->hidden, .slope = w->hidden_slope));
    meet(team);
    DENSE(M, H, c->early ? c->A : c->A + 1, H, w->last.rows, p->output, p->output_bias,
          INTO(.finish = WIDE, .wide = w->out));
    if (c->early) DENSE(M, HEAD, 1, HEAD, w->hidden.rows, p->weight, p->weight_bias,
                        INTO(.finish = WIDE, .wide = w->out_weight));
    meet(team);
    PAIRS(M, NAME(compare)(w, at, r));
    meet(team);
}

static void NAME(backward)(struct team *team, long index, struct NAME(actor_work) *w, long at) {
    const struct actor *c = w->c;
    const struct actor_parameters *p = &w->p, *g = &w->g;
    const long M = c->M, H = c->H, N = c->A + 1 + c->S, wide = 2 * c->E, ld = N + wide;
    const long outputs = c->early ? c->A : c->A + 1;
    BACK(M, H, outputs, H, w->d_out.rows, p->output,
         INTO(.finish = SCALE_WIDE, .factor = w->last_slope, .wide = w->d));
    WEIGH(M, H, outputs, H, w->d_out, w->last, g->output, g->output_bias);
    if (c->early) {
        BACK(M, HEAD, 1, HEAD, w->d_weight.rows, p->weight,
             INTO(.finish = SCALE, .factor = w->hidden_slope, .y = w->d_hidden));
        WEIGH(M, HEAD, 1, HEAD, w->d_weight, w->hidden, g->weight, g->weight_bias);
    }
    meet(team);
    for (long i = c->L - 1; i >= 0; i--) {
        if (c->early && i == 1) {
            BACK(M, H, HEAD, H, w->d_hidden.rows, p->hidden, INTO(.finish = ADD, .wide = w->d));
            WEIGH(M, H, HEAD, H, w->d_hidden, w->branch, g->hidden, g->hidden_bias);
            meet(team);
        }
        NAME(narrow)(team, index, M, H, w->d, w->d_low);
        BACK(M, 4 * H, H, 4 * H, w->d_low.rows, p->blocks[i].down,
             INTO(.finish = SCALE, .factor = w->blocks[i].slope, .y = w->d_wide));
        WEIGH(M, 4 * H, H, 4 * H, w->d_low, w->blocks[i].y, g->blocks[i].down, g->blocks[i].down_bias);
        meet(team);
        BACK(M, H, 4 * H, H, w->d_wide.rows, p->blocks[i].up, INTO(.finish = WIDE, .wide = w->d_normal));
        WEIGH(M, H, 4 * H, H, w->d_wide, w->blocks[i].x, g->blocks[i].up, g->blocks[i].up_bias);
        meet(team);
        NAME(norm_weigh)(team, index, w, i);
        long first, last;
        share(team, index, M, &first, &last);
        for (long r = first; r < last; r++) NAME(leave)(w, i, c->step + at, r);
        meet(team);
    }
    NAME(sum_by_time)(team, index, w, at);
    NAME(narrow)(team, index, M, H, w->d, w->d_low);
    meet(team);
    NAME(narrow)(team, index, c->times, H, w->d_table, w->d_table_low);
    WEIGH(M, N, H, ld, w->d_low, w->input, g->input, NULL);
    WEIGH(c->times, wide, H, ld, w->d_table_low, w->embedding, g->input + N, g->input_bias);
    BACK(c->times, wide, H, ld, w->d_table_low.rows, p->input + N, INTO(.finish = KEEP, .y = w->d_embedding));
    meet(team);
    WEIGH(c->times, wide, wide, wide, w->d_embedding, w->time, g->time2, g->time2_bias);
    BACK(c->times, wide, wide, wide, w->d_embedding.rows, p->time2,
         INTO(.finish = SCALE, .factor = w->time_slope, .y = w->d_time));
    meet(team);
    WEIGH(c->times, c->E, wide, c->E, w->d_time, w->features, g->time0, g->time0_bias);
    BACK(c->times, c->E, wide, c->E, w->d_time.rows, p->time0, INTO(.finish = WIDE, .wide = w->d_features));
    meet(team);
    if (index == 0) NAME(fourier_back)(w);
}

static void NAME(all_actor_steps)(void *job, struct team *team, long index) {
    struct NAME(actor_work) *w = job;
    const struct actor *c = w->c;
    for (long at = 0; at < c->count; at++) {
        NAME(forward)(team, index, w, at);
        if (index == 0) {
            c->losses[2 * at] = mean(w->terms, c->M);
            c->losses[2 * at + 1] = mean(w->weight_terms, c->M);
        }
        NAME(backward)(team, index, w, at);
        meet(team);
        adam(team, index, (struct adam){.p = c->p, .m = c->p_m, .v = c->p_v, .g = w->gradient,
             .average = c->average, .count = w->p.count, .steps = c->steps + at + 1,
             .learning_rate = c->rates[at], .decay = c->weight_decay, .rate = c->ema_rate});
        meet(team);
    }
}

/* The buffers out of one block of zeros, its padding kept zero; its size where there is none yet. */
static long NAME(lay_out_actor)(struct NAME(actor_work) *w, float *block) {
    const struct actor *c = w->c;
    const long M = c->M, H = c->H, wide = 2 * c->E, outputs = c->A + 1;
    long used = 0;
#define TAKE(name, n) (name = (void *)(block ? block + used : NULL), used += ((n) + 15) / 16 * 16)
#define MATRIX(name, m, n) (name = NAME(matrix)(block ? block + used : NULL, size_of(m, n)), used += size_of(m, n))
    TAKE(w->gradient, w->p.count);
    MATRIX(w->input, M, outputs + c->S), MATRIX(w->features, c->times, c->E), MATRIX(w->time, c->times, wide);
    MATRIX(w->embedding, c->times, wide), MATRIX(w->d_time, c->times, wide), MATRIX(w->d_embedding, c->times, wide);
    TAKE(w->time_slope, size_of(c->times, wide)), TAKE(w->table, size_of(c->times, H));
    TAKE(w->d_table, size_of(c->times, H)), TAKE(w->d_features, size_of(c->times, c->E));
    TAKE(w->h, size_of(M, H)), TAKE(w->d, size_of(M, H)), TAKE(w->d_normal, size_of(M, H));
    TAKE(w->out, size_of(M, outputs)), TAKE(w->out_weight, size_of(M, 1));
    TAKE(w->terms, M), TAKE(w->weight_terms, M);
    for (long i = 0; i < c->L; i++) {
        MATRIX(w->blocks[i].x, M, H), MATRIX(w->blocks[i].y, M, 4 * H);
        TAKE(w->blocks[i].slope, size_of(M, 4 * H)), TAKE(w->blocks[i].normal, size_of(M, H));
        TAKE(w->blocks[i].inverse, M);
    }
    MATRIX(w->d_wide, M, 4 * H), MATRIX(w->branch, M, H), MATRIX(w->last, M, H), MATRIX(w->d_out, M, outputs);
    MATRIX(w->hidden, M, HEAD), MATRIX(w->d_hidden, M, HEAD), MATRIX(w->d_weight, M, 1);
    TAKE(w->hidden_slope, size_of(M, HEAD)), TAKE(w->last_slope, size_of(M, H));
    if (sizeof(T) == sizeof(float)) {
        w->d_low = NAME(matrix)(w->d, 0), w->d_table_low = NAME(matrix)(w->d_table, 0);
    } else {
        MATRIX(w->d_low, M, H), MATRIX(w->d_table_low, c->times, H);
    }
#undef MATRIX
#undef TAKE
    return used;
}

static long NAME(actor_room)(const struct actor *c) {
    struct NAME(actor_work) w = {.c = c, .p = actor_parameters(c, c->p)};
    return NAME(lay_out_actor)(&w, NULL);
}

static int NAME(actor_steps)(const struct actor *c, long threads, float *room) {
    struct NAME(actor_work) w = {.c = c, .p = actor_parameters(c, c->p), .dropout = dropout(c->seed, c->dropout)};
    NAME(lay_out_actor)(&w, room);
    w.g = actor_parameters(c, w.gradient);
    return together(threads, P * rows(c->M > c->times ? c->M : c->times), NAME(all_actor_steps), &w);
}

#undef PAIRS
#undef DENSE
#undef BACK
#undef WEIGH
#undef INTO
#endif
