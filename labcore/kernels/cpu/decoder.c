// A decoder layer on a CPU: one product, the two halves around attention, attention of a decode pass, and a whole decode
// step through all layers. decoder.py calls these. Each returns 0, or 1 without memory.
//
// All work of a call happens in one team of threads; the stages are loops that the team shares, with a barrier after each.

#include <stdlib.h>

#include "attention.h"
#include "linear.h"

typedef struct {
    linear qkv, output, gate_up, down;
} decoder_layer;

// Activations that the widest product of a layer needs.
static long layer_activations(const decoder_layer *layer, long rows) {
    const linear *all[] = {&layer->qkv, &layer->output, &layer->gate_up, &layer->down};
    long most = 0;
    for (int i = 0; i < 4; i++) most = activations(all[i], rows) > most ? activations(all[i], rows) : most;
    return most;
}

// y [rows, outputs] = f(x) Wᵀ
int block_linear(const linear *layer, const float *x, float *y, long rows, int threads) {
    activation *some = malloc(activations(layer, rows) * sizeof *some);
    if (!some) return 1;
#pragma omp parallel num_threads(threads)
    linear_by_team(layer, x, y, rows, 0, some);
    free(some);
    return 0;
}

// Turn the pair (i, i + size/2) of the first `turned` heads of every row by its angle; cosine, sine: [rows, size/2].
static void rotate_by_team(float *heads, long stride, const float *cosine, const float *sine, long rows, long turned,
                           long size) {
#pragma omp for schedule(static)
    for (long r = 0; r < rows; r++)
        for (long h = 0; h < turned; h++) {
            float *a = heads + r * stride + h * size, *b = a + size / 2;
            const float *c = cosine + r * size / 2, *s = sine + r * size / 2;
            for (long i = 0; i < size / 2; i++) {
                float first = a[i], second = b[i];
                a[i] = first * c[i] - second * s[i];
                b[i] = second * c[i] + first * s[i];
            }
        }
}

// heads [rows, heads, size] = qkv(norm(x)), the first `turned` of each row rotated
int before_attention(const decoder_layer *layer, const float *x, const float *cosine, const float *sine, float *heads,
                     long rows, long turned, long size, int threads) {
    activation *some = malloc(activations(&layer->qkv, rows) * sizeof *some);
    if (!some) return 1;
#pragma omp parallel num_threads(threads)
    {
        linear_by_team(&layer->qkv, x, heads, rows, 0, some);
        rotate_by_team(heads, layer->qkv.outputs, cosine, sine, rows, turned, size);
    }
    free(some);
    return 0;
}

// x += output(attended), then x += down(swiglu(gate_up(norm(x)))).
static void after_attention_by_team(const decoder_layer *layer, const float *attended, float *x, float *middle, long rows,
                                    activation *some) {
    linear_by_team(&layer->output, attended, x, rows, 1, some);
    linear_by_team(&layer->gate_up, x, middle, rows, 0, some);
    linear_by_team(&layer->down, middle, x, rows, 1, some);
}

int after_attention(const decoder_layer *layer, const float *attended, float *x, long rows, int threads) {
    activation *some = malloc(layer_activations(layer, rows) * sizeof *some);
    float *middle = malloc(rows * layer->gate_up.outputs * sizeof *middle);
    if (!some || !middle) return free(some), free(middle), 1;
#pragma omp parallel num_threads(threads)
    after_attention_by_team(layer, attended, x, middle, rows, some);
    free(some), free(middle);
    return 0;
}

// Attention of a decode pass on its own; see attend_by_team.
int decode_attention(const decode_pass *pass, long layer, const float *q, const float *k, const float *v, long q_stride,
                     long kv_stride, float *out, int threads) {
    float *scores = malloc(threads * score_floats(pass) * sizeof *scores);
    if (!scores) return 1;
#pragma omp parallel num_threads(threads)
    attend_by_team(pass, layer, q, k, v, q_stride, kv_stride, out, scores);
    free(scores);
    return 0;
}

// One new token per sequence through `count` layers, of which the first is layer `first` of the cache; x [sequences,
// hidden] in place; cosine, sine: [sequences, size/2].
int decode_step(const decoder_layer *layers, long count, long first, const decode_pass *pass, const float *cosine,
                const float *sine, float *x, int threads) {
    long rows = pass->sequences, width = layers->qkv.outputs, queries = pass->kv_heads * pass->group * pass->size;
    long keys = pass->kv_heads * pass->size;
    activation *some = malloc(layer_activations(layers, rows) * sizeof *some);
    float *middle = malloc(rows * layers->gate_up.outputs * sizeof *middle);
    float *heads = malloc(rows * width * sizeof *heads), *attended = malloc(rows * queries * sizeof *attended);
    float *scores = malloc(threads * score_floats(pass) * sizeof *scores);
    int failed = !some || !middle || !heads || !attended || !scores;
#pragma omp parallel num_threads(threads) if (!failed)
    for (long l = 0; l < count && !failed; l++) {
        linear_by_team(&layers[l].qkv, x, heads, rows, 0, some);
        rotate_by_team(heads, width, cosine, sine, rows, pass->kv_heads * (pass->group + 1), pass->size);
        attend_by_team(pass, first + l, heads, heads + queries, heads + queries + keys, width, width, attended, scores);
        after_attention_by_team(&layers[l], attended, x, middle, rows, some);
    }
    free(some), free(middle), free(heads), free(attended), free(scores);
    return failed;
}
