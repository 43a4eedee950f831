// What differs between a CUDA compiler and the emulator on the CPU, and nothing else. Kernels include no
// header but those beside them, so that NVRTC needs none.
#pragma once

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define ON_GPU 1
#define KERNEL(name)
#else
#define ON_GPU 0
#include "cuda_cpu.h"
#define KERNEL(name) CUDA_CPU_KERNEL(name)
#endif

typedef signed char i8;
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

constexpr u32 ALL_LANES = 0xffffffffu;

/// The block's shared memory: as many bytes as the launch asked for, aligned to 128.
#if ON_GPU
#define SHARED_MEMORY(name) extern __shared__ __align__(128) unsigned char name[]
#else
#define SHARED_MEMORY(name) unsigned char *name = reinterpret_cast<unsigned char *>(cuda_cpu::block->shared)
#endif

/// c + Σ a_i · b_i over the bytes of a (unsigned) and of b (signed).
__device__ __forceinline__ int dot4_unsigned(u32 a, u32 b, int c) {
#if ON_GPU
    int d;
    asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
#else
    for (int i = 0; i < 4; ++i) c += int(a >> 8 * i & 255) * i8(b >> 8 * i);
    return c;
#endif
}

/// c + Σ a_i · b_i over the signed bytes of both.
__device__ __forceinline__ int dot4(u32 a, u32 b, int c) {
#if ON_GPU
    int d;
    asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
#else
    for (int i = 0; i < 4; ++i) c += i8(a >> 8 * i) * i8(b >> 8 * i);
    return c;
#endif
}

/// d += A · B of int8: A [16, 32] and B [32, 8] in the fragments of mma.sync.m16n8k32.
__device__ __forceinline__ void mma_s8(int (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
#if ON_GPU
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#else
    const u32 words[6] = {a0, a1, a2, a3, b0, b1};
    auto all = cuda_cpu::meet("mma.m16n8k32", words, 6);
    const unsigned lane = cuda_cpu::thread->lane;
    for (int i = 0; i < 4; ++i) {
        const unsigned row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        for (unsigned t = 0; t < 4; ++t) {
            for (unsigned half = 0; half < 2; ++half) {
                d[i] = dot4(all[row % 8 * 4 + t][row / 8 + 2 * half], all[column * 4 + t][4 + half], d[i]);
            }
        }
    }
#endif
}

/// Starts a copy of 16 bytes to shared memory; of zeros if not `valid`.
__device__ __forceinline__ void copy16_async(void *shared, const void *global, bool valid) {
#if ON_GPU
    u32 to = static_cast<u32>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(valid ? 16 : 0)
                 : "memory");
#else
    cuda_cpu::copy_async(shared, global, 16, valid ? 16 : 0);
#endif
}

/// Ends a group of this thread's copies.
__device__ __forceinline__ void commit_copies() {
#if ON_GPU
    asm volatile("cp.async.commit_group;" ::: "memory");
#else
    cuda_cpu::commit_copies();
#endif
}

/// Waits until at most N of this thread's groups of copies are under way.
#if ON_GPU
template <int N> __device__ __forceinline__ void wait_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
#else
template <int N> inline void wait_copies(const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
    if (!cuda_cpu::left_out(file, line)) cuda_cpu::wait_copies(N);
}
#endif

/// Reads 16 bytes that will not be read again soon.
__device__ __forceinline__ uint4 load_once(const uint4 *p) {
#if ON_GPU
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
#else
    return *p;
#endif
}
