/* Implicit Q-learning's whole step: forward and backward pass of twin Q and V, the target, Adam, the average.
 * It computes the same as `swg_fast.training.critic.CriticTrainer.step` in plain PyTorch. */
#include "adam.h"
#include "product.h"

/* Parameters lie in their modules' order:
 * Q: weights [2, S + A, H], [2, H, H], [2, H, 1], biases [2, H], [2, H], [2, 1];
 * V: LayerNorm's scale and shift [S] if it has one, weight [H, S], bias, weight [H, H], bias, weight [1, H], bias [1]. */
struct critic {
    long S, A, H, M;
    float discount, polyak, expectile, epsilon;
    float low, high; /* the range of returns, to which targets are clipped */
    float *q, *q_m, *q_v, *target, *value, *value_m, *value_v;
    const float *data;   /* [rows, 2 S + A + 2]: s, s', a, r, 1 - terminal */
    const int64_t *rows; /* [count, M] */
    const float *rates;  /* [count]: learning rates */
    float *losses;       /* [count, 2]: of V and of Q */
    long count, steps;   /* steps taken so far */
    long norm;           /* whether V has a LayerNorm on its input */
};

enum { LAYERS = 3 };

struct net {
    long in;
    int transposed; /* weights [out, in], as V's are, rather than [in, out] */
    float *weight[LAYERS], *bias[LAYERS];
};

/* A network's activations and their cotangents, in panels. */
struct pass {
    float *h1, *h2, *d1, *d2, *out, *d_out;
};

struct work {
    const struct critic *c;
    float *gradient, *s, *s_next, *sa, *affine, *affine_next, *d_input, *reward, *discount;
    float *terms; /* each row's part of the losses */
    struct pass v, v_next, q[2], target[2];
};

static struct net q_net(const struct critic *c, float *flat, int which) {
    const long H = c->H, in = c->S + c->A, sizes[] = {in * H, H * H, H, H, H, 1};
    struct net net = {.in = in};
    for (int i = 0; i < 2 * LAYERS; i++) {
        *(i < LAYERS ? &net.weight[i] : &net.bias[i - LAYERS]) = flat + which * sizes[i];
        flat += 2 * sizes[i];
    }
    return net;
}

static struct net v_net(const struct critic *c, float *flat) {
    const long H = c->H, sizes[] = {c->S * H, H * H, H}, biases[] = {H, H, 1};
    struct net net = {.in = c->S, .transposed = 1};
    if (c->norm) flat += 2 * c->S;
    for (int i = 0; i < LAYERS; i++) {
        net.weight[i] = flat;
        net.bias[i] = flat + sizes[i];
        flat += sizes[i] + biases[i];
    }
    return net;
}

static long q_size(const struct critic *c) {
    return 2 * ((c->S + c->A) * c->H + c->H * c->H + 3 * c->H + 1);
}

static long v_size(const struct critic *c) {
    return (c->norm ? 2 * c->S : 0) + c->S * c->H + c->H * c->H + 3 * c->H + 1;
}

/* h1 or h2 = ReLU(x W + b). */
static void layer(struct team *team, long index, const struct critic *c, struct net n, int i, const float *x,
                  float *h) {
    const long in = i ? c->H : n.in;
    product(team, index, (struct product){.M = c->M, .K = in, .N = c->H, .x = x,
                  .weight = n.weight[i], .ld = n.transposed ? in : c->H, .transposed = n.transposed,
                  .bias = n.bias[i], .finish = RELU, .y = h});
}

/* d = d_y W^T, zero where gate <= 0 if a gate is given: the cotangent of layer i's input. */
static void back(struct team *team, long index, const struct critic *c, struct net n, int i, const float *d_y,
                 const float *gate, float *d) {
    const long in = i ? c->H : n.in;
    product(team, index, (struct product){.M = c->M, .K = c->H, .N = in, .x = d_y,
                  .weight = n.weight[i], .ld = n.transposed ? in : c->H, .transposed = !n.transposed,
                  .finish = gate ? GATE : KEEP, .factor = gate, .y = d});
}

