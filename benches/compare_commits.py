"""Two commits of Tritforge side by side: prefill, decode, a batch of 8, training steps, peak memory, build time.

    python3 benches/compare_commits.py BEFORE [AFTER] [--rounds 5] [--only bench,train,build]

Each commit is checked out under `target/compare/` and built there in release. Then each round starts one process of each commit in
turn for every test, so that a change of the machine's speed meets both. Printed are the medians over the rounds with their ranges, and
the ratio AFTER / BEFORE of the medians: above 1 is faster for speeds, more for memory and build time. AFTER is HEAD if not given;
what is not committed is not measured. The model of `bench` is written once, by AFTER's `tritforge synth`.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TRAINING = {"S": ["S"], "M": ["M"], "L": ["L"], "L, LoRA": ["L", "--lora", "adapter"]}


def output(*command: object, cwd: Path = ROOT) -> str:
    """What a command prints."""
    return subprocess.run([str(part) for part in command], cwd=cwd, check=True, stdout=subprocess.PIPE, text=True).stdout


def checkout(revision: str) -> Path:
    """The tree of a commit, in a directory of its own."""
    commit = output("git", "rev-parse", f"{revision}^{{commit}}").strip()
    tree = ROOT / "target" / "compare" / commit[:12]
    if not tree.exists():
        output("git", "worktree", "add", "--detach", tree, commit)
    return tree


def built(tree: Path, train: bool) -> dict[str, Path]:
    """Builds a tree's program and, if asked for, its training bench."""
    output("cargo", "build", "--release", "--bin", "tritforge", cwd=tree)
    programs = {"tritforge": tree / "target" / "release" / "tritforge"}
    if train:
        bench = ["cargo", "bench", "-p", "tritforge-train", "--bench", "train_step", "--no-run", "--message-format=json"]
        for line in output(*bench, cwd=tree).splitlines():
            artifact = json.loads(line)
            if artifact.get("executable") and artifact["target"]["name"] == "train_step":
                programs["train_step"] = Path(artifact["executable"])
    return programs


def measured(*command: object) -> tuple[dict, float]:
    """A program's JSON, and its peak resident set in MB."""
    report = json.loads(output(sys.executable, HERE / "measure.py", *command))
    return json.loads(report["stdout"]), report["peak_rss_mb"]


def engine(programs: dict[str, Path], model: Path) -> dict[str, float]:
    """One run of `tritforge bench`: tokens/s by test, and memory."""
    sizes = ["-p", "512", "-n", "64", "--batch", "1,8", "-r", "1", "-o", "json"]
    report, memory = measured(programs["tritforge"], "bench", model, *sizes)
    rows = {f"{row['test']}, tokens/s": statistics.median(row["tokens_per_second"]) for row in report["models"][0]["rows"]}
    return {**rows, "bench, peak MB": memory}


def training(programs: dict[str, Path]) -> dict[str, float]:
    """One run of every training step: tokens/s, and memory."""
    found = {}
    for name, arguments in TRAINING.items():
        report, memory = measured(programs["train_step"], *arguments, "--steps", "5", "--json")
        found[f"train {name}, tokens/s"] = report["tokens_per_second"]
        found[f"train {name}, peak MB"] = memory
    return found


def clean_build(tree: Path) -> dict[str, float]:
    """Seconds of `cargo build --release` from nothing, downloads not counted."""
    target = tree / "target-clean"
    shutil.rmtree(target, ignore_errors=True)
    output("cargo", "fetch", cwd=tree)
    begin = time.perf_counter()
    subprocess.run(["cargo", "build", "--release"], cwd=tree, check=True, env=os.environ | {"CARGO_TARGET_DIR": str(target)})
    seconds = time.perf_counter() - begin
    shutil.rmtree(target)
    return {"clean build, s": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", help="a commit")
    parser.add_argument("after", nargs="?", default="HEAD", help="another one")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each test; a clean build takes one")
    parser.add_argument("--only", default="bench,train", help="of bench, train and build, with commas between them")
    parser.add_argument("--config", default="configs/2b4t.toml", help="shape of the model of `bench`")
    options = parser.parse_args()
    parts = options.only.split(",")
    trees = [checkout(options.before), checkout(options.after)]
    programs = [built(tree, "train" in parts) if {"bench", "train"} & set(parts) else {} for tree in trees]
    model = ROOT / "target" / "compare" / f"{Path(options.config).stem}.gguf"
    if "bench" in parts and not model.exists():
        output(programs[1]["tritforge"], "synth", ROOT / options.config, "-o", model)

    samples: dict[str, list[list[float]]] = {}

    def record(side: int, found: dict[str, float]) -> None:
        for test, value in found.items():
            samples.setdefault(test, [[], []])[side].append(value)

    for round_ in range(options.rounds):
        # Who begins changes with every round.
        for side in [0, 1] if round_ % 2 == 0 else [1, 0]:
            if "bench" in parts:
                record(side, engine(programs[side], model))
            if "train" in parts:
                record(side, training(programs[side]))
    if "build" in parts:
        for side, tree in enumerate(trees):
            record(side, clean_build(tree))

    print(f"| test | {trees[0].name} | {trees[1].name} | ratio |\n|---|---|---|---|")
    for test, (before, after) in samples.items():
        cells = [f"{statistics.median(s):.4g} ({min(s):.4g}–{max(s):.4g})" for s in (before, after)]
        print(f"| {test} | {cells[0]} | {cells[1]} | {statistics.median(after) / statistics.median(before):.3f} |")


if __name__ == "__main__":
    main()
