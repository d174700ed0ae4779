/* Products of bytes in lanes: 16 output channels side by side, four inputs each. u8 x s8 into 32 bits, exact.
   nw_*_dot takes any bytes, nw_*_pair inputs up to 127, for which two products fit 16 bits. */
#if defined(NW_AVX512)
typedef __m512i nw_v;
NW_INLINE nw_v nw_zero(void) { return _mm512_setzero_si512(); }
NW_INLINE void nw_put(int32_t *to, nw_v v) { _mm512_storeu_si512((void *)to, v); }
NW_INLINE __m512i nw_four(const uint8_t *p)
{
    int32_t q;
    memcpy(&q, p, 4);
    return _mm512_set1_epi32(q);
}
typedef __m512i nw_w_pair;
typedef __m512i nw_x_pair;
NW_INLINE nw_w_pair nw_load_pair(const uint8_t *p)
{
    __m512i w = _mm512_loadu_si512((const void *)p);
    NW_IN_REGISTER(w);
    return w;
}
NW_INLINE nw_x_pair nw_spread_pair(const uint8_t *p) { return nw_four(p); }
#if defined(__AVX512VNNI__)
typedef __m512i nw_w_dot;
typedef __m512i nw_x_dot;
#if defined(__GNUC__) && !defined(__clang__)
/* gcc 12 copies the accumulator before and after the intrinsic */
#define NW_MAC_dot(a, w, x) __asm__("vpdpbusd %2, %1, %0" : "+v"(a) : "v"(x), "v"(w))
#else
#define NW_MAC_dot(a, w, x) (a = _mm512_dpbusd_epi32(a, x, w))
#endif
#define NW_MAC_pair NW_MAC_dot
#define nw_load_dot nw_load_pair
#define nw_spread_dot nw_spread_pair
#else
typedef struct { __m512i even, odd; } nw_w_dot;
typedef struct { __m512i even, odd; } nw_x_dot;
NW_INLINE nw_w_dot nw_load_dot(const uint8_t *p)
{
    const __m512i w = _mm512_loadu_si512((const void *)p);
    nw_w_dot r;
    r.even = _mm512_srai_epi16(_mm512_slli_epi16(w, 8), 8);
    r.odd = _mm512_srai_epi16(w, 8);
    return r;
}
NW_INLINE nw_x_dot nw_spread_dot(const uint8_t *p)
{
    const __m512i x = nw_four(p);
    nw_x_dot r;
    r.even = _mm512_and_si512(x, _mm512_set1_epi16(255));
    r.odd = _mm512_srli_epi16(x, 8);
    return r;
}
#define NW_MAC_dot(a, w, x)                                                                                            \
    (a = _mm512_add_epi32(a, _mm512_add_epi32(_mm512_madd_epi16((x).even, (w).even), _mm512_madd_epi16((x).odd, (w).odd))))
#define NW_MAC_pair(a, w, x)                                                                                           \
    (a = _mm512_add_epi32(a, _mm512_madd_epi16(_mm512_maddubs_epi16(x, w), _mm512_set1_epi16(1))))
#endif

#elif defined(NW_AVX2)
typedef struct { __m256i a, b; } nw_v;
NW_INLINE nw_v nw_zero(void)
{
    nw_v v;
    v.a = v.b = _mm256_setzero_si256();
    return v;
}
NW_INLINE void nw_put(int32_t *to, nw_v v)
{
    _mm256_storeu_si256((__m256i *)(void *)to, v.a);
    _mm256_storeu_si256((__m256i *)(void *)(to + 8), v.b);
}
NW_INLINE __m256i nw_four(const uint8_t *p)
{
    int32_t q;
    memcpy(&q, p, 4);
    return _mm256_set1_epi32(q);
}
typedef struct { __m256i a, b; } nw_w_pair;
typedef __m256i nw_x_pair;
NW_INLINE nw_w_pair nw_load_pair(const uint8_t *p)
{
    nw_w_pair w;
    w.a = _mm256_loadu_si256((const __m256i *)(const void *)p);
    w.b = _mm256_loadu_si256((const __m256i *)(const void *)(p + 32));
    return w;
}
NW_INLINE nw_x_pair nw_spread_pair(const uint8_t *p) { return nw_four(p); }
NW_INLINE __m256i nw_pair(__m256i x, __m256i w)
{
    return _mm256_madd_epi16(_mm256_maddubs_epi16(x, w), _mm256_set1_epi16(1));
}
#define NW_MAC_pair(v, w, x)                                                                                           \
    ((v).a = _mm256_add_epi32((v).a, nw_pair(x, (w).a)), (v).b = _mm256_add_epi32((v).b, nw_pair(x, (w).b)))
typedef nw_w_pair nw_w_dot;
typedef struct { __m256i even, odd; } nw_x_dot;
#define nw_load_dot nw_load_pair
NW_INLINE nw_x_dot nw_spread_dot(const uint8_t *p)
{
    const __m256i x = nw_four(p);
    nw_x_dot r;
    r.even = _mm256_and_si256(x, _mm256_set1_epi16(255));
    r.odd = _mm256_srli_epi16(x, 8);
    return r;
}
NW_INLINE __m256i nw_mac2(__m256i a, __m256i w, nw_x_dot x)
{
    const __m256i even = _mm256_madd_epi16(x.even, _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8));
    const __m256i odd = _mm256_madd_epi16(x.odd, _mm256_srai_epi16(w, 8));
    return _mm256_add_epi32(a, _mm256_add_epi32(even, odd));
}
#define NW_MAC_dot(v, w, x) ((v).a = nw_mac2((v).a, (w).a, x), (v).b = nw_mac2((v).b, (w).b, x))

