// Attention of one new token per sequence over a paged or contiguous KV cache in fp32. attention.py holds the
// specification. Sequences may share blocks: draft tokens of one request are sequences of growing length over its
// table, and everything new is stored before anything attends. A thread computes all heads of a sequence together: it reads each key and value once, in the order in
// which a paged cache has them in memory (one head at a time would skip through it). Where there are fewer sequences
// than threads it takes one key head instead.

#include <math.h>
#include <omp.h>
#include <string.h>

#include "vector.h"

typedef struct {  // one decode pass; Python fills it once and every layer uses it. Strides count floats.
    float *keys, *values;      // of layer 0; layer l begins l * layer_stride later
    const int64_t *blocks;     // [sequences, max_blocks]: token t lies in blocks[t / block_size]
    const int64_t *lengths;    // [sequences], the new token included
    long sequences, max_blocks, longest;
    long kv_heads, group, size;  // query heads = kv_heads * group; head dimension, a multiple of 16
    long block_size, layer_stride, block_stride, token_stride, head_stride;
    float scale;
} decode_pass;

#define GROUP 4   // query heads of a key head that are computed at a time
#define CHUNK 16  // tokens whose values stay in the L1 cache while all heads and coordinates are summed

INLINE long padded(long length) { return (length + 7) / 8 * 8; }

// Floats of scratch that one thread needs for the scores of a sequence.
static long score_floats(const decode_pass *p) { return p->kv_heads * p->group * padded(p->longest); }

INLINE long place(const decode_pass *p, long sequence, long token) {
    long block = p->blocks[sequence * p->max_blocks + token / p->block_size];
    return block * p->block_stride + token % p->block_size * p->token_stride;
}

// `token` will be read soon. The hardware cannot foresee where: its block lies anywhere.
INLINE void prefetch(const decode_pass *p, long sequence, long heads, const float *cache, long token) {
    if (token >= p->lengths[sequence]) return;
    const float *first = cache + place(p, sequence, token);
    for (long head = 0; head < heads; head++)
        for (long i = 0; i < p->size; i += 16)
            _mm_prefetch((const char *)(first + head * p->head_stride + i), _MM_HINT_T0);
}

// scores[g] = scale * q[g] · key, for `count` query heads; the next one's score is `stride` further
INLINE void dot(const float *key, const float *q, int count, long size, float scale, float *scores, long stride) {
    __m256 sums[GROUP] = {0};
    for (long i = 0; i < size; i += 8) {
        __m256 k = _mm256_loadu_ps(key + i);
#pragma GCC unroll 4
        for (int g = 0; g < count; g++) sums[g] += _mm256_loadu_ps(q + g * size + i) * k;
    }
#pragma GCC unroll 4
    for (int g = 0; g < count; g++) scores[g * stride] = scale * sum8(sums[g]);
}

// scores[head][g][t] = scale * q[head][g] · key[t][head], for `heads` key heads; a row of scores is `stride` long
static void score(const decode_pass *p, long sequence, long heads, const float *keys, const float *q, float *scores,
                  long stride) {
    for (long t = 0; t < p->lengths[sequence]; t++) {
        const float *key = keys + place(p, sequence, t);
        prefetch(p, sequence, heads, keys, t + CHUNK / 2);
        for (long head = 0; head < heads; head++, key += p->head_stride)
            for (long g = 0; g < p->group; g += GROUP) {
                long row = head * p->group + g;
                const float *queries = q + row * p->size;
                float *some = scores + row * stride + t;
                WITH_COUNT(p->group - g, dot(key, queries, count, p->size, p->scale, some, stride))
            }
    }
}

// Scores to weights that sum to 1, in place; entries from `length` to the next multiple of 8 become 0.
static void softmax(float *scores, long length) {
    float largest = -INFINITY;
    for (long t = 0; t < length; t++) largest = scores[t] > largest || isnan(scores[t]) ? scores[t] : largest;
    __m256 sums = _mm256_setzero_ps();
    for (long t = length; t % 8; t++) scores[t] = -INFINITY;
    for (long t = 0; t < length; t += 8) {
        __m256 e = exp8(_mm256_loadu_ps(scores + t) - largest);
        _mm256_storeu_ps(scores + t, e);
        sums += e;
    }
    float total = sum8(sums);
    for (long t = 0; t < length; t++) scores[t] /= total;
}

