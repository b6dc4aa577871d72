// y = f(x) Wᵀ for weights stored as ggml blocks of 32. decoder.py packs the weights and holds the specification.
//
// Decoding is bound by the bytes of W, so W stays at 4 or 8 bits until it is in a register. Eight output rows lie side
// by side as one "panel": a vector register then holds the same two columns of eight rows, one 32-bit lane a row, and
//     _mm256_madd_epi16(codes, pair):   lane[row] = codes[row][k] * x[k] + codes[row][k+1] * x[k+1]
// needs no sum across lanes until a block of 32 columns is done. Activations are rounded to 16-bit integers, one scale a
// block: their error, 2^-16 of the block's largest value, is far below that of bf16, and integer sums are exact.

#include <math.h>
#include <string.h>

#include "vector.h"

#define BLOCK 32       // columns that share a scale
#define PANEL 8        // output rows side by side
#define ROWS 4         // input rows that share one unpacking of a weight
#define ROW_CHUNK 64   // input rows whose activations stay in the L2 cache while all weights pass by
#define AHEAD 12       // blocks between what is multiplied and what is asked of memory, about 2 KB of 4-bit codes

typedef struct {  // w = scale * code + minimum, code 0..15; lane (row, h) of chunk c holds columns 8c + 2n + h, n = 0..3
    uint16_t scale[PANEL], minimum[PANEL], codes[4][2 * PANEL];
} q4_panel;

typedef struct {  // w = scale * code, code -128..127; lane (row, h) of chunk j holds column 2j + h
    uint16_t scale[PANEL];
    int8_t codes[16][2 * PANEL];
} q8_panel;

typedef struct {  // x = scale * code; sum is the sum of those 32 values
    int16_t codes[BLOCK];
    float scale, sum;
} activation;

// Ask for the block AHEAD of this one. The hardware would stop at each page's end.
#define PREFETCH(w)                                                 \
    for (int byte = 0; byte < (int)sizeof *(w); byte += 64)         \
        _mm_prefetch((const char *)((w) + AHEAD) + byte, _MM_HINT_T0);

INLINE __m256 halves(const uint16_t *fp16) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)fp16)); }

INLINE __m256i pair(const int16_t *codes) {  // two neighbouring activations, in every lane
    int32_t two;
    memcpy(&two, codes, sizeof two);
    return _mm256_set1_epi32(two);
}

// acc[r][row] += W[row] · x[r] for the rows of one panel and `count` rows of x, `blocks` apart.
INLINE void q4_dot(const q4_panel *w, const activation *x, long blocks, int count, __m256 acc[ROWS]) {
    const __m256i low4 = _mm256_set1_epi16(15);
    for (long b = 0; b < blocks; b++, w++, x++) {
        PREFETCH(w)
        __m256i sums[ROWS] = {0};
#pragma GCC unroll 4
        for (int c = 0; c < 4; c++) {
            __m256i packed = _mm256_loadu_si256((const __m256i *)w->codes[c]);
#pragma GCC unroll 4
            for (int n = 0; n < 4; n++) {
                __m256i codes = _mm256_and_si256(_mm256_srli_epi16(packed, 4 * n), low4);
#pragma GCC unroll 4
                for (int r = 0; r < count; r++) {
                    __m256i product = _mm256_madd_epi16(codes, pair(x[r * blocks].codes + 8 * c + 2 * n));
                    sums[r] = _mm256_add_epi32(sums[r], product);
                    IN_REGISTER(sums[r]);
                }
            }
        }
        __m256 scale = halves(w->scale), minimum = halves(w->minimum);
#pragma GCC unroll 4
        for (int r = 0; r < count; r++)
            acc[r] += scale * (_mm256_cvtepi32_ps(sums[r]) * x[r * blocks].scale) + minimum * x[r * blocks].sum;
    }
}

INLINE void q8_dot(const q8_panel *w, const activation *x, long blocks, int count, __m256 acc[ROWS]) {
    for (long b = 0; b < blocks; b++, w++, x++) {
        PREFETCH(w)
        __m256i sums[ROWS] = {0};
#pragma GCC unroll 16
        for (int j = 0; j < 16; j++) {
            __m256i codes = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)w->codes[j]));
#pragma GCC unroll 4
            for (int r = 0; r < count; r++) {
                __m256i product = _mm256_madd_epi16(codes, pair(x[r * blocks].codes + 2 * j));
                sums[r] = _mm256_add_epi32(sums[r], product);
                IN_REGISTER(sums[r]);
            }
        }
#pragma GCC unroll 4
        for (int r = 0; r < count; r++)
            acc[r] += halves(w->scale) * (_mm256_cvtepi32_ps(sums[r]) * x[r * blocks].scale);
    }
}

