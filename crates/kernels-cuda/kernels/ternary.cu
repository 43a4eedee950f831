// Products of int8 activations and ternary weights. The sums of integers are exact, so their order is free;
// floats follow the CPU's order.
//
// Weights lie in tiles of 32 rows and 64 columns, 512 bytes, [row tiles, column tiles]. Lane 4g + t of a warp
// has 16 bytes of a tile: word j holds row 8j + g, columns 16t..16t + 16; column 16t + 4s + b is the field
// `code + 1` at bits 8b + 2s. `word >> 2s & 0x03030303` is then an operand of dp4a and a B fragment of
// mma.m16n8k32: a lane loads 16 bytes of weights and 16 of activations, and neither is rearranged.
//
// Activations are rows of int8, `stride` bytes each, a multiple of 64, zero after the last column.
#include "numbers.cuh"

/// A matrix, and where its product with the activations goes.
struct Part {
    const uint4 *weights;
    const float *row_scales;  // one, or one a row
    const u16 *group_scales;  // f16, [row tiles, groups, 32]
    float *y;                 // [tokens, rows]
    int rows;
    int per_row;              // 1 if rows have scales, 0 if the tensor has one
    int first;                // the first block of the grid that computes it; none if it is not there
};
static_assert(sizeof(Part) == 48);

/// Products of matrices with the same activations, x · Wᵀ each.
struct Products {
    const i8 *codes;          // [tokens, stride]
    const float *scales;      // of the activations, [tokens]
    const int *sums;          // of the activations' codes, [tokens]
    Part parts[3];
    int tokens, stride, column_tiles;
    int group, groups;        // columns that share a scale, and how many such groups a row has
};
static_assert(sizeof(Products) == 192);

/// The product of which this block computes a part, and which block of it this is.
struct Product {
    const i8 *codes;
    const float *scales;
    const int *sums;
    const uint4 *weights;
    const float *row_scales;
    const u16 *group_scales;
    float *y;
    int rows, per_row, tokens, stride, column_tiles, group, groups, block;
};

__device__ __forceinline__ Product product_of(const Products &p) {
    const int block = blockIdx.x;
    // Chosen, not indexed: an index would have the arguments copied to local memory.
    Part part = p.parts[0];
    if (block >= p.parts[1].first) part = p.parts[1];
    if (block >= p.parts[2].first) part = p.parts[2];
    return {p.codes, p.scales, p.sums, part.weights, part.row_scales, part.group_scales, part.y, part.rows,
            part.per_row, p.tokens, p.stride, p.column_tiles, p.group, p.groups, block - part.first};
}

constexpr int WARPS = 8, AHEAD = 4;

/// Four codes from four fields `code + 1`. No byte carries into the next: 2 + 0x7f is the most.
__device__ __forceinline__ u32 codes_of(u32 fields) { return (fields + 0x7f7f7f7fu) ^ 0x80808080u; }

/// A sum of `x · (code + 1)`, scaled.
__device__ __forceinline__ float scaled(const Product &p, int acc, int token, int row) {
    return float(acc - p.sums[token]) * (p.row_scales[p.per_row ? row : 0] * p.scales[token]);
}

__device__ __forceinline__ float group_scale(const Product &p, int row_tile, int group, int row) {
    return f16_to_f32(p.group_scales[((u64)row_tile * p.groups + group) * 32 + row]);
}

/// Four weights tiles of a lane from tile `first` on, `step` apart; zeros past the last one.
__device__ __forceinline__ void load_tiles(uint4 (&w)[AHEAD], const uint4 *weights, int first, int step, int count) {
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) {
        const int k = first + i * step;
        w[i] = k < count ? load_once(weights + (u64)k * 32) : make_uint4(0, 0, 0, 0);
    }
}

