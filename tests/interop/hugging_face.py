"""Load what tritforge exports for Hugging Face in transformers, and compare logits with those of the models it was made from.

    cargo build --release
    tests/interop/run.sh hugging_face.py

Every golden model of tests/golden is imported (`tritforge import`), exported again in each format that keeps it exact, and
loaded by `AutoModelForCausalLM.from_pretrained`; the table shows the largest difference of a logit from the golden ones, which
transformers computed from the original files. The exit code is 1 if one is above 1e-5.

Then a model that is trained here (recipe.toml, 60 steps) is exported in each format, and what is exported is read by both sides: the ids
of mixed text must be the same, and so must the likeliest token after each of them, where it leads by more than what the logits may
differ, 0.05: where an activation falls on the border between two codes, one sum is rounded up and the other down.

Versions: requirements-hugging_face.txt (CPU only). transformers compiles its quantizers; here they run eagerly.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["TORCHDYNAMO_DISABLE"] = "1"  # read when torch is imported

import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from mixed_text import mixed_text  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
BOUND = 1e-5
# Of the model that is trained here, and bytes of text that it reads.
TRAINED_BOUND, TEXT = 0.05, 4000
WINDOW = 64

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


def tritforge(*arguments: object) -> str:
    """What the binary prints; its first complaint is the end."""
    binary = os.environ.get("TRITFORGE", str(ROOT / "target" / "release" / "tritforge"))
    result = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"tritforge {' '.join(map(str, arguments))}: {result.stderr}")
    return result.stdout


def difference(directory: Path, golden: Path, mode: str) -> float:
    """The largest difference of a logit."""
    goldens = load_file(golden / "goldens.safetensors")
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        logits = model(input_ids=goldens["input_ids"], use_cache=False).logits
    return float((logits - goldens[f"{mode}.logits" if mode else "logits"]).abs().max())


def trained(directory: Path) -> bool:
    """Whether a model that is trained in a directory is in transformers what it is here, in every format."""
    text = mixed_text()
    (directory / "text.txt").write_text(text, encoding="utf-8", newline="")
    held = directory / "held.txt"
    held.write_text(text[:TEXT], encoding="utf-8", newline="")
    recipe = directory / "recipe.toml"
    recipe.write_text((ROOT / "tests" / "interop" / "recipe.toml").read_text(encoding="utf-8"), encoding="utf-8")
    run = directory / "run"
    tritforge("train", recipe, "--quiet", "--set", "train.steps=60", "--set", f"run.out={run}")
    good = True
    for kind in ["hf-packed", "hf-bf16", "hf-f32"]:
        exported = directory / kind
        tritforge("export", run, "-o", exported, "--format", kind, "--embeddings", "f32")
        ours = json.loads(tritforge("tokenize", exported, "--text", held, "--json"))
        theirs = AutoTokenizer.from_pretrained(exported)(text[:TEXT], add_special_tokens=False).input_ids
        dump = directory / f"{kind}.safetensors"
        tritforge("eval", exported, "--text", held, "--window", WINDOW, "--dump-logits", dump)
        dumped = load_file(dump)
        model = AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32, attn_implementation="eager").eval()
        with torch.no_grad():
            windows = dumped["ids"].long().split(WINDOW)
            logits = torch.cat([model(input_ids=ids[None], use_cache=False).logits[0] for ids in windows])
        difference = float((logits - dumped["logits"]).abs().max())
        best = dumped["logits"].topk(2).values
        leads = best[:, 0] - best[:, 1] > 2 * TRAINED_BOUND
        same = int((logits.argmax(-1) == dumped["logits"].argmax(-1))[leads].sum())
        print(
            f"{'trained here':28} {kind:10} largest difference of a logit {difference:.1e}, ids {'as here' if ours == theirs else 'differ'}, "
            f"likeliest token as here {same} of {int(leads.sum())}"
        )
        good &= ours == theirs and same == int(leads.sum()) > 1000 and difference <= TRAINED_BOUND
    return good


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
        good = trained(Path(temporary))
    return int(worst > BOUND or not good)


if __name__ == "__main__":
    sys.exit(main())
