"""Check that PyPI `gguf` and tritforge read the same ternary codes and scales from a GGUF file.

    tritforge inspect MODEL.gguf --codes-digest --json > CODES.json
    tests/interop/run.sh gguf_codes.py MODEL.gguf CODES.json

CODES.json holds `{"tensors": [{"name": …, "codes_sha256": …, "scale": …}, …]}`, other keys being ignored, with one
entry for every ternary tensor (an entry without `codes_sha256` is a tensor of another type and is ignored too):

    codes_sha256    of the codes as i8 (−1, 0, 1), row-major, one byte a weight; hexadecimal
    scale           f32, the mean of what the codes are multiplied by
    granularity     "tensor", "row", or the size of a group: which weights share a scale

TQ1_0 and TQ2_0 are decoded by `gguf.quants`; their scales are the block scales d, times the `<name>.scale` tensor if the
file has one. `gguf` 0.19.0 does not know I2_S, Q2_0, PQ2_0, PTQ1_0, IQ2_BN and IQ1_BN: they are decoded here, as the
runtimes' sources do (`dequantize_row_q2_0` of llama.cpp, `dequantize_row_pq2_0` and `dequantize_row_ptq1_0` of PrismML's
fork of it, `dequantize_row_iq2_bn` and `dequantize_row_iq1_bn` of ik_llama.cpp). I2_S has the layout of x86 unless the key
`tritforge.i2_s.layout` is "arm"; Q2_0 has blocks of 128 weights if those of 64 would not fit before the next tensor.

Scales of blocks and rows must be the same wherever tritforge says that weights share one, but for blocks of zeros.

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

I2_S, Q2_0, IQ1_BN, IQ2_BN, PQ2_0, PTQ1_0 = 36, 42, 134, 135, 142, 143
Q2_0_G128 = -42
NAMES = {
    I2_S: "I2_S",
    Q2_0: "Q2_0",
    Q2_0_G128: "Q2_0_G128",
    IQ1_BN: "IQ1_BN",
    IQ2_BN: "IQ2_BN",
    PQ2_0: "PQ2_0",
    PTQ1_0: "PTQ1_0",
}
BLOCK_TYPES = (GGMLQuantizationType.TQ1_0, GGMLQuantizationType.TQ2_0)


@dataclass(frozen=True)
class Ternary:
    """What one tensor holds: its codes [rows, cols], and the scale of each of their blocks (a row, the tensor)."""

    kind: str
    shape: tuple[int, ...]
    codes: np.ndarray
    scales: np.ndarray


@dataclass(frozen=True)
class Foreign:
    """A tensor of a type that gguf does not know: shape outermost first."""

    kind: int
    shape: tuple[int, ...]
    packed: np.ndarray


# Weights and bytes of a block, bytes before each row, bytes after the tensor.
SIZES = {
    I2_S: (128, 32, 0, 32),
    Q2_0: (64, 18, 0, 0),
    Q2_0_G128: (128, 34, 0, 0),
    IQ1_BN: (64, 13, 2, 0),
    IQ2_BN: (64, 16, 4, 0),
    PQ2_0: (128, 34, 0, 0),
    PTQ1_0: (128, 28, 0, 0),
}


def packed_bytes(kind: int, rows: int, cols: int) -> int:
    """Bytes of a tensor of a type that gguf does not know."""
    weights, size, row, tail = SIZES[kind]
    return rows * (cols // weights * size + row) + tail


class Reader(GGUFReader):
    """GGUFReader that sets tensors of other types aside, where gguf would refuse them."""

    foreign: dict[str, Foreign]

    def _build_tensors(self, start_offs: int, fields: list) -> None:
        self.foreign = {}
        known, foreign = [], []
        for field in fields:
            (foreign if int(field.parts[4][0]) in NAMES else known).append(field)
        begins = sorted(int(field.parts[5][0]) for field in fields)

        def room(field: object) -> int:
            begin = int(field.parts[5][0])
            return min([b for b in begins if b > begin] + [len(self.data) - start_offs]) - begin

        def shape(field: object) -> tuple[int, int]:
            return int(np.prod(field.parts[3][1:])), int(field.parts[3][0])

        wide = any(int(f.parts[4][0]) == Q2_0 and packed_bytes(Q2_0, *shape(f)) > room(f) for f in foreign)
        for field in foreign:
            _, name, _, _, kind, offset = field.parts
            kind, start = int(kind[0]), start_offs + int(offset[0])
            kind = Q2_0_G128 if kind == Q2_0 and wide else kind
            packed = np.array(self.data[start : start + packed_bytes(kind, *shape(field))])
            self.foreign[bytes(name).decode()] = Foreign(kind, shape(field), packed)
        super()._build_tensors(start_offs, known)


def digest(codes: np.ndarray) -> str:
    """SHA-256 of codes as i8 in row-major order."""
    return hashlib.sha256(np.ascontiguousarray(codes, dtype=np.int8).tobytes()).hexdigest()


def decode_blocks(packed: np.ndarray, kind: GGMLQuantizationType, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Codes and block scales of a TQ1_0 or TQ2_0 tensor."""
    block_weights, block_bytes = GGML_QUANT_SIZES[kind]
    weights = quants.dequantize(packed, kind).reshape(-1, block_weights)
    d = packed.reshape(-1, block_bytes)[:, -2:].copy().view(np.float16).astype(np.float32)
    codes = np.sign(weights)
    if not np.array_equal(codes * d, weights):
        raise ValueError(f"{name}: a block holds values other than −d, 0 and d")
    return codes, d.ravel()