/// Up to M tokens, scales of whole rows: a block has 32 rows, and its warps share the columns.
template <int M> __device__ __forceinline__ void few_tokens(const Product &p) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, t = lane % 4, g = lane / 4;
    const uint4 *weights = p.weights + (u64)p.block * p.column_tiles * 32 + lane;
    int acc[M][4] = {};
    for (int first = warp; first < p.column_tiles; first += AHEAD * WARPS) {
        uint4 w[AHEAD];
        load_tiles(w, weights, first, WARPS, p.column_tiles);
#pragma unroll
        for (int i = 0; i < AHEAD; ++i) {
            const int k = first + i * WARPS;
            if (k >= p.column_tiles) break;
            const u32 words[4] = {w[i].x, w[i].y, w[i].z, w[i].w};
#pragma unroll
            for (int m = 0; m < M; ++m) {
                const int token = min(m, p.tokens - 1);
                const uint4 v = *(const uint4 *)(p.codes + (u64)token * p.stride + 64 * k + 16 * t);
                const u32 x[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
                for (int j = 0; j < 4; ++j) {
#pragma unroll
                    for (int s = 0; s < 4; ++s) {
                        acc[m][j] = dot4_unsigned(words[j] >> 2 * s & 0x03030303u, x[s], acc[m][j]);
                    }
                }
            }
        }
    }
    SHARED_MEMORY(memory);
    int *sums = reinterpret_cast<int *>(memory); // [WARPS, M, 32]
#pragma unroll
    for (int m = 0; m < M; ++m) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            int sum = acc[m][j];
            sum += __shfl_xor_sync(ALL_LANES, sum, 1);
            sum += __shfl_xor_sync(ALL_LANES, sum, 2);
            if (t == 0) sums[(warp * M + m) * 32 + 8 * j + g] = sum;
        }
    }
    __syncthreads();
    const int m = warp, row = p.block * 32 + lane;
    if (m >= M || m >= p.tokens || row >= p.rows) return;
    int sum = 0;
    for (int w = 0; w < WARPS; ++w) sum += sums[(w * M + m) * 32 + lane];
    p.y[(u64)m * p.rows + row] = scaled(p, sum, m, row);
}

/// Up to 16 T tokens, scales of whole rows, by mma: a block has 32 rows, and its warps share the columns, so that narrow matrices
/// still fill the GPU. Weights and activations go from global memory into the fragments.
template <int T> __device__ __forceinline__ void some_tokens(const Product &p) {
    constexpr int TOKENS = 16 * T;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, t = lane % 4, g = lane / 4;
    const uint4 *weights = p.weights + (u64)p.block * p.column_tiles * 32 + lane;
    int acc[T][4][4] = {};
    for (int first = warp; first < p.column_tiles; first += AHEAD * WARPS) {
        uint4 w[AHEAD];
        load_tiles(w, weights, first, WARPS, p.column_tiles);
#pragma unroll
        for (int i = 0; i < AHEAD; ++i) {
            const int k = first + i * WARPS;
            if (k >= p.column_tiles) break;
            const u32 words[4] = {w[i].x, w[i].y, w[i].z, w[i].w};
#pragma unroll
            for (int m = 0; m < T; ++m) {
                const i8 *codes = p.codes + 64 * k + 16 * t;
                const uint4 a = *(const uint4 *)(codes + (u64)min(16 * m + g, p.tokens - 1) * p.stride);
                const uint4 b = *(const uint4 *)(codes + (u64)min(16 * m + g + 8, p.tokens - 1) * p.stride);
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    const u32 e0 = words[j] & 0x03030303u, e1 = words[j] >> 2 & 0x03030303u;
                    const u32 e2 = words[j] >> 4 & 0x03030303u, e3 = words[j] >> 6 & 0x03030303u;
                    mma_s8(acc[m][j], a.x, b.x, a.y, b.y, e0, e1);
                    mma_s8(acc[m][j], a.z, b.z, a.w, b.w, e2, e3);
                }
            }
        }
    }
    SHARED_MEMORY(memory);
    // [WARPS, TOKENS, 32], the rows of a token turned about so that the lanes of a warp write to different banks.
    int *sums = reinterpret_cast<int *>(memory);
    auto place = [](int warp, int token, int row) { return (warp * TOKENS + token) * 32 + (row ^ token % 8 * 4); };