/* Layer i's weight and bias gradients from its input x and its output's cotangent d_y. */
static void weigh(struct team *team, long index, const struct critic *c, struct net n, struct net g, int i,
                  const float *x, const float *d_y) {
    const long in = i ? c->H : n.in, H = c->H;
    gradient(team, index, n.transposed
                   ? (struct gradient){c->M, H, in, in, d_y, x, g.weight[i]}
                   : (struct gradient){c->M, in, H, H, x, d_y, g.weight[i]});
    column_sums(team, index, c->M, H, NULL, d_y, g.bias[i]);
}

/* The last layer's output of row r. */
static float head(const struct critic *c, struct net n, const float *h, long r) {
    vec sum = {0};
    float total = *n.bias[2], rest = 0;
    for (long q = 0; q < panels(c->H); q++) {
        const float *row = h + (q * rows(c->M) + r) * P, *w = n.weight[2] + q * P;
        if (c->H - q * P >= P) sum += load(row) * load(w) + load(row + VL) * load(w + VL);
        else
            for (long j = 0; j < c->H - q * P; j++) rest += row[j] * w[j];
    }
    for (int j = 0; j < VL; j++) rest += sum[j];
    return total + rest;
}

/* Row r's cotangent of h2 from its output's. */
static void head_back(const struct critic *c, struct net n, struct pass *pass, long r) {
    const float d = pass->d_out[r];
    for (long q = 0; q < panels(c->H); q++) {
        const long at = (q * rows(c->M) + r) * P;
        for (long j = 0; j < at_most(P, c->H - q * P); j++)
            pass->d2[at + j] = pass->h2[at + j] > 0 ? d * n.weight[2][q * P + j] : 0.0f;
    }
}

static void head_weigh(struct team *team, long index, const struct critic *c, struct net g, struct pass *pass) {
    column_sums(team, index, c->M, c->H, pass->d_out, pass->h2, g.weight[2]);
    if (index) return;
    *g.bias[2] = 0;
    for (long r = 0; r < c->M; r++) *g.bias[2] += pass->d_out[r];
}

/* n entries of row r from column j on. */
static inline void put_row(float *matrix, long M, long r, long j, long n, const float *from) {
    for (long i = 0; i < n; i++) matrix[place(M, r, j + i)] = from[i];
}

static void normalise(const struct critic *c, const float *s, float *out, long r) {
    float mean = 0, variance = 0;
    for (long j = 0; j < c->S; j++) mean += s[j];
    mean /= (float)c->S;
    for (long j = 0; j < c->S; j++) variance += (s[j] - mean) * (s[j] - mean);
    const float scale = 1.0f / sqrtf(variance / (float)c->S + c->epsilon);
    for (long j = 0; j < c->S; j += P) {
        float *to = out + place(c->M, r, j);
        for (long i = 0; i < at_most(P, c->S - j); i++) to[i] = (s[j + i] - mean) * scale;
    }
}

/* V's first layer's input: LayerNorm's scale and shift. */
static void scale_and_shift(const struct critic *c, float *normal, float *out, long r) {
    for (long j = 0; j < c->S; j += P) {
        const float *from = normal + place(c->M, r, j), *scale = c->value + j, *shift = scale + c->S;
        float *to = out + place(c->M, r, j);
        for (long i = 0; i < at_most(P, c->S - j); i++) to[i] = from[i] * scale[i] + shift[i];
    }
}

static void gather(const struct work *w, long step, long r) {
    const struct critic *c = w->c;
    const long S = c->S, A = c->A;
    const float *row = c->data + c->rows[step * c->M + r] * (2 * S + A + 2);
    if (c->norm) {
        normalise(c, row, w->s, r);
        normalise(c, row + S, w->s_next, r);
        scale_and_shift(c, w->s, w->affine, r);
    } else {
        put_row(w->affine, c->M, r, 0, S, row);
        put_row(w->affine_next, c->M, r, 0, S, row + S);
    }
    put_row(w->sa, c->M, r, 0, S, row);
    put_row(w->sa, c->M, r, S, A, row + 2 * S);
    w->reward[r] = row[2 * S + A];
    w->discount[r] = c->discount * row[2 * S + A + 1];
}

