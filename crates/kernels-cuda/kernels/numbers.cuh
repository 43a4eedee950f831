// Arithmetic of single numbers and the order of sums, as crates/kernels has them.
//
// Compiled without contraction: a multiply-add is fused where `__fmaf_rn` says so, and nowhere else.
#pragma once
#include "portable.cuh"

/// An f16 as f32, exactly.
__device__ __forceinline__ float f16_to_f32(u16 bits) {
    const u32 wide = u32(bits) << 16, magnitude = (wide & 0x7fff0000u) >> 3;
    // The product with 2^112 also makes subnormal f16 numbers normal.
    const u32 finite = __float_as_uint(__uint_as_float(magnitude) * __uint_as_float(0x77800000u));
    const u32 number = magnitude >= 0x0f800000u ? magnitude | 0x7f800000u : finite;
    return __uint_as_float((wide & 0x80000000u) | number);
}

/// The nearest f16, half to even.
__device__ __forceinline__ u16 f32_to_f16(float x) {
    const u32 bits = __float_as_uint(x), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return u16(sign | 0x7e00u | (magnitude >> 13 & 0x3ffu));
    if (magnitude >= 0x47800000u) return u16(sign | 0x7c00u);
    // Below 2^-14: a unit in the last place of 0.5 is the smallest f16, so the addition rounds.
    if (magnitude < 0x38800000u) {
        return u16(sign | (__float_as_uint(__uint_as_float(magnitude) + 0.5f) - 0x3f000000u));
    }
    return u16(sign | (magnitude + 0xfffu + (magnitude >> 13 & 1u) - 0x38000000u) >> 13);
}

/// e^x with the fused multiply-adds of exp.rs.
__device__ __forceinline__ float exp_f32(float x) {
    const float ROUND = 12582912.0f; // 1.5 · 2^23
    const float clamped = x < -150.0f ? -150.0f : x > 150.0f ? 150.0f : x; // keeps NaN
    const float shifted = clamped * 1.44269504088896340736f + ROUND;
    const float n = shifted - ROUND;
    float r = __fmaf_rn(n, -355.0f / 512.0f, clamped);
    r = __fmaf_rn(n, 2.1219444e-4f, r);
    float p = 1.0f / 5040.0f;
    p = __fmaf_rn(r, p, 1.0f / 720.0f);
    p = __fmaf_rn(r, p, 1.0f / 120.0f);
    p = __fmaf_rn(r, p, 1.0f / 24.0f);
    p = __fmaf_rn(r, p, 1.0f / 6.0f);
    p = __fmaf_rn(r, p, 0.5f);
    p = __fmaf_rn(r * r, p, r) + 1.0f;
    // Unsigned: if x is NaN the integer is anything, and the result is NaN because p is.
    const int whole = int(__float_as_uint(shifted) - __float_as_uint(ROUND)), half = whole >> 1;
    return p * __uint_as_float(u32(half + 127) << 23) * __uint_as_float(u32(whole - half + 127) << 23);
}

/// The larger number; NaN if b is NaN, and then for good.
__device__ __forceinline__ float larger(float a, float b) { return b > a || b != b ? b : a; }

/// The largest number of a warp.
__device__ __forceinline__ float warp_max(float v) {
    for (int bits = 16; bits; bits >>= 1) v = larger(v, __shfl_xor_sync(ALL_LANES, v, bits));
    return v;
}

/// The sum of sixteen numbers by halves: 8 + 8, 4 + 4, 2 + 2, 1 + 1.
__device__ __forceinline__ float sum16(const float (&a)[16]) {
    float b[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) b[i] = a[i] + a[i + 8];
    return ((b[0] + b[4]) + (b[2] + b[6])) + ((b[1] + b[5]) + (b[3] + b[7]));
}

/// The same of lanes 0..16 of a warp, whose lanes 16..32 hold the same numbers again.
__device__ __forceinline__ float sum16_of_lanes(float v) {
    for (int bits = 8; bits; bits >>= 1) v = v + __shfl_xor_sync(ALL_LANES, v, bits);
    return v;
}

__device__ __forceinline__ float infinity() { return __uint_as_float(0x7f800000u); }
