"""Make a Qwen2 or a Qwen3 of a Llama in Hugging Face's layout (f32): the same weights, and biases or norms of queries and keys beside them.

    as_qwen.py qwen2|qwen3 LLAMA OUT

The added numbers are small and drawn at random, always the same: enough that a runtime which leaves them out, or puts them in the wrong
place, gives other logits.
"""

import json
import random
import shutil
import struct
import sys
from pathlib import Path


def read(path: Path) -> dict[str, tuple[list[int], bytes]]:
    """Shapes and bytes of the F32 tensors of a safetensors file."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    return {
        name: (info["shape"], content[start + info["data_offsets"][0] : start + info["data_offsets"][1]])
        for name, info in header.items()
    }


def write(path: Path, tensors: dict[str, tuple[list[int], bytes]]) -> None:
    """The same, the other way round."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, (shape, data) in tensors.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + len(data)]}
        end += len(data)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    path.write_bytes(len(head).to_bytes(8, "little") + head + b"".join(data for _, data in tensors.values()))


def main() -> None:
    kind, source, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    shutil.copytree(source, out)
    config = json.loads((out / "config.json").read_text())
    config["model_type"] = kind
    config["architectures"] = [kind.capitalize() + "ForCausalLM"]
    config.pop("attention_bias", None)
    tensors = read(out / "model.safetensors")
    numbers = random.Random(7)
    attention = [name.removesuffix("q_proj.weight") for name in tensors if name.endswith("q_proj.weight")]
    for prefix in attention:
        for part in "qkv" if kind == "qwen2" else "qk":
            rows = tensors[f"{prefix}{part}_proj.weight"][0][0]
            name, width, middle = f"{prefix}{part}_proj.bias", rows, 0.0
            if kind == "qwen3":
                name, width, middle = f"{prefix}{part}_norm.weight", config["head_dim"], 1.0
            values = [middle + numbers.gauss(0.0, 0.1) for _ in range(width)]
            tensors[name] = ([width], struct.pack(f"<{width}f", *values))
    write(out / "model.safetensors", tensors)
    (out / "config.json").write_text(json.dumps(config, indent=2))


if __name__ == "__main__":
    main()
