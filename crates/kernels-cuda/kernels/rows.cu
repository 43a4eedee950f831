// What stands between products, a row a block: norms, gates, rotation, quantization, RoPE, additions.
#include "gates.cuh"

/// A row is made (copied, or `act(x) · up`), normed, rotated, and quantized; each of the three last if it is wanted.
struct Rows {
    const float *x, *up;  // [rows, width]
    const float *weight;  // of the norm, [width]; null where there is none
    float *values;        // the numbers before they are quantized, [rows, width]; null: in shared memory only
    i8 *codes;            // [rows, stride], zero after the last column; null: no quantization
    float *scales;        // [rows]
    int *sums;            // [rows]
    float eps;
    int width, stride;
    int act;              // of the gate
    int rotated;          // consecutive numbers that are rotated together, a power of two up to 256; 1: none
    float largest;        // the code of the largest magnitude
    int kept;             // codes of a row that are kept, those of largest magnitude; 0: all
};
static_assert(sizeof(Rows) == 88);

constexpr int ROW_THREADS = 256, ROW_WARPS = ROW_THREADS / 32;

/// Rotates blocks of n numbers of a row as crates/kernels/src/hadamard.rs does. A warp has 256 numbers at a time, a lane
/// those 32 apart: partners nearer than that are in other lanes, those farther in the same.
__device__ __forceinline__ void rotate(float *row, int width, int n) {
    const int lane = threadIdx.x % 32;
    const float factor = 1.0f / sqrtf(float(n));
    for (int first = threadIdx.x / 32 * 256; first < width; first += ROW_WARPS * 256) {
        float x[8];
#pragma unroll
        for (int i = 0; i < 8; ++i) x[i] = first + 32 * i + lane < width ? row[first + 32 * i + lane] : 0.0f;
#pragma unroll
        for (int half = 1; half < 32; half *= 2) {
            if (half >= n) break;
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                const float other = __shfl_xor_sync(ALL_LANES, x[i], half);
                x[i] = lane & half ? other - x[i] : x[i] + other;
            }
        }
#pragma unroll
        for (int half = 1; half < 8; half *= 2) {
            if (32 * half >= n) break;
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                if (i & half) continue;
                const float a = x[i], b = x[i + half];
                x[i] = a + b;
                x[i + half] = a - b;
            }
        }
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            if (first + 32 * i + lane < width) row[first + 32 * i + lane] = x[i] * factor;
        }
    }
}

/// The sum of a number of every thread, in every thread. `of_warps` is free until the next call.
__device__ __forceinline__ int sum_of_block(int number, int *of_warps) {
    number = __reduce_add_sync(ALL_LANES, number);
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = number;
    __syncthreads();
    number = __reduce_add_sync(ALL_LANES, threadIdx.x % 32 < ROW_WARPS ? of_warps[threadIdx.x % 32] : 0);
    __syncthreads();
    return number;
}

/// Which numbers of a row keep their codes: those of larger magnitude than `least`, and those of that magnitude before `end`.
struct Kept { u32 least; int end; };

__device__ __forceinline__ u32 magnitude(float x) { return __float_as_uint(x) & 0x7fffffffu; }

/// The `kept` numbers of largest magnitude, of equals the first. Both bounds are found bit by bit.
__device__ __forceinline__ Kept largest_of_row(const float *row, int width, int kept, int *of_warps) {
    u32 least = 0;
    for (int bit = 30; bit >= 0; --bit) {
        int count = 0;
        for (int i = threadIdx.x; i < width; i += ROW_THREADS) count += magnitude(row[i]) >= (least | 1u << bit);
        if (sum_of_block(count, of_warps) >= kept) least |= 1u << bit;
    }
    int above = 0;
    for (int i = threadIdx.x; i < width; i += ROW_THREADS) above += magnitude(row[i]) > least;
    const int equals = kept - sum_of_block(above, of_warps); // at least one
    // The largest place with fewer equals before it: all up to it are kept.
    int last = 0;
    for (int bit = 30; bit >= 0; --bit) {
        if ((last | 1 << bit) >= width) continue;
        int count = 0;
        for (int i = threadIdx.x; i < width; i += ROW_THREADS) count += i < (last | 1 << bit) && magnitude(row[i]) == least;
        if (sum_of_block(count, of_warps) < equals) last |= 1 << bit;
    }
    return {least, last + 1};
}

