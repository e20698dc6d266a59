// mbarriers, and the TMA copies that complete on them or in bulk groups.
static Mbarrier *mbarrier_at(Machine *m, Warp *w, u32 address) {
    for (int i = 0; i < m->mbarrier_count; i++)
        if (m->mbarriers[i].valid && m->mbarriers[i].address == address) return &m->mbarriers[i];
    fail(m, w, "no mbarrier at shared %d", (int)(address - SHARED_BASE));
    return 0;
}

static void complete_phase(Mbarrier *b) {
    if (b->pending || b->bytes) return;
    b->phase++;
    b->pending = b->expected;
    b->done = b->arriving;
    b->done_fence = b->arriving_fence;
}

static int begin_mbarrier(Machine *m, Warp *w, u32 address, u32 expected) {
    Mbarrier *b = 0;
    for (int i = 0; i < m->mbarrier_count; i++)
        if (m->mbarriers[i].address == address) b = &m->mbarriers[i];
    if (!b) {
        if (m->mbarrier_count == MOST_MBARRIERS) return fail(m, w, "too many mbarriers");
        b = &m->mbarriers[m->mbarrier_count++];
    }
    *b = (Mbarrier){.valid = 1, .address = address, .expected = expected, .pending = expected};
    return 0;
}

static int arrive(Machine *m, Warp *w, Mbarrier *b, u32 arrivals, u32 bytes) {
    if (b->pending < arrivals) return fail(m, w, "mbarrier: more arrivals than expected");
    b->bytes += bytes;
    b->pending -= arrivals;
    if (arrivals) join(&b->arriving, &w->clock), join(&b->arriving_fence, &w->fence);
    complete_phase(b);
    return 0;
}

static u64 box_bytes(Map *map) {
    u64 bytes = map->element;
    for (u32 d = 0; d < map->dimensions; d++) bytes *= map->box[d];
    return bytes;
}

// Where 16 bytes of the box lie in shared memory.
static inline u32 box_shared(Transfer *t, u64 byte) { return swizzle(t->shared + (u32)byte, t->map.swizzle); }

// Where they lie in global memory; 0 outside the tensor.
static u64 box_global(Transfer *t, u64 byte) {
    Map *map = &t->map;
    u64 line = (u64)map->box[0] * map->element, k = byte / line;
    s64 x = (s64)t->coordinate[0] + byte % line / map->element;
    if (x < 0 || x >= (s64)map->sizes[0]) return 0;
    u64 address = map->base + x * map->element;
    for (u32 d = 1; d < map->dimensions; d++, k /= map->box[d - 1]) {
        x = (s64)t->coordinate[d] + k % map->box[d];
        if (x < 0 || x >= (s64)map->sizes[d]) return 0;
        address += x * map->strides[d];
    }
    return address;
}

static int issue_transfer(Machine *m, Warp *w, Transfer *wanted) {
    Transfer *t = 0;
    for (int i = 0; !t && i < MOST_TRANSFERS; i++)
        if (!m->transfers[i].used) t = &m->transfers[i];
    if (!t) return fail(m, w, "more than %d TMA copies in flight", MOST_TRANSFERS);
    u8 *data = t->data;
    *t = *wanted;
    u64 bytes = box_bytes(&t->map);
    t->data = realloc(data, bytes);
    t->used = 1;
    m->transfers_pending++;
    if (t->shared % 128 || (t->map.swizzle == 1 && t->shared % 1024))
        return fail(m, w, "TMA shared address %d is not aligned", (int)(t->shared - SHARED_BASE));
    if (shared_fits(m, w, t->shared, 16, "TMA") || shared_fits(m, w, t->shared + bytes - 16, 16, "TMA"))
        return -1;
    for (u64 i = 0; i < bytes; i += 16) {
        u64 global = box_global(t, i);
        Buffer *b = global ? buffer_at(m, global, 16) : 0;
        if (global && !b) return fail(m, w, "TMA global address outside every buffer");
        if (b) b->sectors += (i & 16) == 0;
        if (t->store && b && !b->writable) return fail(m, w, "TMA store to a read-only buffer");
        for (int j = 0; m->detect && j < 16; j += 4) {
            u32 address = box_shared(t, i) + j;
            Word *word = shared_word(m, address), *there = global ? global_word(m, global + j) : 0;
            if (!t->store) {
                check_write(m, w, word, SHARED, address - SHARED_BASE, 0, 0);
                word->writing = w->id + 1;
                if (there) check_read(m, w, there, GLOBAL, global + j, 0);
                continue;
            }
            check_read(m, w, word, SHARED, address - SHARED_BASE, 1);
            word->stores++, word->store_at = w->at, word->store_warp = w->id;
            if (!there) continue;
            check_write(m, w, there, GLOBAL, global + j, 0, 0);
            there->writing = w->id + 1;
        }
    }
    return 0;
}