#pragma unroll
    for (int m = 0; m < T; ++m) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
#pragma unroll
            for (int n = 0; n < 4; ++n) {
                const int token = 16 * m + n / 2 * 8 + g, row = 8 * j + 2 * t + n % 2;
                sums[place(warp, token, row)] = acc[m][j][n];
            }
        }
    }
    __syncthreads();
    const int row = p.block * 32 + lane;
    for (int token = warp; token < p.tokens; token += WARPS) {
        int sum = 0;
        for (int w = 0; w < WARPS; ++w) sum += sums[place(w, token, lane)];
        if (row < p.rows) p.y[(u64)token * p.rows + row] = scaled(p, sum, token, row);
    }
}

/// Up to M tokens, scales of groups. The warps compute the sums of groups of 2048 columns, four neighbouring
/// tiles each; then one thread a result adds the scaled sums in the order of the groups.
template <int M> __device__ __forceinline__ void few_tokens_grouped(const Product &p) {
    constexpr int TILES = AHEAD * WARPS;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, t = lane % 4, g = lane / 4;
    const uint4 *weights = p.weights + (u64)p.block * p.column_tiles * 32 + lane;
    SHARED_MEMORY(memory);
    int *sums = reinterpret_cast<int *>(memory); // [groups of 2048 columns, M, 32]
    const int group_tiles = p.group / 64;        // 0 for groups of 32
    const int m_own = warp, at_once = TILES * 64 / p.group;
    float value = 0;
    for (int first = 0; first < p.column_tiles; first += TILES) {
        uint4 w[AHEAD];
        load_tiles(w, weights, first + AHEAD * warp, 1, p.column_tiles);
        int acc[M][4] = {};
#pragma unroll
        for (int i = 0; i < AHEAD; ++i) {
            const int tile = AHEAD * warp + i;
            const bool has_tile = first + tile < p.column_tiles;
            const u32 words[4] = {w[i].x, w[i].y, w[i].z, w[i].w};
            const bool ends = group_tiles == 0 || (i + 1) % group_tiles == 0;
#pragma unroll
            for (int m = 0; m < M; ++m) {
                const i8 *codes = p.codes + (u64)min(m, p.tokens - 1) * p.stride + 64 * (first + tile) + 16 * t;
                const uint4 v = has_tile ? *(const uint4 *)codes : make_uint4(0, 0, 0, 0);
                const u32 x[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
                for (int j = 0; j < 4; ++j) {
#pragma unroll
                    for (int s = 0; s < 4; ++s) {
                        acc[m][j] = dot4(codes_of(words[j] >> 2 * s & 0x03030303u), x[s], acc[m][j]);
                    }
                    if (!ends) continue;
                    int sum = acc[m][j];
                    acc[m][j] = 0;
                    sum += __shfl_xor_sync(ALL_LANES, sum, 1);
                    if (group_tiles > 0) sum += __shfl_xor_sync(ALL_LANES, sum, 2);
                    const int number = group_tiles > 0 ? tile / group_tiles : 2 * tile + t / 2;
                    if (group_tiles > 0 ? t == 0 : t % 2 == 0) sums[(number * M + m) * 32 + 8 * j + g] = sum;
                }
            }
        }
        __syncthreads();
        if (m_own < M) {
            const int before = first * 64 / p.group, count = min(at_once, p.groups - before);
            for (int i = 0; i < count; ++i) {
                value += group_scale(p, p.block, before + i, lane) * float(sums[(i * M + m_own) * 32 + lane]);
            }
        }
        __syncthreads();
    }
    const int row = p.block * 32 + lane;
    if (m_own < M && m_own < p.tokens && row < p.rows) p.y[(u64)m_own * p.rows + row] = value * p.scales[m_own];
}

/// Many tokens: a block has 128 rows and 32 T tokens, a warp 32 rows and 16 T tokens. Activations come
/// through shared memory, STAGES - 1 column tiles ahead; weights go from global memory into the fragments.
template <int T, bool GROUPED> __device__ __forceinline__ void many_tokens(const Product &p) {
    constexpr int TOKENS = 32 * T, STAGES = 4, STAGE_BYTES = TOKENS * 64;
    SHARED_MEMORY(memory);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, t = lane % 4, g = lane / 4;
    const int token0 = blockIdx.y * TOKENS, warp_token = warp / 4 * (16 * T);
    const int row_tile = p.block * 4 + warp % 4;
    const bool has_rows = row_tile * 32 < p.rows;
    const uint4 *weights = p.weights + (u64)row_tile * p.column_tiles * 32 + lane;
    const uint4 none = make_uint4(0, 0, 0, 0);

    auto fetch = [&](int k) {
        unsigned char *stage = memory + k % STAGES * STAGE_BYTES;
        if (k < p.column_tiles) {
#pragma unroll
            for (int i = 0; i < STAGE_BYTES / 16 / 256; ++i) {
                const int chunk = threadIdx.x + i * 256, token = token0 + chunk / 4;
                const bool valid = token < p.tokens;
                const i8 *from = p.codes + (u64)(valid ? token : 0) * p.stride + 64 * k + chunk % 4 * 16;
                copy16_async(stage + chunk * 16, from, valid);
            }
        }
        commit_copies();
    };
#pragma unroll
    for (int k = 0; k < STAGES - 1; ++k) fetch(k);
    uint4 next = has_rows ? load_once(weights) : none;
    int acc[T][4][4] = {};
    float values[GROUPED ? T : 1][4][4] = {};
    // The sums of group `number` are complete: scales them and starts anew.
    auto end_group = [&](int number) {
        if (!has_rows || number >= p.groups) return;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
#pragma unroll
            for (int c = 0; c < 2; ++c) {
                const float scale = group_scale(p, row_tile, number, 8 * j + 2 * t + c);
#pragma unroll
                for (int i = 0; i < (GROUPED ? T : 1); ++i) {
                    values[i][j][c] += scale * float(acc[i][j][c]);
                    values[i][j][2 + c] += scale * float(acc[i][j][2 + c]);
                    acc[i][j][c] = acc[i][j][2 + c] = 0;
                }
            }
        }
    };
    for (int k = 0; k < p.column_tiles; ++k) {
        wait_copies<STAGES - 2>();
        __syncthreads();
        fetch(k + STAGES - 1);
        const uint4 w = next;
        next = has_rows && k + 1 < p.column_tiles ? load_once(weights + (u64)(k + 1) * 32) : none;
        const u32 words[4] = {w.x, w.y, w.z, w.w};
        const unsigned char *stage = memory + k % STAGES * STAGE_BYTES + warp_token * 64 + 16 * t;
        // Groups of 32 are half a tile, the columns of two lanes of four: one half after the other.
        const int parts = GROUPED && p.group == 32 ? 2 : 1;
        for (int part = 0; part < parts; ++part) {
            const u32 keep = parts == 1 || t / 2 == part ? 0xffffffffu : 0u;
#pragma unroll
            for (int i = 0; i < T; ++i) {
                const uint4 a = *(const uint4 *)(stage + (16 * i + g) * 64);
                const uint4 b = *(const uint4 *)(stage + (16 * i + g + 8) * 64);
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    u32 e[4];
#pragma unroll
                    for (int s = 0; s < 4; ++s) {
                        e[s] = words[j] >> 2 * s & 0x03030303u;
                        if (GROUPED) e[s] = codes_of(e[s]) & keep;
                    }
                    mma_s8(acc[i][j], a.x, b.x, a.y, b.y, e[0], e[1]);
                    mma_s8(acc[i][j], a.z, b.z, a.w, b.w, e[2], e[3]);
                }
            }
            if (GROUPED && parts == 2) end_group(2 * k + part);
        }
        if (GROUPED && parts == 1 && (k + 1) * 64 % p.group == 0) end_group((k + 1) * 64 / p.group - 1);
    }
    // The groups of copies after the last tile are empty: nothing is under way here.
    if (!has_rows) return;
