// Causal grouped-query attention over a paged cache, in the CPU's order: the exact maximum of all scores,
// exponentials and weighted values summed in segments of 256 positions, the segments added in order. So a
// long context may be split over blocks without a change of bits.
//
// A page holds the 256 positions of a segment for all layers. In a page, a layer's part begins `layer_offset`
// bytes in and is [kv_heads] of keys, [dim / 8 rounded up, 256, 8], then values, [256, dim]: neighbouring
// threads read the keys of neighbouring positions, 8 numbers each, and neighbouring columns of a value.
#include "numbers.cuh"

constexpr int SEGMENT = 256;

struct Pages {
    const u64 *pages;      // addresses, [sequences, max_pages]
    u64 layer_offset;      // bytes
    int max_pages, kv_heads, dim;
};
static_assert(sizeof(Pages) == 32);

__device__ __forceinline__ int keys_len(const Pages &c) { return (c.dim + 7) / 8 * 8 * SEGMENT; }

/// The keys of one head in a page; its values follow them.
template <class T> __device__ __forceinline__ T *keys_of(const Pages &c, int sequence, int segment, int kv_head) {
    const u64 page = c.pages[(u64)sequence * c.max_pages + segment];
    return reinterpret_cast<T *>(page + c.layer_offset) + (u64)kv_head * (keys_len(c) + SEGMENT * c.dim);
}

__device__ __forceinline__ void store(u16 *at, float x) { *at = f32_to_f16(x); }
__device__ __forceinline__ void store(float *at, float x) { *at = x; }
__device__ __forceinline__ float number(u16 x) { return f16_to_f32(x); }
__device__ __forceinline__ float number(float x) { return x; }

__device__ __forceinline__ void load8(const u16 *at, float *out) {
    const uint4 v = *reinterpret_cast<const uint4 *>(at);
    const u32 words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        out[2 * i] = f16_to_f32(u16(words[i] & 0xffffu));
        out[2 * i + 1] = f16_to_f32(u16(words[i] >> 16));
    }
}
__device__ __forceinline__ void load8(const float *at, float *out) {
    const float4 a = reinterpret_cast<const float4 *>(at)[0], b = reinterpret_cast<const float4 *>(at)[1];
    out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w;
    out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
}

/// New keys and values, [tokens, kv_heads · dim].
struct Append {
    Pages cache;
    const float *k, *v;
    const u32 *sequences, *positions; // of each token
};
static_assert(sizeof(Append) == 64);

template <class T> __device__ __forceinline__ void append(const Append &p) {
    const Pages &c = p.cache;
    const u32 position = p.positions[blockIdx.x], at = position % SEGMENT;
    const int width = c.kv_heads * c.dim;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        const int d = i % c.dim;
        T *keys = keys_of<T>(c, p.sequences[blockIdx.x], position / SEGMENT, i / c.dim), *values = keys + keys_len(c);
        store(keys + ((u64)(d / 8) * SEGMENT + at) * 8 + d % 8, p.k[(u64)blockIdx.x * width + i]);
        store(values + at * c.dim + d, p.v[(u64)blockIdx.x * width + i]);
    }
}

struct Attention {
    Pages cache;
    const float *q;                   // [tokens, heads · dim]
    const u32 *sequences, *positions; // of each token
    float *out;                       // [tokens, heads · dim]
    // Of attention that is split over segments, [tokens, heads, segments] each, the scores and the weighted
    // values with 256 and with dim numbers a segment.
    float *scores, *largest, *sums, *weighted;
    float scale;                      // dim^-½
    int tokens, heads, segments;
};
static_assert(sizeof(Attention) == 112);

/// Queries whose scores a thread computes together.
constexpr int TILE = 4;

__device__ __forceinline__ int padded_dim(int dim) { return (dim + 15) / 16 * 16; }

