// Faulty kernels that the emulator must stop, one by the name that the program gets, and a correct one.
#include "portable.cuh"

#include <string>

int main(int count, char **arguments) {
    const std::string fault = count > 1 ? arguments[1] : "";
    alignas(16) static unsigned char global[64 * 16 + 16];
    cuda_cpu::launch(dim3(2), 64, 64 * 16, [&] {
        SHARED_MEMORY(memory);
        const unsigned i = threadIdx.x;
        const bool odd = i % 2;
        copy16_async(memory + i * 16, global + i * 16 + (fault == "an unaligned copy" ? 4 : 0), true);
        commit_copies();
        if (fault != "a copy that nobody waits for") wait_copies<0>();
        __syncthreads();
        if (fault == "a shuffle in a branch" && odd) __shfl_xor_sync(ALL_LANES, i, 2);
        if (fault == "a lane that ends early" && odd) return;
        if (fault == "different operations" && odd) __reduce_add_sync(ALL_LANES, i);
        else __shfl_xor_sync(ALL_LANES, i, 1);
        if (fault == "a shuffle of half a warp") __shfl_xor_sync(0xffffu, i, 1);
        if (fault == "a write beyond shared memory") memory[(i + 1) * 16] = 1;
    });
    return 0;
}