#pragma unroll
    for (int i = 0; i < T; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int token = token0 + warp_token + 16 * i + 8 * half + g;
            if (token >= p.tokens) continue;
#pragma unroll
            for (int j = 0; j < 4; ++j) {
#pragma unroll
                for (int c = 0; c < 2; ++c) {
                    const int row = row_tile * 32 + 8 * j + 2 * t + c, n = 2 * half + c;
                    if (row >= p.rows) continue;
                    float *y = p.y + (u64)token * p.rows + row;
                    *y = GROUPED ? values[GROUPED ? i : 0][j][n] * p.scales[token] : scaled(p, acc[i][j][n], token, row);
                }
            }
        }
    }
}

/// Rows of a ternary embedding.
struct Lookup {
    const u32 *weights;
    const float *row_scales; // as of a product
    const u16 *group_scales;
    const u32 *ids;          // of the rows
    float *y;                // [ids, cols]
    int cols, column_tiles, per_row, group, groups;
};
static_assert(sizeof(Lookup) == 64);

/// Numbers of the rows of `ids`, a block each: every code times the scale that it shares.
__device__ __forceinline__ void look_up(const Lookup &p) {
    const u32 row = p.ids[blockIdx.x], in_tile = row % 32;
    for (int c = threadIdx.x; c < p.cols; c += blockDim.x) {
        const int lane = 4 * (in_tile % 8) + c % 64 / 16, i = c % 16;
        const u64 tile = (u64)(row / 32) * p.column_tiles + c / 64;
        const u32 word = p.weights[tile * 128 + 4 * lane + in_tile / 8];
        const int code = int(word >> (8 * (i % 4) + 2 * (i / 4)) & 3u) - 1;
        const float scale = p.group
            ? f16_to_f32(p.group_scales[((u64)(row / 32) * p.groups + c / p.group) * 32 + in_tile])
            : p.row_scales[p.per_row ? row : 0];
        p.y[(u64)blockIdx.x * p.cols + c] = float(code) * scale;
    }
}