/// The scores of TILE queries, [TILE, padded_dim] in shared memory, and one position of a segment.
template <class T>
__device__ __forceinline__ void score(const Attention &p, const T *keys, const float *queries, int at, float (&out)[TILE]) {
    const int dim = p.cache.dim, padded = padded_dim(dim);
    float acc[TILE][16] = {};
    for (int d = 0; d < dim; d += 16) {
        float key[16] = {};
        load8(keys + ((u64)(d / 8) * SEGMENT + at) * 8, key);
        if (d + 8 < dim) load8(keys + ((u64)(d / 8 + 1) * SEGMENT + at) * 8, key + 8);
        const bool whole = d + 16 <= dim;
#pragma unroll
        for (int r = 0; r < TILE; ++r) {
#pragma unroll
            for (int i = 0; i < 16; ++i) {
                if (whole || d + i < dim) acc[r][i] = __fmaf_rn(queries[r * padded + d + i], key[i], acc[r][i]);
            }
        }
    }
#pragma unroll
    for (int r = 0; r < TILE; ++r) out[r] = sum16(acc[r]) * p.scale;
}

/// A query: a head of a token.
struct Query { int token, head; };

/// Query `i` of the tokens' queries that share a key head.
__device__ __forceinline__ Query query_of(const Attention &p, int kv_head, int i) {
    const int group = p.heads / p.cache.kv_heads;
    return {i / group, kv_head * group + i % group};
}

/// Copies `count` queries from number `first` on to shared memory; zeros past `end`.
__device__ __forceinline__ void load_queries(const Attention &p, int kv_head, int first, int count, int end, float *out) {
    const int padded = padded_dim(p.cache.dim);
    for (int i = threadIdx.x; i < count * padded; i += blockDim.x) {
        const int r = first + i / padded, d = i % padded;
        float x = 0;
        if (r < end && d < p.cache.dim) {
            const Query query = query_of(p, kv_head, r);
            x = p.q[((u64)query.token * p.heads + query.head) * p.cache.dim + d];
        }
        out[i] = x;
    }
}

/// Positions of a segment that a query at `position` sees.
__device__ __forceinline__ int visible(int position, int segment) {
    return max(0, min(SEGMENT, position + 1 - segment * SEGMENT));
}

/// The sum of exponentials, `count` of a segment, by a whole warp.
__device__ __forceinline__ float sum_of_segment(const float *exps, int count) {
    float sum = 0;
    for (int j = threadIdx.x % 16; j < count; j += 16) sum += exps[j];
    return sum16_of_lanes(sum);
}

/// Split attention, first step: the scores of one segment, key head and token; 256 threads.
template <class T> __device__ __forceinline__ void scores_of_segment(const Attention &p) {
    SHARED_MEMORY(memory);
    const int segment = blockIdx.x, kv_head = blockIdx.y, token = blockIdx.z, group = p.heads / p.cache.kv_heads;
    const int count = visible(p.positions[token], segment), at = threadIdx.x, warp = at / 32;
    if (count == 0) return;
    float *queries = reinterpret_cast<float *>(memory), *of_warps = queries + TILE * padded_dim(p.cache.dim);
    const T *keys = keys_of<T>(p.cache, p.sequences[token], segment, kv_head);
    for (int first = 0; first < group; first += TILE) {
        load_queries(p, kv_head, token * group + first, TILE, (token + 1) * group, queries);
        __syncthreads();
        float scores[TILE];
        score(p, keys, queries, at, scores);
#pragma unroll
        for (int r = 0; r < TILE; ++r) {
            const int head = kv_head * group + first + r;
            const u64 place = ((u64)token * p.heads + head) * p.segments + segment;
            if (first + r < group && at < count) p.scores[place * SEGMENT + at] = scores[r];
            const float most = warp_max(at < count ? scores[r] : -infinity());
            if (at % 32 == 0) of_warps[r * 8 + warp] = most;
        }
        __syncthreads();
        if (at < TILE && first + at < group) {
            float most = -infinity();
            for (int w = 0; w < 8; ++w) most = larger(most, of_warps[at * 8 + w]);
            p.largest[((u64)token * p.heads + kv_head * group + first + at) * p.segments + segment] = most;
        }
    }
}

