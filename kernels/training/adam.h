/* Adam over a flat vector of parameters, with decoupled weight decay and a moving average in the same pass. */
#ifndef ADAM_H
#define ADAM_H

#include <math.h>

#include "team.h"

struct adam {
    float *p, *m, *v;
    const float *g;
    float *average;    /* <- (1 - rate) average + rate p, if given */
    long count, steps; /* steps: the number taken, this one included */
    float learning_rate, decay, rate;
};

static void adam(struct team *team, long index, struct adam a) {
    const double c1 = 1 - pow(0.9, (double)a.steps), c2 = 1 - pow(0.999, (double)a.steps);
    const float size = (float)(a.learning_rate / c1), root = (float)(1 / sqrt(c2));
    const float keep = 1.0f - a.learning_rate * a.decay, rate = a.rate;
    float *restrict p = a.p, *restrict m = a.m, *restrict v = a.v, *restrict average = a.average;
    const float *restrict g = a.g;
    long first, last;
    share(team, index, (a.count + 15) / 16, &first, &last); /* whole cache lines */
    const long end = 16 * last < a.count ? 16 * last : a.count;
    for (long start = 16 * first; start < end; start += 1024) { /* while p is in the first cache */
        const long stop = start + 1024 < end ? start + 1024 : end;
        for (long i = start; i < stop; i++) {
            m[i] += 0.1f * (g[i] - m[i]);
            v[i] = 0.999f * v[i] + 0.001f * g[i] * g[i];
            p[i] = p[i] * keep - size * m[i] / (sqrtf(v[i]) * root + 1e-8f);
        }
        if (average)
            for (long i = start; i < stop; i++) average[i] += rate * (p[i] - average[i]);
    }
}

#endif
