/* Portable products: four pixels by four output channels at a time, so that each load feeds four products. Where the
   machine multiplies bytes the operands are bytes, else 16 bits wide, which vectorises well nearly everywhere. */
#if !defined(NW_DOT)
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__) || defined(__ARM_FEATURE_MATMUL_INT8)
#define NW_BYTES 1
typedef uint8_t nw_a;
typedef int8_t nw_k;
/* whole vectors, filled up with weights of zero */
#define NW_COUNT(n) (((n) + 31) / 32 * 32)
#else
typedef int16_t nw_a;
typedef int16_t nw_k;
#define NW_COUNT(n) (n)
#endif

/* sums[4 * pixel + channel], over k < count; the rows of a and w are `stride` apart */
#if defined(NW_VECTOR)
NW_SHARED void nw_rows_4x4(const nw_a *a0, const nw_k *b0, size_t astride, size_t bstride, size_t count, int32_t *sums)
{
    const nw_a *a1 = a0 + astride, *a2 = a1 + astride, *a3 = a2 + astride;
    const nw_k *b1 = b0 + bstride, *b2 = b1 + bstride, *b3 = b2 + bstride;
    int32_t s00 = 0, s01 = 0, s02 = 0, s03 = 0, s10 = 0, s11 = 0, s12 = 0, s13 = 0;
    int32_t s20 = 0, s21 = 0, s22 = 0, s23 = 0, s30 = 0, s31 = 0, s32 = 0, s33 = 0;
    size_t i;
    for (i = 0; i < count; i++) {
        s00 += a0[i] * b0[i]; s01 += a0[i] * b1[i]; s02 += a0[i] * b2[i]; s03 += a0[i] * b3[i];
        s10 += a1[i] * b0[i]; s11 += a1[i] * b1[i]; s12 += a1[i] * b2[i]; s13 += a1[i] * b3[i];
        s20 += a2[i] * b0[i]; s21 += a2[i] * b1[i]; s22 += a2[i] * b2[i]; s23 += a2[i] * b3[i];
        s30 += a3[i] * b0[i]; s31 += a3[i] * b1[i]; s32 += a3[i] * b2[i]; s33 += a3[i] * b3[i];
    }
    sums[0] = s00; sums[1] = s01; sums[2] = s02; sums[3] = s03;
    sums[4] = s10; sums[5] = s11; sums[6] = s12; sums[7] = s13;
    sums[8] = s20; sums[9] = s21; sums[10] = s22; sums[11] = s23;
    sums[12] = s30; sums[13] = s31; sums[14] = s32; sums[15] = s33;
}
#else
/* few registers: two by two */
NW_SHARED void nw_rows_4x4(const nw_a *a0, const nw_k *b0, size_t astride, size_t bstride, size_t count, int32_t *sums)
{
    size_t p, o, i;
    for (p = 0; p < 4; p += 2, a0 += 2 * astride)
        for (o = 0; o < 4; o += 2) {
            const nw_a *a = a0, *b = a0 + astride;
            const nw_k *c = b0 + o * bstride, *d = c + bstride;
            int32_t s00 = 0, s01 = 0, s10 = 0, s11 = 0;
            for (i = 0; i < count; i++) {
                s00 += a[i] * c[i];
                s01 += a[i] * d[i];
                s10 += b[i] * c[i];
                s11 += b[i] * d[i];
            }
            sums[4 * p + o] = s00;
            sums[4 * p + o + 1] = s01;
            sums[4 * p + 4 + o] = s10;
            sums[4 * p + 5 + o] = s11;
        }
}
#endif

/* A row of packed weights, filled up with zeros to NW_COUNT(count). */
NW_INLINE void nw_unpack(nw_k *restrict to, const uint8_t *restrict row, size_t count, int bits, int lowest, int step)
{
    size_t i, k = 0;
#define NW_CODE(j) to[i * (8 / NW_B) + j] = (nw_k)(lowest + step * (row[i] >> (j) * NW_B & ((1 << NW_B) - 1)))
#define NW_B 4
    if (bits == NW_B)
        for (i = 0; i < count / 2; i++) {
            NW_CODE(0); NW_CODE(1);
        }
#undef NW_B
#define NW_B 2
    if (bits == NW_B)
        for (i = 0; i < count / 4; i++) {
            NW_CODE(0); NW_CODE(1); NW_CODE(2); NW_CODE(3);
        }
#undef NW_B
#define NW_B 1
    if (bits == NW_B)
        for (i = 0; i < count / 8; i++) {
            NW_CODE(0); NW_CODE(1); NW_CODE(2); NW_CODE(3); NW_CODE(4); NW_CODE(5); NW_CODE(6); NW_CODE(7);
        }
#undef NW_B
#undef NW_CODE
    if (bits < 8)
        k = count / (8 / (size_t)bits) * (8 / (size_t)bits);
    for (; k < count; k++)
        to[k] = (nw_k)nw_weight(row, k, bits, lowest, step);
    for (; k < NW_COUNT(count); k++)
        to[k] = 0;
}

NW_INLINE void nw_copy_run(nw_a *to, const uint8_t *from, size_t count)
{
#if defined(NW_BYTES)
    memcpy(to, from, count);
#else
    size_t i;
    for (i = 0; i < count; i++)
        to[i] = from[i];
#endif
}
#endif
