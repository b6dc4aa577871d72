// Eight floats at a time.
#pragma once
#include <immintrin.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))
#define IN_REGISTER(v) __asm__("" : "+x"(v))  // compute v here: gcc likes to put off a sum and spill what goes into it

// Do `work` with `count` = `rows`, 4 at most, as a constant: its loops over rows unroll and their sums stay in registers.
#define WITH_COUNT(rows, work)                                    \
    switch (rows) {                                               \
        case 1: { enum { count = 1 }; work; } break;              \
        case 2: { enum { count = 2 }; work; } break;              \
        case 3: { enum { count = 3 }; work; } break;              \
        default: { enum { count = 4 }; work; }                    \
    }

// e^x to about 2 units in the last place: x = n ln 2 + r, e^r by its Taylor polynomial, 2^n by the exponent bits.
// Below -87 it returns about 1e-38, above 88 about 1e38; NaN stays NaN.
INLINE __m256 exp8(__m256 x) {
    x = _mm256_max_ps(_mm256_set1_ps(-87), _mm256_min_ps(_mm256_set1_ps(88), x));  // keeps a NaN in x
    __m256 n = _mm256_round_ps(x * 1.44269504f, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = x - n * 0.693359375f + n * 2.12194440e-4f;  // ln 2 in two parts (Cody and Waite)
    __m256 e = r * (1 / 5040.0f) + 1 / 720.0f;
    e = e * r + 1 / 120.0f;
    e = e * r + 1 / 24.0f;
    e = e * r + 1 / 6.0f;
    e = e * r + 0.5f;
    e = e * r + 1;
    e = e * r + 1;
    __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return e * _mm256_castsi256_ps(power);
}

INLINE float sum8(__m256 v) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}
