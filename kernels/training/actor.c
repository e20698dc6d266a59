/* The diffusion's whole step: the score network's forward and backward pass, AdamW and the moving average. It
 * computes the same as `swg_fast.training.diffusion.DiffusionTrainer.step` in plain PyTorch. The time's
 * embedding enters the input layer as a table with a row for each step of the schedule, not once for each
 * batch row. */
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

struct actor_work {
    const struct actor *c;
    struct actor_parameters p, g;
    struct dropout dropout;
    float *gradient, *input, *features, *time, *embedding, *d_time, *d_embedding, *time_slope;
    float *table, *d_table, *d_features; /* of `times` rows */
    float *h, *d, *d_normal, *out, *out_weight, *terms, *weight_terms;
    struct {
        float *x, *y, *slope; /* the wide layer's input and output, the slope of its SiLU */
        float *normal, *inverse; /* LayerNorm's output before scale and shift, 1 / std */
    } blocks[MOST_BLOCKS];
    float *d_wide, *branch, *hidden, *d_hidden, *last, *d_out, *d_weight, *hidden_slope, *last_slope;
};

/* y = x W^T + bias with W [N, K] of row length ld; `p` says how the result is written. */
static void dense(struct team *team, long index, long M, long K, long N, long ld, const float *x,
                  const float *weight, const float *bias, struct product p) {
    p.M = M, p.K = K, p.N = N, p.ld = ld, p.x = x, p.weight = weight, p.bias = bias, p.transposed = 1;
    product(team, index, p);
}

/* d_x = d_y W with W [N, K] of row length ld. */
static void dense_back(struct team *team, long index, long M, long K, long N, long ld, const float *d_y,
                       const float *weight, struct product p) {
    p.M = M, p.K = N, p.N = K, p.ld = ld, p.x = d_y, p.weight = weight;
    product(team, index, p);
}

/* The gradients of W [N, K] and, if given, of its bias. */
static void dense_weigh(struct team *team, long index, long M, long K, long N, long ld,
                        const float *d_y, const float *x, float *weight, float *bias) {
    gradient(team, index, (struct gradient){M, N, K, ld, d_y, x, weight});
    if (bias) column_sums(team, index, M, N, NULL, d_y, bias);
}

/* Sets row r of a matrix to N values. */
static void put_row(float *m, long M, long r, long N, const float *values) {
    for (long j = 0; j < N; j += P) copy(m + place(M, r, j), values + j, at_most(P, N - j));
}

/* Row r of the input: z_t and s. */
static void gather(const struct actor_work *w, long at, long r) {
    const struct actor *c = w->c;
    const long D = c->A + 1, N = D + c->S, k = at * c->M + r;
    const float *row = c->data + c->rows[k] * N, *xi = c->xi + k * D;
    float input[N];
    for (long j = 0; j < D; j++) input[j] = c->signal[c->t[k]] * row[j] + c->noise[c->t[k]] * xi[j];
    memcpy(input + D, row + D, sizeof(float) * c->S);
    put_row(w->input, c->M, r, N, input);
}

static void fourier(const struct actor_work *w, long t) {
    const long half = w->c->E / 2;
    float features[2 * half];
    for (long j = 0; j < half; j++) {
        const float phase = TURN * (float)t * w->p.frequencies[j];
        features[j] = cosf(phase), features[half + j] = sinf(phase);
    }
    put_row(w->features, w->c->times, t, w->c->E, features);
}