template <bool GATED> __device__ __forceinline__ void make_row(const Rows &p) {
    SHARED_MEMORY(memory);
    float *lanes = reinterpret_cast<float *>(memory);      // [64]
    u32 *of_warps = reinterpret_cast<u32 *>(lanes + 64);   // [2, ROW_WARPS]
    const u64 first = (u64)blockIdx.x * p.width;
    // Row of the block: in shared memory, unless the numbers are wanted or the row is too wide.
    float *row = p.values ? p.values + first : lanes + 64 + 2 * ROW_WARPS;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int i = threadIdx.x; i < p.width; i += ROW_THREADS) {
        row[i] = GATED ? gated(p.act, p.x[first + i], p.up[first + i]) : p.x[first + i];
    }
    if (p.weight) {
        __syncthreads();
        // 64 chains, then a tree by halves.
        if (threadIdx.x < 64) {
            float sum = 0;
#pragma unroll 8
            for (int i = threadIdx.x; i < p.width; i += 64) sum = __fmaf_rn(row[i], row[i], sum);
            lanes[threadIdx.x] = sum;
        }
        __syncthreads();
        float sum = lanes[lane] + lanes[lane + 32];
        for (int bits = 16; bits; bits >>= 1) sum = sum + __shfl_xor_sync(ALL_LANES, sum, bits);
        const float inverse = 1.0f / sqrtf(sum / float(p.width) + p.eps);
        for (int i = threadIdx.x; i < p.width; i += ROW_THREADS) row[i] = row[i] * inverse * p.weight[i];
    }
    if (p.rotated > 1) {
        __syncthreads();
        rotate(row, p.width, p.rotated);
        if (p.codes) __syncthreads();
    }
    if (!p.codes) return;
    // From here on a thread reads what it wrote, or all wrote before the barrier. Magnitudes are ordered as their bits are.
    u32 largest = 0;
    for (int i = threadIdx.x; i < p.width; i += ROW_THREADS) {
        largest = max(largest, magnitude(row[i]));
    }
    largest = __reduce_max_sync(ALL_LANES, largest);
    if (lane == 0) of_warps[warp] = largest;
    __syncthreads();
    largest = __reduce_max_sync(ALL_LANES, of_warps[lane % ROW_WARPS]);
    const bool finite = largest < 0x7f800000u;
    const float a = fmaxf(__uint_as_float(largest), 1e-5f), factor = p.largest / a;
    i8 *codes = p.codes + (u64)blockIdx.x * p.stride;
    Kept kept = {0, p.width}; // all
    // All threads have the same answer to both.
    if (p.kept && finite) kept = largest_of_row(row, p.width, p.kept, reinterpret_cast<int *>(of_warps) + ROW_WARPS);
    int sum = 0;
    for (int i = threadIdx.x; i < p.stride; i += ROW_THREADS) {
        // Adding 1.5 · 2^23 rounds half to even to an integer, which the low bits then hold.
        const float x = i < p.width && finite ? row[i] : 0.0f;
        const bool counts = magnitude(x) > kept.least || (magnitude(x) == kept.least && i < kept.end);
        const int code = counts ? int(i8(__float_as_uint(x * factor + 12582912.0f) & 255u)) : 0;
        codes[i] = i8(code);
        sum += code;
    }
    sum = __reduce_add_sync(ALL_LANES, sum);
    if (lane == 0) of_warps[ROW_WARPS + warp] = u32(sum);
    __syncthreads();
    if (threadIdx.x == 0) {
        int total = 0;
        for (int i = 0; i < ROW_WARPS; ++i) total += int(of_warps[ROW_WARPS + i]);
        p.sums[blockIdx.x] = total;
        p.scales[blockIdx.x] = finite ? a / p.largest : __uint_as_float(0x7fc00000u);
    }
}

/// Rotates pairs of elements i and i + half of every head, in place.
struct Rope {
    float *x;               // [tokens, heads, 2 half]
    const float *cos, *sin; // [positions, half]
    const u32 *positions;   // [tokens]
    int heads, half;
};
static_assert(sizeof(Rope) == 40);

/// out = a + b.
struct Addition {
    const float *a, *b;
    float *out;
    u64 count;
    int width; // of b, which is added to every row; 0 if it is as long as a
};
static_assert(sizeof(Addition) == 40);

/// x *= factor.
struct Scaling {
    float *x;
    u64 count;
    float factor;
};
static_assert(sizeof(Scaling) == 24);

extern "C" {
__global__ void __launch_bounds__(256, 4) norm_quantize(Rows p) { make_row<false>(p); }
__global__ void __launch_bounds__(256, 4) gate_norm_quantize(Rows p) { make_row<true>(p); }

__global__ void __launch_bounds__(256) rope(Rope p) {
    const u64 table = (u64)p.positions[blockIdx.x] * p.half;
    float *row = p.x + (u64)blockIdx.x * p.heads * 2 * p.half;
    for (int n = threadIdx.x; n < p.heads * p.half; n += blockDim.x) {
        const int i = n % p.half;
        float *a = row + n / p.half * 2 * p.half + i, *b = a + p.half;
        const float x = *a, y = *b, c = p.cos[table + i], s = p.sin[table + i];
        *a = x * c - y * s;
        *b = y * c + x * s;
    }
}

__global__ void __launch_bounds__(256) add(Addition p) {
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < p.count; i += (u64)gridDim.x * blockDim.x) {
        p.out[i] = p.a[i] + p.b[p.width ? i % p.width : i];
    }
}

__global__ void __launch_bounds__(256) scale(Scaling p) {
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < p.count; i += (u64)gridDim.x * blockDim.x) {
        p.x[i] = p.x[i] * p.factor;
    }
}
}
KERNEL(norm_quantize)
KERNEL(gate_norm_quantize)
KERNEL(rope)
KERNEL(add)
KERNEL(scale)
