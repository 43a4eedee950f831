"""Load what tritforge exports for Hugging Face in transformers, and compare logits with those of the models it was made from.

    cargo build --release
    tests/interop/run.sh hugging_face.py

Every golden model of tests/golden is imported (`tritforge import`), exported again in each format that keeps it exact, and
loaded by `AutoModelForCausalLM.from_pretrained`; the table shows the largest difference of a logit from the golden ones, which
transformers computed from the original files. The exit code is 1 if one is above 1e-5.

Versions: requirements-hugging_face.txt (CPU only). transformers compiles its quantizers; here they run eagerly.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["TORCHDYNAMO_DISABLE"] = "1"  # read when torch is imported

import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
BOUND = 1e-5

# Model, mode of its goldens, how to import it, formats to export.
CASES = [
    ("bitnet_tiny", "online", [], ["hf-f32", "hf-packed"]),
    ("bitnet_silu", "online", [], ["hf-bf16", "hf-packed"]),
    ("bitnet_packed/bitlinear", "", [], ["hf-packed", "hf-f32"]),
    ("bitnet_packed/autobitlinear", "", [], ["hf-packed", "hf-f32"]),
    ("llama_tiny", "plain", [], ["hf-f32"]),
    ("qwen2_tiny", "plain", [], ["hf-f32", "hf-bf16"]),
    ("qwen3_tiny", "plain", [], ["hf-f32"]),
]


def tritforge(*arguments: object) -> None:
    """Run the binary and stop at its first complaint."""
    binary = os.environ.get("TRITFORGE", str(ROOT / "target" / "release" / "tritforge"))
    result = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"tritforge {' '.join(map(str, arguments))}: {result.stderr}")


def difference(directory: Path, golden: Path, mode: str) -> float:
    """The largest difference of a logit."""
    goldens = load_file(golden / "goldens.safetensors")
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        logits = model(input_ids=goldens["input_ids"], use_cache=False).logits
    return float((logits - goldens[f"{mode}.logits" if mode else "logits"]).abs().max())


def main() -> int:
    worst = 0.0
    with tempfile.TemporaryDirectory() as temporary:
        for name, mode, flags, formats in CASES:
            golden = ROOT / "tests" / "golden" / name
            checkpoint = Path(temporary) / name.replace("/", "-")
            tritforge("import", golden, "-o", checkpoint, *flags)
            for kind in formats:
                directory = Path(temporary) / f"{checkpoint.name}-{kind}"
                tritforge("export", checkpoint, "-o", directory, "--format", kind, "--embeddings", "f32")
                found = difference(directory, golden, mode)
                worst = max(worst, found)
                print(f"{name:28} {kind:10} largest difference of a logit {found:.1e}")
    return int(worst > BOUND)


if __name__ == "__main__":
    sys.exit(main())
