// Matrices that are not ternary: rows of an embedding, and products of the output head. A product is a dot in
// sixteen lanes, column mod 16, and a tree by halves.
//
// F32, F16 and BF16 rows lie as in files. The parts of Q8_0 and Q6_K blocks lie in planes of their own, so
// that they are aligned: codes and f16 scales; low nibbles, high bit pairs, int8 scales and f16 scales.
#include "numbers.cuh"

struct Matrix {
    const u8 *planes[4];
    const float *x;  // [tokens, cols]
    const u32 *ids;  // of the rows of an embedding, [tokens]
    float *y;        // [tokens, rows]; of an embedding, [tokens, cols]
    int tokens, rows, cols;
};
static_assert(sizeof(Matrix) == 72);

/// A format gives columns c..c + 4 of a row, c a multiple of 4; zeros past the last one.
struct F32 {
    static __device__ __forceinline__ void load4(const Matrix &p, int row, int c, float (&w)[4]) {
        const float *at = reinterpret_cast<const float *>(p.planes[0]) + (u64)row * p.cols + c;
        if (p.cols % 4 == 0) {
            const float4 v = *reinterpret_cast<const float4 *>(at);
            w[0] = v.x, w[1] = v.y, w[2] = v.z, w[3] = v.w;
        } else {
            for (int i = 0; i < 4; ++i) w[i] = c + i < p.cols ? at[i] : 0.0f;
        }
    }
};

/// Four 16-bit numbers.
__device__ __forceinline__ void load_u16(const Matrix &p, int row, int c, u16 (&h)[4]) {
    const u16 *at = reinterpret_cast<const u16 *>(p.planes[0]) + (u64)row * p.cols + c;
    if (p.cols % 4 == 0) {
        const uint2 v = *reinterpret_cast<const uint2 *>(at);
        h[0] = u16(v.x & 0xffffu), h[1] = u16(v.x >> 16), h[2] = u16(v.y & 0xffffu), h[3] = u16(v.y >> 16);
    } else {
        for (int i = 0; i < 4; ++i) h[i] = c + i < p.cols ? at[i] : u16(0);
    }
}

struct F16 {
    static __device__ __forceinline__ void load4(const Matrix &p, int row, int c, float (&w)[4]) {
        u16 h[4];
        load_u16(p, row, c, h);
        for (int i = 0; i < 4; ++i) w[i] = f16_to_f32(h[i]);
    }
};

struct Bf16 {
    static __device__ __forceinline__ void load4(const Matrix &p, int row, int c, float (&w)[4]) {
        u16 h[4];
        load_u16(p, row, c, h);
        for (int i = 0; i < 4; ++i) w[i] = __uint_as_float(u32(h[i]) << 16);
    }
};

struct Q8_0 {
    static __device__ __forceinline__ void load4(const Matrix &p, int row, int c, float (&w)[4]) {
        const u64 at = (u64)row * p.cols + c;
        const u32 codes = *reinterpret_cast<const u32 *>(p.planes[0] + at);
        const float scale = f16_to_f32(reinterpret_cast<const u16 *>(p.planes[1])[at / 32]);
        for (int i = 0; i < 4; ++i) w[i] = float(i8(codes >> 8 * i & 255u)) * scale;
    }
};

struct Q6K {
    static __device__ __forceinline__ void load4(const Matrix &p, int row, int c, float (&w)[4]) {
        // A half block is 64 bytes of nibbles and 32 of bit pairs for 4 × 32 weights.
        const u64 at = (u64)row * p.cols + c, half = at / 128;
        const u32 quarter = c % 128 / 32, l = c % 32;
        const u32 low = *reinterpret_cast<const u32 *>(p.planes[0] + half * 64 + quarter % 2 * 32 + l) >> quarter / 2 * 4;
        const u32 high = *reinterpret_cast<const u32 *>(p.planes[1] + half * 32 + l) >> quarter * 2;
        const float d = f16_to_f32(reinterpret_cast<const u16 *>(p.planes[3])[at / 256]);
        const float scale = float(i8(p.planes[2][at / 16])) * d;
        for (int i = 0; i < 4; ++i) {
            const int code = int(low >> 8 * i & 15u) | int(high >> 8 * i & 3u) << 4;
            w[i] = float(code - 32) * scale;
        }
    }
};

/// y = x · Wᵀ for M tokens at once; 256 threads, four of them a row.
template <class Format, int M> __device__ __forceinline__ void products(const Matrix &p) {
    const int t = threadIdx.x % 4, row = blockIdx.x * 64 + threadIdx.x / 4, token0 = blockIdx.y * M;
    const int stored = min(row, p.rows - 1);
    float acc[M][4] = {};
#pragma unroll 4
    for (int c = 4 * t; c < p.cols; c += 16) {
        float w[4];
        Format::load4(p, stored, c, w);
#pragma unroll
        for (int m = 0; m < M; ++m) {
            const float *x = p.x + (u64)min(token0 + m, p.tokens - 1) * p.cols + c;
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if (c + i < p.cols) acc[m][i] = __fmaf_rn(w[i], x[i], acc[m][i]);
            }
        }
    }
#pragma unroll
    for (int m = 0; m < M; ++m) {
        // Lanes 4t..4t + 4 of the sixteen: those 8 and 4 further are threads t ^ 2 and t ^ 1.
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            acc[m][i] = acc[m][i] + __shfl_xor_sync(ALL_LANES, acc[m][i], 2);
            acc[m][i] = acc[m][i] + __shfl_xor_sync(ALL_LANES, acc[m][i], 1);
        }
        const float sum = (acc[m][0] + acc[m][2]) + (acc[m][1] + acc[m][3]);
        if (t == 0 && row < p.rows && token0 + m < p.tokens) p.y[(u64)(token0 + m) * p.rows + row] = sum;
    }
}

/// The rows of `ids`, a block each.
template <class Format> __device__ __forceinline__ void rows(const Matrix &p) {
    for (int c = 4 * threadIdx.x; c < p.cols; c += 4 * blockDim.x) {
        float w[4];
        Format::load4(p, p.ids[blockIdx.x], c, w);
        for (int i = 0; i < 4 && c + i < p.cols; ++i) p.y[(u64)blockIdx.x * p.cols + c + i] = w[i];
    }
}

#define FORMAT(name, Format)                                                                     \
    extern "C" __global__ void __launch_bounds__(256) dense_##name##_1(Matrix p) { products<Format, 1>(p); } \
    extern "C" __global__ void __launch_bounds__(256) dense_##name##_4(Matrix p) { products<Format, 4>(p); } \
    extern "C" __global__ void __launch_bounds__(256) embed_##name(Matrix p) { rows<Format>(p); }            \
    KERNEL(dense_##name##_1)                                                                     \
    KERNEL(dense_##name##_4)                                                                     \
    KERNEL(embed_##name)

FORMAT(f32, F32)
FORMAT(f16, F16)
FORMAT(bf16, Bf16)
FORMAT(q8_0, Q8_0)
FORMAT(q6_k, Q6K)
