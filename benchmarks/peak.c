/* Peaks of one thread: fp32 fused multiply-adds, int8 dot products, xor and popcount. Each returns operations per second,
   two for a multiply-accumulate. Built and called by inference.py; 0 where the processor lacks the instructions. */
#include <stdint.h>
#include <time.h>

#if defined(__AVX512F__)
#include <immintrin.h>
#elif defined(__AVX2__)
#include <immintrin.h>
#endif

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#define TWELVE(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)

/* Twelve independent chains in registers hide the latency; the asm keeps the compiler from folding them. */
#ifdef __AVX512F__
double peak_fp32(long n)
{
    const __m512 b = _mm512_set1_ps(0.5f);
    double start;
    long k;
#define CHAIN(i) __m512 a##i = b;
    TWELVE(CHAIN)
#undef CHAIN
    start = now();
    for (k = 0; k < n; k++) {
#define STEP(i) __asm__ volatile("vfmadd231ps %1, %1, %0" : "+v"(a##i) : "v"(b));
        TWELVE(STEP)
#undef STEP
    }
    return 12.0 * 16 * 2 * (double)n / (now() - start);
}
#else
double peak_fp32(long n) { (void)n; return 0; }
#endif

#ifdef __AVX512VNNI__
double peak_int8(long n)
{
    const __m512i b = _mm512_set1_epi8(3);
    double start;
    long k;
#define CHAIN(i) __m512i a##i = b;
    TWELVE(CHAIN)
#undef CHAIN
    start = now();
    for (k = 0; k < n; k++) {
#define STEP(i) __asm__ volatile("vpdpbusd %1, %1, %0" : "+v"(a##i) : "v"(b));
        TWELVE(STEP)
#undef STEP
    }
    return 12.0 * 64 * 2 * (double)n / (now() - start);
}
#else
double peak_int8(long n) { (void)n; return 0; }
#endif

#ifdef __AVX512VPOPCNTDQ__
double peak_binary(long n)
{
    const __m512i b = _mm512_set1_epi8(3);
    double start;
    long k;
#define CHAIN(i) __m512i a##i = b, t##i;
    TWELVE(CHAIN)
#undef CHAIN
    start = now();
    for (k = 0; k < n; k++) {
#define STEP(i)                                                                                                        \
    __asm__ volatile("vpxorq %0, %2, %1\n\tvpopcntq %1, %1\n\tvpaddq %1, %0, %0" : "+v"(a##i), "=&v"(t##i) : "v"(b));
        TWELVE(STEP)
#undef STEP
    }
    return 12.0 * 512 * 2 * (double)n / (now() - start);
}
#else
double peak_binary(long n) { (void)n; return 0; }
#endif
