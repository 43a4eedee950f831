#!/usr/bin/env python3
"""Compiles the kernels to PTX with NVRTC from PyPI, and checks that PTX with ptxas from PyPI. Needs neither a GPU nor a
C++ compiler nor CUDA's headers; pip downloads 60 MB into a folder that is kept (TRITFORGE_CUDA_TOOLS, or one in target).

    ptx.py write    kernels/*.cu -> ptx/*.ptx, and the table of docs/cuda.md
    ptx.py check    makes both again and fails on a difference
"""
import ctypes
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import venv

# NVRTC 12.0 writes PTX 8.0, which every driver from 525 on compiles; it must be this version, or the text differs.
NVRTC, PTXAS = "nvidia-cuda-nvrtc-cu12==12.0.140", "nvidia-cuda-nvcc==13.0.88"
TARGET = "compute_80"
# No contraction, no flush to zero, IEEE division and square root: the CPU's arithmetic.
OPTIONS = ["--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true"]
ARCHITECTURES = ["sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a", "sm_120a"]

crate = pathlib.Path(__file__).resolve().parent.parent
root = crate.parent.parent
document = root / "docs" / "cuda.md"
BEGIN, END = "<!-- ptxas: begin, written by crates/kernels-cuda/tools/ptx.py -->", "<!-- ptxas: end -->"


def tools():
    """The folder with both packages."""
    folder = pathlib.Path(os.environ.get("TRITFORGE_CUDA_TOOLS") or root / "target" / "cuda-tools")
    if not (folder / ".complete").exists():
        venv.create(folder / "venv", with_pip=True)
        pip = [folder / "venv" / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps"]
        # One folder a package: pip refuses a folder that has the package's parent already.
        for name in (NVRTC, PTXAS):
            subprocess.run([*pip, "--upgrade", "--target", folder / name.split("=")[0], name], check=True)
        (folder / ".complete").write_text("")
    library = next(folder.glob("nvidia-cuda-nvrtc-cu12/nvidia/cuda_nvrtc/lib/libnvrtc.so.12"))
    ptxas = next(folder.glob("nvidia-cuda-nvcc/nvidia/*/bin/ptxas"))
    ptxas.chmod(0o755)
    return library, ptxas


def compile_ptx(rtc, source):
    """The PTX of a file of kernels."""

    def check(code):
        if code and code != 6:
            raise SystemExit(f"{source.name}: NVRTC error {code}")
        return code

    def text(size, get):
        length = ctypes.c_size_t()
        check(size(program, ctypes.byref(length)))
        buffer = ctypes.create_string_buffer(length.value)
        check(get(program, buffer))
        return buffer.value.decode()

    headers = {path.name: path.read_bytes() for path in sorted(source.parent.glob("*.cuh"))}
    names = (ctypes.c_char_p * len(headers))(*[name.encode() for name in headers])
    contents = (ctypes.c_char_p * len(headers))(*headers.values())
    program = ctypes.c_void_p()
    check(rtc.nvrtcCreateProgram(
        ctypes.byref(program), source.read_bytes(), source.name.encode(), len(headers), contents, names))
    options = [f"--gpu-architecture={TARGET}", *OPTIONS]
    options = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    failed = check(rtc.nvrtcCompileProgram(program, len(options), options))
    log = text(rtc.nvrtcGetProgramLogSize, rtc.nvrtcGetProgramLog).strip()
    if failed or log:
        raise SystemExit(f"{source.name}:\n{log}")
    ptx = text(rtc.nvrtcGetPTXSize, rtc.nvrtcGetPTX)
    rtc.nvrtcDestroyProgram(ctypes.byref(program))
    # Only these operations on floats are rounded as the CPU's are, and ptxas may not contract them.
    for operation in re.findall(r"^\s+((?:mul|add|sub|fma|div|sqrt|rsqrt|rcp|ex2|lg2|sin|cos|tanh)\.[\w.]*f32)", ptx, re.M):
        if not re.fullmatch(r"(mul|add|sub)(\.rn)?\.f32|(fma|div|sqrt|rcp)\.rn\.f32", operation):
            raise SystemExit(f"{source.name}: {operation} is not rounded as on the CPU")
    return ptx


def assembled(ptxas, path, architecture):
    """Registers, bytes spilled and bytes of static shared memory of each kernel, as ptxas says."""
    with tempfile.NamedTemporaryFile() as out:
        command = [ptxas, "-v", f"-arch={architecture}", path, "-o", out.name]
        result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise SystemExit(f"{path.name} for {architecture}:\n{result.stderr}")
    kernels = {}
    for part in result.stderr.split("Compiling entry function '")[1:]:
        registers = int(re.search(r"Used (\d+) registers", part).group(1))
        spilled = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", part)
        kernels[part.split("'")[0]] = (registers, sum(map(int, spilled.groups())) if spilled else 0)
    return kernels


def table(ptxas, folder, sources):
    """The table of all kernels."""
    lines = ["| kernel | threads | " + " | ".join(ARCHITECTURES) + " |", "|---|---|" + "---|" * len(ARCHITECTURES)]
    for source in sources:
        path = folder / f"{source.stem}.ptx"
        threads = dict(re.findall(r"\.entry (\w+)\([^)]*\)\s+\.maxntid (\d+)", path.read_text(encoding="utf-8")))
        found = {architecture: assembled(ptxas, path, architecture) for architecture in ARCHITECTURES}
        for kernel in found[ARCHITECTURES[0]]:
            cells = []
            for architecture in ARCHITECTURES:
                registers, spilled = found[architecture][kernel]
                cells.append(f"{registers}" + (f", {spilled} B spilled" if spilled else ""))
            lines.append(f"| `{kernel}` | {threads[kernel]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    if sys.argv[1:] not in (["write"], ["check"]):
        raise SystemExit(__doc__)
    library, ptxas = tools()
    rtc = ctypes.CDLL(str(library))
    sources = sorted((crate / "kernels").glob("*.cu"))
    write = sys.argv[1] == "write"
    for source in sources:
        ptx, path = compile_ptx(rtc, source), crate / "ptx" / f"{source.stem}.ptx"
        if write:
            path.write_text(ptx, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != ptx:
            raise SystemExit(f"{path.relative_to(root)} is not what {source.name} compiles to: run {sys.argv[0]} write")
    rows = table(ptxas, crate / "ptx", sources)
    text = document.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    new = f"{before}{BEGIN}\n{rows}\n{END}{after}"
    if write:
        document.write_text(new, encoding="utf-8")
    elif text != new:
        raise SystemExit(f"the table of {document.relative_to(root)} is old: run {sys.argv[0]} write")


main()