/// Second step: exponentials and weighted values of one segment, head and token; 128 threads.
template <class T> __device__ __forceinline__ void values_of_segment(const Attention &p) {
    SHARED_MEMORY(memory);
    float *exps = reinterpret_cast<float *>(memory);
    const int segment = blockIdx.x, head = blockIdx.y, token = blockIdx.z, dim = p.cache.dim;
    const int position = p.positions[token], count = visible(position, segment);
    if (count == 0) return;
    const u64 query = (u64)token * p.heads + head, place = query * p.segments + segment;
    float most = -infinity();
    for (int s = 0; s <= position / SEGMENT; ++s) most = larger(most, p.largest[query * p.segments + s]);
    for (int j = threadIdx.x; j < count; j += blockDim.x) exps[j] = exp_f32(p.scores[place * SEGMENT + j] - most);
    __syncthreads();
    if (threadIdx.x < 32) {
        const float sum = sum_of_segment(exps, count);
        if (threadIdx.x == 0) p.sums[place] = sum;
    }
    const int kv_head = head / (p.heads / p.cache.kv_heads);
    const T *values = keys_of<T>(p.cache, p.sequences[token], segment, kv_head) + keys_len(p.cache);
    for (int c = threadIdx.x; c < dim; c += blockDim.x) {
        float sum = 0;
#pragma unroll 16
        for (int j = 0; j < count; ++j) sum = __fmaf_rn(number(values[j * dim + c]), exps[j], sum);
        p.weighted[place * dim + c] = sum;
    }
}

/// Attention of many tokens of one sequence: a block has 8 queries of a key head and goes through the
/// segments twice, for the maximum and for the rest; 256 threads, one a position.
template <class T> __device__ __forceinline__ void attention_of_tokens(const Attention &p) {
    constexpr int QUERIES = 2 * TILE;
    SHARED_MEMORY(memory);
    const int dim = p.cache.dim, padded = padded_dim(dim), kv_head = blockIdx.y, at = threadIdx.x, warp = at / 32;
    const int group = p.heads / p.cache.kv_heads, first = blockIdx.x * QUERIES, end = p.tokens * group;
    float *queries = reinterpret_cast<float *>(memory); // [QUERIES, padded]
    float *exps = queries + QUERIES * padded;           // [QUERIES, SEGMENT]
    float *largest = exps + QUERIES * SEGMENT;          // [QUERIES]
    float *factors = largest + QUERIES;                 // [QUERIES]
    load_queries(p, kv_head, first, QUERIES, end, queries);
    int positions[QUERIES], longest = -1;
#pragma unroll
    for (int r = 0; r < QUERIES; ++r) {
        positions[r] = first + r < end ? int(p.positions[query_of(p, kv_head, first + r).token]) : -1;
        longest = max(longest, positions[r]);
    }
    const int segments = longest / SEGMENT + 1, sequence = p.sequences[0];
    __syncthreads();

    float most[QUERIES];
#pragma unroll
    for (int r = 0; r < QUERIES; ++r) most[r] = -infinity();
    for (int segment = 0; segment < segments; ++segment) {
        const T *keys = keys_of<T>(p.cache, sequence, segment, kv_head);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float scores[TILE];
            score(p, keys, queries + half * TILE * padded, at, scores);
#pragma unroll
            for (int r = 0; r < TILE; ++r) {
                const int n = half * TILE + r;
                if (at < visible(positions[n], segment)) most[n] = larger(most[n], scores[r]);
            }
        }
    }
    // `exps` is free until the next loop: the maxima of the warps, [QUERIES, 8].
