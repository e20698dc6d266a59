// Tensor cores: ldmatrix and stmatrix, mma.sync m16n8, and wgmma with its descriptors and swizzles.
// kind: 0 bf16, 1 tf32, 2 f16.
static int load_matrices(Machine *m, Warp *w, const s32 *row) {
    int count = row[8], transposed = row[9];
    u16 matrix[4][8][8];
    for (int i = 0; i < count; i++)
        for (int r = 0; r < 8; r++)
            if (read_shared(m, w, ((u32 *)(w->registers + row[4]))[8 * i + r] + row[5], 16, matrix[i][r]))
                return -1;
    for (int i = 0; i < count; i++) {
        u32 *out = (u32 *)(w->registers + m->pool[row[6] + i]);
        for (int l = 0; l < LANES; l++) {
            int r = l / 4, c = l % 4 * 2;
            out[l] = transposed ? matrix[i][c][r] | (u32)matrix[i][c + 1][r] << 16
                                : matrix[i][r][c] | (u32)matrix[i][r][c + 1] << 16;
        }
    }
    return 0;
}

static int store_matrices(Machine *m, Warp *w, const s32 *row) {
    int count = row[8], transposed = row[9];
    u16 matrix[4][8][8];
    for (int i = 0; i < count; i++) {
        u32 *value = (u32 *)(w->registers + m->pool[row[6] + i]);
        for (int l = 0; l < LANES; l++) {
            int r = l / 4, c = l % 4 * 2;
            *(transposed ? &matrix[i][c][r] : &matrix[i][r][c]) = value[l];
            *(transposed ? &matrix[i][c + 1][r] : &matrix[i][r][c + 1]) = value[l] >> 16;
        }
    }
    for (int i = 0; i < count; i++)
        for (int r = 0; r < 8; r++)
            if (write_shared(m, w, ((u32 *)(w->registers + row[4]))[8 * i + r] + row[5], 16, matrix[i][r]))
                return -1;
    return 0;
}

// A fragment of A (16 rows) from registers: register i holds rows l / 4 + 8 (i & 1).
static void fragment_a(Machine *m, Warp *w, int kind, int count, const s32 *slots, f32 A[16][16]) {
    for (int i = 0; i < count; i++) {
        u32 *x = (u32 *)(w->registers + slots[i]);
        for (int l = 0; l < LANES; l++) {
            int r = l / 4 + 8 * (i & 1), c = l % 4 * 2 + 8 * (i >> 1);
            if (kind == 1) A[r][l % 4 + 4 * (i >> 1)] = from_tf32(m->round_tf32, x[l]);
            else A[r][c] = from_half(kind, x[l]), A[r][c + 1] = from_half(kind, x[l] >> 16);
        }
    }
}

// mma.sync: pool is [d (4), a (4), b (2), c (4), K].
static void multiply_warp(Machine *m, Warp *w, const s32 *row, int kind) {
    const s32 *p = m->pool + row[6];
    int K = p[14], of_a = K == (kind == 1 ? 8 : 16) ? 4 : 2;
    f32 A[16][16], B[16][8], C[16][8];
    fragment_a(m, w, kind, of_a, p + 4, A);
    for (int i = 0; i < of_a / 2; i++) {
        u32 *x = (u32 *)(w->registers + p[8 + i]);
        for (int l = 0; l < LANES; l++) {
            int c = l / 4, k = l % 4 * 2 + 8 * i;
            if (kind == 1) B[l % 4 + 4 * i][c] = from_tf32(m->round_tf32, x[l]);
            else B[k][c] = from_half(kind, x[l]), B[k + 1][c] = from_half(kind, x[l] >> 16);
        }
    }
    for (int i = 0; i < 4; i++)
        for (int l = 0; l < LANES; l++)
            C[l / 4 + 8 * (i >> 1)][l % 4 * 2 + (i & 1)] = ((f32 *)(w->registers + p[10 + i]))[l];
    for (int r = 0; r < 16; r++)
        for (int k = 0; k < K; k++)
            for (int c = 0; c < 8; c++) C[r][c] = __builtin_fmaf(A[r][k], B[k][c], C[r][c]);
    for (int i = 0; i < 4; i++)
        for (int l = 0; l < LANES; l++)
            ((f32 *)(w->registers + p[i]))[l] = C[l / 4 + 8 * (i >> 1)][l % 4 * 2 + (i & 1)];
}

// Swizzles of shared memory: 0 none, 1 of 128 bytes, 2 of 64, 3 of 32.
static inline u32 swizzle(u32 address, int mode) {
    static const u32 bits[] = {0, 7, 3, 1};
    return address ^ (address >> 7 & bits[mode]) << 4;
}

