// One instruction of one warp.
#define OTHER_OPS(OP)                                                                                        \
    OP(lop3_b32)                                                                                             \
    OP(bfi_b32) OP(unpack2x16) OP(unpack2x32) OP(unpack4x16) OP(pack4x16) OP(ldg) OP(stg) OP(lds) OP(sts)    \
        OP(ldp) OP(cvta_param) OP(shfl_bfly) OP(shfl_idx) OP(shfl_up) OP(shfl_down) OP(redux)                \
            OP(vote_ballot) OP(vote_any) OP(vote_all) OP(elect) OP(activemask) OP(bra) OP(brx) OP(ret)       \
                OP(trap) OP(nop) OP(bar_warp) OP(setmaxnreg) OP(fence_acqrel) OP(fence_proxy_async)          \
                    OP(bar_sync) OP(bar_arrive) OP(ldmatrix) OP(stmatrix) OP(mma_bf16) OP(mma_f16)           \
                        OP(mma_tf32) OP(wg_fence) OP(wg_commit) OP(wg_wait) OP(wg_mma) OP(cpa)               \
                            OP(cpa_commit) OP(cpa_wait) OP(cpa_wait_all) OP(mb_init) OP(mb_inval)            \
                                OP(mb_arrive) OP(mb_expect) OP(mb_arrive_expect) OP(mb_try_wait)             \
                                    OP(bulk_load) OP(bulk_store) OP(bulk_commit) OP(bulk_wait)               \
                                        OP(bulk_wait_read)
enum {
#define LANEWISE(NAME, ...) OP_##NAME,
#include "elementwise.h"
#undef LANEWISE
#define OP(NAME) OP_##NAME,
    OTHER_OPS(OP)
#undef OP
        OP_COUNT
};
static const char *op_names[] = {
#define LANEWISE(NAME, ...) #NAME,
#include "elementwise.h"
#undef LANEWISE
#define OP(NAME) #NAME,
    OTHER_OPS(OP)
#undef OP
};

static void shuffle(Warp *w, const s32 *row, int op) {
    u8 *R = w->registers;
    u32 *x = (u32 *)(R + row[5]), *by = (u32 *)(R + row[6]), *clamp = (u32 *)(R + row[7]), value[LANES],
        ok[LANES];
    for (int l = 0; l < LANES; l++) {
        u32 segment = clamp[l] >> 8 & 31, last = (l & segment) | (clamp[l] & 31 & ~segment);
        s32 from = op == OP_shfl_bfly  ? l ^ by[l]
                   : op == OP_shfl_idx ? (l & segment) | (by[l] & ~segment & 31)
                   : op == OP_shfl_up  ? l - (s32)(by[l] & 31)
                                       : l + (s32)(by[l] & 31);
        int inside = op == OP_shfl_up ? from >= (s32)last : from <= (s32)last;
        value[l] = x[inside ? from & 31 : l];
        ok[l] = inside ? ~0u : 0;
    }
    memcpy(R + row[4], value, sizeof value);
    if (row[8] >= 0) memcpy(R + row[8], ok, sizeof ok);
}

static u32 reduce(const u32 *x, int how) {
    u32 r = x[0];
    for (int l = 1; l < LANES; l++) switch (how) {
        case 0: r += x[l]; break;
        case 1: r = (s32)x[l] < (s32)r ? x[l] : r; break;
        case 2: r = (s32)x[l] > (s32)r ? x[l] : r; break;
        case 3: r = x[l] < r ? x[l] : r; break;
        case 4: r = x[l] > r ? x[l] : r; break;
        case 5: r &= x[l]; break;
        case 6: r |= x[l]; break;
        case 7: r ^= x[l]; break;
        }
    return r;
}

// bar.sync and bar.arrive: 1 if the warp waits (or would have), -1 for an error.
static int meet(Machine *m, Warp *w, int id, int threads, int waits) {
    if (threads % LANES) return fail(m, w, "barrier for %d threads", threads);
    typeof(m->barrier[0]) *b = &m->barrier[id];
    if (b->count == 0) {
        memset(b, 0, sizeof *b);
        b->expected = threads;
    } else if (b->expected != threads)
        return fail(m, w, "barrier %d expects %d and %d threads", id, b->expected, threads);
    if (b->members >> w->id & 1) return fail(m, w, "warp arrives twice at barrier %d", id);
    b->count += LANES;
    b->members |= 1u << w->id;
    join(&b->clock, &w->clock);
    join(&b->fence, &w->fence);
    w->clock.of[w->id]++;
    w->at++;
    if (waits) w->waiting = 1, w->barrier = id;
    if (b->count < threads) return waits;
    for (int i = 0; i < m->warps; i++) {
        Warp *other = &m->warp[i];
        if (!other->waiting || other->barrier != id) continue;
        other->waiting = 0;
        join(&other->clock, &b->clock);
        join(&other->fence, &b->fence);
    }
    b->count = 0;
    return waits;
}

