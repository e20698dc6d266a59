/* The arguments of a diffusion step, and the layout of the score network's parameters. */
#ifndef ACTOR_H
#define ACTOR_H

#include <stdint.h>

enum { MOST_BLOCKS = 16, HEAD = 256 }; /* HEAD: the early weight head's width */

struct actor {
    long S, A, H, L, M, times, E; /* states, actions, hidden, blocks, batch, steps of the schedule, time features */
    long early;
    float epsilon, weight_decay, weight_loss; /* the last: the factor of the loss of the weight's entry */
    double dropout;
    uint64_t seed; /* dropout's */
    float *p, *p_m, *p_v, *average;
    const float *data;           /* [rows, A + 1 + S]: a, w, s */
    const float *signal, *noise; /* [times]: sqrt(abar), sqrt(1 - abar) */
    const int64_t *rows, *t;     /* [count, M] */
    const float *xi;             /* [count, M, A + 1] */
    const float *rates;          /* [count]: learning rates */
    const float *ema_rates;      /* [count]: of the moving average */
    float *losses;               /* [count, 2]: of the action and of the weight */
    long count, step, steps;     /* the first step's number, and how many steps Adam has taken */
};

/* In their module's order; matrices are [out, in]. */
struct actor_parameters {
    float *frequencies, *time0, *time0_bias, *time2, *time2_bias, *input, *input_bias;
    struct {
        float *scale, *shift, *up, *up_bias, *down, *down_bias;
    } blocks[MOST_BLOCKS];
    float *output, *output_bias, *hidden, *hidden_bias, *weight, *weight_bias;
    long count;
};

static struct actor_parameters actor_parameters(const struct actor *c, float *flat) {
    struct actor_parameters p = {0};
    const long H = c->H, D = c->A + 1, wide = 2 * c->E;
    float *at = flat;
#define TAKE(name, n) (name = at, at += (n))
    TAKE(p.frequencies, c->E / 2), TAKE(p.time0, wide * c->E), TAKE(p.time0_bias, wide);
    TAKE(p.time2, wide * wide), TAKE(p.time2_bias, wide), TAKE(p.input, H * (D + c->S + wide)), TAKE(p.input_bias, H);
    for (long i = 0; i < c->L; i++) {
        TAKE(p.blocks[i].scale, H), TAKE(p.blocks[i].shift, H), TAKE(p.blocks[i].up, 4 * H * H);
        TAKE(p.blocks[i].up_bias, 4 * H), TAKE(p.blocks[i].down, 4 * H * H), TAKE(p.blocks[i].down_bias, H);
    }
    const long outputs = c->early ? c->A : D;
    TAKE(p.output, outputs * H), TAKE(p.output_bias, outputs);
    if (c->early) {
        TAKE(p.hidden, HEAD * H), TAKE(p.hidden_bias, HEAD), TAKE(p.weight, HEAD), TAKE(p.weight_bias, 1);
    }
#undef TAKE
    p.count = at - flat;
    return p;
}

#endif
