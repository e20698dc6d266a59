// A machine for PTX translated to rows of integers: one block of threads (CTA) at a time. A register is
// 32 lanes; the machine may switch warps after any instruction. Declarations that all its parts share.
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;
typedef float f32;

#define LANES 32
#define MAX_WARPS 16
#define ROW 20 // integers an instruction: operation, destinations, predicate and its sense, operands
#define SHARED_BASE 1024u  // start of shared memory, so that a null address is outside
#define POISON 0x7FFF7FFFu // NaN as float32 and as two bf16
#define MOST_PRODUCTS 256
#define MOST_COPIES 1024
#define MOST_TRANSFERS 256
#define MOST_MBARRIERS 256
#define MOST_REPORTS 4096
#define TMA (MAX_WARPS - 1) // the clock that all TMA loads share
#define EACH_LANE _Pragma("GCC ivdep") for (int l = 0; l < LANES; l++)

enum { SHARED = 1, GLOBAL = 2 };
enum { AT_ISSUE, LATE, RANDOM }; // when asynchronous operations take effect
// Kinds of reports; Python's KINDS has their texts.
enum {
    READ_AFTER_WRITE = 1,
    WRITE_AFTER_WRITE,
    WRITE_AFTER_READ,
    SAME_VALUE,
    READ_IN_FLIGHT,
    WRITE_IN_FLIGHT,
    NO_PROXY_FENCE,
    UNWRITTEN,
    OTHER_BLOCK_WRITE,
    OTHER_BLOCK_READ,
    EXCHANGE,
    REUSE
};

typedef struct {
    u32 of[MAX_WARPS];
} Clock;

// The state of 4 bytes of memory: the last write, who may see it, reads since, and asynchronous operations in
// flight. A write is ordered before warp w if w's clock has reached its `when`.
typedef struct {
    u32 wrote_when, wrote_at, wrote_block, read_block;
    u32 readers, writers;                 // warps: readers since the last write; writers of this same value
    u8 writer, writing, generic, written; // writer 0xff: none; writing: warp + 1 of an asynchronous write
    u16 products, product_warp, stores, store_warp; // asynchronous readers in flight
    u32 product_at, store_at;
    u32 read_when[MAX_WARPS], read_at[MAX_WARPS];
} Word;
typedef struct {
    u8 *base;
    u64 size;
    int writable;
    Word *words;
    u64 sectors; // of 32 bytes, read or written, each once an instruction of a warp
} Buffer;

typedef struct {
    int valid;
    u32 address, expected, pending, phase;
    s64 bytes; // that transfers still have to deliver
    Clock arriving, arriving_fence, done, done_fence;
} Mbarrier;

// A wgmma in flight; its accumulators hold poison until its wait.
typedef struct {
    int at, group, executed, accumulator;
    u64 a, b;
    int accumulate;
} Product;
typedef struct {
    int used, pool, registers, users;
    f32 value[128][LANES];
} Accumulator;
// A cp.async of one warp.
typedef struct {
    int at, group, executed, size;
    u32 mask, to[LANES], bytes[LANES];
    u64 from[LANES];
} Copy;
// Python's TensorMap, in place of a CUtensorMap (whose bits NVIDIA does not document).
typedef struct {
    u64 base;
    u32 dimensions, element;
    u64 sizes[5], strides[5];
    u32 box[5], swizzle;
} Map;
typedef struct {
    int used, store, at, warp, group, captured, executed, source_free;
    Map map;
    s32 coordinate[5];
    u32 shared, mbarrier;
    u8 *data;
} Transfer;

typedef struct {
    u8 *registers;
    int at, id, done, waiting, barrier, spinning;
    u64 executed;
    Clock clock, fence; // fence: writes that the asynchronous proxy may see
    Product products[MOST_PRODUCTS];
    int product_count, product_group;
    Accumulator *accumulators[16];
    Copy *copies;
    int copy_count, copy_group, bulk_group;
} Warp;

typedef struct {
    int kind, first_at, second_at, first_warp, second_warp, space;
    u64 address, count;
} Report;

typedef struct {
    const s32 *code, *pool;
    int length, warps, threads, register_bytes;
    u32 shared_bytes;
    u8 *shared;
    Word *shared_words;
    Buffer *buffers;
    int buffer_count, last_buffer;
    u8 *parameters;
    int parameter_bytes;
    Warp warp[MAX_WARPS];
    struct {
        int count, expected;
        u32 members;
        Clock clock, fence;
    } barrier[16];
    Mbarrier mbarriers[MOST_MBARRIERS];
    int mbarrier_count;
    Transfer transfers[MOST_TRANSFERS];
    int transfers_pending;
    u32 transfer_clock;
    u64 random;
    int asynchronous, detect, round_tf32;
    Report reports[MOST_REPORTS];
    int report_count;
    u32 block;
    u64 executed, layouts[16], *executed_by_op;
    char error[512];
    int error_at, error_warp;
    f32 (*b_operand)[256];
} Machine;

static int fail(Machine *m, Warp *w, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    if (!m->error[0]) {
        vsnprintf(m->error, sizeof m->error, format, arguments);
        m->error_at = w ? w->at : -1;
        m->error_warp = w ? w->id : -1;
    }
    va_end(arguments);
    return -1;
}

static inline u32 draw(Machine *m) {
    u64 x = m->random;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    m->random = x;
    return (u32)(x >> 24);
}

static inline void join(Clock *a, const Clock *b) {
    for (int i = 0; i < MAX_WARPS; i++)
        if (b->of[i] > a->of[i]) a->of[i] = b->of[i];
}

static inline u32 lane_mask(const u32 *predicate) {
    u32 mask = 0;
    for (int l = 0; l < LANES; l++) mask |= (predicate[l] & 1u) << l;
    return mask;
}