// The address of 16 bytes of a wgmma operand. K-major: row i (of M or N), half j of K's 32 bytes.
// MN-major: row i of K, 16 bytes j along M or N.
static inline u32 operand_address(u64 descriptor, int mn_major, int i, int j) {
    u32 start = (descriptor & 0x3fff) << 4;
    u32 leading = (descriptor >> 16 & 0x3fff) << 4, stride = (descriptor >> 32 & 0x3fff) << 4;
    int mode = descriptor >> 62 & 3, width = mode == 0 ? 16 : 256 >> mode, units = width / 16;
    u32 address = start + (i & 7) * width;
    if (!mn_major) address += (i >> 3) * stride + j * (mode == 0 ? leading : 16);
    else if (mode == 0) address += (i >> 3) * leading + j * stride;
    else address += j % units * 16 + j / units * leading + (i >> 3) * stride;
    return swizzle(address, mode);
}

// pool: [N, kind, A is MN-major, B is, A is negated, B is, A in registers, A's slots (5), D's slots (N / 2)]
typedef struct {
    int n, kind, a_mn, b_mn, negate_a, negate_b, a_registers;
    const s32 *a, *d;
} Shape;
static Shape shape_of(Machine *m, int at) {
    const s32 *p = m->pool + m->code[(s64)at * ROW + 6];
    return (Shape){p[0], p[1], p[2], p[3], p[4], p[5], p[6], p + 7, p + 12};
}
static inline int depth(Shape s) { return s.kind == 1 ? 8 : 16; }

// Marks a product's reads for the detector: from its issue until its wait nobody may write there.
static int touch_16(Machine *m, Warp *w, u32 address, int finished) {
    if (shared_fits(m, w, address, 16, "wgmma read")) return -1;
    for (int i = 0; m->detect && i < 16; i += 4) {
        Word *word = shared_word(m, address + i);
        if (finished) {
            word->products--;
            remember_read(word, w, w->at);
        } else {
            check_read(m, w, word, SHARED, address - SHARED_BASE + i, 1);
            word->products++;
            word->product_at = w->at;
            word->product_warp = w->id;
        }
    }
    return 0;
}

static int touch_operands(Machine *m, Warp *w, Product *p, int finished) {
    Shape s = shape_of(m, p->at);
    int first = (w->id & 3) * 16, now = w->at, bad = 0;
    if (finished) w->at = p->at;
    for (int side = s.a_registers; side < 2; side++) { // A, B
        int mn = side ? s.b_mn : s.a_mn, rows = side ? s.n : 16, from = side ? 0 : first;
        u64 descriptor = side ? p->b : p->a;
        for (int i = 0; !mn && i < rows; i++)
            for (int j = 0; j < 2; j++)
                bad |= touch_16(m, w, operand_address(descriptor, 0, from + i, j), finished);
        for (int k = 0; mn && k < depth(s); k++)
            for (int j = 0; j < rows / 8; j++)
                bad |= touch_16(m, w, operand_address(descriptor, 1, k, from / 8 + j), finished);
    }
    w->at = now;
    return bad;
}

// One operand from shared memory: element (k, i), i along M or N, goes to out[i * along + k * across].
static void fetch_operand(Machine *m, Shape s, u64 descriptor, int mn, int from, int rows, int negate,
                          f32 *out, int along, int across) {
    u8 *shared = m->shared - SHARED_BASE;
    int per = s.kind == 1 ? 4 : 8, first_count = mn ? depth(s) : rows, second_count = mn ? rows / 8 : 2;
    for (int i = 0; i < first_count; i++)
        for (int j = 0; j < second_count; j++) {
            u8 *p = shared + operand_address(descriptor, mn, mn ? i : from + i, mn ? from / 8 + j : j);
            for (int e = 0; e < per; e++) {
                f32 value =
                    s.kind == 1 ? from_tf32(m->round_tf32, ((u32 *)p)[e]) : from_half(s.kind, ((u16 *)p)[e]);
                int row = mn ? per * j + e : i, k = mn ? i : per * j + e;
                out[row * along + k * across] = negate ? -value : value;
            }
        }
}

