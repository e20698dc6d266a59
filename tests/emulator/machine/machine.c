// The machine as a library: one block at a time under a schedule that a seed chooses. Built as one unit:
// cc -O2 -march=native -ffp-contract=off -fPIC -shared machine.c -lm
#include "machine.h"

#include "numbers.h"
#include "races.h"

#include "memory.h"

#include "tensor.h"

#include "transfers.h"

#include "step.h"

Machine *machine_new(const s32 *code, int length, const s32 *pool, int warps, int register_bytes,
                     u32 shared_bytes, int detect, int round_tf32) {
    Machine *m = calloc(1, sizeof(Machine));
    m->code = code, m->length = length, m->pool = pool;
    m->warps = warps, m->threads = warps * LANES;
    m->register_bytes = register_bytes, m->shared_bytes = shared_bytes;
    m->detect = detect, m->round_tf32 = round_tf32;
    m->shared = aligned_alloc(64, (shared_bytes + 1087) / 64 * 64);
    m->shared_words = calloc(shared_bytes / 4 + 8, sizeof(Word));
    m->b_operand = aligned_alloc(64, 16 * 256 * 4);
    m->executed_by_op = calloc(OP_COUNT, sizeof(u64));
    for (int i = 0; i < warps; i++) {
        m->warp[i].id = i;
        m->warp[i].registers = aligned_alloc(64, register_bytes);
        m->warp[i].copies = malloc(sizeof(Copy) * MOST_COPIES);
    }
    return m;
}

void machine_free(Machine *m) {
    for (int i = 0; i < m->warps; i++) {
        free(m->warp[i].registers);
        free(m->warp[i].copies);
        for (int k = 0; k < 16; k++) free(m->warp[i].accumulators[k]);
    }
    for (int i = 0; i < m->buffer_count; i++) free(m->buffers[i].words);
    for (int i = 0; i < MOST_TRANSFERS; i++) free(m->transfers[i].data);
    free(m->buffers), free(m->shared), free(m->shared_words), free(m->b_operand), free(m->executed_by_op);
    free(m);
}

void machine_buffer(Machine *m, u8 *base, u64 size, int writable) {
    m->buffers = realloc(m->buffers, sizeof(Buffer) * (m->buffer_count + 1));
    Buffer *b = &m->buffers[m->buffer_count++];
    *b = (Buffer){base, size, writable, 0, 0};
    if (!writable || !m->detect) return;
    b->words = calloc(size / 4 + 2, sizeof(Word));
    for (u64 i = 0; i < size / 4 + 2; i++)
        b->words[i].writer = 0xff, b->words[i].written = 1, b->words[i].read_block = ~0u;
}

// constants: rows of (slot, low bits, high bits, whether 64 bits wide); specials: rows of (slot, which), in
// the order of Python's SPECIALS.
static void begin_warp(Machine *m, Warp *w, const s32 *constants, int constant_count, const s32 *specials,
                       int special_count, const u32 *index, const u32 *grid) {
    w->at = w->done = w->waiting = w->spinning = 0;
    w->product_count = w->product_group = w->copy_count = w->copy_group = w->bulk_group = 0;
    memset(&w->clock, 0, sizeof(Clock)), memset(&w->fence, 0, sizeof(Clock));
    w->clock.of[w->id] = 1;
    for (int k = 0; k < 16; k++)
        if (w->accumulators[k]) w->accumulators[k]->used = 0;
    for (int k = 0; k < m->register_bytes / 4; k++) ((u32 *)w->registers)[k] = POISON;
    for (int k = 0; k < constant_count; k++) {
        const s32 *c = constants + 4 * k;
        for (int l = 0; l < LANES; l++)
            if (c[3]) ((u64 *)(w->registers + c[0]))[l] = (u32)c[1] | (u64)(u32)c[2] << 32;
            else ((u32 *)(w->registers + c[0]))[l] = c[1];
    }
    for (int k = 0; k < special_count; k++)
        for (int l = 0; l < LANES; l++) {
            const s32 *c = specials + 2 * k;
            u32 values[] = {w->id * LANES + l, 0,       0,       m->threads, 1, 1,     index[0], index[1],
                            index[2],          grid[0], grid[1], grid[2],    l, w->id, 0,        1};
            ((u32 *)(w->registers + c[0]))[l] = values[c[1]];
        }
}

static int deadlock(Machine *m) {
    char waiting[256] = "";
    for (int i = 0; i < m->warps; i++)
        if (m->warp[i].waiting) {
            char one[32];
            snprintf(one, sizeof one, " warp %d at barrier %d,", i, m->warp[i].barrier);
            strncat(waiting, one, sizeof waiting - strlen(waiting) - 1);
        }
    return fail(m, 0, "deadlock:%s", waiting);
}