/* x in the range of a return; NaN stays. */
static float clipped(const struct critic *c, float x) { return x < c->low ? c->low : x > c->high ? c->high : x; }

static void value_loss(const struct work *w, struct net v, struct net target[2], long r) {
    const struct critic *c = w->c;
    const float q0 = head(c, target[0], w->target[0].h2, r), q1 = head(c, target[1], w->target[1].h2, r);
    const float u = clipped(c, q0 < q1 ? q0 : q1) - head(c, v, w->v.h2, r);
    const float weight = u > 0 ? c->expectile : 1.0f - c->expectile;
    w->terms[r] = weight * u * u;
    w->v.d_out[r] = -2.0f * weight * u / (float)c->M;
    head_back(c, v, (struct pass *)&w->v, r);
}

static void critic_loss(const struct work *w, struct net v, struct net q[2], long r) {
    const struct critic *c = w->c;
    const float goal = w->reward[r] + w->discount[r] * clipped(c, head(c, v, w->v_next.h2, r));
    w->terms[r] = 0;
    for (int i = 0; i < 2; i++) {
        const float error = head(c, q[i], w->q[i].h2, r) - goal;
        w->terms[r] += 0.5f * error * error;
        w->q[i].d_out[r] = error / (float)c->M;
        head_back(c, q[i], (struct pass *)&w->q[i], r);
    }
}

static float mean(const float *terms, long M) {
    double sum = 0;
    for (long r = 0; r < M; r++) sum += terms[r];
    return (float)(sum / (double)M);
}

static void layer_norm_gradients(struct team *team, long index, const struct work *w) {
    const struct critic *c = w->c;
    long first, last;
    share(team, index, panels(c->S), &first, &last); /* as `back` divided them */
    for (long j = first * P; j < at_most(last * P, c->S); j++) {
        float scale = 0, shift = 0;
        for (long r = 0; r < c->M; r++) {
            const float d = w->d_input[place(c->M, r, j)];
            scale += d * w->s[place(c->M, r, j)];
            shift += d;
        }
        w->gradient[j] = scale;
        w->gradient[c->S + j] = shift;
    }
}

