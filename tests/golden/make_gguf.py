#!/usr/bin/env python3
"""Make gguf_writer.bin and gguf_writer.json: a small GGUF file as the Python package gguf writes it.

The file holds every metadata value type, arrays of every element type, and F32, F16, Q8_0, TQ1_0 and TQ2_0 tensors.
The JSON beside it says what a reader must find, written from the Python values and not read back from the file, and
for each ternary tensor the codes, the scale and the packed bytes (what a packer must produce). Tests of
tritforge-gguf and tritforge-ternary read both.

Made with Python 3.11, gguf 0.19.0, numpy 2.4.6:

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install gguf==0.19.0 numpy==2.4.6
    /tmp/golden/bin/python tests/golden/make_gguf.py

Running it again gives the same bytes.

JSON keys
    types     [id, name, weights a block, bytes a block] of every tensor type of the package
    metadata  [key, type, value] or [key, "array", element type, values], in the order of the file
    alignment, data_offset, and tensors: name, dims (innermost first), type, offset, and the data in hex
    ternary   name, type, rows, cols, scale, codes (a string a row, of "-", "0", "+"), packed (hex). The weights given
              to gguf were codes * scale in f32. gguf takes each block's scale from its largest weight, so a block
              of zeros has d = 0 whatever the tensor's scale; only the tensors "*.zero_block" have such a block.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from gguf import GGUFReader, GGUFWriter
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as T, GGUFValueType as V
from gguf.quants import quantize

assert version("gguf") == "0.19.0", "install gguf==0.19.0"

HERE = Path(__file__).resolve().parent
ALIGNMENT = 64

NAMES = {
    V.UINT8: "u8", V.INT8: "i8", V.UINT16: "u16", V.INT16: "i16", V.UINT32: "u32", V.INT32: "i32",
    V.FLOAT32: "f32", V.BOOL: "bool", V.STRING: "string", V.ARRAY: "array", V.UINT64: "u64", V.INT64: "i64",
    V.FLOAT64: "f64",
}

# Extremes of every type; floats are exact in their type.
ARRAYS = {
    V.UINT8: [0, 1, 255],
    V.INT8: [-128, -1, 127],
    V.UINT16: [0, 65535],
    V.INT16: [-32768, 32767],
    V.UINT32: [0, 2**32 - 1],
    V.INT32: [-(2**31), 2**31 - 1, 3],
    V.FLOAT32: [0.0, -1.5, float(np.float32(1e-5)), float(np.finfo(np.float32).max), float(np.float32(1e-45))],
    V.BOOL: [True, False, True],
    V.STRING: ["<s>", "", "Ġlet", "größe", "\n\0", "木"],
    V.UINT64: [0, 2**64 - 1],
    V.INT64: [-(2**63), 2**63 - 1],
    V.FLOAT64: [0.1, -1e300, 5e-324],
}


def metadata_entries():
    """(key, type, element type, value) in the order of the file."""
    yield "general.architecture", V.STRING, None, "bitnet"
    yield "general.alignment", V.UINT32, None, ALIGNMENT
    for ty, values in ARRAYS.items():
        yield f"test.{NAMES[ty]}", ty, None, values[-1]
    for ty, values in ARRAYS.items():
        yield f"test.array.{NAMES[ty]}", V.ARRAY, ty, values
    yield "test.long", V.ARRAY, V.INT32, list(range(-300, 300))


def ternary_cases(rng):
    """(name, codes of shape [rows, cols], scale). Every block of 256 has a nonzero weight but in zero_block."""
    # Not representable in f16: the packed d is the rounded scale.
    yield "random", rng.integers(-1, 2, (3, 256)), np.float32(0.021372)
    yield "wide", rng.integers(-1, 2, (2, 768)), np.float32(1.0)
    # Mostly zeros, as trained layers are; the first weight of each block makes its scale known.
    sparse = np.where(rng.random((4, 512)) < 0.8, 0, rng.integers(-1, 2, (4, 512)))
    sparse[:, ::256] = 1
    yield "sparse", sparse, np.float32(0.75)
    # A subnormal in f16.
    yield "small_scale", rng.integers(-1, 2, (1, 256)), np.float32(1.1e-5)
    # Each position of a byte alone, and the runs of one code.
    runs = np.zeros((4, 256), dtype=np.int64)
    runs[0], runs[1] = -1, 1
    runs[2, ::5], runs[3, 1::3] = 1, -1
    yield "runs", runs, np.float32(0.5)
    zero_block = rng.integers(-1, 2, (2, 512))
    zero_block[0, 256:] = 0
    yield "zero_block", zero_block, np.float32(0.25)


def hexed(array):
    return np.ascontiguousarray(array).tobytes().hex()


def main():
    rng = np.random.default_rng(20260701)
    path = HERE / "gguf_writer.bin"
    writer = GGUFWriter(path, "bitnet")
    golden = {"made_with": {"gguf": version("gguf"), "numpy": np.__version__}}
    golden["types"] = [[int(ty), ty.name, *sizes] for ty, sizes in GGML_QUANT_SIZES.items()]

    golden["metadata"] = []
    for key, ty, element, value in metadata_entries():
        if key == "general.alignment":
            writer.add_custom_alignment(value)
        elif key != "general.architecture":  # The constructor has written it.
            writer.add_key_value(key, value, ty, sub_type=element)
        golden["metadata"].append([key, NAMES[ty], *([NAMES[element]] if element is not None else []), value])

    golden["alignment"] = ALIGNMENT
    golden["tensors"], golden["ternary"] = [], []
    offset = 0

    def add(name, ty, shape, data):
        nonlocal offset
        writer.add_tensor(name, data, raw_dtype=ty)
        dims = [int(n) for n in reversed(shape)]
        golden["tensors"].append({"name": name, "dims": dims, "type": ty.name, "offset": offset, "data": hexed(data)})
        offset += (data.nbytes + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT

    weights = rng.standard_normal((3, 64)).astype(np.float32)
    add("token_embd.weight", T.F32, weights.shape, weights)
    add("output_norm.weight", T.F32, (5,), weights[0, :5].copy())
    add("four_dims", T.F16, (2, 1, 3, 7), rng.standard_normal((2, 1, 3, 7)).astype(np.float16))
    add("output.weight", T.Q8_0, weights.shape, quantize(weights, T.Q8_0))
    for case, codes, scale in ternary_cases(rng):
        for ty in (T.TQ1_0, T.TQ2_0):
            packed = quantize(codes.astype(np.float32) * scale, ty)
            name = f"{ty.name.lower()}.{case}"
            add(name, ty, codes.shape, packed)
            golden["ternary"].append({
                "name": name, "type": ty.name, "rows": codes.shape[0], "cols": codes.shape[1], "scale": float(scale),
                "codes": ["".join("-0+"[c + 1] for c in row) for row in codes], "packed": hexed(packed),
            })

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    golden["data_offset"] = int(GGUFReader(path).data_offset)

    lines = [f"{json.dumps(key)}: {dumps(value)}" for key, value in golden.items()]
    (HERE / "gguf_writer.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def dumps(value):
    """One line an element of the outer list, so that a change shows as a small difference."""
    if isinstance(value, list):
        return "[\n  " + ",\n  ".join(json.dumps(element) for element in value) + "\n]"
    return json.dumps(value)


if __name__ == "__main__":
    main()
