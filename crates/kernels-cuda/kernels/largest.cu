// The largest numbers of every row and where they stand, so that the choice of a token need not copy all logits.
//
// A number and its place make one key that orders as the choice does: by the number, and of equals by the lowest place. No
// two keys are equal, so that any way to find the largest gives the same ones. NaN and infinities come before all numbers: what
// comes first says whether there is one.
//
// A block finds the largest keys of a chunk. What the blocks of a row find is the input of the next pass, until one block is
// enough.
#include "numbers.cuh"

constexpr int CHUNK = 2048, CHOICE_THREADS = 256;

struct Largest {
    const float *numbers; // [rows, width]
    const u64 *keys;      // [rows, count], of the pass before; null in the first pass, which takes the numbers
    u64 *out;             // [rows, blocks, most]
    u32 *chosen;          // of the last pass, instead: places and the bits of their numbers, [rows, most, 2]
    int width, count, most;
};
static_assert(sizeof(Largest) == 48);

__device__ __forceinline__ u64 key_of(float x, u32 place) {
    const u32 plain = __float_as_uint(x), bits = plain == 0x80000000u ? 0u : plain; // zeros are equal
    u32 order = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    if ((bits & 0x7f800000u) == 0x7f800000u) order = 0xffffffffu;
    return u64(order) << 32 | (0xffffffffu - place);
}

/// Key `i` of the block's row; what is beyond the last one is less than any key.
__device__ __forceinline__ u64 key_at(const Largest &p, int i) {
    if (i >= p.count) return 0;
    const u64 at = (u64)blockIdx.y * p.count + i;
    return p.keys ? p.keys[at] : key_of(p.numbers[at], u32(i));
}

__device__ __forceinline__ u64 largest_of_warp(u64 key) {
    for (int bits = 16; bits; bits >>= 1) {
        const u64 high = __shfl_xor_sync(ALL_LANES, u32(key >> 32), bits);
        const u64 other = high << 32 | __shfl_xor_sync(ALL_LANES, u32(key), bits);
        key = max(key, other);
    }
    return key;
}

/// Sorts n keys, a power of two, the largest first (Batcher's bitonic sort). All threads have passed a barrier after it.
__device__ __forceinline__ void sort(u64 *keys, int n) {
    for (int size = 2; size <= n; size *= 2) {
        for (int stride = size / 2; stride; stride /= 2) {
            for (int i = threadIdx.x; i < n / 2; i += CHOICE_THREADS) {
                const int a = i / stride * 2 * stride + i % stride, b = a + stride;
                const u64 x = keys[a], y = keys[b];
                if ((x < y) == ((a & size) == 0)) keys[a] = y, keys[b] = x;
            }
            __syncthreads();
        }
    }
}

extern "C" __global__ void __launch_bounds__(256) largest(Largest p) {
    SHARED_MEMORY(memory);
    u64 *keys = reinterpret_cast<u64 *>(memory); // as many as are sorted
    const int first = blockIdx.x * CHUNK, len = min(CHUNK, p.count - first);
    if (p.most == 1) {
        u64 key = 0;
        for (int i = threadIdx.x; i < len; i += CHOICE_THREADS) key = max(key, key_at(p, first + i));
        key = largest_of_warp(key);
        if (threadIdx.x % 32 == 0) keys[threadIdx.x / 32] = key;
        __syncthreads();
        if (threadIdx.x == 0) {
            for (int warp = 1; warp < CHOICE_THREADS / 32; ++warp) key = max(key, keys[warp]);
            keys[0] = key;
        }
    } else {
        int n = p.most;
        while (n < len || n & (n - 1)) n = (n | (n - 1)) + 1;
        for (int i = threadIdx.x; i < n; i += CHOICE_THREADS) keys[i] = i < len ? key_at(p, first + i) : 0;
        __syncthreads();
        sort(keys, n);
    }
    // Of a single one, thread 0 reads what it wrote.
    for (int i = threadIdx.x; i < p.most; i += CHOICE_THREADS) {
        if (!p.chosen) {
            p.out[((u64)blockIdx.y * gridDim.x + blockIdx.x) * p.most + i] = keys[i];
            continue;
        }
        const u32 place = 0xffffffffu - u32(keys[i]);
        u32 *chosen = p.chosen + ((u64)blockIdx.y * p.most + i) * 2;
        chosen[0] = place;
        chosen[1] = __float_as_uint(p.numbers[(u64)blockIdx.y * p.width + place]);
    }
}
KERNEL(largest)
