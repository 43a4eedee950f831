"""Write blocks.json: the numbers that gguf's own decoder reads from given bytes of every block format.

Versions: gguf 0.19.0, numpy 2.4.6. To run:

    python -m venv .venv-golden
    .venv-golden/bin/pip install gguf==0.19.0 numpy==2.4.6
    .venv-golden/bin/python tests/golden/make_blocks.py

The bytes are a formula that the test repeats: byte i of a format is `(i · 2654435761 mod 2³²) >> 13`, its lowest eight bits, for four
blocks (BF16, F16 and F32: 64 numbers), except that every f16 scale is 0x2e66 (0.1), every f16 minimum 0xa8cd
(−0.0375), and the last byte of a number of its own 0x3c (F16) or 0x3f. The file maps a format to its numbers as bits of f32.
"""

import json
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

HERE = Path(__file__).resolve().parent
SCALES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q6_K": [208]}


def content(name: str, blocks: int, size: int) -> np.ndarray:
    """The bytes of a format."""
    i = np.arange(blocks * size, dtype=np.uint64)
    data = (((i * 2654435761) % 2**32) >> 13).astype(np.uint8).reshape(blocks, size)
    for offset in SCALES.get(name, []):
        scale = 0x2E66 if offset in (0, 208) else 0xA8CD
        data[:, offset] = scale & 255
        data[:, offset + 1] = scale >> 8
    if name in ("F32", "F16", "BF16"):
        # The last byte holds the sign and most of the exponent: keep numbers near 1.
        data[:, -1] = 0x3C if name == "F16" else 0x3F
    return data.reshape(1, -1)


def main() -> None:
    result = {}
    for name in ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q6_K"]:
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


if __name__ == "__main__":
    main()
