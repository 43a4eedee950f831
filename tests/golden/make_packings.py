"""Write packings.json: ternary matrices and the bytes each packing stores for them.

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


def main() -> None:
    path = HERE / "packings.json"
    path.write_text(json.dumps([golden(case) for case in CASES], indent=1) + "\n")
    print(f"{path.name}: {len(CASES)} cases, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