def fields(packed: np.ndarray, block: int, shifts: list[int]) -> np.ndarray:
    """The 2-bit fields of blocks of bytes: first those of the first shift of every byte, then those of the next."""
    parts = packed.reshape(-1, 1, block) >> np.array(shifts, dtype=np.uint8)[None, :, None]
    return (parts & 3).astype(np.int8) - 1


def trits(packed: np.ndarray, count: int) -> np.ndarray:
    """The base-3 digits of blocks of bytes: first digit 0 of every byte, then digit 1."""
    digits = [(packed.astype(np.uint16) * 3**n % 256 * 3 >> 8).astype(np.int8) - 1 for n in range(count)]
    return np.concatenate(digits, axis=1)


def decode_foreign(tensor: Foreign, arm: bool) -> tuple[np.ndarray, np.ndarray]:
    """Codes, and scales of blocks, of rows or of the tensor, of a type that gguf does not know."""
    rows, cols = tensor.shape
    packed = tensor.packed
    if tensor.kind == I2_S:
        # Blocks of 128 weights in 32 bytes, on ARM of 64 in 16, the first quarter in the highest bits; the scale behind.
        scale = packed[rows * cols // 4 :][:4].copy().view(np.float32)
        return fields(packed[: rows * cols // 4], 16 if arm else 32, [6, 4, 2, 0]), scale
    if tensor.kind in (Q2_0, Q2_0_G128, PQ2_0):
        blocks = packed.reshape(-1, SIZES[tensor.kind][1])
        d = blocks[:, :2].copy().view(np.float16).astype(np.float32).ravel()
        return np.stack([(blocks[:, 2:] >> shift & 3).astype(np.int8) - 1 for shift in (0, 2, 4, 6)], axis=2), d
    if tensor.kind == PTQ1_0:
        # 80 weights in 16 bytes, 40 in 8, 8 in 2, and the scale last.
        blocks = packed.reshape(-1, 28)
        d = blocks[:, 26:].copy().view(np.float16).astype(np.float32).ravel()
        runs = [trits(blocks[:, :16], 5), trits(blocks[:, 16:24], 5), trits(blocks[:, 24:26], 4)]
        return np.concatenate(runs, axis=1), d
    packed = packed.reshape(rows, -1)
    if tensor.kind == IQ1_BN:
        # Of 16 weights 15 in three bytes, the first digit lowest, and the last in byte 12.
        d = packed[:, :2].copy().view(np.float16).astype(np.float32).ravel()
        blocks = packed[:, 2:].reshape(-1, 13).astype(np.uint16)
        powers = np.array([81, 27, 9, 3, 1], dtype=np.uint16)
        five = (blocks[:, :12, None] * powers % 256 * 3 >> 8).reshape(len(blocks), 4, 15)
        last = (blocks[:, 12:] * powers[:4] % 256 * 3 >> 8).reshape(len(blocks), 4, 1)
        return np.concatenate([five, last], axis=2).astype(np.int8) - 1, d
    d = packed[:, :4].copy().view(np.float32).ravel()
    return fields(np.ascontiguousarray(packed[:, 4:]), 16, [0, 2, 4, 6]), d


def ternary_tensors(path: Path) -> Iterator[tuple[str, Ternary]]:
    """Every ternary tensor of the file by name."""
    reader = Reader(path)
    scales = {t.name: np.float32(t.data.ravel()[0]) for t in reader.tensors if t.name.endswith(".scale")}
    for tensor in reader.tensors:
        if tensor.tensor_type in BLOCK_TYPES:
            codes, d = decode_blocks(tensor.data, tensor.tensor_type, tensor.name)
            beside = scales.get(tensor.name.removesuffix(".weight") + ".scale", np.float32(1))
            shape = tuple(int(dim) for dim in reversed(tensor.shape))
            yield tensor.name, Ternary(tensor.tensor_type.name, shape, codes.reshape(shape), d * beside)
    layout = reader.get_field("tritforge.i2_s.layout")
    arm = layout is not None and layout.contents() == "arm"
    for name, tensor in reader.foreign.items():
        codes, d = decode_foreign(tensor, arm)
        beside = scales.get(name.removesuffix(".weight") + ".scale", np.float32(1))
        if not (codes <= 1).all():
            raise ValueError(f"{name}: a code is 2, which no ternary tensor uses")
        yield name, Ternary(NAMES[tensor.kind], tensor.shape, codes.reshape(tensor.shape), d * beside)


def shared_scales(tensor: Ternary, granularity: str) -> np.ndarray | None:
    """The scale of each part that shares one, NaN for parts of zeros; None if a part has two."""
    rows, cols = tensor.shape
    width = {"tensor": rows * cols, "row": cols}.get(granularity) or int(granularity)
    each = np.repeat(tensor.scales, rows * cols // len(tensor.scales)).astype(np.float64)
    block = rows * cols // len(tensor.scales)
    zeros = np.repeat(~tensor.codes.reshape(-1, block).any(axis=1), block)
    each[zeros] = np.nan
    parts = each.reshape(-1, width)
    some = np.isfinite(parts).any(axis=1)
    shared = np.full(len(parts), np.nan)
    shared[some] = np.nanmin(parts[some], axis=1)
    return shared if (shared[some] == np.nanmax(parts[some], axis=1)).all() else None


def verdict(expected: Ternary | None, found: dict | None) -> str:
    """`ok`, or what is wrong."""
    if expected is None:
        return "not ternary for gguf"
    if found is None:
        return "missing in CODES.json"
    if found["codes_sha256"] != digest(expected.codes):
        return "codes differ"
    granularity = found.get("granularity") or "tensor"
    shared = shared_scales(expected, granularity)
    if shared is None:
        return f"scales are not those of granularity {granularity}"
    # Parts of zeros alone may have any scale; the mean tells nothing then.
    if np.isfinite(shared).all() and not np.isclose(found["scale"], shared.mean(), rtol=1e-6, atol=0):
        return f"mean scale differs: tritforge {found['scale']!r}"
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
    print("| tensor | type | shape | codes (sha256) | mean scale | verdict |")
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
            print(f"| {name} | {tensor.kind} | {shape} | {digest(tensor.codes)[:12]}… | {tensor.scales.mean():.9g} | {result} |")
    print(f"\n{len(names) - wrong} of {len(names)} ternary tensors agree")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