extern "C" {
__global__ void __launch_bounds__(256) embed_ternary(Lookup p) { look_up(p); }
__global__ void __launch_bounds__(256) ternary_1(Products p) { few_tokens<1>(product_of(p)); }
__global__ void __launch_bounds__(256) ternary_2(Products p) { few_tokens<2>(product_of(p)); }
__global__ void __launch_bounds__(256) ternary_4(Products p) { few_tokens<4>(product_of(p)); }
__global__ void __launch_bounds__(256) ternary_8(Products p) { few_tokens<8>(product_of(p)); }
__global__ void __launch_bounds__(256, 3) ternary_16(Products p) { some_tokens<1>(product_of(p)); }
__global__ void __launch_bounds__(256) ternary_32(Products p) { some_tokens<2>(product_of(p)); }
__global__ void __launch_bounds__(256) ternary_64(Products p) { some_tokens<4>(product_of(p)); }
__global__ void __launch_bounds__(256) ternary_many(Products p) { many_tokens<4, false>(product_of(p)); }
__global__ void __launch_bounds__(256) ternary_groups_1(Products p) { few_tokens_grouped<1>(product_of(p)); }
__global__ void __launch_bounds__(256) ternary_groups_2(Products p) { few_tokens_grouped<2>(product_of(p)); }
__global__ void __launch_bounds__(256) ternary_groups_4(Products p) { few_tokens_grouped<4>(product_of(p)); }
__global__ void __launch_bounds__(256) ternary_groups_8(Products p) { few_tokens_grouped<8>(product_of(p)); }
__global__ void __launch_bounds__(256) ternary_groups_many(Products p) { many_tokens<2, true>(product_of(p)); }
}
KERNEL(embed_ternary)
KERNEL(ternary_1)
KERNEL(ternary_2)
KERNEL(ternary_4)
KERNEL(ternary_8)
KERNEL(ternary_16)
KERNEL(ternary_32)
KERNEL(ternary_64)
KERNEL(ternary_many)
KERNEL(ternary_groups_1)
KERNEL(ternary_groups_2)
KERNEL(ternary_groups_4)
KERNEL(ternary_groups_8)
KERNEL(ternary_groups_many)
