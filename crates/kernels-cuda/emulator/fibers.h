// Switching between fibers: saves the registers that a function must keep, and loads those of another stack.
#pragma once

#include <cstring>

#if defined(__x86_64__)
asm(R"(
.text
.globl cuda_cpu_switch
.hidden cuda_cpu_switch
.type cuda_cpu_switch,@function
cuda_cpu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size cuda_cpu_switch,.-cuda_cpu_switch
)");
#elif defined(__aarch64__)
asm(R"(
.text
.globl cuda_cpu_switch
.hidden cuda_cpu_switch
.type cuda_cpu_switch,%function
cuda_cpu_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
)");
#else
#error "the emulator switches fibers on x86-64 and aarch64 only"
#endif

/// Stores the stack pointer in `save` and goes on with the stack `load`.
extern "C" void cuda_cpu_switch(void **save, void *load);

namespace cuda_cpu {

/// The stack pointer of a new fiber that begins with `entry`, on the stack that ends at `top`.
inline void *new_fiber(char *top, void (*entry)()) {
    auto at = reinterpret_cast<void **>(top);
#if defined(__x86_64__)
    *--at = nullptr; // where `entry` would return to; it also keeps the stack aligned
    *--at = reinterpret_cast<void *>(entry);
    for (int i = 0; i < 6; ++i) *--at = nullptr;
#else
    at -= 20;
    memset(at, 0, 160);
    at[11] = reinterpret_cast<void *>(entry); // x30
#endif
    return at;
}

} // namespace cuda_cpu
