// The scheduler of cuda_cpu.h.
#include "cuda_cpu.h"
#include "fibers.h"

#include <atomic>
#include <memory>
#include <sys/mman.h>
#include <thread>
#include <vector>

namespace cuda_cpu {

thread_local Thread *thread;
thread_local Block *block;
Kernel *kernels;

namespace {

constexpr size_t STACK = 64 << 10;

/// A thread of the operating system and the block that it runs.
struct Worker {
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    std::vector<unsigned> warp_order, lane_order;
    char *stacks = nullptr;
    size_t stacks_len = 0;
    void *stack_pointer = nullptr;
    unsigned alive = 0, arrived = 0;
    void (*body)(void *) = nullptr;
    void *context = nullptr;
    ~Worker() {
        if (stacks) munmap(stacks, stacks_len);
    }
};
thread_local Worker *worker;

/// SplitMix64.
uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

void shuffle(std::vector<unsigned> &order, uint64_t seed) {
    if (seed == 0) return;
    for (unsigned i = unsigned(order.size()) - 1; i > 0; --i) std::swap(order[i], order[mix(seed ^ i) % (i + 1)]);
}

void yield() { cuda_cpu_switch(&thread->stack_pointer, worker->stack_pointer); }

void release_barrier() {
    worker->arrived = 0;
    for (Thread &t : worker->threads) {
        if (t.state == Thread::AtBarrier) t.state = Thread::Ready;
    }
}

void release_warp(Warp *warp) {
    warp->arrived = 0;
    ++warp->generation;
    warp->operation = nullptr;
    const size_t first = 32 * (warp - worker->warps.data());
    for (size_t i = first; i < worker->threads.size() && i < first + 32; ++i) {
        if (worker->threads[i].state == Thread::AtWarp) worker->threads[i].state = Thread::Ready;
    }
}

void entry() {
    worker->body(worker->context);
    if (thread->copies_len) fail("a thread ends before its asynchronous copies");
    thread->state = Thread::Ended;
    if (--worker->alive && worker->arrived == worker->alive) release_barrier();
    if (--thread->warp->alive && thread->warp->arrived) fail("a lane waits for one that has ended");
    yield();
    __builtin_unreachable();
}

void run_block(uint64_t seed) {
    Worker &w = *worker;
    const dim3 size = block->threads;
    const unsigned n = size.x * size.y * size.z;
    w.threads.resize(n);
    w.warps.assign((n + 31) / 32, Warp());
    if (w.stacks_len < n * STACK) {
        if (w.stacks) munmap(w.stacks, w.stacks_len);
        w.stacks_len = n * STACK;
        const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        w.stacks = static_cast<char *>(mmap(nullptr, w.stacks_len, PROT_READ | PROT_WRITE, flags, -1, 0));
        if (w.stacks == MAP_FAILED) fail("no memory for stacks");
    }
    w.warp_order.resize(w.warps.size());
    w.lane_order.resize(32);
    for (unsigned i = 0; i < w.warps.size(); ++i) w.warp_order[i] = i;
    for (unsigned i = 0; i < 32; ++i) w.lane_order[i] = i;
    shuffle(w.lane_order, seed);
    for (unsigned i = 0; i < n; ++i) {
        Thread &t = w.threads[i];
        t.index = {i % size.x, i / size.x % size.y, i / (size.x * size.y)};
        t.lane = i % 32;
        t.warp = &w.warps[i / 32];
        ++t.warp->alive;
        t.state = Thread::Ready;
        t.groups = t.copies_len = 0;
        t.stack_pointer = new_fiber(w.stacks + (i + 1) * STACK, entry);
    }
    w.alive = n;
    w.arrived = 0;
    for (uint64_t round = 1; w.alive; ++round) {
        bool progress = false;
        shuffle(w.warp_order, seed ? seed ^ round << 20 : 0);
        for (unsigned warp : w.warp_order) {
            for (bool again = true; again;) {
                again = false;
                for (unsigned lane : w.lane_order) {
                    const unsigned i = warp * 32 + lane;
                    if (i >= n || w.threads[i].state != Thread::Ready) continue;
                    again = progress = true;
                    thread = &w.threads[i];
                    cuda_cpu_switch(&w.stack_pointer, thread->stack_pointer);
                }
            }
        }
        if (!progress) fail("every thread waits");
    }
}

} // namespace

void fail(const char *what) {
    fprintf(stderr, "cuda_cpu: %s", what);
    if (thread && block) {
        const uint3 b = block->index, t = thread->index;
        fprintf(stderr, " (block %u %u %u, thread %u %u %u)", b.x, b.y, b.z, t.x, t.y, t.z);
    }
    fputc('\n', stderr);
    abort();
}

bool left_out(const char *file, int line) {
    static const char *place = getenv("CUDA_CPU_LEAVE_OUT");
    if (!place) return false;
    const char *name = strrchr(file, '/');
    name = name ? name + 1 : file;
    const size_t len = strlen(name);
    return !strncmp(place, name, len) && place[len] == ':' && atoi(place + len + 1) == line;
}

void barrier() {
    if (++worker->arrived == worker->alive) return release_barrier();
    thread->state = Thread::AtBarrier;
    yield();
}

uint32_t (*meet(const char *operation, const uint32_t *words, int count))[8] {
    Warp *warp = thread->warp;
    if (warp->alive != 32) fail("a warp that is not whole meets");
    if (!warp->operation) warp->operation = operation;
    else if (strcmp(warp->operation, operation)) fail("lanes of a warp meet in different operations");
    auto place = warp->words[warp->generation & 1];
    memcpy(place[thread->lane], words, count * sizeof *words);
    if (++warp->arrived == warp->alive) {
        release_warp(warp);
    } else {
        thread->state = Thread::AtWarp;
        yield();
    }
    return place;
}

static void land(const Copy &copy) {
    memcpy(copy.to, copy.from, copy.valid);
    memset(static_cast<char *>(copy.to) + copy.valid, 0, copy.bytes - copy.valid);
}

void copy_async(void *to, const void *from, unsigned bytes, unsigned valid) {
    if (reinterpret_cast<uintptr_t>(to) % bytes || reinterpret_cast<uintptr_t>(from) % bytes) fail("a copy is not aligned");
    const Copy copy = {to, from, bytes, valid, thread->groups};
    if (!block->late_copies) land(copy);
    if (thread->copies_len == 64) fail("more than 64 copies under way");
    thread->copies[thread->copies_len++] = copy;
}

void commit_copies() { ++thread->groups; }

void wait_copies(int groups_left) {
    int kept = 0;
    for (int i = 0; i < thread->copies_len; ++i) {
        const Copy copy = thread->copies[i];
        if (copy.group >= thread->groups - groups_left) thread->copies[kept++] = copy;
        else if (block->late_copies) land(copy);
    }
    thread->copies_len = kept;
}

void launch(dim3 grid, dim3 threads, unsigned shared_bytes, void (*body)(void *), void *context) {
    const char *variable = getenv("CUDA_CPU_SEED");
    const uint64_t seed = variable ? strtoull(variable, nullptr, 10) : 0;
    const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
    uint64_t workers = std::thread::hardware_concurrency();
    if (workers > blocks) workers = blocks;
    std::atomic<uint64_t> next{0};
    auto work = [&] {
        Worker mine;
        mine.body = body;
        mine.context = context;
        worker = &mine;
        // To the byte, so that an address sanitizer sees what is beyond.
        void *memory = nullptr;
        if (posix_memalign(&memory, 128, shared_bytes ? shared_bytes : 1)) fail("no shared memory");
        std::unique_ptr<char, void (*)(void *)> shared(static_cast<char *>(memory), free);
        for (uint64_t i; (i = next++) < blocks;) {
            const uint3 index = {unsigned(i % grid.x), unsigned(i / grid.x % grid.y),
                                 unsigned(i / (uint64_t(grid.x) * grid.y))};
            Block here = {index, threads, grid, shared.get(), seed % 2 == 1};
            memset(shared.get(), 0xa5, shared_bytes);
            block = &here;
            run_block(seed ? mix(seed ^ mix(i)) : 0);
        }
        thread = nullptr;
        block = nullptr;
        worker = nullptr;
    };
    if (workers <= 1) return work();
    std::vector<std::thread> others;
    for (uint64_t i = 1; i < workers; ++i) others.emplace_back(work);
    work();
    for (auto &other : others) other.join();
}

} // namespace cuda_cpu
