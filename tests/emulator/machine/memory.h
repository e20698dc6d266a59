// Global and shared memory: bounds, alignment, loads and stores, and cp.async.
static inline Buffer *buffer_at(Machine *m, u64 address, int bytes) {
    for (int i = -1; i < m->buffer_count; i++) { // the last one found is the most likely
        Buffer *b = m->buffers + (i < 0 ? m->last_buffer : i);
        if (address >= (u64)b->base && address + bytes <= (u64)b->base + b->size) {
            m->last_buffer = b - m->buffers;
            return b;
        }
    }
    return 0;
}

static Word *global_word(Machine *m, u64 address) {
    Buffer *b = buffer_at(m, address, 4);
    return b && b->words ? b->words + ((address - (u64)b->base) >> 2) : 0;
}

static int read_global(Machine *m, Warp *w, u64 address, int bytes, void *out) {
    Buffer *b = buffer_at(m, address, bytes);
    if (!b)
        return fail(m, w, "global read of %d bytes at %llx is outside every buffer", bytes,
                    (unsigned long long)address);
    if (address % bytes)
        return fail(m, w, "misaligned global read of %d bytes at %llx", bytes, (unsigned long long)address);
    if (m->detect && b->words) {
        u64 offset = address - (u64)b->base;
        for (u64 i = offset >> 2; i <= (offset + bytes - 1) >> 2; i++)
            check_read(m, w, b->words + i, GLOBAL, address, 0);
    }
    memcpy(out, (void *)address, bytes);
    return 0;
}

static inline void check_writes(Machine *m, Warp *w, Word *words, int space, u64 address, int bytes,
                                const u8 *there, const u8 *value, int generic) {
    if (bytes < 4) return check_write(m, w, words, space, address, !memcmp(there, value, bytes), generic);
    for (int i = 0; i < bytes; i += 4)
        check_write(m, w, words + i / 4, space, address + i, !memcmp(there + i, value + i, 4), generic);
}

static int write_global(Machine *m, Warp *w, u64 address, int bytes, const void *value) {
    Buffer *b = buffer_at(m, address, bytes);
    if (!b)
        return fail(m, w, "global write of %d bytes at %llx is outside every buffer", bytes,
                    (unsigned long long)address);
    if (!b->writable) return fail(m, w, "global write to a buffer that was declared read-only");
    if (address % bytes)
        return fail(m, w, "misaligned global write of %d bytes at %llx", bytes, (unsigned long long)address);
    if (m->detect && b->words)
        check_writes(m, w, b->words + ((address - (u64)b->base) >> 2), GLOBAL, address, bytes, (u8 *)address,
                     value, 1);
    memcpy((void *)address, value, bytes);
    return 0;
}

static inline int shared_fits(Machine *m, Warp *w, u32 address, int bytes, const char *what) {
    if (address < SHARED_BASE || (u64)address + bytes > (u64)SHARED_BASE + m->shared_bytes)
        return fail(m, w, "shared %s of %d bytes at %d is outside [0, %u)", what, bytes,
                    (int)(address - SHARED_BASE), m->shared_bytes);
    if (address % bytes)
        return fail(m, w, "misaligned shared %s of %d bytes at %d", what, bytes,
                    (int)(address - SHARED_BASE));
    return 0;
}

static inline Word *shared_word(Machine *m, u32 address) {
    return m->shared_words + ((address - SHARED_BASE) >> 2);
}

static inline int read_shared(Machine *m, Warp *w, u32 address, int bytes, void *out) {
    if (shared_fits(m, w, address, bytes, "read")) return -1;
    address -= SHARED_BASE;
    if (m->detect)
        for (u32 i = address >> 2; i <= (address + bytes - 1) >> 2; i++)
            check_read(m, w, m->shared_words + i, SHARED, i * 4, 0);
    memcpy(out, m->shared + address, bytes);
    return 0;
}

static inline int write_shared(Machine *m, Warp *w, u32 address, int bytes, const void *value) {
    if (shared_fits(m, w, address, bytes, "write")) return -1;
    address -= SHARED_BASE;
    u8 *there = m->shared + address;
    if (m->detect)
        check_writes(m, w, m->shared_words + (address >> 2), SHARED, address, bytes, there, value, 1);
    memcpy(there, value, bytes);
    return 0;
}

// Counts the sectors of 32 bytes that the lanes of a warp's instruction touch, each once.
typedef struct {
    u64 seen[2 * LANES];
    int count;
} Sectors;
static void count_sectors(Machine *m, Sectors *s, u64 address, int bytes) {
    for (u64 sector = address / 32; sector <= (address + bytes - 1) / 32; sector++) {
        int i = s->count;
        while (i > 0 && s->seen[i - 1] != sector) i--;
        if (i > 0) continue;
        s->seen[s->count++] = sector;
        Buffer *b = buffer_at(m, address, bytes);
        if (b) b->sectors++;
    }
}

