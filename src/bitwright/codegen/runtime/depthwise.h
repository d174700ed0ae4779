/* Depthwise convolutions along a row: pixels follow one another without a gap, so that 32 elements at a time, whatever
   their channels, meet 32 weights of a table that repeats after `period` elements. */
#if defined(NW_VECTOR)
NW_INLINE void nw_repeat(int16_t *to, const void *from, size_t taps, size_t channels, size_t period)
{
    size_t t, i;
    for (t = 0; t < taps; t++)
        for (i = 0; i < period; i++)
            to[t * period + i] = (int16_t)(((const uint8_t *)from)[t * channels + i % channels] ^ 128) - 128;
}

/* sums that fit 16 bits */
NW_INLINE void nw_depthwise16(const uint8_t *p, size_t row, size_t pixel, size_t height, size_t width, const int16_t *w,
                              size_t period, int32_t *sums)
{
    size_t i, j;
#if defined(NW_AVX512)
    __m512i a = _mm512_setzero_si512();
    for (i = 0; i < height; i++)
        for (j = 0; j < width; j++, w += period) {
            const __m512i x = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)(p + i * row + j * pixel)));
            a = _mm512_add_epi16(a, _mm512_mullo_epi16(x, _mm512_loadu_si512((const void *)w)));
        }
    _mm512_storeu_si512((void *)sums, _mm512_cvtepi16_epi32(_mm512_castsi512_si256(a)));
    _mm512_storeu_si512((void *)(sums + 16), _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(a, 1)));
#else
    int16_t part[32] = {0};
    size_t c;
    for (i = 0; i < height; i++)
        for (j = 0; j < width; j++, w += period) {
            const uint8_t *x = p + i * row + j * pixel;
            for (c = 0; c < 32; c++)
                part[c] = (int16_t)(part[c] + x[c] * w[c]);
        }
    for (c = 0; c < 32; c++)
        sums[c] = part[c];
#endif
}

/* any sums */
NW_INLINE void nw_depthwise32(const uint8_t *p, size_t row, size_t pixel, size_t height, size_t width, const int16_t *w,
                              size_t period, int32_t *sums)
{
    size_t i, j;
#if defined(NW_AVX512)
    __m512i a = _mm512_setzero_si512(), b = a;
    for (i = 0; i < height; i++)
        for (j = 0; j < width; j++, w += period) {
            const uint8_t *x = p + i * row + j * pixel;
            const __m512i x0 = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)x));
            const __m512i x1 = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(x + 16)));
            const __m512i w0 = _mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)w));
            const __m512i w1 = _mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)(w + 16)));
            /* the upper halves are zero or signs: the products of 16-bit pairs are those of the integers */
            a = _mm512_add_epi32(a, _mm512_madd_epi16(x0, w0));
            b = _mm512_add_epi32(b, _mm512_madd_epi16(x1, w1));
        }
    _mm512_storeu_si512((void *)sums, a);
    _mm512_storeu_si512((void *)(sums + 16), b);
#else
    size_t c;
    for (c = 0; c < 32; c++)
        sums[c] = 0;
    for (i = 0; i < height; i++)
        for (j = 0; j < width; j++, w += period) {
            const uint8_t *x = p + i * row + j * pixel;
            for (c = 0; c < 32; c++)
                sums[c] += x[c] * w[c];
        }
#endif
}
#endif
