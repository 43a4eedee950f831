// What captures of the stand-in driver do and what they forbid: returns the number of the first check that fails.
#include <cstddef>
#include <thread>

extern "C" {
int cuStreamCreate(void **, unsigned);
int cuStreamDestroy_v2(void *);
int cuStreamSynchronize(void *);
int cuStreamBeginCapture_v2(void *, int);
int cuStreamEndCapture(void *, void **);
int cuGraphInstantiateWithFlags(void **, void *, unsigned long long);
int cuGraphLaunch(void *, void *);
int cuGraphExecDestroy(void *);
int cuGraphDestroy(void *);
int cuMemAlloc_v2(size_t *, size_t);
int cuMemFree_v2(size_t);
int cuMemcpyHtoDAsync_v2(size_t, const void *, size_t, void *);
int cuMemcpyDtoHAsync_v2(void *, size_t, size_t, void *);
int cuMemcpyDtoDAsync_v2(size_t, size_t, size_t, void *);
int cuModuleLoadData(void **, const void *);
}

#define CHECK(condition) \
    if (!(condition)) return __LINE__

int main() {
    const int UNSUPPORTED = 900, INVALIDATED = 901, WRONG_THREAD = 908;
    void *stream, *other, *graph, *exec, *module;
    size_t a, b, c;
    int number = 7;
    CHECK(!cuStreamCreate(&stream, 1) && !cuStreamCreate(&other, 1));
    CHECK(!cuMemAlloc_v2(&a, 4) && !cuMemAlloc_v2(&b, 4));
    // A graph repeats its work, with what is there then.
    CHECK(!cuStreamBeginCapture_v2(stream, 1) && cuStreamBeginCapture_v2(stream, 1) == 401);
    CHECK(!cuMemcpyDtoDAsync_v2(b, a, 4, stream));
    CHECK(!cuStreamEndCapture(stream, &graph) && graph && cuStreamEndCapture(stream, &graph) == 401);
    graph = nullptr;
    CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0) == 1);
    CHECK(!cuStreamBeginCapture_v2(stream, 1) && !cuMemcpyDtoDAsync_v2(b, a, 4, stream) && !cuStreamEndCapture(stream, &graph));
    CHECK(!cuGraphInstantiateWithFlags(&exec, graph, 0) && !cuGraphDestroy(graph) && cuGraphDestroy(graph) == 1);
    for (number = 7; number < 9; ++number) {
        int found = 0;
        CHECK(!cuMemcpyHtoDAsync_v2(a, &number, 4, other) && !cuGraphLaunch(exec, other));
        CHECK(!cuMemcpyDtoHAsync_v2(&found, b, 4, other) && !cuStreamSynchronize(other) && found == number);
    }
    // Work that is queued outlives the graph.
    CHECK(!cuGraphLaunch(exec, other) && !cuGraphExecDestroy(exec) && cuGraphLaunch(exec, other) == 1);
    CHECK(!cuStreamSynchronize(other));
    // Each of these is refused and ends the capture without a graph.
    for (int what = 0; what < 6; ++what) {
        CHECK(!cuStreamBeginCapture_v2(stream, 1));
        int code = 0;
        if (what == 0) code = cuMemAlloc_v2(&c, 4);
        if (what == 1) code = cuMemFree_v2(b);
        if (what == 2) code = cuStreamSynchronize(stream);
        if (what == 3) code = cuMemcpyHtoDAsync_v2(a, &number, 4, stream);
        if (what == 4) code = cuMemcpyDtoHAsync_v2(&number, a, 4, stream);
        if (what == 5) code = cuModuleLoadData(&module, ".version");
        CHECK(code == UNSUPPORTED);
        CHECK(cuMemcpyDtoDAsync_v2(b, a, 4, stream) == INVALIDATED);
        CHECK(cuStreamEndCapture(stream, &graph) == INVALIDATED && !graph);
    }
    // A capture of the thread: others may allocate, but not end it.
    CHECK(!cuStreamBeginCapture_v2(stream, 1));
    int codes[3];
    std::thread([&] {
        codes[0] = cuMemAlloc_v2(&c, 4);
        codes[1] = cuStreamSynchronize(other);
        codes[2] = cuStreamEndCapture(stream, &graph);
    }).join();
    CHECK(!codes[0] && !codes[1] && codes[2] == WRONG_THREAD);
    CHECK(!cuStreamSynchronize(other) && !cuStreamEndCapture(stream, &graph) && !cuGraphDestroy(graph));
    // A capture for all threads: they may not.
    CHECK(!cuStreamBeginCapture_v2(stream, 0));
    std::thread([&] { codes[0] = cuMemFree_v2(c); }).join();
    CHECK(codes[0] == UNSUPPORTED && cuStreamEndCapture(stream, &graph) == INVALIDATED);
    CHECK(!cuMemFree_v2(a) && !cuMemFree_v2(b) && !cuMemFree_v2(c));
    CHECK(!cuStreamDestroy_v2(stream) && !cuStreamDestroy_v2(other));
    return 0;
}
