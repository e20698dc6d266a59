/* A few threads that run the same steps and wait for each other between them.
 *
 * Work is split over outputs, never over the terms of one sum, so that any number of threads gives the same
 * bits. */
#ifndef TEAM_H
#define TEAM_H

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

struct team {
    void (*work)(void *job, struct team *team, long index);
    void *job;
    atomic_long ready, arrived;
    atomic_ulong round;
    long size;
    float *scratch; /* of `room` floats for each member */
    long room;
};

struct member {
    struct team *team;
    long index;
};

enum { SPINS = 20000 }; /* some ten microseconds; longer waits mean that another process has the core */

static inline void wait_while(int (*closed)(struct team *, unsigned long), struct team *team,
                              unsigned long round) {
    for (long spins = 0; closed(team, round); spins++) {
        if (spins > SPINS) sched_yield();
#if defined(__x86_64__)
        else __builtin_ia32_pause();
#endif
    }
}

static int same_round(struct team *team, unsigned long round) {
    return atomic_load_explicit(&team->round, memory_order_acquire) == round;
}

static int not_ready(struct team *team, unsigned long round) {
    (void)round;
    return !atomic_load_explicit(&team->ready, memory_order_acquire);
}

/* Returns once every member has called it. */
static inline void meet(struct team *team) {
    if (team->size == 1) return;
    unsigned long round = atomic_load_explicit(&team->round, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel) + 1 == team->size) {
        atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&team->round, round + 1, memory_order_release);
    } else {
        wait_while(same_round, team, round);
    }
}

static void *join_in(void *argument) {
    struct member *me = argument;
    wait_while(not_ready, me->team, 0);
    me->team->work(me->team->job, me->team, me->index);
    return NULL;
}

/* work(job, team, index) on up to `threads` threads, including the caller's, each with `room` floats of
 * scratch; 1 if there is no memory for it. */
static int together(long threads, long room, void (*work)(void *, struct team *, long), void *job) {
    struct team team = {.work = work, .job = job, .room = (room + 15) / 16 * 16};
    enum { MOST = 64 };
    pthread_t others[MOST];
    struct member members[MOST];
    team.scratch = aligned_alloc(64, sizeof(float) * (size_t)(team.room * (threads < MOST ? threads : MOST + 1)));
    if (!team.scratch) return 1;
    long started = 0;
    while (started + 1 < threads && started < MOST) {
        members[started] = (struct member){&team, started + 1};
        if (pthread_create(&others[started], NULL, join_in, &members[started])) break;
        started++;
    }
    team.size = started + 1;
    atomic_store_explicit(&team.ready, 1, memory_order_release);
    work(job, &team, 0);
    for (long i = 0; i < started; i++) pthread_join(others[i], NULL);
    free(team.scratch);
    return 0;
}

static inline float *scratch(const struct team *team, long index) { return team->scratch + index * team->room; }

/* The part of 0..count that is this member's: [first, last). */
static inline void share(const struct team *team, long index, long count, long *first, long *last) {
    *first = count * index / team->size;
    *last = count * (index + 1) / team->size;
}

#endif
