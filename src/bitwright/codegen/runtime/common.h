#if defined(__GNUC__)
#define NW_INLINE static inline __attribute__((always_inline, unused))
#define NW_SHARED static __attribute__((unused))
#define NW_ALIGN __attribute__((aligned(64)))
#else
#define NW_INLINE static inline
#define NW_SHARED static inline
#define NW_ALIGN
#endif

/* Hides from the compiler what v is. With an index into tables hidden it does not hold them in registers throughout a
   loop, which it needs for sums. */
#if defined(__GNUC__)
#define NW_OPAQUE(v) __asm__ volatile("" : "+r"(v))
#else
#define NW_OPAQUE(v) ((void)(v))
#endif

/* Keeps a loaded vector in a register: gcc would rather load it again at every use. */
#if defined(__GNUC__)
#define NW_IN_REGISTER(v) __asm__("" : "+v"(v))
#else
#define NW_IN_REGISTER(v) ((void)(v))
#endif

/* Shift right, rounding down. C99 leaves >> of negative integers to the compiler; nearly all shift arithmetically. */
#if (-1 >> 1) == -1
#define NW_SAR(v, s) ((v) >> (s))
#else
#define NW_SAR(v, s) ((v) < 0 ? ~(~(v) >> (s)) : (v) >> (s))
#endif

/* Which instructions: at most one of NW_AVX512, NW_AVX2, NW_NEON. NW_DOT: weights in lanes for products of bytes;
   NW_BIT: weights in lanes for bits. Without them the portable kernels run. */
#if !defined(NW_PORTABLE) && (defined(__x86_64__) || defined(_M_X64))
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define NW_AVX512 1
#define NW_DOT 1
#if defined(__AVX512VPOPCNTDQ__)
#define NW_BIT 1
#endif
#include <immintrin.h>
#elif defined(__AVX2__)
#define NW_AVX2 1
#define NW_DOT 1
#include <immintrin.h>
#endif
#elif !defined(NW_PORTABLE) && defined(__aarch64__) && defined(__ARM_NEON) && !defined(__AARCH64EB__)
#define NW_NEON 1
#define NW_DOT 1
#define NW_BIT 1
#include <arm_neon.h>
#endif

/* Plain loops over lanes are as good where the compiler turns them into vector popcounts. */
#if !defined(NW_BIT) && defined(__GNUC__) && defined(__AVX512VPOPCNTDQ__) && defined(__OPTIMIZE__)
#define NW_BIT 1
#endif

/* Whether compilers have vectors to turn loops into; tables are then laid out for that. */
#if defined(NW_DOT) || defined(__SSE2__) || defined(__ARM_NEON) || defined(__ALTIVEC__) || defined(__riscv_v)
#define NW_VECTOR 1
#endif
