#!/usr/bin/env python3
"""The rate at which a GPU copies its own memory, by the driver alone: what no kernel that reads weights can exceed by much.

    bandwidth.py [--device N] [--only-open]

Prints JSON: the GPU's name, its driver's version, GB/s (bytes read and bytes written) of the fastest and of the median copy."""
import argparse
import ctypes
import json
import statistics
import sys
import time

COPIES, MOST_BYTES = 20, 1 << 30


def call(function, *arguments):
    """Calls a function of the driver."""
    code = function(*arguments)
    if code:
        raise SystemExit(f"{function.__name__} failed: error {code} of the CUDA driver")


def load():
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise SystemExit(f"no CUDA driver was found ({error}); this needs a machine with an NVIDIA GPU and its driver")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", type=int, default=0)
    parser.add_argument("--only-open", action="store_true")
    arguments = parser.parse_args()
    cuda = load()
    count, device, version = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    call(cuda.cuInit, 0)
    call(cuda.cuDriverGetVersion, ctypes.byref(version))
    call(cuda.cuDeviceGetCount, ctypes.byref(count))
    if not 0 <= arguments.device < count.value:
        raise SystemExit(f"there is no GPU {arguments.device}: the driver knows {count.value}, numbered from 0")
    call(cuda.cuDeviceGet, ctypes.byref(device), arguments.device)
    name = ctypes.create_string_buffer(256)
    call(cuda.cuDeviceGetName, name, 255, device)
    found = {"gpu": name.value.decode(), "driver": f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"}
    context, stream = ctypes.c_void_p(), ctypes.c_void_p()
    call(cuda.cuDevicePrimaryCtxRetain, ctypes.byref(context), device)
    call(cuda.cuCtxSetCurrent, context)
    if arguments.only_open:
        print(f"{found['gpu']}, {found['driver']}")
        return
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    call(cuda.cuMemGetInfo_v2, ctypes.byref(free), ctypes.byref(total))
    size = min(MOST_BYTES, free.value // 8)
    buffers = [ctypes.c_uint64(), ctypes.c_uint64()]
    for buffer in buffers:
        call(cuda.cuMemAlloc_v2, ctypes.byref(buffer), ctypes.c_size_t(size))
    call(cuda.cuStreamCreate, ctypes.byref(stream), 1)
    rates = []
    for copy in range(COPIES + 2):
        begin = time.perf_counter()
        call(cuda.cuMemcpyDtoDAsync_v2, buffers[1], buffers[0], ctypes.c_size_t(size), stream)
        call(cuda.cuStreamSynchronize, stream)
        if copy >= 2:
            rates.append(2 * size / (time.perf_counter() - begin) * 1e-9)
    found |= {"bytes": size, "fastest": max(rates), "median": statistics.median(rates)}
    json.dump(found, sys.stdout)
    print()


main()