// mbarrier instructions of each lane under the mask; try_wait takes all lanes of one barrier together.
static int use_mbarrier(Machine *m, Warp *w, const s32 *row, u32 mask, int op) {
#define OPERAND(i) (((u32 *)(w->registers + row[4 + (i)]))[l])
    int complete = 1;
    for (int l = 0; l < LANES; l++) {
        if (!(mask >> l & 1)) continue;
        u32 address = OPERAND(op == OP_mb_try_wait) + row[8];
        if (op == OP_mb_init) return begin_mbarrier(m, w, address, OPERAND(1));
        Mbarrier *b = mbarrier_at(m, w, address);
        if (!b) return -1;
        u32 arrivals = op == OP_mb_expect ? 0 : op == OP_mb_arrive && row[5] >= 0 ? OPERAND(1) : 1;
        if (op == OP_mb_inval) b->valid = 0;
        else if (op == OP_mb_try_wait) {
            int now = (b->phase & 1) != (OPERAND(2) & 1);
            OPERAND(0) = now ? ~0u : 0;
            complete &= now;
            if (now) join(&w->clock, &b->done), join(&w->fence, &b->done_fence);
        } else if (arrive(m, w, b, arrivals, op == OP_mb_arrive ? 0 : OPERAND(1))) return -1;
    }
#undef OPERAND
    if (op == OP_mb_try_wait) {
        w->at++;
        w->spinning = !complete;
        return !complete;
    }
    w->clock.of[w->id] += op != OP_mb_inval;
    return 0;
}

static int same_in_all(const u32 *x) {
    for (int l = 1; l < LANES; l++)
        if (x[l] != x[0]) return 0;
    return 1;
}

#define U(i) ((u32 *)(R + row[4 + (i)]))
#define W(i) ((u64 *)(R + row[4 + (i)]))
#define TRY(CALL)                                                                                            \
    if (CALL) return -1;                                                                                     \
    break
