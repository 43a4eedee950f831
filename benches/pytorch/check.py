"""Check that the PyTorch model and tritforge compute the same loss, so that the benchmark compares the same work.

    benches/pytorch/run.sh --check [--tritforge target/release/tritforge] [--checkpoint RUN --text FILE]

Without a checkpoint, tritforge trains one of the small shape in check.toml for a few steps on this repository's README. The
checkpoint's weights are loaded into model.py; `tritforge eval --dump-logits` gives tritforge's logits of the same tokens.
The exit code is 1 if the losses differ by more than 1e-4.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from model import load

HERE = Path(__file__).resolve().parent
WINDOW, TOKENS, TOLERANCE = 64, 512, 1e-4


def run(*command: object) -> None:
    """Runs a program, its output to standard error."""
    subprocess.run([str(part) for part in command], check=True, stdout=sys.stderr)


def newest(run_directory: Path) -> Path:
    """The last checkpoint under a run's directory, or the directory itself if it is one."""
    steps = sorted(path.parent for path in run_directory.glob("**/model.safetensors"))
    if not steps:
        raise ValueError(f"{run_directory}: no model.safetensors below it")
    return steps[-1]


def losses(tritforge: str, checkpoint: Path, text: Path, folder: Path) -> tuple[float, float]:
    """Mean cross-entropy over windows of the text: tritforge's and PyTorch's."""
    dump = folder / "logits.safetensors"
    run(tritforge, "eval", checkpoint, "--text", text, "--tokens", TOKENS, "--window", WINDOW, "--dump-logits", dump)
    tensors = load_file(dump)
    windows = len(tensors["ids"]) // WINDOW
    ids = tensors["ids"][: windows * WINDOW].long().view(windows, WINDOW)
    targets = ids[:, 1:].flatten()
    logits = tensors["logits"][: windows * WINDOW].float().view(windows, WINDOW, -1)
    ours = F.cross_entropy(logits[:, :-1].flatten(0, 1), targets)
    with torch.no_grad():
        theirs = F.cross_entropy(load(checkpoint, WINDOW)(ids)[:, :-1].flatten(0, 1), targets)
    return ours.item(), theirs.item()


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare the losses of the PyTorch model and tritforge.")
    parser.add_argument("--tritforge", default="target/release/tritforge", help="the tritforge binary")
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint, or the directory of a run")
    parser.add_argument("--text", type=Path, default=Path("README.md"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = options.checkpoint
        if checkpoint is None:
            checkpoint = folder / "run"
            run(options.tritforge, "train", HERE / "check.toml", "--set", f'run.out="{checkpoint}"')
        ours, theirs = losses(options.tritforge, newest(checkpoint), options.text, folder)
    agree = abs(ours - theirs) <= TOLERANCE
    print(f"loss: tritforge {ours:.6f}, PyTorch {theirs:.6f}: {'the same' if agree else 'DIFFERENT'}")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