// Lets one transfer happen if the mode allows it now: late ones happen only when all warps wait.
static int let_a_transfer_happen(Machine *m, int *idle) {
    int now = m->asynchronous == RANDOM ? (draw(m) & 3) == 0 || *idle > 64 : *idle > 64;
    if (!m->transfers_pending || !now) return 0;
    for (int k = 0, first = draw(m) % MOST_TRANSFERS; k < MOST_TRANSFERS; k++) {
        Transfer *t = &m->transfers[(first + k) % MOST_TRANSFERS];
        if (!t->used || t->executed || (t->store && m->asynchronous != RANDOM)) continue;
        *idle = 0;
        return move_transfer(m, t);
    }
    return 0;
}

static int finish_block(Machine *m) {
    for (int i = 0; i < MOST_TRANSFERS; i++) {
        Transfer *t = &m->transfers[i];
        if (!t->used) continue;
        if (!t->store) return fail(m, 0, "a TMA load is never waited for");
        if (!t->executed && move_transfer(m, t)) return -1;
        t->used = 0;
    }
    for (int i = 0; i < 16; i++)
        if (m->barrier[i].count) return fail(m, 0, "barrier %d left with %d threads", i, m->barrier[i].count);
    return 0;
}

// Runs block `index` of `grid`. Seed 0 runs warps in order, each as far as it can; other seeds draw the warp
// and how long it runs. -1: an error, which machine_error describes.
int machine_run(Machine *m, const s32 *constants, int constant_count, const s32 *specials, int special_count,
                u8 *parameters, int parameter_bytes, const u32 *index, const u32 *grid, u64 seed,
                int asynchronous, u64 limit) {
    m->parameters = parameters, m->parameter_bytes = parameter_bytes;
    m->random = seed * 0x9E3779B97F4A7C15ull + 0x1234567;
    m->asynchronous = asynchronous;
    m->block = index[0] + grid[0] * (index[1] + grid[1] * index[2]);
    m->error[0] = 0, m->mbarrier_count = 0, m->transfers_pending = 0, m->transfer_clock = 0;
    memset(m->barrier, 0, sizeof m->barrier);
    for (int i = 0; i < MOST_TRANSFERS; i++) m->transfers[i].used = 0;
    for (u32 i = 0; i < m->shared_bytes / 4; i++) ((u32 *)m->shared)[i] = POISON;
    memset(m->shared_words, 0, (m->shared_bytes / 4 + 8) * sizeof(Word));
    for (u32 i = 0; i < m->shared_bytes / 4 + 8; i++)
        m->shared_words[i].writer = 0xff, m->shared_words[i].read_block = m->block;
    for (int i = 0; i < m->warps; i++)
        begin_warp(m, &m->warp[i], constants, constant_count, specials, special_count, index, grid);
    u64 total = 0;
    for (int idle = 0, last = -1;;) {
        int ready[MAX_WARPS], count = 0, alive = 0, status = 0, pick = 0;
        for (int i = 0; i < m->warps; i++) {
            alive += !m->warp[i].done;
            if (!m->warp[i].done && !m->warp[i].waiting) ready[count++] = i;
        }
        if (!alive) return finish_block(m);
        if (!count) return deadlock(m);
        long turns = 1 << 30;
        if (seed) {
            pick = draw(m) % count;
            u32 r = draw(m), kind = r & 3;
            if (kind) turns = 1 + (draw(m) & (kind == 1 ? 15 : 511));
        } else
            for (int k = count - 1; k >= 0; k--)
                if (ready[k] > last) pick = k;
        Warp *w = &m->warp[ready[pick]];
        last = w->id;
        u64 before = w->executed;
        while (turns-- > 0 && !status) status = step(m, w);
        total += w->executed - before;
        m->executed += w->executed - before;
        if (status < 0) return -1;
        idle = w->spinning ? idle + 1 : 0;
        w->spinning = 0;
        if (idle > 200000) return fail(m, w, "livelock: warps spin at mbarriers");
        if (let_a_transfer_happen(m, &idle)) return -1;
        if (total > limit) return fail(m, w, "instruction limit");
    }
}

const char *machine_error(Machine *m) { return m->error; }
int machine_error_at(Machine *m) { return m->error_at; }
int machine_error_warp(Machine *m) { return m->error_warp; }
int machine_report_count(Machine *m) { return m->report_count; }
const Report *machine_report(Machine *m, int i) { return &m->reports[i]; }
u64 machine_sectors(Machine *m, int buffer) { return m->buffers[buffer].sectors; }
u64 machine_layout(Machine *m, int i) { return m->layouts[i]; }
u64 machine_executed(Machine *m) { return m->executed; }
u64 machine_executed_by(Machine *m, int op) { return m->executed_by_op[op]; }
const char *machine_op_name(int op) { return op < OP_COUNT ? op_names[op] : 0; }