// y[r][panel's rows] = (add ? y : 0) + W x, for up to ROWS rows
#define TILES(format)                                                                                         \
    static void format##_tile(const format##_panel *w, const activation *x, float *y, long rows, long blocks, \
                              long outputs, int add) {                                                        \
        __m256 acc[ROWS] = {0};                                                                               \
        WITH_COUNT(rows, format##_dot(w, x, blocks, count, acc))                                              \
        for (int i = 0; i < rows && i < ROWS; i++) {                                                          \
            float *out = y + i * outputs;                                                                     \
            if (add) acc[i] += _mm256_loadu_ps(out);                                                          \
            _mm256_storeu_ps(out, acc[i]);                                                                    \
        }                                                                                                     \
    }
TILES(q4)
TILES(q8)

typedef struct {  // one linear layer; the Python side fills it once
    const void *panels;   // [outputs / PANEL][columns / BLOCK]
    const float *norm;    // RMSNorm weight [columns] to apply to x first, or NULL
    float eps;            // of that norm
    int gated;            // x is [rows, 2 * columns] and silu(first half) * second half is multiplied
    int bits;             // 4 or 8
    long columns, outputs;
} linear;

INLINE void quantize_block(const float *x, activation *out) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 largest = _mm256_setzero_ps(), poison = _mm256_setzero_ps();
    for (int k = 0; k < BLOCK; k += 8) {
        __m256 v = _mm256_loadu_ps(x + k);
        largest = _mm256_max_ps(largest, _mm256_andnot_ps(sign, v));
        poison += v * 0;  // NaN as soon as a value is NaN or infinite
    }
    float top = 0, bad = 0;
    for (int i = 0; i < 8; i++) top = fmaxf(top, ((float *)&largest)[i]), bad += ((float *)&poison)[i];
    __m256 inverse = _mm256_set1_ps(top > 0 ? 32767 / top : 0);
    __m256i sums = _mm256_setzero_si256();
    for (int k = 0; k < BLOCK; k += 16) {
        __m256i low = _mm256_cvtps_epi32(_mm256_loadu_ps(x + k) * inverse);
        __m256i high = _mm256_cvtps_epi32(_mm256_loadu_ps(x + k + 8) * inverse);
        __m256i both = _mm256_packs_epi32(low, high);  // packs within 128-bit halves: put the quarters in order
        both = _mm256_permute4x64_epi64(both, _MM_SHUFFLE(3, 1, 2, 0));
        _mm256_storeu_si256((__m256i *)(out->codes + k), both);
        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(both, _mm256_set1_epi16(1)));
    }
    int sum = 0;
    for (int i = 0; i < 8; i++) sum += ((int *)&sums)[i];
    out->scale = top / 32767 + bad;
    out->sum = sum * out->scale;
}

// The 32-bit activations of one row, after RMSNorm or SwiGLU, as 16-bit blocks. A block with NaN or inf becomes NaN.
static void quantize_row(const linear *layer, const float *x, activation *out) {
    long columns = layer->columns;
    float inverse = 1, row[BLOCK];
    if (layer->norm) {
        __m256 squares = _mm256_setzero_ps();
        for (long k = 0; k < columns; k += 8) squares += _mm256_loadu_ps(x + k) * _mm256_loadu_ps(x + k);
        inverse = 1 / sqrtf(sum8(squares) / columns + layer->eps);
    }
    for (long first = 0; first < columns; first += BLOCK) {
        for (long k = 0; k < BLOCK; k += 8) {
            __m256 v = _mm256_loadu_ps(x + first + k);
            if (layer->gated) v = v / (1 + exp8(-v)) * _mm256_loadu_ps(x + columns + first + k);
            if (layer->norm) v = v * inverse * _mm256_loadu_ps(layer->norm + first + k);
            _mm256_storeu_ps(row + k, v);
        }
        quantize_block(row, out++);
    }
}

// y [rows, outputs] = (add ? y : 0) + f(x) Wᵀ, by all threads of the team that calls it. `some` holds rows * (columns / 32)
// activations and is free again on return.
static void linear_by_team(const linear *layer, const float *x, float *y, long rows, int add, activation *some) {
    long blocks = layer->columns / BLOCK, width = layer->columns * (layer->gated ? 2 : 1);
#pragma omp for schedule(static)
    for (long r = 0; r < rows; r++) quantize_row(layer, x + r * width, some + r * blocks);
    for (long first = 0; first < rows; first += ROW_CHUNK) {
        long last = first + ROW_CHUNK < rows ? first + ROW_CHUNK : rows;
#pragma omp for schedule(static)
        for (long p = 0; p < layer->outputs / PANEL; p++)
            for (long r = first; r < last; r += ROWS) {
                float *out = y + r * layer->outputs + p * PANEL;
                if (layer->bits == 4)
                    q4_tile((const q4_panel *)layer->panels + p * blocks, some + r * blocks, out, last - r, blocks,
                            layer->outputs, add);
                else
                    q8_tile((const q8_panel *)layer->panels + p * blocks, some + r * blocks, out, last - r, blocks,
                            layer->outputs, add);
            }
    }
}

static long activations(const linear *layer, long rows) { return rows * (layer->columns / BLOCK); }