static void one_step(struct team *team, long index, struct work *w, long step) {
    const struct critic *c = w->c;
    const long M = c->M;
    struct net v = v_net(c, c->value), gv = v_net(c, w->gradient), q[2], gq[2], target[2];
    long first, last;
    for (int i = 0; i < 2; i++) {
        q[i] = q_net(c, c->q, i), gq[i] = q_net(c, w->gradient, i), target[i] = q_net(c, c->target, i);
    }
    share(team, index, M, &first, &last);

    for (long r = first; r < last; r++) gather(w, step, r);
    meet(team);
    for (int i = 0; i < 2; i++) layer(team, index, c, target[i], 0, w->sa, w->target[i].h1);
    layer(team, index, c, v, 0, w->affine, w->v.h1);
    meet(team);
    for (int i = 0; i < 2; i++) layer(team, index, c, target[i], 1, w->target[i].h1, w->target[i].h2);
    layer(team, index, c, v, 1, w->v.h1, w->v.h2);
    meet(team);
    for (long r = first; r < last; r++) value_loss(w, v, target, r);
    meet(team);
    if (index == 0) c->losses[2 * step] = mean(w->terms, M);
    back(team, index, c, v, 1, w->v.d2, w->v.h1, w->v.d1);
    weigh(team, index, c, v, gv, 1, w->v.h1, w->v.d2);
    head_weigh(team, index, c, gv, &w->v);
    meet(team);
    if (c->norm) {
        back(team, index, c, v, 0, w->v.d1, NULL, w->d_input);
        layer_norm_gradients(team, index, w);
    }
    weigh(team, index, c, v, gv, 0, w->affine, w->v.d1);
    meet(team);
    adam(team, index, (struct adam){.p = c->value, .m = c->value_m, .v = c->value_v, .g = w->gradient,
         .count = v_size(c), .steps = c->steps + step + 1, .learning_rate = c->rates[step]});
    meet(team);
    for (long r = first; r < last && c->norm; r++) scale_and_shift(c, w->s_next, w->affine_next, r);
    meet(team);
    layer(team, index, c, v, 0, w->affine_next, w->v_next.h1);
    for (int i = 0; i < 2; i++) layer(team, index, c, q[i], 0, w->sa, w->q[i].h1);
    meet(team);
    layer(team, index, c, v, 1, w->v_next.h1, w->v_next.h2);
    for (int i = 0; i < 2; i++) layer(team, index, c, q[i], 1, w->q[i].h1, w->q[i].h2);
    meet(team);
    for (long r = first; r < last; r++) critic_loss(w, v, q, r);
    meet(team);
    if (index == 0) c->losses[2 * step + 1] = mean(w->terms, M);
    for (int i = 0; i < 2; i++) {
        back(team, index, c, q[i], 1, w->q[i].d2, w->q[i].h1, w->q[i].d1);
        weigh(team, index, c, q[i], gq[i], 1, w->q[i].h1, w->q[i].d2);
        head_weigh(team, index, c, gq[i], &w->q[i]);
    }
    meet(team);
    for (int i = 0; i < 2; i++) weigh(team, index, c, q[i], gq[i], 0, w->sa, w->q[i].d1);
    meet(team);
    adam(team, index, (struct adam){.p = c->q, .m = c->q_m, .v = c->q_v, .g = w->gradient, .average = c->target,
         .count = q_size(c), .steps = c->steps + step + 1, .learning_rate = c->rates[step],
         .rate = c->polyak});
    meet(team);
}

static void all_steps(void *job, struct team *team, long index) {
    struct work *w = job;
    for (long step = 0; step < w->c->count; step++) one_step(team, index, w, step);
}

/* Places the buffers in one block of zeros, whose padding stays zero; without a block, returns its size. */
static long lay_out(struct work *w, float *block) {
    const struct critic *c = w->c;
    long used = 0;
    const long wide = size_of(c->M, c->H), narrow = size_of(c->M, c->S), M = panels(c->M) * P;
#define TAKE(name, n) (name = block ? block + used : NULL, used += ((n) + 15) / 16 * 16)
    TAKE(w->gradient, q_size(c) > v_size(c) ? q_size(c) : v_size(c));
    TAKE(w->s, narrow), TAKE(w->s_next, narrow), TAKE(w->affine, narrow), TAKE(w->affine_next, narrow);
    TAKE(w->d_input, narrow), TAKE(w->sa, size_of(c->M, c->S + c->A));
    TAKE(w->reward, M), TAKE(w->discount, M), TAKE(w->terms, M);
    struct pass *all[] = {&w->v, &w->v_next, &w->q[0], &w->q[1], &w->target[0], &w->target[1]};
    for (int i = 0; i < 6; i++) {
        TAKE(all[i]->h1, wide), TAKE(all[i]->h2, wide);
        if (all[i] == &w->v_next || i > 3) continue;
        TAKE(all[i]->d1, wide), TAKE(all[i]->d2, wide), TAKE(all[i]->d_out, M);
    }
#undef TAKE
    return used;
}

/* The floats of memory that steps need: zeros for the first call, unchanged between calls. */
long critic_room(const struct critic *c) {
    struct work w = {.c = c};
    return lay_out(&w, NULL);
}

/* Takes `count` steps; returns 0, or 1 if memory ran out. */
int critic_steps(const struct critic *c, long threads, float *room) {
    struct work w = {.c = c};
    lay_out(&w, room);
    return together(threads, P * rows(c->M), all_steps, &w);
}
