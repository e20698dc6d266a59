// Number formats, and the integer instructions without an operator in C.
static inline f32 as_float(u32 x) {
    f32 f;
    memcpy(&f, &x, 4);
    return f;
}
static inline u32 as_bits(f32 f) {
    u32 x;
    memcpy(&x, &f, 4);
    return x;
}
static inline f32 flush(f32 x) { return as_bits(x) & 0x7f800000 ? x : as_float(as_bits(x) & 0x80000000); }
static inline f32 from_bf16(u16 h) { return as_float((u32)h << 16); }
static inline u16 to_bf16(f32 f) {
    u32 bits = as_bits(f);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
static inline f32 from_f16(u16 h) {
    _Float16 x;
    memcpy(&x, &h, 2);
    return (f32)x;
}
static inline u16 to_f16(f32 f) {
    _Float16 x = (_Float16)f;
    u16 h;
    memcpy(&h, &x, 2);
    return h;
}
static inline f32 from_half(int kind, u16 h) { return kind == 0 ? from_bf16(h) : from_f16(h); }
static inline u32 nearest_tf32(u32 bits) { // cvt.rna: ties away from zero
    return (bits & 0x7f800000) == 0x7f800000 ? bits : (bits + 0x1000) & 0xffffe000u;
}
// A tensor core reads the upper 19 bits of a float32. `rounded`: rounds to nearest instead.
static inline f32 from_tf32(int rounded, u32 bits) {
    return as_float(rounded ? nearest_tf32(bits) : bits & 0xffffe000u);
}
static inline s32 to_s32(f32 x) {
    if (x != x) return 0;
    if (x >= 2147483648.0f) return 0x7fffffff;
    if (x <= -2147483648.0f) return (s32)0x80000000;
    return (s32)x;
}
static inline u32 to_u32(f32 x) {
    if (!(x > 0)) return 0;
    return x >= 4294967296.0f ? 0xffffffffu : (u32)x;
}
static inline f32 smaller(f32 a, f32 b) {
    return a != a ? b : b != b ? a : (a < b || (a == b && signbit(a))) ? a : b;
}
static inline f32 larger(f32 a, f32 b) {
    return a != a ? b : b != b ? a : (a > b || (a == b && !signbit(a))) ? a : b;
}
static inline f32 quiet_nan(f32 a, f32 b, f32 otherwise) {
    return a != a || b != b ? as_float(0x7fffffff) : otherwise;
}
// tanh with the largest relative error that the PTX manual allows, 2^-11; the operand's bits give its sign.
static inline f32 approximate_tanh(f32 x) {
    f32 error = as_bits(x) * 2654435761u >> 31 ? 0x1p-11f : -0x1p-11f;
    return tanhf(x) * (1.0f + error);
}

static inline u32 permute_bytes(u32 a, u32 b, u32 selectors) {
    u64 both = (u64)b << 32 | a;
    u32 result = 0;
    for (int i = 0; i < 4; i++) {
        u32 selector = selectors >> 4 * i & 15;
        u8 byte = both >> 8 * (selector & 7);
        if (selector & 8) byte = (s8)byte < 0 ? 0xff : 0;
        result |= (u32)byte << 8 * i;
    }
    return result;
}
static inline u32 lop3(u32 a, u32 b, u32 c, u32 table) {
    u32 result = 0;
    for (int i = 0; i < 8; i++)
        if (table >> i & 1) result |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
    return result;
}
static inline u64 extract_u64(u64 a, u32 first, u32 count) {
    first &= 255, count &= 255;
    if (!count || first > 63) return 0;
    a >>= first;
    return count >= 64 ? a : a & ((1ull << count) - 1);
}
static inline u32 extract_u32(u32 a, u32 first, u32 count) { return (u32)extract_u64(a, first, count); }
static inline s32 extract_s32(s32 a, u32 first, u32 count) {
    first &= 255, count &= 255;
    if (!count) return 0;
    if (first > 31) return a < 0 ? -1 : 0;
    s64 shifted = (s64)a >> first;
    return count >= 32 ? (s32)shifted : (s32)((s64)((u64)shifted << (64 - count)) >> (64 - count));
}
static inline u32 insert(u32 a, u32 b, u32 first, u32 count) {
    first &= 255, count &= 255;
    if (first > 31) return b;
    u32 mask = (count >= 32 ? ~0u : (1u << count) - 1) << first;
    return (b & ~mask) | ((a << first) & mask);
}
static inline u32 reverse_bits(u32 x) {
    u32 result = 0;
    for (int i = 0; i < 32; i++) result |= (x >> i & 1) << (31 - i);
    return result;
}
#define EACH_BF16(EXPRESSION)                                                                                \
    ({                                                                                                       \
        u32 packed = 0;                                                                                      \
        for (int half = 0; half < 2; half++) {                                                               \
            f32 p = from_bf16(x >> 16 * half), q = from_bf16(y >> 16 * half), r = from_bf16(z >> 16 * half); \
            (void)q, (void)r;                                                                                \
            packed |= (u32)to_bf16(EXPRESSION) << 16 * half;                                                 \
        }                                                                                                    \
        packed;                                                                                              \
    })
