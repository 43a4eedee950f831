// A stand-in for libcuda.so.1 over the emulator of cuda_cpu.h: the functions of the driver API that
// src/driver.rs calls. Linked with the kernels, compiled as C++, into one shared library; a program built for
// CUDA runs on it unchanged.
//
// A stream is a queue whose work is done when somebody waits, as late as the API allows: so a result that is
// read too early is found. Memory comes filled with 0xA5. Copies are checked against the allocations they
// touch.
//
// Work that is queued on a stream that captures becomes a graph's. What the API forbids meanwhile fails and ends the capture
// without one: to wait for that stream, to allocate or free memory or to load a module on the capturing thread. Copies from and
// to the host are forbidden too, which a driver does allow: a graph would read and write where the program has moved on from.
//
// CUDA_CPU_REFUSE=name has a function that begins, ends, instantiates or launches fail as on a driver that cannot do it.
// CUDA_CPU_COUNTS=file: at the end the file says how often what was done.
#include "cuda_cpu.h"

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "../kernels/attention.cu"
#include "../kernels/dense.cu"
#include "../kernels/largest.cu"
#include "../kernels/rows.cu"
#include "../kernels/ternary.cu"

namespace {

// Of the driver's results and attributes, those that matter here.
enum Result {
    Success = 0, InvalidValue = 1, OutOfMemory = 2, InvalidDevice = 101, IllegalState = 401, NotFound = 500, IllegalAddress = 700,
    NotSupported = 801, CaptureUnsupported = 900, CaptureInvalidated = 901, CaptureWrongThread = 908
};
constexpr unsigned SHARED_BYTES = 99 << 10; // of a block, at most: as on sm_86
constexpr size_t MEMORY = size_t(2) << 30;

typedef std::vector<std::function<void()>> Work;

struct Graph {
    Work nodes;
};

/// A graph that can be launched, which is needed until the last launch is done.
struct Exec {
    std::shared_ptr<const Work> nodes;
};

enum CaptureMode { Global, ThreadLocal, Relaxed };

struct Stream {
    Work queue;
    Graph *capture = nullptr; // what it captures, if it does
    bool invalidated = false;
    CaptureMode mode = Global;
    std::thread::id thread;
};

std::recursive_mutex mutex;
std::map<uintptr_t, size_t> allocations;
size_t allocated;
std::vector<Stream *> streams;
std::set<void *> graphs, execs;
int context;

struct Counts {
    size_t launches = 0, captures = 0, captured_launches = 0, graph_launches = 0, bytes_down = 0;
    ~Counts() {
        const char *path = getenv("CUDA_CPU_COUNTS");
        FILE *file = path ? fopen(path, "w") : nullptr;
        if (!file) return;
        fprintf(file, "launches %zu\ncaptures %zu\ncaptured_launches %zu\ngraph_launches %zu\nbytes_down %zu\n", launches,
                captures, captured_launches, graph_launches, bytes_down);
        fclose(file);
    }
} counts;

bool refused(const char *name) {
    const char *which = getenv("CUDA_CPU_REFUSE");
    return which && !strcmp(which, name);
}

void drain(Stream *stream) {
    auto queue = std::move(stream->queue);
    stream->queue.clear();
    for (auto &work : queue) work();
}

int invalidate(Stream *stream) {
    stream->invalidated = true;
    return CaptureUnsupported;
}

/// Whether a call that may wait for streams is forbidden now, which ends the captures that it would disturb.
bool unsafe() {
    bool found = false;
    for (Stream *s : streams) {
        const bool own = s->thread == std::this_thread::get_id();
        if (!s->capture || s->mode == Relaxed || (s->mode == ThreadLocal && !own)) continue;
        invalidate(s);
        found = true;
    }
    return found;
}

int submit(void *stream, std::function<void()> work) {
    auto s = static_cast<Stream *>(stream);
    if (s->invalidated) return CaptureInvalidated;
    (s->capture ? s->capture->nodes : s->queue).push_back(std::move(work));
    return Success;
}

/// Work with memory of the host.
int submit_copy(void *stream, std::function<void()> work) {
    auto s = static_cast<Stream *>(stream);
    return s->capture ? invalidate(s) : submit(stream, std::move(work));
}

bool inside(uintptr_t at, size_t bytes) {
    auto after = allocations.upper_bound(at);
    if (after == allocations.begin()) return false;
    auto &[start, size] = *--after;
    return at + bytes <= start + size;
}

} // namespace

