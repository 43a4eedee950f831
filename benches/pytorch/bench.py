"""Training steps of the same model in PyTorch and in tritforge: tokens/s, peak memory, ratios.

    benches/pytorch/run.sh [--shapes S M L] [--modes eager compile] [--backward auto f32 int16 int8] [--lora adapter qat_lora] [--rounds 3] [--steps 5] [--threads 2]

Both sides train the BitNet b1.58 decoder of model.py (quantization-aware, f32, AdamW, clipping by the global norm) on a
batch of random ids. Each round starts one process of each contender in turn (train_step.py here, the `train_step` bench
of tritforge-train), which takes two steps to warm up and then `--steps` measured ones. Printed are medians over rounds of the
processes' medians, with the range, and our figure over theirs. Peak RSS is the largest of the rounds.

PyTorch gets the malloc thresholds that keep its freed pages (`--malloc default` for glibc's own, slower and smaller);
tritforge sets the like for itself. torch.compile's compiled kernels are cached on disk after the first process.

Runs in which other processes took more than `--max-foreign` of the cores are repeated, at most `--retries` times in all
for a shape. `--prefix` puts a command before every measurement.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
OURS = "tritforge"
# How gradients are multiplied, the default first.
BACKWARD = {"auto": OURS, "int24": "tritforge, int24 backward", "f32": "tritforge, f32 backward", "int16": "tritforge, int16 backward", "int8": "tritforge, int8 backward"}
# With `--lora`: an adapter of rank 16 on all projections, beside them or inside their quantizer.
LORA = {"adapter": "tritforge, LoRA", "qat_lora": "tritforge, QAT-LoRA"}
KEEP_PAGES = {"MALLOC_MMAP_THRESHOLD_": str(4 << 30), "MALLOC_TRIM_THRESHOLD_": str(8 << 30)}


@dataclass
class Contender:
    """Samples of one contender on one shape, one a round."""

    tokens_per_second: list[float] = field(default_factory=list)
    peak_rss_mb: list[float] = field(default_factory=list)
    foreign_cpu: list[float] = field(default_factory=list)
    parameters: int = 0

    @property
    def speed(self) -> float:
        """Median tokens/s."""
        return statistics.median(self.tokens_per_second)

    @property
    def memory(self) -> float:
        """Largest peak RSS, MiB."""
        return max(self.peak_rss_mb)


def build() -> str:
    """Builds tritforge's bench and returns its executable."""
    command = ["cargo", "bench", "-p", "tritforge-train", "--bench", "train_step", "--no-run", "--message-format", "json"]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    for line in output.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == "train_step":
            return message["executable"]
    raise RuntimeError("cargo built no executable named train_step")


