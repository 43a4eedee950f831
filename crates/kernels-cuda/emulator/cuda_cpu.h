// Runs CUDA C++ kernels on the CPU, for tests on machines without a GPU.
//
// A fiber is a CUDA thread. The threads of a block take turns on one thread of the operating system, and
// blocks are shared among several. A CUDA thread runs until it waits: at __syncthreads, or for the other
// lanes of its warp (shuffles, reductions, mma). A warp runs as far as it can before another one does, in an
// order that the variable CUDA_CPU_SEED chooses, so that warps are as far apart as barriers let them be, and
// a missing barrier shows as a wrong result. Asynchronous copies land at the last moment allowed (odd seeds)
// or at the first (even ones): tests run both.
//
// An error stops the process and names block and thread: lanes of a warp that meet in different operations, a
// thread that waits for one that has ended, a copy that is not aligned or that nobody waits for. Shared
// memory is as long as the launch asked for, so that an address sanitizer sees what is beyond, and comes
// filled with 0xA5.
//
// CUDA_CPU_LEAVE_OUT=file:line leaves out the barrier, or the wait for copies, on that line of a kernel:
// tests of the tests, which must fail then.
//
// Not emulated: time, caches, the memory model, bank conflicts, limits on registers.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>

struct uint3 { unsigned x, y, z; };
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) float4 { float x, y, z, w; };
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)

namespace cuda_cpu {

/// What the lanes of a warp hand each other, up to 8 words each: in the current operation and in the one
/// before, which slower lanes still read.
struct Warp {
    unsigned alive = 0, arrived = 0, generation = 0;
    const char *operation = nullptr;
    uint32_t words[2][32][8];
};

/// An asynchronous copy under way.
struct Copy {
    void *to;
    const void *from;
    unsigned bytes, valid;
    int group;
};

struct Thread {
    void *stack_pointer;
    uint3 index;
    unsigned lane;
    Warp *warp;
    enum { Ready, AtBarrier, AtWarp, Ended } state;
    int groups, copies_len;
    Copy copies[64];
};

struct Block {
    uint3 index;
    dim3 threads, grid;
    char *shared;
    bool late_copies;
};

extern thread_local Thread *thread;
extern thread_local Block *block;

/// Whether CUDA_CPU_LEAVE_OUT names this line.
bool left_out(const char *file, int line);
/// Waits for all threads of the block.
void barrier();
/// Waits for all lanes of the warp in the same operation; returns the lanes' words.
uint32_t (*meet(const char *operation, const uint32_t *words, int count))[8];
[[noreturn]] void fail(const char *what);
void copy_async(void *to, const void *from, unsigned bytes, unsigned valid);
void commit_copies();
void wait_copies(int groups_left);

/// Runs `body(context)` once for every CUDA thread of the grid.
void launch(dim3 grid, dim3 threads, unsigned shared_bytes, void (*body)(void *), void *context);

template <class F> void launch(dim3 grid, dim3 threads, unsigned shared_bytes, F &&body) {
    launch(grid, threads, shared_bytes, [](void *f) { (*static_cast<std::remove_reference_t<F> *>(f))(); }, &body);
}

/// A kernel by its name; it has one argument, as all kernels here.
struct Kernel {
    const char *name;
    const void *function;
    void (*call)(const void *function, const void *argument);
    std::size_t argument_size;
    Kernel *next;
};
extern Kernel *kernels;

struct Register : Kernel {
    template <class A>
    Register(const char *name, void (*f)(A))
        : Kernel{name, reinterpret_cast<const void *>(f),
                 [](const void *function, const void *argument) {
                     reinterpret_cast<void (*)(A)>(const_cast<void *>(function))(*static_cast<const A *>(argument));
                 },
                 sizeof(A), kernels} {
        kernels = this;
    }
};

template <class T> T exchange(const char *operation, T value, unsigned from) {
    static_assert(sizeof(T) == 4);
    uint32_t word;
    memcpy(&word, &value, 4);
    memcpy(&value, meet(operation, &word, 1)[from], 4);
    return value;
}

template <class T, class F> T reduce(const char *operation, T value, F &&f) {
    uint32_t word;
    memcpy(&word, &value, 4);
    auto all = meet(operation, &word, 1);
    T result;
    memcpy(&result, all[0], 4);
    for (unsigned i = 1; i < 32; ++i) {
        memcpy(&value, all[i], 4);
        result = f(result, value);
    }
    return result;
}

inline void whole_warp(unsigned mask) {
    if (mask != 0xffffffffu) fail("only whole warps take part in an operation");
}

} // namespace cuda_cpu

#define threadIdx (cuda_cpu::thread->index)
#define blockIdx (cuda_cpu::block->index)
#define blockDim (cuda_cpu::block->threads)
#define gridDim (cuda_cpu::block->grid)
#define CUDA_CPU_KERNEL(name) static cuda_cpu::Register register_##name(#name, name);

inline void __syncthreads(const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
    if (!cuda_cpu::left_out(file, line)) cuda_cpu::barrier();
}
template <class T> T __shfl_xor_sync(unsigned mask, T v, int bits) {
    cuda_cpu::whole_warp(mask);
    return cuda_cpu::exchange("__shfl_xor_sync", v, cuda_cpu::thread->lane ^ unsigned(bits));
}
template <class T> T __reduce_add_sync(unsigned mask, T v) {
    cuda_cpu::whole_warp(mask);
    return cuda_cpu::reduce("__reduce_add_sync", v, [](T a, T b) { return T(a + b); });
}
template <class T> T __reduce_max_sync(unsigned mask, T v) {
    cuda_cpu::whole_warp(mask);
    return cuda_cpu::reduce("__reduce_max_sync", v, [](T a, T b) { return a > b ? a : b; });
}
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline unsigned __float_as_uint(float x) {
    unsigned bits;
    memcpy(&bits, &x, 4);
    return bits;
}
inline float __uint_as_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
template <class T> T min(T a, T b) { return b < a ? b : a; }
template <class T> T max(T a, T b) { return a < b ? b : a; }
