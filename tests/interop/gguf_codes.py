"""Check that PyPI `gguf` and tritforge read the same ternary codes and scales from a GGUF file.

    tritforge inspect MODEL.gguf --codes-digest --json > CODES.json
    tests/interop/run.sh gguf_codes.py MODEL.gguf CODES.json

CODES.json holds `{"tensors": [{"name": …, "codes_sha256": …, "scale": …}, …]}`, other keys being ignored, with one
entry for every ternary tensor (an entry without `codes_sha256` is a tensor of another type and is ignored too):

    codes_sha256    of the codes as i8 (−1, 0, 1), row-major, one byte a weight; hexadecimal
    scale           f32, what the codes are multiplied by

TQ1_0 and TQ2_0 are decoded by `gguf.quants`; their scale is the block scale d, which must be the same for all blocks
that hold anything but zeros, times the `<name>.scale` tensor if the file has one. `gguf` 0.19.0 does not know I2_S: its
x86 layout is decoded here, and its scale stands behind the codes.

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

I2_S = 36
BLOCK_TYPES = (GGMLQuantizationType.TQ1_0, GGMLQuantizationType.TQ2_0)


@dataclass(frozen=True)
class Ternary:
    """What one tensor holds: the digest of its codes and its scale."""

    kind: str
    shape: tuple[int, ...]
    codes_sha256: str
    scale: np.float32


class Reader(GGUFReader):
    """GGUFReader that sets I2_S tensors aside, as (name, shape outermost first, bytes), where gguf would refuse them."""

    i2_s: list[tuple[str, tuple[int, ...], np.ndarray]]

    def _build_tensors(self, start_offs: int, fields: list) -> None:
        self.i2_s = []
        known = []
        for field in fields:
            _, name, _, dims, kind, offset = field.parts
            if int(kind[0]) != I2_S:
                known.append(field)
                continue
            start = start_offs + int(offset[0])
            size = int(np.prod(dims)) // 4 + 32
            shape = tuple(int(dim) for dim in reversed(dims))
            self.i2_s.append((bytes(name).decode(), shape, np.array(self.data[start : start + size])))
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


def decode_i2_s(packed: np.ndarray, weights: int) -> tuple[np.ndarray, np.float32]:
    """Codes and scale of an I2_S tensor: blocks of 128 weights in 32 bytes, the first 32 in the highest bits."""
    fields = packed[: weights // 4].reshape(-1, 1, 32) >> np.array([6, 4, 2, 0], dtype=np.uint8)[None, :, None]
    codes = (fields & 3).astype(np.int8) - 1
    scale = packed[weights // 4 : weights // 4 + 4].copy().view(np.float32)[0]
    return codes, scale


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
    for name, shape, packed in reader.i2_s:
        codes, scale = decode_i2_s(packed, int(np.prod(shape)))
        yield name, Ternary("I2_S", shape, digest(codes), scale)


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