#pragma unroll
    for (int r = 0; r < QUERIES; ++r) {
        const float of_warp = warp_max(most[r]);
        if (at % 32 == 0) exps[r * 8 + warp] = of_warp;
    }
    __syncthreads();
    if (at < QUERIES) {
        float of_block = -infinity();
        for (int w = 0; w < 8; ++w) of_block = larger(of_block, exps[at * 8 + w]);
        largest[at] = of_block;
    }
    __syncthreads();

    // Where this thread's columns of query `r` go. Each is written by one thread alone.
    auto out_of = [&](int r) {
        const Query query = query_of(p, kv_head, first + r);
        return p.out + ((u64)query.token * p.heads + query.head) * dim;
    };
    const int half = at / 128 * TILE; // the first of the four queries whose values this thread weights
    float total = 0;                  // of query `warp`
    for (int segment = 0; segment < segments; ++segment) {
        T *keys = keys_of<T>(p.cache, sequence, segment, kv_head);
#pragma unroll
        for (int tile = 0; tile < 2; ++tile) {
            float scores[TILE];
            score(p, keys, queries + tile * TILE * padded, at, scores);
#pragma unroll
            for (int r = 0; r < TILE; ++r) {
                const int n = tile * TILE + r;
                if (at < visible(positions[n], segment)) exps[n * SEGMENT + at] = exp_f32(scores[r] - largest[n]);
            }
        }
        __syncthreads();
        int own = 0;
#pragma unroll
        for (int r = 0; r < QUERIES; ++r) own = r == warp ? visible(positions[r], segment) : own;
        total += sum_of_segment(exps + warp * SEGMENT, own);
        const T *values = keys + keys_len(p.cache);
        int counts[TILE], shared = SEGMENT, all = 0;
#pragma unroll
        for (int r = 0; r < TILE; ++r) {
            counts[r] = visible(half ? positions[TILE + r] : positions[r], segment);
            shared = min(shared, counts[r]);
            all = max(all, counts[r]);
        }
        for (int c = at % 128; c < dim; c += 128) {
            float sums[TILE] = {};
#pragma unroll 4
            for (int j = 0; j < shared; ++j) {
                const float value = number(values[j * dim + c]);
#pragma unroll
                for (int r = 0; r < TILE; ++r) sums[r] = __fmaf_rn(value, exps[(half + r) * SEGMENT + j], sums[r]);
            }
            for (int j = shared; j < all; ++j) {
                const float value = number(values[j * dim + c]);
#pragma unroll
                for (int r = 0; r < TILE; ++r) {
                    if (j < counts[r]) sums[r] = __fmaf_rn(value, exps[(half + r) * SEGMENT + j], sums[r]);
                }
            }
#pragma unroll
            for (int r = 0; r < TILE; ++r) {
                if (first + half + r >= end) continue;
                float *out = out_of(half + r) + c;
                *out = (segment == 0 ? 0.0f : *out) + sums[r];
            }
        }
        __syncthreads();
    }
    if (at % 32 == 0) factors[warp] = 1.0f / total;
    __syncthreads();
    for (int c = at % 128; c < dim; c += 128) {
        for (int r = half; r < half + TILE && first + r < end; ++r) {
            float *out = out_of(r) + c;
            *out = *out * factors[r];
        }
    }
}

extern "C" {
__global__ void __launch_bounds__(256) append_f16(Append p) { append<u16>(p); }
__global__ void __launch_bounds__(256) append_f32(Append p) { append<float>(p); }
__global__ void __launch_bounds__(256, 1) attention_scores_f16(Attention p) { scores_of_segment<u16>(p); }
__global__ void __launch_bounds__(256, 1) attention_scores_f32(Attention p) { scores_of_segment<float>(p); }
__global__ void __launch_bounds__(128) attention_values_f16(Attention p) { values_of_segment<u16>(p); }
__global__ void __launch_bounds__(128) attention_values_f32(Attention p) { values_of_segment<float>(p); }
__global__ void __launch_bounds__(256, 1) attention_tokens_f16(Attention p) { attention_of_tokens<u16>(p); }
__global__ void __launch_bounds__(256, 1) attention_tokens_f32(Attention p) { attention_of_tokens<float>(p); }

/// Split attention, last step: the segments of one head and token, added in order.
__global__ void __launch_bounds__(128) attention_combine(Attention p) {
    const u64 query = (u64)blockIdx.y * p.heads + blockIdx.x;
    const int segments = p.positions[blockIdx.y] / SEGMENT + 1, dim = p.cache.dim;
    float total = 0;
    for (int s = 0; s < segments; ++s) total += p.sums[query * p.segments + s];
    const float factor = 1.0f / total;
    for (int c = threadIdx.x; c < dim; c += blockDim.x) {
        float sum = 0;
        for (int s = 0; s < segments; ++s) sum += p.weighted[(query * p.segments + s) * dim + c];
        p.out[query * dim + c] = sum * factor;
    }
}
}
KERNEL(append_f16)
KERNEL(append_f32)
KERNEL(attention_scores_f16)
KERNEL(attention_scores_f32)
KERNEL(attention_values_f16)
KERNEL(attention_values_f32)
KERNEL(attention_tokens_f16)
KERNEL(attention_tokens_f32)
KERNEL(attention_combine)