static void execute_product(Machine *m, Warp *w, Product *p) {
    Shape s = shape_of(m, p->at);
    int K = depth(s), count = s.n / 2, first = (w->id & 3) * 16;
    f32 A[16][16], (*B)[256] = m->b_operand, C[16][256], *value[128];
    m->layouts[8 + s.b_mn * 4 + (p->b >> 62)]++;
    if (s.a_registers) {
        fragment_a(m, w, s.kind, 4, s.a, A);
        for (int i = 0; s.negate_a && i < 256; i++) A[i / 16][i % 16] = -A[i / 16][i % 16];
    } else {
        m->layouts[s.a_mn * 4 + (p->a >> 62)]++;
        fetch_operand(m, s, p->a, s.a_mn, first, 16, s.negate_a, A[0], 16, 1);
    }
    fetch_operand(m, s, p->b, s.b_mn, 0, s.n, s.negate_b, B[0], 1, 256);
    for (int i = 0; i < count; i++)
        value[i] =
            p->accumulator >= 0 ? w->accumulators[p->accumulator]->value[i] : (f32 *)(w->registers + s.d[i]);
#define CELL C[l / 4 + 8 * (i >> 1 & 1)][8 * (i >> 2) + l % 4 * 2 + (i & 1)]
    for (int i = 0; i < count; i++)
        for (int l = 0; l < LANES; l++) CELL = p->accumulate ? value[i][l] : 0.0f;
    for (int r = 0; r < 16; r++)
        for (int k = 0; k < K; k++) {
            f32 a = A[r][k], *b = B[k], *c = C[r];
#pragma GCC ivdep
            for (int n = 0; n < s.n; n++) c[n] = __builtin_fmaf(a, b[n], c[n]);
        }
    for (int i = 0; i < count; i++)
        for (int l = 0; l < LANES; l++) value[i][l] = CELL;
#undef CELL
    p->executed = 1;
}

// Takes the accumulators from the registers, which hold poison until the product's wait.
static int withdraw_accumulators(Machine *m, Warp *w, Product *p, Shape s) {
    int chosen = -1, free = -1, count = s.n / 2;
    for (int i = 0; i < 16; i++) {
        Accumulator *a = w->accumulators[i];
        if (!a || !a->used) {
            if (free < 0) free = i;
            continue;
        }
        const s32 *theirs = m->pool + a->pool;
        if (theirs[0] == s.d[0] && a->registers == count) chosen = i;
        else
            for (int x = 0; x < count; x++)
                for (int y = 0; y < a->registers; y++)
                    if (theirs[y] == s.d[x])
                        return fail(m, w, "wgmma accumulators overlap those of another one in flight");
    }
    if (chosen < 0) {
        if ((chosen = free) < 0) return fail(m, w, "too many accumulators in flight");
        if (!w->accumulators[chosen]) w->accumulators[chosen] = malloc(sizeof(Accumulator));
        Accumulator *a = w->accumulators[chosen];
        a->used = 1, a->users = 0, a->registers = count, a->pool = s.d - m->pool;
        for (int i = 0; i < count; i++) {
            u32 *x = (u32 *)(w->registers + s.d[i]);
            memcpy(a->value[i], x, LANES * 4);
            for (int l = 0; l < LANES; l++) x[l] = POISON;
        }
    }
    p->accumulator = chosen;
    w->accumulators[chosen]->users++;
    return 0;
}

static int issue_product(Machine *m, Warp *w, u64 a, u64 b, int accumulate) {
    if (w->id / 4 * 4 + 4 > m->warps) return fail(m, w, "wgmma without a whole warp group");
    if (w->product_count == MOST_PRODUCTS) return fail(m, w, "more than %d wgmma in flight", MOST_PRODUCTS);
    Product *p = &w->products[w->product_count];
    *p = (Product){w->at, w->product_group, 0, -1, a, b, accumulate};
    if (m->asynchronous != AT_ISSUE && withdraw_accumulators(m, w, p, shape_of(m, w->at))) return -1;
    if (touch_operands(m, w, p, 0)) return -1;
    w->product_count++;
    if (m->asynchronous == AT_ISSUE) execute_product(m, w, p);
    else if (m->asynchronous == RANDOM && draw(m) & 1)
        for (int i = 0; i < w->product_count; i++)
            if (!w->products[i].executed) execute_product(m, w, &w->products[i]);
    return 0;
}

static int wait_products(Machine *m, Warp *w, int groups) {
    int i = 0;
    for (; i < w->product_count && w->products[i].group < w->product_group - groups; i++) {
        Product *p = &w->products[i];
        if (!p->executed) execute_product(m, w, p);
        if (m->detect && touch_operands(m, w, p, 1)) return -1;
        if (p->accumulator < 0) continue;
        Accumulator *a = w->accumulators[p->accumulator];
        if (--a->users) continue;
        for (int k = 0; k < a->registers; k++)
            memcpy(w->registers + m->pool[a->pool + k], a->value[k], LANES * 4);
        a->used = 0;
    }
    memmove(w->products, w->products + i, sizeof(Product) * (w->product_count - i));
    w->product_count -= i;
    return 0;
}
