// Attention of one new token per sequence over a paged or contiguous KV cache in fp32. attention.py holds the
// specification. The query heads that share a key head are computed together, so each key is read from memory once.

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

#define GROUP 4  // query heads whose weighted values are summed at a time

INLINE long padded(long length) { return (length + 7) / 8 * 8; }

// Floats of scratch that one thread needs for the scores of a key head's query heads.
static long score_floats(const decode_pass *p) { return p->group * padded(p->longest); }

INLINE long place(const decode_pass *p, long sequence, long token) {
    long block = p->blocks[sequence * p->max_blocks + token / p->block_size];
    return block * p->block_stride + token % p->block_size * p->token_stride;
}

// scores[g][t] = scale * q[g] · key[t]
static void score(const decode_pass *p, long sequence, const float *keys, const float *q, float *scores, long stride) {
    for (long t = 0; t < p->lengths[sequence]; t++) {
        const float *key = keys + place(p, sequence, t);
        for (long g = 0; g < p->group; g++) {
            __m256 even = _mm256_setzero_ps(), odd = even;
            for (long i = 0; i < p->size; i += 16) {
                even += _mm256_loadu_ps(q + g * p->size + i) * _mm256_loadu_ps(key + i);
                odd += _mm256_loadu_ps(q + g * p->size + i + 8) * _mm256_loadu_ps(key + i + 8);
            }
            scores[g * stride + t] = p->scale * sum8(even + odd);
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

// out[g] = sum over t of weights[g][t] * value[t], for `count` heads, 16 coordinates at a time
INLINE void weigh(const decode_pass *p, long sequence, const float *values, const float *weights, long stride, int count,
                  float *out) {
    for (long i = 0; i < p->size; i += 16) {
        __m256 sums[GROUP][2] = {0};
        for (long t = 0; t < p->lengths[sequence]; t++) {
            const float *value = values + place(p, sequence, t) + i;
            __m256 low = _mm256_loadu_ps(value), high = _mm256_loadu_ps(value + 8);
#pragma GCC unroll 4
            for (int g = 0; g < count; g++) {
                sums[g][0] += low * weights[g * stride + t];
                sums[g][1] += high * weights[g * stride + t];
            }
        }
        for (int g = 0; g < count; g++) {
            _mm256_storeu_ps(out + g * p->size + i, sums[g][0]);
            _mm256_storeu_ps(out + g * p->size + i + 8, sums[g][1]);
        }
    }
}

// By all threads of the team that calls it: store the newest key and value of every sequence in layer `layer`, then attend
// to all of its tokens. q, out: [sequences, kv_heads * group, size], q's rows q_stride floats apart; k, v: [sequences,
// kv_heads, size], rows kv_stride apart; scores: score_floats() a thread.
static void attend_by_team(const decode_pass *p, long layer, const float *q, const float *k, const float *v,
                           long q_stride, long kv_stride, float *out, float *scores) {
    float *keys = p->keys + layer * p->layer_stride, *values = p->values + layer * p->layer_stride;
    scores += omp_get_thread_num() * score_floats(p);
#pragma omp for schedule(dynamic)
    for (long work = 0; work < p->sequences * p->kv_heads; work++) {
        long i = work / p->kv_heads, head = work % p->kv_heads, length = p->lengths[i], stride = padded(length);
        float *my_keys = keys + head * p->head_stride, *my_values = values + head * p->head_stride;
        float *result = out + work * p->group * p->size;
        memcpy(my_keys + place(p, i, length - 1), k + i * kv_stride + head * p->size, p->size * sizeof *k);
        memcpy(my_values + place(p, i, length - 1), v + i * kv_stride + head * p->size, p->size * sizeof *v);
        score(p, i, my_keys, q + i * q_stride + head * p->group * p->size, scores, stride);
        for (long g = 0; g < p->group; g++) softmax(scores + g * stride, length);
        for (long g = 0; g < p->group; g += GROUP) {
            const float *weights = scores + g * stride;
            switch (p->group - g) {
                case 1: weigh(p, i, my_values, weights, stride, 1, result + g * p->size); break;
                case 2: weigh(p, i, my_values, weights, stride, 2, result + g * p->size); break;
                case 3: weigh(p, i, my_values, weights, stride, 3, result + g * p->size); break;
                default: weigh(p, i, my_values, weights, stride, 4, result + g * p->size);
            }
        }
    }
}