// 0: continue; 1: switch warps (it waits or spins); -1: an error.
static int step(Machine *m, Warp *w) {
    const s32 *row = m->code + (s64)w->at * ROW;
    u8 *R = w->registers, kept[4][LANES * 8];
    int op = row[0], destinations = row[1];
    u32 mask = ~0u;
    m->executed_by_op[op]++;
    w->executed++;
    if (row[2] >= 0) mask = lane_mask((u32 *)(R + row[2])) ^ (row[3] ? ~0u : 0);
    if (op == OP_bra) {
        if (mask && mask != ~0u) return fail(m, w, "divergent branch (mask %08x): not supported", mask);
        w->at = mask ? row[4] : w->at + 1;
        return 0;
    }
    if (!mask) {
        w->at++;
        return 0;
    }
    int partial = mask != ~0u; // lanes outside the mask get their destinations back
    for (int i = 0; partial && i < (destinations & 7); i++)
        memcpy(kept[i], U(i), destinations >> (3 + i) & 1 ? 256 : 128);
    switch (op) {
#define LANEWISE(NAME, TD, TX, TY, TZ, VALUE)                                                                \
    case OP_##NAME: {                                                                                        \
        TD *d = (TD *)U(0);                                                                                  \
        const TX *xs = (const TX *)U(1);                                                                     \
        const TY *ys = (const TY *)U(2);                                                                     \
        const TZ *zs = (const TZ *)U(3);                                                                     \
        EACH_LANE {                                                                                          \
            TX x = xs[l];                                                                                    \
            TY y = ys[l];                                                                                    \
            TZ z = zs[l];                                                                                    \
            (void)x, (void)y, (void)z;                                                                       \
            d[l] = VALUE;                                                                                    \
        }                                                                                                    \
        break;                                                                                               \
    }
#include "elementwise.h"
#undef LANEWISE
    case OP_lop3_b32: EACH_LANE U(0)[l] = lop3(U(1)[l], U(2)[l], U(3)[l], U(4)[0]); break;
    case OP_bfi_b32: EACH_LANE U(0)[l] = insert(U(1)[l], U(2)[l], U(3)[l], U(4)[l]); break;
    case OP_unpack2x16:
        for (int l = 0; l < LANES; l++) {
            u32 x = U(2)[l];
            U(0)[l] = x & 0xffff, U(1)[l] = x >> 16;
        }
        break;
    case OP_unpack2x32:
        for (int l = 0; l < LANES; l++) {
            u64 x = W(2)[l];
            U(0)[l] = x, U(1)[l] = x >> 32;
        }
        break;
    case OP_unpack4x16:
        for (int l = 0; l < LANES; l++)
            for (int k = 0; k < 4; k++) U(k)[l] = W(4)[l] >> 16 * k & 0xffff;
        break;
    case OP_pack4x16:
        for (int l = 0; l < LANES; l++) {
            u64 x = 0;
            for (int k = 0; k < 4; k++) x |= (u64)(U(k + 1)[l] & 0xffff) << 16 * k;
            W(0)[l] = x;
        }
        break;
    case OP_ldg: TRY(load(m, w, row, mask, 1));
    case OP_lds: TRY(load(m, w, row, mask, 0));
    case OP_stg: TRY(store(m, w, row, mask, 1));
    case OP_sts: TRY(store(m, w, row, mask, 0));
    case OP_ldp: {
        u64 value = 0;
        if (row[5] + row[6] > m->parameter_bytes) return fail(m, w, "parameter outside");
        memcpy(&value, m->parameters + row[5], row[6]);
        for (int l = 0; l < LANES; l++)
            if (row[6] == 8) W(0)[l] = value;
            else U(0)[l] = value;
        break;
    }
    case OP_cvta_param: EACH_LANE W(0)[l] = (u64)m->parameters + W(1)[l]; break;
    case OP_shfl_bfly:
    case OP_shfl_idx:
    case OP_shfl_up:
    case OP_shfl_down:
        if (partial) return fail(m, w, "shfl under a partial mask");
        shuffle(w, row, op);
        break;
    case OP_redux: {
        u32 r = reduce(U(1), row[7]);
        EACH_LANE U(0)[l] = r;
        break;
    }
    case OP_vote_ballot:
    case OP_vote_any:
    case OP_vote_all: {
        u32 lanes = lane_mask(U(1));
        if (op == OP_vote_any) lanes = lanes ? ~0u : 0;
        if (op == OP_vote_all) lanes = lanes == ~0u ? ~0u : 0;
        EACH_LANE U(0)[l] = lanes;
        break;
    }
    case OP_elect:
        for (int l = 0; l < LANES; l++) {
            if (row[4] >= 0) U(0)[l] = 0;
            U(1)[l] = l == 0 ? ~0u : 0;
        }
        break;
    case OP_activemask: EACH_LANE U(0)[l] = ~0u; break;
    case OP_brx:
        if (!same_in_all(U(0))) return fail(m, w, "divergent brx");
        if (U(0)[0] >= (u32)row[8]) return fail(m, w, "brx index %u of %d", U(0)[0], row[8]);
        w->at = m->pool[row[6] + U(0)[0]];
        return 0;
    case OP_ret:
        if (partial) return fail(m, w, "divergent ret");
        if (w->product_count) return fail(m, w, "returns with wgmma in flight");
        w->done = 1;
        return 1;
    case OP_trap: return fail(m, w, "trap");
    case OP_nop:
    case OP_bar_warp:
    case OP_setmaxnreg:
    case OP_fence_acqrel:
    case OP_wg_fence: break;
    case OP_fence_proxy_async:
        w->fence = w->clock;
        w->clock.of[w->id]++;
        break;
    case OP_bar_sync:
    case OP_bar_arrive:
        return meet(m, w, *U(0) & 15, row[5] >= 0 ? (int)*U(1) : m->threads, op == OP_bar_sync);
    case OP_ldmatrix: TRY(load_matrices(m, w, row));
    case OP_stmatrix: TRY(store_matrices(m, w, row));
    case OP_mma_bf16: multiply_warp(m, w, row, 0); break;
    case OP_mma_tf32: multiply_warp(m, w, row, 1); break;
    case OP_mma_f16: multiply_warp(m, w, row, 2); break;
    case OP_wg_commit: w->product_group++; break;
    case OP_wg_wait: TRY(wait_products(m, w, row[4]));
    case OP_wg_mma: {
        if (partial) return fail(m, w, "wgmma under a partial mask");
        int accumulate = row[7] >= 0 ? *U(3) != 0 : row[8];
        TRY(issue_product(m, w, row[4] >= 0 ? *W(0) : 0, *W(1), accumulate));
    }
    case OP_cpa: TRY(issue_copy(m, w, row, mask));
    case OP_cpa_commit: w->copy_group++; break;
    case OP_cpa_wait: TRY(wait_copies(m, w, row[4]));
    case OP_cpa_wait_all: w->copy_group++; TRY(wait_copies(m, w, 0));
    case OP_mb_try_wait: return use_mbarrier(m, w, row, mask, op);
    case OP_mb_init:
    case OP_mb_inval:
    case OP_mb_arrive:
    case OP_mb_expect:
    case OP_mb_arrive_expect: TRY(use_mbarrier(m, w, row, mask, op));
    case OP_bulk_load: TRY(bulk_copy(m, w, row, mask, 0));
    case OP_bulk_store: TRY(bulk_copy(m, w, row, mask, 1));
    case OP_bulk_commit: w->bulk_group++; break;
    case OP_bulk_wait: TRY(wait_bulk(m, w, row[4], 0));
    case OP_bulk_wait_read: TRY(wait_bulk(m, w, row[4], 1));
    default: return fail(m, w, "operation %s is not implemented", op_names[op]);
    }
    for (int i = 0; partial && i < (destinations & 7); i++)
        for (int l = 0; l < LANES; l++) {
            if (mask >> l & 1) continue;
            if (destinations >> (3 + i) & 1) W(i)[l] = ((u64 *)kept[i])[l];
            else U(i)[l] = ((u32 *)kept[i])[l];
        }
    w->at++;
    return 0;
}
#undef U
#undef W
#undef TRY