def run(command: list[str], options: argparse.Namespace, environment: dict[str, str]) -> tuple[dict, float]:
    """One process: the JSON that it prints, and the share of the cores that others took."""
    measured = [*shlex.split(options.prefix), sys.executable, str(HERE.parent / "measure.py"), *command]
    environment = os.environ | environment
    process = subprocess.run(measured, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    report = json.loads(process.stdout)
    return json.loads(report["stdout"]), report["foreign_cpu"]


def compare(shape: str, names: list[str], executable: str | None, options: argparse.Namespace) -> dict[str, Contender]:
    """Alternates the contenders until each has its rounds."""
    contenders = {name: Contender() for name in names}
    retries = options.retries
    script = [sys.executable, str(HERE / "train_step.py")]
    for number in range(options.rounds):
        for name, contender in contenders.items():
            if name in (*BACKWARD.values(), *LORA.values()):
                backward = next((known for known, label in BACKWARD.items() if label == name), "auto")
                command = [executable, shape, "--steps", str(options.steps), "--backward", backward, "--json"]
                command += [part for mode, known in LORA.items() if name == known for part in ("--lora", mode)]
                environment = {"RAYON_NUM_THREADS": str(options.threads)}
            else:
                arguments = ["--shape", shape, "--mode", name, "--steps", options.steps, "--threads", options.threads]
                command = [*script, *map(str, arguments)]
                environment = KEEP_PAGES if options.malloc == "tuned" else {}
                if name.endswith("compile") and number == 0:
                    # Fills the cache of compiled kernels; not measured.
                    subprocess.run([*script, "--shape", shape, "--mode", name, "--steps", "1"], check=True, stdout=sys.stderr)
            result, foreign = run(command, options, environment)
            while foreign > options.max_foreign and retries > 0:
                retries -= 1
                print(f"{name}: others took {foreign:.0%} of the cores; again", file=sys.stderr)
                result, foreign = run(command, options, environment)
            contender.tokens_per_second.append(result["tokens_per_second"])
            contender.peak_rss_mb.append(result["peak_rss_mb"])
            contender.foreign_cpu.append(foreign)
            contender.parameters = result["parameters"]
            print(f"round {number + 1}: {shape} {name}: {result['tokens_per_second']:.0f} tokens/s", file=sys.stderr)
    return contenders


def table(shape: str, contenders: dict[str, Contender], gemm: float, options: argparse.Namespace) -> str:
    """Markdown: a row a contender."""
    ours = {name: contenders[name] for name in (*BACKWARD.values(), *LORA.values()) if name in contenders}
    parameters = next(iter(contenders.values())).parameters
    lines = [
        f"Shape {shape}, {parameters / 1e6:.1f} M parameters, {options.threads} threads, {options.rounds} rounds of"
        f" {options.steps} steps; malloc of PyTorch: {options.malloc}:",
        "",
        f"| | tokens/s | MFU of {gemm:.0f} GFLOP/s | peak RSS, MiB |" + "".join(f" {name}: speed | memory |" for name in ours),
        "|---|---|---|---|" + "---|---|" * len(ours),
    ]
    for name, contender in contenders.items():
        low, high = min(contender.tokens_per_second), max(contender.tokens_per_second)
        mfu = 6 * contender.parameters * contender.speed / (gemm * 1e9)
        label = name if name in ours else f"PyTorch, {name}"
        row = f"| {label} | {contender.speed:.0f} ({low:.0f}–{high:.0f}) | {mfu:.0%} | {contender.memory:.0f} |"
        for our in ours.values():
            row += f" {our.speed / contender.speed:.2f} × | {our.memory / contender.memory:.2f} × |"
        lines.append(row)
    worst = max(share for contender in contenders.values() for share in contender.foreign_cpu)
    lines += ["", f"Other processes took at most {worst:.0%} of the cores in any of these runs."]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare training in PyTorch and in tritforge.")
    parser.add_argument("--shapes", nargs="+", default=["S", "M", "L"], choices=["S", "M", "L"])
    parser.add_argument("--modes", nargs="+", default=["eager", "compile"], help="of train_step.py; lora, lora-compile too")
    parser.add_argument("--backward", nargs="+", default=["auto"], choices=list(BACKWARD), help="tritforge's, of the contenders")
    parser.add_argument("--lora", nargs="+", default=[], choices=list(LORA), help="tritforge's adapters, of the contenders")
    parser.add_argument("--without-tritforge", action="store_true", help="measure PyTorch only")
    parser.add_argument("--executable", help="a built `train_step` bench; built by cargo if not given")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5, help="measured steps of a process")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--malloc", choices=["tuned", "default"], default="tuned", help="PyTorch's malloc thresholds")
    parser.add_argument("--prefix", default="", help="a command before every measurement")
    parser.add_argument("--max-foreign", type=float, default=0.05, help="repeat runs with more foreign load (default 0.05)")
    parser.add_argument("--retries", type=int, default=6, help="most repeated runs a shape (default 6)")
    options = parser.parse_args()
    executable = None
    if not options.without_tritforge:
        executable = options.executable or build()
    ours = [BACKWARD[backward] for backward in options.backward]
    ours += [LORA[mode] for mode in options.lora]
    names = [*(ours if executable else []), *options.modes]
    gemm = run([sys.executable, str(HERE / "train_step.py"), "--gemm"], options, {})[0]["gemm_gflops"]
    for shape in options.shapes:
        print(table(shape, compare(shape, names, executable, options), gemm, options), "\n", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: {shlex.join(map(str, error.cmd))} ended with exit status {error.returncode}")
