"""Write packings.json: ternary matrices and the bytes each packing stores for them; and packing_scales.json: the same
with scales of the tensor, of rows and of groups.

Versions: gguf 0.19.0, numpy 2.4.6. To run:

    python -m venv .venv-golden
    .venv-golden/bin/pip install gguf==0.19.0 numpy==2.4.6
    .venv-golden/bin/python tests/golden/make_packings.py

TQ1_0 and TQ2_0 come from `gguf.quants`, llama.cpp's own Python implementation. It does not know I2_S, Q2_0 and IQ2_BN: their
bytes are computed here from the description of the layout and read back one weight at a time by the formula of the runtime's
source (`dequantize_row_q2_0` of llama.cpp as in llama-cpp-python 0.3.36, `dequantize_row_iq2_bn` of ik_llama.cpp).

The file is a list of cases:

    name, rows, cols    the matrix, row-major; columns are the input dimension
    codes               one character a weight: '-' is −1, '0' is 0, '+' is +1
    scale               f32, the multiplier of the codes
    tq1_0, tq2_0        `hex`: the bytes of the tensor; `d`: the f16 scale of each block, as a number. gguf takes d from
                        the largest weight of a block: the f16 nearest to `scale`, and 0 where every code is 0
    i2_s                `hex`: the n/4 bytes of codes. In a file the f32 scale follows at byte n/4, and the tensor ends
                        32 bytes after the codes
    i2_s_arm            the same in the layout of ARM builds
    q2_0                `hex`, with d = 1
    iq2_bn              `hex`, each row after its f32 scale

packing_scales.json is a list of:

    rows, cols, codes   as above
    granularity         "tensor", "row", or the size of a group, as a number
    scales              the multipliers, row-major: one, one a row, or [rows, groups of a row]; f16 numbers
    packings            the bytes by the name of the packing, for every one that has room for the scales and rounds them to
                        f16 (of a tensor's scale, 1), or holds those of rows

TQ1_0 and TQ2_0 are gguf's there too. The others are computed from the description of the layout, as above, and read back
one weight at a time by the formula of the runtime's source: `dequantize_row_pq2_0` and `dequantize_row_ptq1_0` of PrismML's
fork of llama.cpp, `dequantize_row_iq1_bn` of ik_llama.cpp.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Case:
    """A ternary matrix: random codes from `seed`, or every code `constant`."""

    name: str
    rows: int
    cols: int
    scale: float
    seed: int | None = None
    constant: int = 0

    def codes(self) -> np.ndarray:
        """int8 [rows, cols]."""
        if self.seed is None:
            return np.full((self.rows, self.cols), self.constant, dtype=np.int8)
        return np.random.default_rng(self.seed).integers(-1, 2, (self.rows, self.cols), dtype=np.int8)


CASES = [
    Case("one_block", 1, 256, 1.0, seed=1),
    Case("three_rows", 3, 512, 0.5, seed=2),
    Case("inexact_scale", 5, 1024, 0.0371, seed=3),
    Case("zeros", 1, 256, 1.0, constant=0),
    Case("ones", 1, 256, 1.0, constant=1),
    Case("minus_ones", 1, 256, 1.0, constant=-1),
]


def gguf_packing(codes: np.ndarray, scale: np.float32, kind: GGMLQuantizationType) -> dict[str, object]:
    """Bytes and block scales by gguf, after checking that gguf reads back what it wrote."""
    weights = codes.astype(np.float32) * scale
    packed = quants.quantize(weights, kind)
    _, block_bytes = GGML_QUANT_SIZES[kind]
    d = packed.reshape(-1, block_bytes)[:, -2:].copy().view(np.float16).astype(np.float32)
    expected = codes.reshape(len(d), -1).astype(np.float32) * d
    assert np.array_equal(quants.dequantize(packed, kind).reshape(expected.shape), expected)
    return {"hex": packed.tobytes().hex(), "d": d.ravel().tolist()}


def i2_s_packing(codes: np.ndarray) -> dict[str, object]:
    """Bytes of the codes in the x86 layout of I2_S, checked weight by weight."""
    fields = (codes.reshape(-1, 4, 32) + 1).astype(np.uint8)
    packed = (fields << np.array([6, 4, 2, 0], dtype=np.uint8)[None, :, None]).sum(axis=1, dtype=np.uint8).ravel()
    for index, code in enumerate(codes.ravel()):
        block, j = divmod(index, 128)
        byte = int(packed[32 * block + j % 32])
        assert (byte >> (6 - 2 * (j // 32)) & 3) - 1 == code
    return {"hex": packed.tobytes().hex()}


def i2_s_arm_packing(codes: np.ndarray) -> dict[str, object]:
    """Bytes of the codes in the ARM layout of I2_S, checked weight by weight."""
    fields = (codes.reshape(-1, 4, 16) + 1).astype(np.uint8)
    packed = (fields << np.array([6, 4, 2, 0], dtype=np.uint8)[None, :, None]).sum(axis=1, dtype=np.uint8).ravel()
    for index, code in enumerate(codes.ravel()):
        block, j = divmod(index, 64)
        assert (int(packed[16 * block + j % 16]) >> (6 - 2 * (j // 16)) & 3) - 1 == code
    return {"hex": packed.tobytes().hex()}


def q2_0_packing(codes: np.ndarray) -> dict[str, object]:
    """Blocks of 64: d = 1 as f16, then four neighbours a byte; checked weight by weight."""
    fields = (codes.reshape(-1, 16, 4) + 1).astype(np.uint8)
    packed = (fields << np.array([0, 2, 4, 6], dtype=np.uint8)).sum(axis=2, dtype=np.uint8)
    d = np.full((len(packed), 1), 1, dtype=np.float16).view(np.uint8)
    packed = np.concatenate([d, packed], axis=1)
    for index, code in enumerate(codes.ravel()):
        block, j = divmod(index, 64)
        assert (int(packed[block, 2 + j // 4]) >> ((j % 4) * 2) & 3) - 1 == code
    return {"hex": packed.tobytes().hex()}


def iq2_bn_packing(codes: np.ndarray, scale: np.float32) -> dict[str, object]:
    """Rows of their f32 scale and blocks of 64, sixteen apart in a byte; checked weight by weight."""
    rows = []
    for row in codes:
        fields = (row.reshape(-1, 4, 16) + 1).astype(np.uint8)
        packed = (fields << np.array([0, 2, 4, 6], dtype=np.uint8)[None, :, None]).sum(axis=1, dtype=np.uint8)
        for index, code in enumerate(row):
            block, j = divmod(index, 64)
            shift = 4 ** (j // 16)
            assert (int(packed[block, j % 16]) & 3 * shift) / shift - 1 == code
        rows.append(np.float32(scale).tobytes() + packed.tobytes())
    return {"hex": b"".join(rows).hex()}


def golden(case: Case) -> dict[str, object]:
    """What packings.json says about `case`."""
    codes = case.codes()
    scale = np.float32(case.scale)
    return {
        "name": case.name,
        "rows": case.rows,
        "cols": case.cols,
        "scale": float(scale),
        "codes": "".join("-0+"[code + 1] for code in codes.ravel()),
        "tq1_0": gguf_packing(codes, scale, GGMLQuantizationType.TQ1_0),
        "tq2_0": gguf_packing(codes, scale, GGMLQuantizationType.TQ2_0),
        "i2_s": i2_s_packing(codes),
        "i2_s_arm": i2_s_arm_packing(codes),
        "q2_0": q2_0_packing(codes),
        "iq2_bn": iq2_bn_packing(codes, scale),
    }


def two_bit_blocks(codes: np.ndarray, d: np.ndarray, block: int) -> bytes:
    """Q2_0 in both sizes of blocks and PQ2_0: d as f16, then four neighbours a byte; checked weight by weight."""
    fields = (codes.reshape(-1, block // 4, 4) + 1).astype(np.uint8)
    packed = (fields << np.array([0, 2, 4, 6], dtype=np.uint8)).sum(axis=2, dtype=np.uint8)
    packed = np.concatenate([d.astype(np.float16).reshape(-1, 1).view(np.uint8), packed], axis=1)
    for index, code in enumerate(codes.ravel()):
        i, j = divmod(index, block)
        assert (int(packed[i, 2 + j // 4]) >> ((j % 4) * 2) & 3) - 1 == code
    return packed.tobytes()


def base_3(digits: list[int]) -> int:
    """A byte of five base-3 digits, most significant first: ceil(q * 256 / 243)."""
    q = 0
    for digit in digits:
        q = q * 3 + digit
    return -(-q * 256 // 243)


def ptq1_0_blocks(codes: np.ndarray, d: np.ndarray) -> bytes:
    """PTQ1_0: of 128 weights 80 in 16 bytes, 40 in 8, 8 in 2, then d; checked weight by weight."""
    out = []
    for block, scale in zip((codes.reshape(-1, 128) + 1).tolist(), d.ravel(), strict=True):
        packed = [base_3([block[16 * n + m] for n in range(5)]) for m in range(16)]
        packed += [base_3([block[80 + 8 * n + m] for n in range(5)]) for m in range(8)]
        packed += [base_3([block[120 + 2 * n + m] for n in range(4)] + [0]) for m in range(2)]
        for e, code in enumerate(block):
            if e < 80:
                byte, n = packed[e & 15], e >> 4
            elif e < 120:
                byte, n = packed[16 + (e - 80 & 7)], e - 80 >> 3
            else:
                byte, n = packed[24 + (e - 120 & 1)], e - 120 >> 1
            assert (byte * 3**n % 256) * 3 >> 8 == code
        out.append(bytes(packed) + np.float16(scale).tobytes())
    return b"".join(out)


def iq1_bn_rows(codes: np.ndarray, scales: np.ndarray) -> bytes:
    """IQ1_BN: rows of an f16 scale and blocks of 64 weights in 13 bytes; checked weight by weight."""
    out = []
    for row, scale in zip((codes + 1).tolist(), scales, strict=True):
        out.append(np.float16(scale).tobytes())
        for begin in range(0, len(row), 64):
            block = row[begin : begin + 64]
            packed = [base_3(block[16 * i + 5 * k : 16 * i + 5 * k + 5][::-1]) for i in range(4) for k in range(3)]
            packed.append(base_3([0] + [block[16 * i + 15] for i in range(4)][::-1]))
            powers = [81, 27, 9, 3, 1]
            for j, code in enumerate(block):
                i, within = divmod(j, 16)
                byte, n = (packed[12], i) if within == 15 else (packed[3 * i + within // 5], within % 5)
                v = byte * powers[n] % 256
                assert v + (v >> 1) >> 7 == code
            out.append(bytes(packed))
    return b"".join(out)


def scaled(granularity: str | int, rows: int, cols: int, seed: int) -> dict[str, object]:
    """What packing_scales.json says about a matrix of random codes."""
    random = np.random.default_rng(seed)
    codes = random.integers(-1, 2, (rows, cols), dtype=np.int8)
    # No block of zeros, of which gguf would make the scale 0.
    codes[:, ::32] = 1
    groups = {"tensor": 1, "row": 1}.get(granularity) or cols // int(granularity)
    shape = (1, 1) if granularity == "tensor" else (rows, groups)
    scales = random.uniform(0.01, 0.1, shape).astype(np.float16).astype(np.float32)
    if granularity == "tensor":
        scales[:] = 1
    packings = {}
    whole = np.broadcast_to(scales.repeat(cols // groups, axis=1), (rows, cols))

    def of_blocks(block: int) -> np.ndarray | None:
        """The scale of each block, if none has two."""
        blocks = whole.reshape(-1, block)
        return blocks[:, 0] if (blocks == blocks[:, :1]).all() else None

    if of_blocks(256) is not None:
        for kind in (GGMLQuantizationType.TQ1_0, GGMLQuantizationType.TQ2_0):
            packings[kind.name] = quants.quantize(codes * whole, kind).tobytes().hex()
    if of_blocks(128) is not None:
        packings["Q2_0_G128"] = packings["PQ2_0"] = two_bit_blocks(codes, of_blocks(128), 128).hex()
        packings["PTQ1_0"] = ptq1_0_blocks(codes, of_blocks(128)).hex()
    packings["Q2_0"] = two_bit_blocks(codes, of_blocks(64), 64).hex()
    if groups == 1:
        packings["IQ1_BN"] = iq1_bn_rows(codes, whole[:, 0]).hex()
    if granularity == "row":
        rows_of_one = [bytes.fromhex(iq2_bn_packing(codes[i : i + 1], scales[i, 0])["hex"]) for i in range(rows)]
        packings["IQ2_BN"] = b"".join(rows_of_one).hex()
    return {
        "rows": rows,
        "cols": cols,
        "codes": "".join("-0+"[code + 1] for code in codes.ravel()),
        "granularity": granularity,
        "scales": scales.ravel().tolist(),
        "packings": packings,
    }


def main() -> None:
    path = HERE / "packing_scales.json"
    shapes = [("tensor", 2, 512), ("row", 3, 512), (256, 2, 768), (128, 3, 512), (64, 2, 256)]
    cases = [scaled(granularity, rows, cols, 10 + i) for i, (granularity, rows, cols) in enumerate(shapes)]
    path.write_text(json.dumps(cases, indent=1) + "\n")
    print(f"{path.name}: {len(cases)} cases, {path.stat().st_size} bytes")
    path = HERE / "packings.json"
    path.write_text(json.dumps([golden(case) for case in CASES], indent=1) + "\n")
    print(f"{path.name}: {len(CASES)} cases, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