static void fourier_back(const struct actor_work *w) {
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

/* Row r at the entrance of block i: dropout and LayerNorm. */
static void enter(const struct actor_work *w, long i, long step, long r) {
    const struct actor *c = w->c;
    const long H = c->H, M = c->M, stride = (H + GROUP - 1) / GROUP * GROUP;
    float x[stride], sum = 0, square = 0;
    memset(x, 0, sizeof x);
    for (long j = 0; j < H; j += P) copy(x + j, w->h + place(M, r, j), at_most(P, H - j));
    if (c->dropout > 0) drop(&w->dropout, (uint32_t)step, (uint32_t)i, (uint32_t)r, stride, x);
    for (long j = 0; j < H; j++) sum += x[j];
    const float mean = sum / (float)H;
    for (long j = 0; j < H; j++) square += (x[j] - mean) * (x[j] - mean);
    const float inverse = 1.0f / sqrtf(square / (float)H + c->epsilon);
    for (long j = 0; j < H; j++) x[j] = (x[j] - mean) * inverse;
    w->blocks[i].inverse[r] = inverse;
    put_row(w->blocks[i].normal, M, r, H, x);
    for (long j = 0; j < H; j++) x[j] = x[j] * w->p.blocks[i].scale[j] + w->p.blocks[i].shift[j];
    put_row(w->blocks[i].x, M, r, H, x);
}

/* d += the backward pass of block i for row r, from the cotangent of its normalised input. */
static void leave(const struct actor_work *w, long i, long step, long r) {
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
static void norm_weigh(struct team *team, long index, const struct actor_work *w, long i) {
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

/* SiLU of row r of the last h, and its slope. */
static void activate(const struct actor_work *w, long r) {
    for (long j = 0; j < w->c->H; j += P) {
        const long at = place(w->c->M, r, j);
        for (long l = at; l < at + P; l++) {
            const float s = sigmoid(w->h[l]), y = w->h[l] * s;
            w->last[l] = y;
            w->last_slope[l] = s + y * (1.0f - s);
        }
    }
}

/* Row r's losses, and the cotangents of its read-outs. */
static void compare(const struct actor_work *w, long at, long r) {
    const struct actor *c = w->c;
    const long A = c->A, M = c->M;
    const float *xi = c->xi + (at * M + r) * (A + 1);
    float sum = 0;
    for (long j = 0; j <= A; j++) {
        const int apart = c->early && j == A; /* the weight's entry has a separate head */
        const long entry = apart ? place(M, r, 0) : place(M, r, j);
        const float error = (apart ? w->out_weight : w->out)[entry] - xi[j], d = 2.0f * error / (float)M;
        (apart ? w->d_weight : w->d_out)[entry] = j < A ? d : c->weight_loss * d;
        if (j < A) sum += error * error;
        else w->weight_terms[r] = error * error;
    }
    w->terms[r] = sum;
}

/* d_table[t] = the sum of d over the rows of step t. */
static void sum_by_time(struct team *team, long index, const struct actor_work *w, long at) {
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

#define EACH_ROW(n, call)                        \
    do {                                         \
        long from, to;                           \
        share(team, index, n, &from, &to);       \
        for (long r = from; r < to; r++) call;   \
    } while (0)
#define DENSE(...) dense(team, index, __VA_ARGS__)
#define BACK(...) dense_back(team, index, __VA_ARGS__)
#define WEIGH(...) dense_weigh(team, index, __VA_ARGS__)
#define INTO(...) (struct product){__VA_ARGS__}

static void forward(struct team *team, long index, struct actor_work *w, long at) {
    const struct actor *c = w->c;
    const struct actor_parameters *p = &w->p;
    const long M = c->M, H = c->H, N = c->A + 1 + c->S, wide = 2 * c->E, ld = N + wide;
    EACH_ROW(M, gather(w, at, r));
    EACH_ROW(c->times, fourier(w, r));
    meet(team);
    DENSE(M, N, H, ld, w->input, p->input, NULL, INTO(.finish = KEEP, .y = w->h));
    DENSE(c->times, c->E, wide, c->E, w->features, p->time0, p->time0_bias,
          INTO(.finish = SILU, .y = w->time, .slope = w->time_slope));
    meet(team);
    DENSE(c->times, wide, wide, wide, w->time, p->time2, p->time2_bias, INTO(.finish = KEEP, .y = w->embedding));
    meet(team);
    DENSE(c->times, wide, H, ld, w->embedding, p->input + N, p->input_bias, INTO(.finish = KEEP, .y = w->table));
    meet(team);
    long first, last;
    share(team, index, panels(H), &first, &last);
    for (long q = first; q < last; q++)
        for (long r = 0; r < M; r++)
            for (int j = 0; j < P; j++)
                w->h[(q * rows(M) + r) * P + j] += w->table[(q * rows(c->times) + c->t[at * M + r]) * P + j];
    meet(team);
    for (long i = 0; i < c->L; i++) {
        EACH_ROW(M, enter(w, i, c->step + at, r));
        meet(team);
        DENSE(M, H, 4 * H, H, w->blocks[i].x, p->blocks[i].up, p->blocks[i].up_bias,
              INTO(.finish = SILU, .y = w->blocks[i].y, .slope = w->blocks[i].slope));
        meet(team);
        DENSE(M, 4 * H, H, 4 * H, w->blocks[i].y, p->blocks[i].down, p->blocks[i].down_bias,
              INTO(.finish = ADD, .y = w->h));
        meet(team);
        if (c->early && i == 1) {
            share(team, index, size_of(M, H) / P, &first, &last);
            for (long k = first; k < last; k++) copy(w->branch + k * P, w->h + k * P, P);
            meet(team);
        }
    }
    EACH_ROW(M, activate(w, r));
    if (c->early) DENSE(M, H, HEAD, H, w->branch, p->hidden, p->hidden_bias,
                        INTO(.finish = SILU, .y = w->hidden, .slope = w->hidden_slope));
    meet(team);
    DENSE(M, H, c->early ? c->A : c->A + 1, H, w->last, p->output, p->output_bias,
          INTO(.finish = KEEP, .y = w->out));
    if (c->early) DENSE(M, HEAD, 1, HEAD, w->hidden, p->weight, p->weight_bias,
                        INTO(.finish = KEEP, .y = w->out_weight));
    meet(team);
    EACH_ROW(M, compare(w, at, r));
    meet(team);
}

static void backward(struct team *team, long index, struct actor_work *w, long at) {
    const struct actor *c = w->c;
    const struct actor_parameters *p = &w->p, *g = &w->g;
    const long M = c->M, H = c->H, N = c->A + 1 + c->S, wide = 2 * c->E, ld = N + wide;
    const long outputs = c->early ? c->A : c->A + 1;
    BACK(M, H, outputs, H, w->d_out, p->output,
         INTO(.finish = SCALE, .factor = w->last_slope, .y = w->d));
    WEIGH(M, H, outputs, H, w->d_out, w->last, g->output, g->output_bias);
    if (c->early) {
        BACK(M, HEAD, 1, HEAD, w->d_weight, p->weight,
             INTO(.finish = SCALE, .factor = w->hidden_slope, .y = w->d_hidden));
        WEIGH(M, HEAD, 1, HEAD, w->d_weight, w->hidden, g->weight, g->weight_bias);
    }
    meet(team);
    for (long i = c->L - 1; i >= 0; i--) {
        if (c->early && i == 1) {
            BACK(M, H, HEAD, H, w->d_hidden, p->hidden, INTO(.finish = ADD, .y = w->d));
            WEIGH(M, H, HEAD, H, w->d_hidden, w->branch, g->hidden, g->hidden_bias);
            meet(team);
        }
        BACK(M, 4 * H, H, 4 * H, w->d, p->blocks[i].down,
             INTO(.finish = SCALE, .factor = w->blocks[i].slope, .y = w->d_wide));
        WEIGH(M, 4 * H, H, 4 * H, w->d, w->blocks[i].y, g->blocks[i].down, g->blocks[i].down_bias);
        meet(team);
        BACK(M, H, 4 * H, H, w->d_wide, p->blocks[i].up, INTO(.finish = KEEP, .y = w->d_normal));
        WEIGH(M, H, 4 * H, H, w->d_wide, w->blocks[i].x, g->blocks[i].up, g->blocks[i].up_bias);
        meet(team);
        norm_weigh(team, index, w, i);
        long first, last;
        share(team, index, M, &first, &last);
        for (long r = first; r < last; r++) leave(w, i, c->step + at, r);
        meet(team);
    }
    sum_by_time(team, index, w, at);
    meet(team);
    WEIGH(M, N, H, ld, w->d, w->input, g->input, NULL);
    WEIGH(c->times, wide, H, ld, w->d_table, w->embedding, g->input + N, g->input_bias);
    BACK(c->times, wide, H, ld, w->d_table, p->input + N, INTO(.finish = KEEP, .y = w->d_embedding));
    meet(team);
    WEIGH(c->times, wide, wide, wide, w->d_embedding, w->time, g->time2, g->time2_bias);
    BACK(c->times, wide, wide, wide, w->d_embedding, p->time2,
         INTO(.finish = SCALE, .factor = w->time_slope, .y = w->d_time));
    meet(team);
    WEIGH(c->times, c->E, wide, c->E, w->d_time, w->features, g->time0, g->time0_bias);
    BACK(c->times, c->E, wide, c->E, w->d_time, p->time0, INTO(.finish = KEEP, .y = w->d_features));
    meet(team);
    if (index == 0) fourier_back(w);
}

static void all_actor_steps(void *job, struct team *team, long index) {
    struct actor_work *w = job;
    const struct actor *c = w->c;
    for (long at = 0; at < c->count; at++) {
        forward(team, index, w, at);
        if (index == 0) {
            c->losses[2 * at] = mean(w->terms, c->M);
            c->losses[2 * at + 1] = mean(w->weight_terms, c->M);
        }
        backward(team, index, w, at);
        meet(team);
        adam(team, index, (struct adam){.p = c->p, .m = c->p_m, .v = c->p_v, .g = w->gradient,
             .average = c->average, .count = w->p.count, .steps = c->steps + at + 1,
             .learning_rate = c->rates[at], .decay = c->weight_decay, .rate = c->ema_rates[at]});
        meet(team);
    }
}

/* Places the buffers in one block of zeros, whose padding stays zero; without a block, returns its size. */
static long lay_out_actor(struct actor_work *w, float *block) {
    const struct actor *c = w->c;
    const long M = c->M, H = c->H, wide = 2 * c->E, outputs = c->A + 1;
    long used = 0;
#define TAKE(name, n) (name = block ? block + used : NULL, used += ((n) + 15) / 16 * 16)
#define MATRIX(name, m, n) TAKE(name, size_of(m, n))
    TAKE(w->gradient, w->p.count);
    MATRIX(w->input, M, outputs + c->S), MATRIX(w->features, c->times, c->E), MATRIX(w->time, c->times, wide);
    MATRIX(w->embedding, c->times, wide), MATRIX(w->d_time, c->times, wide), MATRIX(w->d_embedding, c->times, wide);
    MATRIX(w->time_slope, c->times, wide), MATRIX(w->table, c->times, H);
    MATRIX(w->d_table, c->times, H), MATRIX(w->d_features, c->times, c->E);
    MATRIX(w->h, M, H), MATRIX(w->d, M, H), MATRIX(w->d_normal, M, H);
    MATRIX(w->out, M, outputs), MATRIX(w->out_weight, M, 1);
    TAKE(w->terms, M), TAKE(w->weight_terms, M);
    for (long i = 0; i < c->L; i++) {
        MATRIX(w->blocks[i].x, M, H), MATRIX(w->blocks[i].y, M, 4 * H);
        MATRIX(w->blocks[i].slope, M, 4 * H), MATRIX(w->blocks[i].normal, M, H);
        TAKE(w->blocks[i].inverse, M);
    }
    MATRIX(w->d_wide, M, 4 * H), MATRIX(w->branch, M, H), MATRIX(w->last, M, H), MATRIX(w->d_out, M, outputs);
    MATRIX(w->hidden, M, HEAD), MATRIX(w->d_hidden, M, HEAD), MATRIX(w->d_weight, M, 1);
    MATRIX(w->hidden_slope, M, HEAD), MATRIX(w->last_slope, M, H);
#undef MATRIX
#undef TAKE
    return used;
}

/* The floats of memory that steps need: zeros for the first call, unchanged between calls. */
long actor_room(const struct actor *c) {
    struct actor_work w = {.c = c, .p = actor_parameters(c, c->p)};
    return lay_out_actor(&w, NULL);
}

/* Takes `count` steps; returns 0, or 1 if memory ran out. */
int actor_steps(const struct actor *c, long threads, float *room) {
    struct actor_work w = {.c = c, .p = actor_parameters(c, c->p), .dropout = dropout(c->seed, c->dropout)};
    lay_out_actor(&w, room);
    w.g = actor_parameters(c, w.gradient);
    return together(threads, P * rows(c->M > c->times ? c->M : c->times), all_actor_steps, &w);
}