// ld, st: pool is [bytes, count, registers (8), how to widen each (8)]; -1 drops a value.
static int load(Machine *m, Warp *w, const s32 *row, u32 mask, int global) {
    const s32 *p = m->pool + row[6];
    int bytes = p[0], count = p[1];
    s64 shift = row[5];
    u8 data[32];
    Sectors moved = {.count = 0};
    for (int l = 0; l < LANES; l++) {
        if (!(mask >> l & 1)) continue;
        if (global ? read_global(m, w, ((u64 *)(w->registers + row[4]))[l] + shift, bytes * count, data)
                   : read_shared(m, w, ((u32 *)(w->registers + row[4]))[l] + (s32)shift, bytes * count, data))
            return -1;
        if (global) count_sectors(m, &moved, ((u64 *)(w->registers + row[4]))[l] + shift, bytes * count);
        for (int k = 0; k < count; k++) {
            if (p[2 + k] < 0) continue;
            u32 *narrow = (u32 *)(w->registers + p[2 + k]) + l;
            u64 *wide = (u64 *)(w->registers + p[2 + k]) + l;
            switch (p[10 + k]) {
            case 1: *narrow = data[k]; break;
            case 2: *narrow = ((u16 *)data)[k]; break;
            case 4: *narrow = ((u32 *)data)[k]; break;
            case 8: *wide = ((u64 *)data)[k]; break;
            case 12: *wide = ((u32 *)data)[k]; break;
            case 33: *narrow = (s32)(s8)data[k]; break;
            case 34: *narrow = (s32)(s16)((u16 *)data)[k]; break;
            }
        }
    }
    return 0;
}

static int store(Machine *m, Warp *w, const s32 *row, u32 mask, int global) {
    const s32 *p = m->pool + row[6];
    int bytes = p[0], count = p[1];
    s64 shift = row[5];
    u8 data[32];
    Sectors moved = {.count = 0};
    for (int l = 0; l < LANES; l++) {
        if (!(mask >> l & 1)) continue;
        for (int k = 0; k < count; k++) {
            u32 *narrow = (u32 *)(w->registers + p[2 + k]) + l;
            switch (bytes) {
            case 1: data[k] = *narrow; break;
            case 2: ((u16 *)data)[k] = *narrow; break;
            case 4: ((u32 *)data)[k] = *narrow; break;
            case 8: ((u64 *)data)[k] = ((u64 *)(w->registers + p[2 + k]))[l]; break;
            }
        }
        if (global
                ? write_global(m, w, ((u64 *)(w->registers + row[4]))[l] + shift, bytes * count, data)
                : write_shared(m, w, ((u32 *)(w->registers + row[4]))[l] + (s32)shift, bytes * count, data))
            return -1;
        if (global) count_sectors(m, &moved, ((u64 *)(w->registers + row[4]))[l] + shift, bytes * count);
    }
    return 0;
}

// cp.async: the source is read at issue for the detector, the bytes move at issue, at the wait, or between.
static int move_copy(Machine *m, Warp *w, Copy *c) {
    u8 data[16];
    for (int l = 0; l < LANES; l++) {
        if (!(c->mask >> l & 1)) continue;
        memset(data, 0, 16);
        if (c->bytes[l]) memcpy(data, (void *)c->from[l], c->bytes[l]);
        memcpy(m->shared + c->to[l] - SHARED_BASE, data, c->size);
    }
    c->executed = 1;
    return 0;
}

static int issue_copy(Machine *m, Warp *w, const s32 *row, u32 mask) {
    if (w->copy_count == MOST_COPIES) return fail(m, w, "more than %d cp.async in flight", MOST_COPIES);
    Copy *c = &w->copies[w->copy_count++];
    *c = (Copy){.at = w->at, .group = w->copy_group, .size = row[6], .mask = mask};
    Sectors moved = {.count = 0};
    for (int l = 0; l < LANES; l++) {
        c->to[l] = ((u32 *)(w->registers + row[4]))[l] + row[8];
        c->from[l] = ((u64 *)(w->registers + row[5]))[l] + row[9];
        c->bytes[l] = row[7] >= 0 ? ((u32 *)(w->registers + row[7]))[l] : (u32)c->size;
        if (!(mask >> l & 1)) continue;
        u8 data[16];
        if (shared_fits(m, w, c->to[l], c->size, "cp.async write")) return -1;
        if (c->bytes[l] && c->bytes[l] != (u32)c->size)
            return fail(m, w, "cp.async with a partial source size %u", c->bytes[l]);
        if (c->bytes[l] && read_global(m, w, c->from[l], c->size, data)) return -1;
        if (c->bytes[l]) count_sectors(m, &moved, c->from[l], c->size);
        for (int i = 0; m->detect && i < c->size; i += 4) {
            Word *word = shared_word(m, c->to[l] + i);
            check_write(m, w, word, SHARED, c->to[l] - SHARED_BASE + i, 0, 1);
            word->writing = w->id + 1;
        }
    }
    if (m->asynchronous == AT_ISSUE || (m->asynchronous == RANDOM && draw(m) & 1)) return move_copy(m, w, c);
    return 0;
}

// Waits until at most `groups` of this warp's groups are in flight; the others' writes then are the warp's.
static int wait_copies(Machine *m, Warp *w, int groups) {
    int i = 0;
    for (; i < w->copy_count && w->copies[i].group < w->copy_group - groups; i++) {
        Copy *c = &w->copies[i];
        if (!c->executed && move_copy(m, w, c)) return -1;
        for (int l = 0; m->detect && l < LANES; l++)
            for (int k = 0; c->mask >> l & 1 && k < c->size; k += 4) {
                Word *word = shared_word(m, c->to[l] + k);
                word->writing = 0;
                word->readers = 0;
                word->writers = 1u << w->id;
                remember_write(m, word, w->id, w->clock.of[w->id], c->at, 1);
            }
    }
    memmove(w->copies, w->copies + i, sizeof(Copy) * (w->copy_count - i));
    w->copy_count -= i;
    return 0;
}