// out[g] += sum over a chunk of weights[g][t] * value[t], for `count` heads, 16 coordinates at a time
INLINE void weigh_chunk(const float *const *value, long tokens, const float *weights, long stride, int count, long size,
                        float *out) {
    for (long i = 0; i < size; i += 16) {
        __m256 sums[GROUP][2];
#pragma GCC unroll 4
        for (int g = 0; g < count; g++)
            sums[g][0] = _mm256_loadu_ps(out + g * size + i), sums[g][1] = _mm256_loadu_ps(out + g * size + i + 8);
        for (long t = 0; t < tokens; t++) {
            __m256 low = _mm256_loadu_ps(value[t] + i), high = _mm256_loadu_ps(value[t] + i + 8);
#pragma GCC unroll 4
            for (int g = 0; g < count; g++) {
                sums[g][0] += low * weights[g * stride + t];
                sums[g][1] += high * weights[g * stride + t];
            }
        }
#pragma GCC unroll 4
        for (int g = 0; g < count; g++) {
            _mm256_storeu_ps(out + g * size + i, sums[g][0]);
            _mm256_storeu_ps(out + g * size + i + 8, sums[g][1]);
        }
    }
}

// out[head][g] = sum over t of weights[head][g][t] * value[t][head]
static void weigh(const decode_pass *p, long sequence, long heads, const float *values, const float *weights,
                  long stride, float *out) {
    memset(out, 0, heads * p->group * p->size * sizeof *out);
    for (long first = 0, length = p->lengths[sequence]; first < length; first += CHUNK) {
        long tokens = length - first < CHUNK ? length - first : CHUNK;
        const float *value[CHUNK];
        for (long t = 0; t < tokens; t++) {
            value[t] = values + place(p, sequence, first + t);
            prefetch(p, sequence, heads, values, first + t + CHUNK);
        }
        for (long head = 0; head < heads; head++) {
            for (long g = 0; g < p->group; g += GROUP) {
                long row = head * p->group + g;
                const float *some = weights + row * stride + first;
                float *result = out + row * p->size;
                WITH_COUNT(p->group - g, weigh_chunk(value, tokens, some, stride, count, p->size, result))
            }
            for (long t = 0; t < tokens; t++) value[t] += p->head_stride;
        }
    }
}

// By all threads of the team that calls it: store the newest key and value of every sequence in layer `layer`, then
// attend to all of its tokens. q, out: [sequences, kv_heads * group, size], q's rows q_stride floats apart; k, v:
// [sequences, kv_heads, size], rows kv_stride apart; scores: score_floats() a thread.
static void attend_by_team(const decode_pass *p, long layer, const float *q, const float *k, const float *v,
                           long q_stride, long kv_stride, float *out, float *scores) {
    float *keys = p->keys + layer * p->layer_stride, *values = p->values + layer * p->layer_stride;
    long heads = p->sequences < omp_get_num_threads() ? 1 : p->kv_heads, parts = p->kv_heads / heads;
    scores += omp_get_thread_num() * score_floats(p);
#pragma omp for schedule(static)
    for (long i = 0; i < p->sequences; i++) {
        long newest = place(p, i, p->lengths[i] - 1);
        for (long head = 0; head < p->kv_heads; head++) {
            long stored = newest + head * p->head_stride, given = i * kv_stride + head * p->size;
            memcpy(keys + stored, k + given, p->size * sizeof *k);
            memcpy(values + stored, v + given, p->size * sizeof *v);
        }
    }
#pragma omp for schedule(dynamic)
    for (long work = 0; work < p->sequences * parts; work++) {
        long i = work / parts, head = work % parts, length = p->lengths[i], stride = padded(length);
        long rows = heads * p->group;
        float *my_keys = keys + head * p->head_stride, *my_values = values + head * p->head_stride;
        score(p, i, heads, my_keys, q + i * q_stride + head * p->group * p->size, scores, stride);
        for (long row = 0; row < rows; row++) softmax(scores + row * stride, length);
        weigh(p, i, heads, my_values, scores, stride, out + work * rows * p->size);
    }
}
