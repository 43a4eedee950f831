"""Write read_only.json: the numbers of ternary types of GGUF files that are read and not written, Q1_0 and IQ2_BN_R4.

Versions: numpy 2.4.6. `gguf` 0.19.0 has no decoder of either type, so they are decoded here, number by number: Q1_0 as
`dequantize_row_q1_0` of ggml defines it, IQ2_BN_R4 as `dequantize_row_iq2_bn_r4` of ik_llama.cpp (August 2026). To run:

    python -m venv .venv-golden
    .venv-golden/bin/pip install numpy==2.4.6
    .venv-golden/bin/python tests/golden/make_read_only.py
"""

import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent


def noise(count: int) -> np.ndarray:
    """Bytes of a fixed formula."""
    i = np.arange(count, dtype=np.uint64)
    return (((i * 2654435761) % 2**32) >> 13).astype(np.uint8)


def q1_0(rows: int, cols: int) -> tuple[np.ndarray, np.ndarray]:
    """Blocks of an f16 scale and 128 bits."""
    blocks = noise(rows * cols // 128 * 18).reshape(-1, 18)
    scales = (0.25 + np.arange(len(blocks)) / 64).astype(np.float16)
    blocks[:, :2] = scales.view(np.uint8).reshape(-1, 2)
    values = np.zeros((len(blocks), 128), dtype=np.float32)
    for b, block in enumerate(blocks):
        for j in range(128):
            bit = block[2 + j // 8] >> (j % 8) & 1
            values[b, j] = scales[b] if bit else -scales[b]
    return blocks, values


def iq2_bn_r4(rows: int, cols: int) -> tuple[np.ndarray, np.ndarray]:
    """Four rows together: their scales, then 64 bytes for each 64 columns."""
    out, values = [], np.zeros((rows, cols), dtype=np.float32)
    bytes_of_codes = noise(rows * cols // 4)
    # Fields of two bits below 3.
    for shift in (0, 2, 4, 6):
        field = bytes_of_codes >> shift & 3
        bytes_of_codes = np.where(field == 3, bytes_of_codes & ~np.uint8(1 << shift), bytes_of_codes).astype(np.uint8)
    for first in range(0, rows, 4):
        d4 = np.array([0.3 + (first + k) / 7 for k in range(4)], dtype=np.float32)
        q = bytes_of_codes[first * cols // 4 : (first + 4) * cols // 4]
        out += [d4.view(np.uint8), q]
        for ib in range(cols // 64):
            for k in range(4):
                for l in range(4):
                    for i in range(4):
                        byte = int(q[64 * ib + 4 * k + i + 16 * l])
                        for j in range(4):
                            code = (byte >> (2 * j) & 3) - 1
                            values[first + k, 64 * ib + 16 * l + i + 4 * j] = d4[k] * np.float32(code)
    return np.concatenate(out), values


def main() -> None:
    result = {}
    for name, make, rows, cols in [("Q1_0", q1_0, 3, 256), ("IQ2_BN_R4", iq2_bn_r4, 8, 192)]:
        data, values = make(rows, cols)
        bits = (values + np.float32(0)).view(np.uint32).reshape(-1).tolist()
        result[name] = {"rows": rows, "cols": cols, "bytes": data.reshape(-1).tolist(), "values": bits}
    lines = ",\n".join(f'  "{name}": {json.dumps(value)}' for name, value in result.items())
    (HERE / "read_only.json").write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    main()