#define API extern "C" __attribute__((visibility("default"))) int
#define LOCK std::lock_guard<std::recursive_mutex> lock(mutex)

API cuInit(unsigned) { return Success; }
API cuDriverGetVersion(int *version) { return *version = 12000, Success; }
API cuDeviceGetCount(int *count) { return *count = 1, Success; }
API cuDeviceGet(int *device, int ordinal) { return ordinal ? int(InvalidDevice) : (*device = 0, int(Success)); }
API cuDeviceGetName(char *name, int len, int) { return snprintf(name, len, "CPU (emulated)"), Success; }
API cuDeviceGetAttribute(int *value, int attribute, int) {
    switch (attribute) {
    case 75: *value = 8; break;            // compute capability, major
    case 76: *value = 6; break;            // and minor
    case 97: *value = SHARED_BYTES; break; // shared memory of a block that asks for it
    default: return InvalidValue;
    }
    return Success;
}
API cuMemGetInfo_v2(size_t *free, size_t *total) { return *free = MEMORY - allocated, *total = MEMORY, Success; }
API cuDevicePrimaryCtxRetain(void **out, int) { return *out = &context, Success; }
API cuDevicePrimaryCtxRelease_v2(int) { return Success; }
API cuCtxSetCurrent(void *) { return Success; }
API cuGetErrorName(int code, const char **name) {
    switch (code) {
    case InvalidValue: *name = "CUDA_ERROR_INVALID_VALUE"; break;
    case OutOfMemory: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
    case InvalidDevice: *name = "CUDA_ERROR_INVALID_DEVICE"; break;
    case IllegalState: *name = "CUDA_ERROR_ILLEGAL_STATE"; break;
    case NotSupported: *name = "CUDA_ERROR_NOT_SUPPORTED"; break;
    case CaptureUnsupported: *name = "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"; break;
    case CaptureInvalidated: *name = "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"; break;
    case CaptureWrongThread: *name = "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD"; break;
    case NotFound: *name = "CUDA_ERROR_NOT_FOUND"; break;
    case IllegalAddress: *name = "CUDA_ERROR_ILLEGAL_ADDRESS"; break;
    default: return *name = nullptr, InvalidValue;
    }
    return Success;
}

API cuModuleLoadData(void **module, const void *ptx) {
    LOCK;
    if (unsafe()) return CaptureUnsupported;
    // Kernels are linked in; but what is loaded must be PTX.
    return strstr(static_cast<const char *>(ptx), ".version") ? (*module = &context, int(Success)) : int(InvalidValue);
}
API cuModuleUnload(void *) { return Success; }
API cuModuleGetFunction(void **function, void *, const char *name) {
    for (auto k = cuda_cpu::kernels; k; k = k->next) {
        if (!strcmp(k->name, name)) return *function = k, Success;
    }
    return NotFound;
}
API cuFuncSetAttribute(void *, int attribute, int value) {
    return attribute == 8 && unsigned(value) <= SHARED_BYTES ? Success : InvalidValue;
}

API cuMemAlloc_v2(uintptr_t *out, size_t bytes) {
    LOCK;
    if (unsafe()) return CaptureUnsupported;
    if (!bytes) return InvalidValue;
    if (bytes > MEMORY - allocated) return OutOfMemory;
    // To the byte, so that an address sanitizer sees what is beyond.
    void *p = nullptr;
    if (posix_memalign(&p, 256, bytes)) return OutOfMemory;
    memset(p, 0xa5, bytes);
    allocated += bytes;
    allocations[*out = reinterpret_cast<uintptr_t>(p)] = bytes;
    return Success;
}
API cuMemFree_v2(uintptr_t p) {
    LOCK;
    if (unsafe()) return CaptureUnsupported;
    for (Stream *s : streams) drain(s);
    auto found = allocations.find(p);
    if (found == allocations.end()) return InvalidValue;
    allocated -= found->second;
    allocations.erase(found);
    free(reinterpret_cast<void *>(p));
    return Success;
}
API cuMemcpyHtoDAsync_v2(uintptr_t to, const void *from, size_t bytes, void *stream) {
    LOCK;
    if (!inside(to, bytes)) return IllegalAddress;
    // Pageable memory is read before the call returns.
    auto begin = static_cast<const char *>(from);
    auto copy = std::make_shared<std::vector<char>>(begin, begin + bytes);
    return submit_copy(stream, [=] { memcpy(reinterpret_cast<void *>(to), copy->data(), bytes); });
}
API cuMemcpyDtoHAsync_v2(void *to, uintptr_t from, size_t bytes, void *stream) {
    LOCK;
    if (!inside(from, bytes)) return IllegalAddress;
    counts.bytes_down += bytes;
    return submit_copy(stream, [=] { memcpy(to, reinterpret_cast<void *>(from), bytes); });
}
API cuMemcpyDtoDAsync_v2(uintptr_t to, uintptr_t from, size_t bytes, void *stream) {
    LOCK;
    if (!inside(from, bytes) || !inside(to, bytes)) return IllegalAddress;
    return submit(stream, [=] { memmove(reinterpret_cast<void *>(to), reinterpret_cast<void *>(from), bytes); });
}

