/* Differing bits in lanes: 16 output channels side by side, 32 inputs each. xnor: all bits count; tern: those in the
   mask. */
#if defined(NW_BIT)
#if defined(NW_AVX512)
typedef __m512i nw_b;
typedef __m512i nw_x_xnor;
typedef __m512i nw_x_tern;
typedef __m512i nw_w_xnor;
typedef struct { __m512i mask, sign; } nw_w_tern;
NW_INLINE nw_b nw_zero_bit(void) { return _mm512_setzero_si512(); }
NW_INLINE void nw_put_bit(int32_t *to, nw_b v) { _mm512_storeu_si512((void *)to, v); }
NW_INLINE __m512i nw_spread_xnor(const uint8_t *p)
{
    int32_t q;
    memcpy(&q, p, 4);
    return _mm512_set1_epi32(q);
}
#define nw_spread_tern nw_spread_xnor
NW_INLINE nw_w_xnor nw_load_xnor(const uint8_t *p)
{
    __m512i w = _mm512_loadu_si512((const void *)p);
    NW_IN_REGISTER(w);
    return w;
}
NW_INLINE nw_w_tern nw_load_tern(const uint8_t *p)
{
    nw_w_tern w;
    w.mask = nw_load_xnor(p);
    w.sign = nw_load_xnor(p + 64);
    return w;
}
#define NW_MAC_xnor(a, w, x) (a = _mm512_add_epi32(a, _mm512_popcnt_epi32(_mm512_xor_si512(x, w))))
/* 0x48: (x ^ sign) & mask */
#define NW_MAC_tern(a, w, x)                                                                                           \
    (a = _mm512_add_epi32(a, _mm512_popcnt_epi32(_mm512_ternarylogic_epi32(x, (w).mask, (w).sign, 0x48))))

#elif defined(NW_NEON)
typedef struct { uint32x4_t a, b, c, d; } nw_b;
typedef struct { uint8x16_t a, b, c, d; } nw_w_xnor;
typedef struct { nw_w_xnor mask, sign; } nw_w_tern;
typedef uint8x16_t nw_x_xnor;
typedef uint8x16_t nw_x_tern;
NW_INLINE nw_b nw_zero_bit(void)
{
    nw_b v;
    v.a = v.b = v.c = v.d = vdupq_n_u32(0);
    return v;
}
NW_INLINE void nw_put_bit(int32_t *to, nw_b v)
{
    vst1q_s32(to, vreinterpretq_s32_u32(v.a));
    vst1q_s32(to + 4, vreinterpretq_s32_u32(v.b));
    vst1q_s32(to + 8, vreinterpretq_s32_u32(v.c));
    vst1q_s32(to + 12, vreinterpretq_s32_u32(v.d));
}
NW_INLINE uint8x16_t nw_spread_xnor(const uint8_t *p)
{
    uint32_t q;
    memcpy(&q, p, 4);
    return vreinterpretq_u8_u32(vdupq_n_u32(q));
}
#define nw_spread_tern nw_spread_xnor
NW_INLINE nw_w_xnor nw_load_xnor(const uint8_t *p)
{
    nw_w_xnor w;
    w.a = vld1q_u8(p);
    w.b = vld1q_u8(p + 16);
    w.c = vld1q_u8(p + 32);
    w.d = vld1q_u8(p + 48);
    return w;
}
NW_INLINE nw_w_tern nw_load_tern(const uint8_t *p)
{
    nw_w_tern w;
    w.mask = nw_load_xnor(p);
    w.sign = nw_load_xnor(p + 64);
    return w;
}
NW_INLINE uint32x4_t nw_count(uint32x4_t a, uint8x16_t bits)
{
    return vpadalq_u16(a, vpaddlq_u8(vcntq_u8(bits)));
}
#define NW_MAC_xnor(v, w, x)                                                                                           \
    ((v).a = nw_count((v).a, veorq_u8(x, (w).a)), (v).b = nw_count((v).b, veorq_u8(x, (w).b)),                         \
     (v).c = nw_count((v).c, veorq_u8(x, (w).c)), (v).d = nw_count((v).d, veorq_u8(x, (w).d)))
#define NW_TERN(w, x, f) vandq_u8(veorq_u8(x, (w).sign.f), (w).mask.f)
#define NW_MAC_tern(v, w, x)                                                                                           \
    ((v).a = nw_count((v).a, NW_TERN(w, x, a)), (v).b = nw_count((v).b, NW_TERN(w, x, b)),                             \
     (v).c = nw_count((v).c, NW_TERN(w, x, c)), (v).d = nw_count((v).d, NW_TERN(w, x, d)))
#else
typedef struct { uint32_t v[16]; } nw_b;
typedef nw_b nw_w_xnor;
typedef struct { nw_b mask, sign; } nw_w_tern;
typedef uint32_t nw_x_xnor;
typedef uint32_t nw_x_tern;
NW_INLINE nw_b nw_zero_bit(void)
{
    nw_b v;
    memset(&v, 0, sizeof v);
    return v;
}
NW_INLINE void nw_put_bit(int32_t *to, nw_b v)
{
    size_t i;
    for (i = 0; i < 16; i++)
        to[i] = (int32_t)v.v[i];
}
NW_INLINE uint32_t nw_spread_xnor(const uint8_t *p)
{
    uint32_t q;
    memcpy(&q, p, 4);
    return q;
}
#define nw_spread_tern nw_spread_xnor
NW_INLINE nw_w_xnor nw_load_xnor(const uint8_t *p)
{
    nw_w_xnor w;
    memcpy(&w, p, 64);
    return w;
}
NW_INLINE nw_w_tern nw_load_tern(const uint8_t *p)
{
    nw_w_tern w;
    w.mask = nw_load_xnor(p);
    w.sign = nw_load_xnor(p + 64);
    return w;
}
#define NW_MAC_xnor(a, w, x)                                                                                           \
    do {                                                                                                               \
        size_t l;                                                                                                      \
        for (l = 0; l < 16; l++)                                                                                       \
            (a).v[l] += (uint32_t)__builtin_popcount((x) ^ (w).v[l]);                                                  \
    } while (0)
#define NW_MAC_tern(a, w, x)                                                                                           \
    do {                                                                                                               \
        size_t l;                                                                                                      \
        for (l = 0; l < 16; l++)                                                                                       \
            (a).v[l] += (uint32_t)__builtin_popcount(((x) ^ (w).sign.v[l]) & (w).mask.v[l]);                           \
    } while (0)
#endif

/* Rows of bit planes, each `words` long, into lanes: [16 rows][run][4 bytes][planes][16 rows][4]. Bits past a run are
   zero, in the mask too, so that they do not count. With `masked` a mask of all bits is made, and goes first. */
NW_INLINE void nw_lanes_bit(uint8_t *to, const uint64_t *from, size_t rows, size_t words, size_t runs, size_t run,
                            size_t planes, size_t masked)
{
    const size_t fours = (run + 3) / 4, all = planes + masked;
    size_t o, p, t, k;
    for (o = 0; o < rows; o++)
        for (p = 0; p < all; p++) {
            for (t = 0; t < runs; t++)
                for (k = 0; k < run; k++)
                    to[((((o / 16) * runs + t) * fours + k / 4) * all + p) * 64 + o % 16 * 4 + k % 4] =
                        p < masked ? 255 : (uint8_t)(from[(t * run + k) / 8] >> (t * run + k) % 8 * 8);
            if (p >= masked)
                from += words;
        }
}
#endif