#elif defined(NW_NEON)
typedef struct { int32x4_t a, b, c, d; } nw_v;
typedef struct { int8x16_t a, b, c, d; } nw_w_pair;
typedef int8x16_t nw_x_pair;
NW_INLINE nw_v nw_zero(void)
{
    nw_v v;
    v.a = v.b = v.c = v.d = vdupq_n_s32(0);
    return v;
}
NW_INLINE void nw_put(int32_t *to, nw_v v)
{
    vst1q_s32(to, v.a);
    vst1q_s32(to + 4, v.b);
    vst1q_s32(to + 8, v.c);
    vst1q_s32(to + 12, v.d);
}
NW_INLINE nw_w_pair nw_load_pair(const uint8_t *p)
{
    nw_w_pair w;
    w.a = vreinterpretq_s8_u8(vld1q_u8(p));
    w.b = vreinterpretq_s8_u8(vld1q_u8(p + 16));
    w.c = vreinterpretq_s8_u8(vld1q_u8(p + 32));
    w.d = vreinterpretq_s8_u8(vld1q_u8(p + 48));
    return w;
}
NW_INLINE uint8x16_t nw_four(const uint8_t *p)
{
    uint32_t q;
    memcpy(&q, p, 4);
    return vreinterpretq_u8_u32(vdupq_n_u32(q));
}
NW_INLINE nw_x_pair nw_spread_pair(const uint8_t *p) { return vreinterpretq_s8_u8(nw_four(p)); }
#if defined(__ARM_FEATURE_DOTPROD)
#define NW_MAC_pair(v, w, x)                                                                                           \
    ((v).a = vdotq_s32((v).a, (w).a, x), (v).b = vdotq_s32((v).b, (w).b, x), (v).c = vdotq_s32((v).c, (w).c, x),       \
     (v).d = vdotq_s32((v).d, (w).d, x))
#else
NW_INLINE int32x4_t nw_mac4(int32x4_t a, int8x16_t w, int8x16_t x)
{
    const int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(x)), high = vmull_s8(vget_high_s8(w), vget_low_s8(x));
    return vpadalq_s16(a, vpaddq_s16(low, high));
}
#define NW_MAC_pair(v, w, x)                                                                                           \
    ((v).a = nw_mac4((v).a, (w).a, x), (v).b = nw_mac4((v).b, (w).b, x), (v).c = nw_mac4((v).c, (w).c, x),             \
     (v).d = nw_mac4((v).d, (w).d, x))
#endif
typedef nw_w_pair nw_w_dot;
#define nw_load_dot nw_load_pair
#if defined(__ARM_FEATURE_MATMUL_INT8)
typedef uint8x16_t nw_x_dot;
#define nw_spread_dot nw_four
#define NW_MAC_dot(v, w, x)                                                                                            \
    ((v).a = vusdotq_s32((v).a, x, (w).a), (v).b = vusdotq_s32((v).b, x, (w).b),                                       \
     (v).c = vusdotq_s32((v).c, x, (w).c), (v).d = vusdotq_s32((v).d, x, (w).d))
#else
typedef int16x4_t nw_x_dot;
NW_INLINE nw_x_dot nw_spread_dot(const uint8_t *p)
{
    return vget_low_s16(vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(nw_four(p)))));
}
NW_INLINE int32x4_t nw_wide4(int32x4_t a, int8x16_t w, int16x4_t x)
{
    const int16x8_t low = vmovl_s8(vget_low_s8(w)), high = vmovl_s8(vget_high_s8(w));
    const int32x4_t first = vpaddq_s32(vmull_s16(vget_low_s16(low), x), vmull_s16(vget_high_s16(low), x));
    const int32x4_t second = vpaddq_s32(vmull_s16(vget_low_s16(high), x), vmull_s16(vget_high_s16(high), x));
    return vaddq_s32(a, vpaddq_s32(first, second));
}
#define NW_MAC_dot(v, w, x)                                                                                            \
    ((v).a = nw_wide4((v).a, (w).a, x), (v).b = nw_wide4((v).b, (w).b, x), (v).c = nw_wide4((v).c, (w).c, x),          \
     (v).d = nw_wide4((v).d, (w).d, x))
#endif
#endif

#if defined(NW_DOT)
/* Rows of packed weights into lanes: [16 rows][run][4 weights][16 rows][4], runs filled up with zeros. */
NW_INLINE void nw_lanes_dot(uint8_t *to, const void *from, size_t rows, size_t bytes, size_t runs, size_t run, int bits,
                            int lowest, int step)
{
    const size_t words = (run + 3) / 4;
    size_t o, t, k;
    for (o = 0; o < rows; o++) {
        const uint8_t *row = (const uint8_t *)from + o * bytes;
        for (t = 0; t < runs; t++)
            for (k = 0; k < run; k++)
                to[(((o / 16) * runs + t) * words + k / 4) * 64 + o % 16 * 4 + k % 4] =
                    (uint8_t)nw_weight(row, t * run + k, bits, lowest, step);
    }
}
#endif