// A store's bytes may move at any time; the kernel can rely on them only after its waits.
static void capture(Machine *m, Transfer *t) {
    u64 bytes = t->captured ? 0 : box_bytes(&t->map);
    t->captured = 1;
    for (u64 i = 0; i < bytes; i += 16) memcpy(t->data + i, m->shared + box_shared(t, i) - SHARED_BASE, 16);
}

// wait_group.read frees the source; wait_group also makes the destination readable.
static void retire_store(Machine *m, Transfer *t, int written) {
    Warp *w = &m->warp[t->warp];
    u64 bytes = m->detect ? box_bytes(&t->map) : 0;
    capture(m, t);
    for (u64 i = 0; !t->source_free && i < bytes; i += 4) {
        Word *word = shared_word(m, box_shared(t, i / 16 * 16) + i % 16);
        word->stores--;
        remember_read(word, w, t->at);
    }
    t->source_free = 1;
    if (!written) return;
    for (u64 i = 0; i < bytes; i += 4) {
        u64 global = box_global(t, i / 16 * 16);
        Word *word = global ? global_word(m, global + i % 16) : 0;
        if (word) word->writing = 0, word->writer = t->warp, word->wrote_when = w->clock.of[t->warp];
    }
    t->used = 0;
}

// Moves a transfer's bytes; a load completes on its mbarrier.
static int move_transfer(Machine *m, Transfer *t) {
    u64 bytes = box_bytes(&t->map);
    m->transfers_pending--;
    if (t->store) {
        capture(m, t);
        for (u64 i = 0; i < bytes; i += 16) {
            u64 global = box_global(t, i);
            if (global) memcpy((void *)global, t->data + i, 16);
        }
        t->executed = 1;
        return 0;
    }
    m->transfer_clock++;
    for (u64 i = 0; i < bytes; i += 16) {
        u64 global = box_global(t, i);
        u8 *to = m->shared + box_shared(t, i) - SHARED_BASE;
        if (global) memcpy(to, (void *)global, 16);
        else memset(to, 0, 16);
        for (int j = 0; m->detect && j < 16; j += 4) {
            Word *word = shared_word(m, box_shared(t, i) + j);
            word->writing = 0, word->writers = 0, word->readers = 0;
            remember_write(m, word, TMA, m->transfer_clock, t->at, 0);
        }
    }
    Mbarrier *b = mbarrier_at(m, &m->warp[t->warp], t->mbarrier);
    if (!b) return -1;
    b->bytes -= bytes;
    b->arriving.of[TMA] = b->arriving_fence.of[TMA] = m->transfer_clock;
    complete_phase(b);
    t->used = 0;
    return 0;
}

// cp.async.bulk.tensor: pool is [dimensions, coordinates...]; each lane under the mask is a copy.
static int bulk_copy(Machine *m, Warp *w, const s32 *row, u32 mask, int stores) {
    const s32 *p = m->pool + row[6];
    for (int l = 0; l < LANES; l++) {
        if (!(mask >> l & 1)) continue;
        u64 map = ((u64 *)(w->registers + row[5]))[l], first = (u64)m->parameters;
        if (map < first || map + sizeof(Map) > first + m->parameter_bytes)
            return fail(m, w, "tensor map is not a parameter");
        Transfer t = {.store = stores, .at = w->at, .warp = w->id, .group = w->bulk_group};
        memcpy(&t.map, (void *)map, sizeof(Map));
        if (t.map.dimensions != (u32)p[0]) return fail(m, w, "tensor map of %u dimensions", t.map.dimensions);
        for (int d = 0; d < p[0]; d++) t.coordinate[d] = ((s32 *)(w->registers + p[1 + d]))[l];
        t.shared = ((u32 *)(w->registers + row[4]))[l];
        t.mbarrier = stores ? 0 : ((u32 *)(w->registers + row[7]))[l];
        if (issue_transfer(m, w, &t)) return -1;
        for (int i = 0; m->asynchronous == AT_ISSUE && i < MOST_TRANSFERS; i++) {
            Transfer *mine = &m->transfers[i];
            if (mine->used && !mine->executed && mine->warp == w->id && move_transfer(m, mine)) return -1;
        }
    }
    return 0;
}

static int wait_bulk(Machine *m, Warp *w, int groups, int read_only) {
    for (int i = 0; i < MOST_TRANSFERS; i++) {
        Transfer *t = &m->transfers[i];
        if (!t->used || !t->store || t->warp != w->id || t->group >= w->bulk_group - groups) continue;
        if (!read_only && !t->executed && move_transfer(m, t)) return -1;
        retire_store(m, t, !read_only);
    }
    return 0;
}
