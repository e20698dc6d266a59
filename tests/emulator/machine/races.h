// Race detection: checks every access to shared memory and to writable global memory against the order
// that barriers, mbarriers and waits have established.
static __attribute__((noinline)) void report(Machine *m, int kind, int space, u64 address, int first_at,
                                             int first_warp, int second_at, int second_warp) {
    for (int i = 0; i < m->report_count; i++) {
        Report *r = &m->reports[i];
        if (r->kind == kind && r->first_at == first_at && r->second_at == second_at) {
            r->count++;
            return;
        }
    }
    if (m->report_count < MOST_REPORTS)
        m->reports[m->report_count++] =
            (Report){kind, first_at, second_at, first_warp, second_warp, space, address, 1};
}

static inline void remember_read(Word *word, Warp *w, int at) {
    word->readers |= 1u << w->id;
    word->read_when[w->id] = w->clock.of[w->id];
    word->read_at[w->id] = at;
}

static inline void remember_write(Machine *m, Word *word, int writer, u32 when, int at, int generic) {
    word->writer = writer;
    word->wrote_when = when;
    word->wrote_at = at;
    word->wrote_block = m->block;
    word->generic = generic;
    word->written = 1;
}

// A read by warp w; `by_proxy`: by the asynchronous proxy (wgmma, TMA), which sees ordinary stores only after
// a fence.
static inline void check_read(Machine *m, Warp *w, Word *word, int space, u64 address, int by_proxy) {
    int me = w->id, writer = word->writer;
    if (word->writing)
        report(m, READ_IN_FLIGHT, space, address, word->wrote_at, word->writing - 1, w->at, me);
    if (writer != 0xff) {
        int mine = writer == me || word->writers >> me & 1;
        if (word->wrote_block != m->block)
            report(m, OTHER_BLOCK_READ, space, address, word->wrote_at, writer, w->at, me);
        else {
            if (!mine && w->clock.of[writer] < word->wrote_when)
                report(m, READ_AFTER_WRITE, space, address, word->wrote_at, writer, w->at, me);
            if (m->detect > 1 && space == GLOBAL && !mine)
                report(m, EXCHANGE, space, address, word->wrote_at, writer, w->at, me);
            if (by_proxy && word->generic && w->fence.of[writer] < word->wrote_when)
                report(m, NO_PROXY_FENCE, space, address, word->wrote_at, writer, w->at, me);
        }
    } else if (space == SHARED && !word->written) report(m, UNWRITTEN, space, address, -1, me, w->at, me);
    if (word->read_block != m->block) word->read_block = m->block, word->readers = 0;
    remember_read(word, w, w->at);
}

// A write by warp w; `same`: of the value that the memory already has.
static inline void check_write(Machine *m, Warp *w, Word *word, int space, u64 address, int same,
                               int generic) {
    int me = w->id, together = 0;
    if (word->writing)
        report(m, WRITE_IN_FLIGHT, space, address, word->wrote_at, word->writing - 1, w->at, me);
    if (word->products)
        report(m, WRITE_IN_FLIGHT, space, address, word->product_at, word->product_warp, w->at, me);
    if (word->stores) report(m, WRITE_IN_FLIGHT, space, address, word->store_at, word->store_warp, w->at, me);
    if (word->writer != 0xff) {
        if (word->wrote_block != m->block)
            report(m, OTHER_BLOCK_WRITE, space, address, word->wrote_at, word->writer, w->at, me);
        else if (word->writer != me && w->clock.of[word->writer] < word->wrote_when) {
            int kind = same ? SAME_VALUE : WRITE_AFTER_WRITE;
            report(m, kind, space, address, word->wrote_at, word->writer, w->at, me);
            together = same;
        }
    }
    u32 others = word->readers & ~(1u << me);
    if (others && word->read_block != m->block)
        report(m, OTHER_BLOCK_WRITE, space, address, word->read_at[__builtin_ctz(others)], -1, w->at, me);
    else
        for (; others; others &= others - 1) {
            int reader = __builtin_ctz(others), at = word->read_at[reader];
            if (same) continue;
            if (m->detect > 1 && space == GLOBAL) report(m, REUSE, space, address, at, reader, w->at, me);
            if (w->clock.of[reader] < word->read_when[reader])
                report(m, WRITE_AFTER_READ, space, address, at, reader, w->at, me);
        }
    word->writers = (together ? word->writers : 0) | 1u << me;
    if (!same) word->readers = 0;
    remember_write(m, word, me, w->clock.of[me], w->at, generic);
}
