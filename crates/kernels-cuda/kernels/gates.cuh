// The gates of the feed-forward network, with the arithmetic of crates/kernels/src/glu.rs.
#pragma once
#include "numbers.cuh"

/// The activation of a gate, by its number in src/rows.rs.
enum Act { SILU, RELU2, RELU, GELU, GELU_TANH };

/// max(x, 0) that keeps NaN.
__device__ __forceinline__ float relu(float x) { return x < 0.0f ? 0.0f : x; }

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + exp_f32(-x)); }

/// The distribution of a Gaussian: Abramowitz and Stegun, 7.1.26.
__device__ __forceinline__ float normal(float x) {
    const float P = 0.3275911f * 0.70710678118654752440f;
    const float t = 1.0f / __fmaf_rn(fabsf(x), P, 1.0f);
    float sum = 1.0614054f;
    sum = __fmaf_rn(t, sum, -1.453152f);
    sum = __fmaf_rn(t, sum, 1.4214137f);
    sum = __fmaf_rn(t, sum, -0.28449674f);
    sum = __fmaf_rn(t, sum, 0.2548296f);
    const float tail = 0.5f * (sum * t) * exp_f32(-0.5f * x * x);
    return x < 0.0f ? tail : 1.0f - tail;
}

/// sigmoid(2z) of GELU's approximation by tanh.
__device__ __forceinline__ float by_tanh(float x) {
    const float clamped = x < -100.0f ? -100.0f : x > 100.0f ? 100.0f : x; // keeps NaN
    const float square = clamped * clamped;
    return sigmoid(1.595769f * clamped * __fmaf_rn(square, 0.044715f, 1.0f));
}

/// act(gate) · up.
__device__ __forceinline__ float gated(int act, float gate, float up) {
    switch (act) {
    case SILU: return gate * sigmoid(gate) * up;
    case RELU2: return relu(gate) * relu(gate) * up;
    case RELU: return relu(gate) * up;
    case GELU: return gate * normal(gate) * up;
    default: return gate * by_tanh(gate) * up;
    }
}
