"""Write blocks.json: the numbers that gguf's own decoder reads from given bytes of every block format.

Versions: gguf 0.19.0, numpy 2.4.6. To run:

    python -m venv .venv-golden
    .venv-golden/bin/pip install gguf==0.19.0 numpy==2.4.6
    .venv-golden/bin/python tests/golden/make_blocks.py

The bytes are a formula that the test repeats: byte i of a format is `(i · 2654435761 mod 2³²) >> 13`, its lowest eight bits, for four
blocks (BF16, F16 and F32: 64 numbers), except that every f16 scale is 0x2e66 (0.1), every f16 minimum 0xa8cd
(−0.0375), the exponents of MXFP4 0, 1, 127 and 130, and the last byte of a number of its own 0x3c (F16) or 0x3f. The file maps a format to its numbers as bits of f32.
"""

import json
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

HERE = Path(__file__).resolve().parent
# Where a block has f16 scales and f16 minima.
SCALES = {"Q4_0": [0], "Q4_1": [0], "Q5_0": [0], "Q5_1": [0], "Q8_0": [0], "Q6_K": [208], "Q2_K": [80], "Q3_K": [108], "Q4_K": [0],
          "Q5_K": [0], "IQ4_NL": [0], "IQ4_XS": [0], "IQ3_S": [0]}
MINIMA = {"Q4_1": [2], "Q5_1": [2], "Q2_K": [82], "Q4_K": [2], "Q5_K": [2]}
NAMES = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q6_K", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "IQ4_NL", "IQ4_XS",
         "IQ3_S", "MXFP4"]


def content(name: str, blocks: int, size: int) -> np.ndarray:
    """The bytes of a format."""
    i = np.arange(blocks * size, dtype=np.uint64)
    data = (((i * 2654435761) % 2**32) >> 13).astype(np.uint8).reshape(blocks, size)
    for scale, offsets in [(0x2E66, SCALES), (0xA8CD, MINIMA)]:
        for offset in offsets.get(name, []):
            data[:, offset] = scale & 255
            data[:, offset + 1] = scale >> 8
    if name == "MXFP4":
        # Exponents: both subnormal ones, 1 and 8.
        data[:, 0] = [0, 1, 127, 130]
    if name in ("F32", "F16", "BF16"):
        # The last byte holds the sign and most of the exponent: keep numbers near 1.
        data[:, -1] = 0x3C if name == "F16" else 0x3F
    return data.reshape(1, -1)


def main() -> None:
    result = {}
    for name in NAMES:
        kind = GGMLQuantizationType[name]
        numbers, size = GGML_QUANT_SIZES[kind]
        data = content(name, 64 if numbers == 1 else 4, size)
        if name in ("F32", "F16"):
            values = data.view(np.float32 if name == "F32" else np.float16).astype(np.float32)
        else:
            values = quants.dequantize(data, kind)
        result[name] = values.astype(np.float32).view(np.uint32).reshape(-1).tolist()
    lines = ",\n".join(f'  "{name}": {json.dumps(bits)}' for name, bits in result.items())
    (HERE / "blocks.json").write_text("{\n" + lines + "\n}\n")
    grid()


def grid() -> None:
    """Write the magnitudes of IQ3_S, four to an index and three bits each, as the Rust source that has them."""
    quants.IQ3_S.init_grid()
    magnitudes = quants.IQ3_S.grid.reshape(512, 4).astype(int)
    words = [sum((int(m) - 1) // 2 << (3 * i) for i, m in enumerate(four)) for four in magnitudes]
    rows = [", ".join(f"0o{word:04o}" for word in words[i : i + 12]) for i in range(0, 512, 12)]
    text = (
        "//! The magnitudes of IQ3_S: of each index four odd numbers from 1 to 15, three bits each, the first one lowest. Written by\n"
        "//! `tests/golden/make_blocks.py` from gguf's table, which is `iq3s_grid` of ggml.\n\n"
        "#[rustfmt::skip]\npub(super) const GRID: [u16; 512] = [\n"
        + "".join(f"    {row},\n" for row in rows)
        + "];\n"
    )
    (HERE.parent.parent / "crates/kernels/src/dequantize/iq3_s_grid.rs").write_text(text)


if __name__ == "__main__":
    main()
