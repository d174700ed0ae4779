/* Portable popcounts. */
#if !defined(NW_BIT)
#if (defined(__GNUC__) && (defined(__POPCNT__) || defined(__aarch64__)))
NW_INLINE uint32_t nw_popcount(uint64_t v) { return (uint32_t)__builtin_popcountll(v); }
#else
NW_INLINE uint32_t nw_popcount(uint64_t v)
{
    v = v - ((v >> 1) & 0x5555555555555555u);
    v = (v & 0x3333333333333333u) + ((v >> 2) & 0x3333333333333333u);
    v = (v + (v >> 4)) & 0x0f0f0f0f0f0f0f0fu;
    v += v >> 8;
    v += v >> 16;
    return (uint32_t)((v + (v >> 32)) & 127);
}
/* Counts of three words at once: a full adder makes of them sums and carries, and counts stay in bytes. */
#define NW_ADDED 1
#if UINTPTR_MAX > 0xffffffffu
typedef uint64_t nw_bytes;
#define NW_FILL(byte) (0x0101010101010101u * (byte))
#define NW_GROUPS 10
#else
typedef uint32_t nw_bytes;
#define NW_FILL(byte) (0x01010101u * (byte))
#define NW_GROUPS 5
#endif
NW_INLINE nw_bytes nw_add3(nw_bytes x, nw_bytes y, nw_bytes z)
{
    const nw_bytes t = x ^ y;
    nw_bytes s = t ^ z, c = (x & y) | (t & z);
    s = s - ((s >> 1) & NW_FILL(0x55u));
    c = c - ((c >> 1) & NW_FILL(0x55u));
    s = (s & NW_FILL(0x33u)) + ((s >> 2) & NW_FILL(0x33u));
    c = (c & NW_FILL(0x33u)) + ((c >> 2) & NW_FILL(0x33u));
    s += c << 1;
    return (s & NW_FILL(0x0fu)) + ((s >> 4) & NW_FILL(0x0fu));
}
/* at most 24 a byte, 48 where halves are added, hence NW_GROUPS */
NW_INLINE nw_bytes nw_added(uint64_t x, uint64_t y, uint64_t z)
{
#if UINTPTR_MAX > 0xffffffffu
    return nw_add3(x, y, z);
#else
    return nw_add3((uint32_t)x, (uint32_t)y, (uint32_t)z) +
           nw_add3((uint32_t)(x >> 32), (uint32_t)(y >> 32), (uint32_t)(z >> 32));
#endif
}
NW_INLINE uint32_t nw_total(nw_bytes bytes)
{
    bytes = (bytes & (nw_bytes)0x00ff00ff00ff00ffu) + ((bytes >> 8) & (nw_bytes)0x00ff00ff00ff00ffu);
    bytes += bytes >> 16;
#if UINTPTR_MAX > 0xffffffffu
    bytes += bytes >> 32;
#endif
    return (uint32_t)(bytes & 0xffff);
}
NW_SHARED uint32_t nw_count_xnor(const uint64_t *a, const uint64_t *w, size_t count)
{
    uint32_t total = 0;
    while (count >= 3) {
        size_t group = 0;
        nw_bytes bytes = 0;
        for (; group < NW_GROUPS && count >= 3; group++, count -= 3, a += 3, w += 3)
            bytes += nw_added(a[0] ^ w[0], a[1] ^ w[1], a[2] ^ w[2]);
        total += nw_total(bytes);
    }
    for (; count; count--)
        total += nw_popcount(*a++ ^ *w++);
    return total;
}
NW_SHARED uint32_t nw_count_tern(const uint64_t *a, const uint64_t *m, const uint64_t *w, size_t count)
{
    uint32_t total = 0;
    while (count >= 3) {
        size_t group = 0;
        nw_bytes bytes = 0;
        for (; group < NW_GROUPS && count >= 3; group++, count -= 3, a += 3, m += 3, w += 3)
            bytes += nw_added((a[0] ^ w[0]) & m[0], (a[1] ^ w[1]) & m[1], (a[2] ^ w[2]) & m[2]);
        total += nw_total(bytes);
    }
    for (; count; count--)
        total += nw_popcount((*a++ ^ *w++) & *m++);
    return total;
}
#endif

/* `count` bytes into words of eight, the first lowest; the rest of the last word is zero */
NW_INLINE void nw_gather(uint64_t *to, size_t at, const uint8_t *from, size_t count)
{
    size_t i;
    if (at % 8 == 0) {
        for (; count >= 8; count -= 8, from += 8, at += 8)
            to[at / 8] = (uint64_t)from[0] | (uint64_t)from[1] << 8 | (uint64_t)from[2] << 16 | (uint64_t)from[3] << 24 |
                         (uint64_t)from[4] << 32 | (uint64_t)from[5] << 40 | (uint64_t)from[6] << 48 |
                         (uint64_t)from[7] << 56;
    }
    for (i = 0; i < count; i++, at++)
        to[at / 8] = (at % 8 ? to[at / 8] : 0) | (uint64_t)from[i] << at % 8 * 8;
}

/* differing bits of four pixels, `count` words each, with one output channel */
NW_INLINE void nw_rows_xnor(const uint64_t *a, const uint64_t *w, size_t count, int32_t *sums, size_t stride)
{
    const uint64_t *a1 = a + count, *a2 = a1 + count, *a3 = a2 + count;
#if defined(NW_ADDED)
    sums[0] = (int32_t)nw_count_xnor(a, w, count);
    sums[stride] = (int32_t)nw_count_xnor(a1, w, count);
    sums[2 * stride] = (int32_t)nw_count_xnor(a2, w, count);
    sums[3 * stride] = (int32_t)nw_count_xnor(a3, w, count);
#else
    uint32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    size_t i;
    for (i = 0; i < count; i++) {
        s0 += nw_popcount(a[i] ^ w[i]);
        s1 += nw_popcount(a1[i] ^ w[i]);
        s2 += nw_popcount(a2[i] ^ w[i]);
        s3 += nw_popcount(a3[i] ^ w[i]);
    }
    sums[0] = (int32_t)s0;
    sums[stride] = (int32_t)s1;
    sums[2 * stride] = (int32_t)s2;
    sums[3 * stride] = (int32_t)s3;
#endif
}

/* the same where the mask, `count` words before the signs, is set */
NW_INLINE void nw_rows_tern(const uint64_t *a, const uint64_t *mask, size_t count, int32_t *sums, size_t stride)
{
    const uint64_t *a1 = a + count, *a2 = a1 + count, *a3 = a2 + count, *w = mask + count;
#if defined(NW_ADDED)
    sums[0] = (int32_t)nw_count_tern(a, mask, w, count);
    sums[stride] = (int32_t)nw_count_tern(a1, mask, w, count);
    sums[2 * stride] = (int32_t)nw_count_tern(a2, mask, w, count);
    sums[3 * stride] = (int32_t)nw_count_tern(a3, mask, w, count);
#else
    uint32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    size_t i;
    for (i = 0; i < count; i++) {
        s0 += nw_popcount((a[i] ^ w[i]) & mask[i]);
        s1 += nw_popcount((a1[i] ^ w[i]) & mask[i]);
        s2 += nw_popcount((a2[i] ^ w[i]) & mask[i]);
        s3 += nw_popcount((a3[i] ^ w[i]) & mask[i]);
    }
    sums[0] = (int32_t)s0;
    sums[stride] = (int32_t)s1;
    sums[2 * stride] = (int32_t)s2;
    sums[3 * stride] = (int32_t)s3;
#endif
}
#endif
