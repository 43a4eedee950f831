"""Tritforge and llama.cpp side by side on the same synthetic model: prefill, decode, load time, memory.

    benches/peers/run.sh [--config configs/2b4t-silu.toml] [--formats tq2_0 tq1_0] [--rounds 5] [--threads 2]

For each packing, `tritforge synth` writes the model once (ternary weights random, head in Q8_0). Then each round starts
one process of each side in turn; every process loads the file (warm in the page cache), runs each test once unmeasured and
once measured: `pp512` (512 tokens into an empty context) and `tg128` (128 tokens one by one from an empty context). Printed are medians over
the rounds with the range, and the ratio of the medians. llama.cpp's figures come from llama_cpp_bench.py, ours from
`tritforge bench -o json`.

Rounds in which other processes took more than `--max-foreign` of the cores are repeated, at most `--retries` times in all
for a packing; what remains is printed with the table. `--prefix` puts a command before every measurement, for machines
that need one (`--prefix 'taskset -c 0,1'`).
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
OURS, THEIRS = "tritforge", "llama.cpp"


@dataclass
class Side:
    """Samples of one program, one a round: tokens/s by test, and what its processes took."""

    tests: dict[str, list[float]] = field(default_factory=dict)
    load_seconds: list[float] = field(default_factory=list)
    peak_rss_mb: list[float] = field(default_factory=list)
    foreign_cpu: list[float] = field(default_factory=list)


def command(side: str, model: Path, options: argparse.Namespace) -> list[str]:
    """What one process of a side runs: one repetition of each test."""
    sizes = ["-p", str(options.prompt), "-n", str(options.generate), "-r", "1"]
    if side == OURS:
        threads = ["--thread-counts", str(options.threads)]
        return [options.tritforge, "bench", str(model), *sizes, *threads, "-o", "json"]
    return [sys.executable, str(HERE / "llama_cpp_bench.py"), str(model), *sizes, "-t", str(options.threads)]


def run(side: str, model: Path, options: argparse.Namespace) -> dict:
    """One process of a side: measure.py's report with the program's JSON under `result`."""
    measured = [*shlex.split(options.prefix), sys.executable, str(HERE.parent / "measure.py")]
    process = subprocess.run([*measured, *command(side, model, options)], check=True, stdout=subprocess.PIPE, text=True)
    report = json.loads(process.stdout)
    report["result"] = json.loads(report["stdout"])["models"][0]
    return report


def record(side: Side, report: dict) -> None:
    """Adds one process's samples."""
    for test in report["result"]["rows"]:
        side.tests.setdefault(test["test"], []).extend(test["tokens_per_second"])
    side.load_seconds.append(report["result"]["load_seconds"])
    side.peak_rss_mb.append(report["peak_rss_mb"])
    side.foreign_cpu.append(report["foreign_cpu"])


def rounds(model: Path, options: argparse.Namespace) -> dict[str, Side]:
    """Alternates the sides until each has its rounds."""
    sides = {name: Side() for name in options.sides}
    retries = options.retries
    for number in range(options.rounds):
        for name, side in sides.items():
            report = run(name, model, options)
            while report["foreign_cpu"] > options.max_foreign and retries > 0:
                retries -= 1
                print(f"{name}: others took {report['foreign_cpu']:.0%} of the cores; again", file=sys.stderr)
                report = run(name, model, options)
            record(side, report)
            speeds = ", ".join(f"{test} {samples[-1]:.2f}" for test, samples in side.tests.items())
            print(f"round {number + 1}: {name}: {speeds} tokens/s", file=sys.stderr)
    return sides


def cell(samples: list[float], digits: int) -> str:
    """Median and range."""
    low, median, high = min(samples), statistics.median(samples), max(samples)
    return f"{median:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def table(model: Path, packing: str, sides: dict[str, Side], options: argparse.Namespace) -> str:
    """Markdown: a row a quantity, a column a side, and the ratio of the medians where both ran."""
    names = list(sides)
    both = len(names) == 2
    speeds = next(iter(sides.values())).tests
    quantities = [(f"{test}, tokens/s", 1, lambda side, test=test: side.tests[test]) for test in speeds]
    quantities.append(("load, s", 2, lambda side: side.load_seconds))
    quantities.append(("peak RSS, MB", 0, lambda side: side.peak_rss_mb))
    lines = [
        f"`{packing}`, {model.stat().st_size / 1e6:.0f} MB, {options.threads} threads, {options.rounds} rounds, median (range):",
        "",
        f"| | {' | '.join(names)} |" + (f" {names[0]} / {names[1]} |" if both else ""),
        "|---" * (1 + len(names) + both) + "|",
    ]
    for label, digits, samples in quantities:
        row = [label, *(cell(samples(side), digits) for side in sides.values())]
        if both:
            ours, theirs = (statistics.median(samples(side)) for side in sides.values())
            row.append(f"{ours / theirs:.2f}")
        lines.append(f"| {' | '.join(row)} |")
    worst = max(share for side in sides.values() for share in side.foreign_cpu)
    lines += ["", f"Other processes took at most {worst:.0%} of the cores in any of these runs."]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare tritforge with llama.cpp on a synthetic model.")
    parser.add_argument("--config", type=Path, default=Path("configs/2b4t-silu.toml"), help="a shape with hidden_act silu")
    parser.add_argument("--formats", nargs="+", default=["tq2_0", "tq1_0"], choices=["tq2_0", "tq1_0"])
    parser.add_argument("--sides", nargs="+", default=[OURS, THEIRS], choices=[OURS, THEIRS])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-p", "--prompt", type=int, default=512, help="tokens of the prefill test")
    parser.add_argument("-n", "--generate", type=int, default=128, help="tokens of the decode test")
    parser.add_argument("--tritforge", default="target/release/tritforge", help="the tritforge binary")
    parser.add_argument("--models", type=Path, default=Path("runs/peers"), help="where the synthetic models are kept")
    parser.add_argument("--prefix", default="", help="a command before every measurement")
    parser.add_argument("--max-foreign", type=float, default=0.05, help="repeat runs with more foreign load (default 0.05)")
    parser.add_argument("--retries", type=int, default=10, help="most repeated runs a packing (default 10)")
    options = parser.parse_args()
    options.models.mkdir(parents=True, exist_ok=True)
    for packing in options.formats:
        model = options.models / f"{options.config.stem}-{packing}.gguf"
        if not model.exists():
            synth = [options.tritforge, "synth", str(options.config), "--format", packing, "--embeddings", "q8_0"]
            subprocess.run([*synth, "-o", str(model)], check=True, stdout=sys.stderr)
        with model.open("rb") as file:
            # Into the page cache: loading is compared warm.
            while file.read(1 << 24):
                pass
        print(table(model, packing, rounds(model, options), options), "\n", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: {shlex.join(map(str, error.cmd))} ended with exit status {error.returncode}")
