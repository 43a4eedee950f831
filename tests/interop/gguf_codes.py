"""Check that PyPI `gguf` and tritforge read the same ternary codes and scales from a GGUF file.

    tritforge inspect MODEL.gguf --codes-digest --json > CODES.json
    tests/interop/run.sh gguf_codes.py MODEL.gguf CODES.json

CODES.json holds `{"tensors": [{"name": …, "codes_sha256": …, "scale": …}, …]}`, other keys being ignored, with one
entry for every ternary tensor (an entry without `codes_sha256` is a tensor of another type and is ignored too):

    codes_sha256    of the codes as i8 (−1, 0, 1), row-major, one byte a weight; hexadecimal
    scale           f32, what the codes are multiplied by

TQ1_0 and TQ2_0 are decoded by `gguf.quants`; their scale is the block scale d, which must be the same for all blocks
that hold anything but zeros, times the `<name>.scale` tensor if the file has one. `gguf` 0.19.0 does not know I2_S, Q2_0 and
IQ2_BN: they are decoded here, weight by weight as the runtimes' sources do (`dequantize_row_q2_0` of llama.cpp,
`dequantize_row_iq2_bn` of ik_llama.cpp). I2_S has the layout of x86 unless the key `tritforge.i2_s.layout` is "arm".

Prints a Markdown table. The exit code is 1 if anything differs or is missing on either side, 2 on unusable input.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, quants

I2_S, Q2_0, IQ2_BN = 36, 42, 135
BLOCK_TYPES = (GGMLQuantizationType.TQ1_0, GGMLQuantizationType.TQ2_0)


@dataclass(frozen=True)
class Ternary:
    """What one tensor holds: the digest of its codes and its scale."""

    kind: str
    shape: tuple[int, ...]
    codes_sha256: str
    scale: np.float32


@dataclass(frozen=True)
class Foreign:
    """A tensor of a type that gguf does not know: shape outermost first."""

    kind: int
    shape: tuple[int, ...]
    packed: np.ndarray


def packed_bytes(kind: int, rows: int, cols: int) -> int:
    """Bytes of a tensor of a type that gguf does not know."""
    if kind == I2_S:
        return rows * cols // 4 + 32
    return rows * cols // 64 * 18 if kind == Q2_0 else rows * (4 + cols // 4)


class Reader(GGUFReader):
    """GGUFReader that sets tensors of other types aside, where gguf would refuse them."""

    foreign: dict[str, Foreign]

    def _build_tensors(self, start_offs: int, fields: list) -> None:
        self.foreign = {}
        known = []
        for field in fields:
            _, name, _, dims, kind, offset = field.parts
            if int(kind[0]) not in (I2_S, Q2_0, IQ2_BN):
                known.append(field)
                continue
            start = start_offs + int(offset[0])
            cols, rows = int(dims[0]), int(np.prod(dims[1:]))
            packed = np.array(self.data[start : start + packed_bytes(int(kind[0]), rows, cols)])
            self.foreign[bytes(name).decode()] = Foreign(int(kind[0]), (rows, cols), packed)
        super()._build_tensors(start_offs, known)


def digest(codes: np.ndarray) -> str:
    """SHA-256 of codes as i8 in row-major order."""
    return hashlib.sha256(np.ascontiguousarray(codes, dtype=np.int8).tobytes()).hexdigest()


def decode_blocks(packed: np.ndarray, kind: GGMLQuantizationType, name: str) -> tuple[np.ndarray, np.float32]:
    """Codes and the one block scale of a TQ1_0 or TQ2_0 tensor."""
    block_weights, block_bytes = GGML_QUANT_SIZES[kind]
    weights = quants.dequantize(packed, kind).reshape(-1, block_weights)
    d = packed.reshape(-1, block_bytes)[:, -2:].copy().view(np.float16).astype(np.float32)
    codes = np.sign(weights)
    if not np.array_equal(codes * d, weights):
        raise ValueError(f"{name}: a block holds values other than −d, 0 and d")
    scales = np.unique(d[codes.any(axis=1)])
    if len(scales) > 1:
        raise ValueError(f"{name}: {len(scales)} different block scales; a tensor needs one")
    return codes, scales[0] if len(scales) else np.float32(d.max())


def fields(packed: np.ndarray, block: int, shifts: list[int]) -> np.ndarray:
    """The 2-bit fields of blocks of bytes: first those of the first shift of every byte, then those of the next."""
    parts = packed.reshape(-1, 1, block) >> np.array(shifts, dtype=np.uint8)[None, :, None]
    return (parts & 3).astype(np.int8) - 1


def decode_foreign(tensor: Foreign, arm: bool, name: str) -> tuple[np.ndarray, np.float32]:
    """Codes and scale of a tensor whose type gguf does not know."""
    rows, cols = tensor.shape
    packed = tensor.packed
    if tensor.kind == I2_S:
        # Blocks of 128 weights in 32 bytes, on ARM of 64 in 16, the first quarter in the highest bits; the scale behind.
        scale = packed[rows * cols // 4 :][:4].copy().view(np.float32)[0]
        return fields(packed[: rows * cols // 4], 16 if arm else 32, [6, 4, 2, 0]), scale
    if tensor.kind == Q2_0:
        blocks = packed.reshape(-1, 18)
        d = blocks[:, :2].copy().view(np.float16).astype(np.float32).ravel()
        codes = np.stack([(blocks[:, 2:] >> shift & 3).astype(np.int8) - 1 for shift in (0, 2, 4, 6)], axis=2)
        scales = np.unique(d[codes.reshape(len(d), -1).any(axis=1)])
    else:
        packed = packed.reshape(rows, 4 + cols // 4)
        d = packed[:, :4].copy().view(np.float32).ravel()
        codes = fields(np.ascontiguousarray(packed[:, 4:]), 16, [0, 2, 4, 6]).reshape(rows, cols)
        scales = np.unique(d[codes.any(axis=1)])
    if len(scales) > 1:
        raise ValueError(f"{name}: {len(scales)} different scales; a tensor needs one")
    return codes, scales[0] if len(scales) else np.float32(d.max())


def ternary_tensors(path: Path) -> Iterator[tuple[str, Ternary]]:
    """Every ternary tensor of the file by name."""
    reader = Reader(path)
    scales = {t.name: np.float32(t.data.ravel()[0]) for t in reader.tensors if t.name.endswith(".scale")}
    for tensor in reader.tensors:
        if tensor.tensor_type in BLOCK_TYPES:
            codes, d = decode_blocks(tensor.data, tensor.tensor_type, tensor.name)
            scale = d * scales.get(tensor.name.removesuffix(".weight") + ".scale", np.float32(1))
            shape = tuple(int(dim) for dim in reversed(tensor.shape))
            yield tensor.name, Ternary(tensor.tensor_type.name, shape, digest(codes), scale)
    layout = reader.get_field("tritforge.i2_s.layout")
    arm = layout is not None and layout.contents() == "arm"
    for name, tensor in reader.foreign.items():
        codes, d = decode_foreign(tensor, arm, name)
        scale = d * scales.get(name.removesuffix(".weight") + ".scale", np.float32(1))
        kind = {I2_S: "I2_S", Q2_0: "Q2_0", IQ2_BN: "IQ2_BN"}[tensor.kind]
        yield name, Ternary(kind, tensor.shape, digest(codes), scale)


def verdict(expected: Ternary | None, found: dict | None) -> str:
    """`ok`, or what is wrong."""
    if expected is None:
        return "not ternary for gguf"
    if found is None:
        return "missing in CODES.json"
    if found["codes_sha256"] != expected.codes_sha256:
        return "codes differ"
    if np.float32(found["scale"]) != expected.scale:
        return f"scale differs: tritforge {found['scale']!r}"
    return "ok"


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare a GGUF file's ternary codes as read by gguf and by tritforge.")
    parser.add_argument("model", type=Path, metavar="MODEL.gguf")
    parser.add_argument("codes", type=Path, metavar="CODES.json", help="tritforge inspect MODEL.gguf --codes-digest --json")
    arguments = parser.parse_args()
    try:
        expected = dict(ternary_tensors(arguments.model))
        entries = json.loads(arguments.codes.read_text())["tensors"]
        found = {entry["name"]: entry for entry in entries if entry.get("codes_sha256")}
    except (OSError, ValueError, KeyError) as error:
        print(f"error: {error!r}", file=sys.stderr)
        return 2
    names = sorted(expected.keys() | found.keys())
    if not names:
        print(f"error: {arguments.model} has no ternary tensor", file=sys.stderr)
        return 2
    print("| tensor | type | shape | codes (sha256) | scale | verdict |")
    print("| --- | --- | --- | --- | --- | --- |")
    wrong = 0
    for name in names:
        tensor = expected.get(name)
        result = verdict(tensor, found.get(name))
        wrong += result != "ok"
        if tensor is None:
            print(f"| {name} | | | | | {result} |")
        else:
            shape = " × ".join(map(str, tensor.shape))
            print(f"| {name} | {tensor.kind} | {shape} | {tensor.codes_sha256[:12]}… | {tensor.scale:.9g} | {result} |")
    print(f"\n{len(names) - wrong} of {len(names)} ternary tensors agree")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