API cuStreamCreate(void **out, unsigned) {
    LOCK;
    streams.push_back(new Stream);
    return *out = streams.back(), Success;
}
API cuStreamDestroy_v2(void *stream) {
    LOCK;
    auto s = static_cast<Stream *>(stream);
    drain(s);
    std::erase(streams, s);
    return delete s, Success;
}
API cuStreamSynchronize(void *stream) {
    LOCK;
    auto s = static_cast<Stream *>(stream);
    return s->capture ? invalidate(s) : (drain(s), int(Success));
}

API cuStreamBeginCapture_v2(void *stream, int mode) {
    LOCK;
    auto s = static_cast<Stream *>(stream);
    if (refused("cuStreamBeginCapture_v2")) return NotSupported;
    if (mode < Global || mode > Relaxed) return InvalidValue;
    if (s->capture) return IllegalState;
    s->capture = new Graph;
    s->invalidated = false;
    s->mode = CaptureMode(mode);
    s->thread = std::this_thread::get_id();
    return Success;
}
API cuStreamEndCapture(void *stream, void **graph) {
    LOCK;
    auto s = static_cast<Stream *>(stream);
    *graph = nullptr;
    if (!s->capture) return IllegalState;
    if (s->mode != Relaxed && s->thread != std::this_thread::get_id()) return CaptureWrongThread;
    std::unique_ptr<Graph> captured(s->capture);
    const bool invalidated = s->invalidated || refused("cuStreamEndCapture");
    s->capture = nullptr;
    s->invalidated = false;
    if (invalidated) return CaptureInvalidated;
    counts.captures += 1;
    graphs.insert(*graph = captured.release());
    return Success;
}
API cuGraphDestroy(void *graph) {
    LOCK;
    if (!graphs.erase(graph)) return InvalidValue;
    return delete static_cast<Graph *>(graph), Success;
}
API cuGraphInstantiateWithFlags(void **exec, void *graph, unsigned long long flags) {
    LOCK;
    if (refused("cuGraphInstantiateWithFlags")) return NotSupported;
    if (flags || !graphs.count(graph)) return InvalidValue;
    execs.insert(*exec = new Exec{std::make_shared<const Work>(static_cast<Graph *>(graph)->nodes)});
    return Success;
}
API cuGraphExecDestroy(void *exec) {
    LOCK;
    if (!execs.erase(exec)) return InvalidValue;
    return delete static_cast<Exec *>(exec), Success;
}
API cuGraphLaunch(void *exec, void *stream) {
    LOCK;
    if (refused("cuGraphLaunch")) return NotSupported;
    if (!execs.count(exec)) return InvalidValue;
    counts.graph_launches += 1;
    return submit(stream, [nodes = static_cast<Exec *>(exec)->nodes] {
        for (auto &node : *nodes) node();
    });
}

API cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **arguments, void **) {
    LOCK;
    if (!gx || !gy || !gz || !bx || !by || !bz || bx * by * bz > 1024) return InvalidValue;
    if (gx > 0x7fffffffu || gy > 65535 || gz > 65535 || shared > SHARED_BYTES) return InvalidValue;
    auto kernel = static_cast<const cuda_cpu::Kernel *>(function);
    auto first = static_cast<const char *>(arguments[0]);
    auto argument = std::make_shared<std::vector<char>>(first, first + kernel->argument_size);
    (static_cast<Stream *>(stream)->capture ? counts.captured_launches : counts.launches) += 1;
    return submit(stream, [=] {
        cuda_cpu::launch(dim3(gx, gy, gz), dim3(bx, by, bz), shared,
                         [&] { kernel->call(kernel->function, argument->data()); });
    });
}
