/* Peaks of one thread: fp32 fused multiply-adds, int8 dot products, xor and popcount. Each returns operations per second,
   two for a multiply-accumulate. Built and called by inference.py; 0 where the processor lacks the instructions. */
#include <time.h>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#define TWELVE(X, y) X(0, y) X(1, y) X(2, y) X(3, y) X(4, y) X(5, y) X(6, y) X(7, y) X(8, y) X(9, y) X(10, y) X(11, y)
#define CHAIN(i, start) __m512i a##i = start, t##i;
#define STEP(i, instructions) __asm__ volatile(instructions : "+v"(a##i), "=&v"(t##i) : "v"(b));

/* Twelve independent chains in registers hide the latency; the asm keeps the compiler from folding them. In it %0 is a
   sum, %1 is free for use between, %2 is the constant `start`. lanes: multiply-accumulates that one vector holds. */
#define PEAK(name, lanes, start, instructions)                                                                         \
    double name(long n)                                                                                                \
    {                                                                                                                  \
        const __m512i b = start;                                                                                       \
        double began;                                                                                                  \
        long k;                                                                                                        \
        TWELVE(CHAIN, b)                                                                                               \
        began = now();                                                                                                 \
        for (k = 0; k < n; k++) {                                                                                      \
            TWELVE(STEP, instructions)                                                                                 \
        }                                                                                                              \
        return 12.0 * 2 * lanes * (double)n / (now() - began);                                                         \
    }
#define MISSING(name) double name(long n) { (void)n; return 0; }

#ifdef __AVX512F__
PEAK(peak_fp32, 16, _mm512_castps_si512(_mm512_set1_ps(0.5f)), "vfmadd231ps %2, %2, %0")
#else
MISSING(peak_fp32)
#endif

#ifdef __AVX512VNNI__
PEAK(peak_int8, 64, _mm512_set1_epi8(3), "vpdpbusd %2, %2, %0")
#else
MISSING(peak_int8)
#endif

#ifdef __AVX512VPOPCNTDQ__
PEAK(peak_binary, 512, _mm512_set1_epi8(3), "vpxorq %0, %2, %1\n\tvpopcntq %1, %1\n\tvpaddq %1, %0, %0")
#else
MISSING(peak_binary)
#endif
