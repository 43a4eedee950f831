"""Does a program load what `tritforge inspect` says that it loads, and nothing else?

    tests/interop/run.sh programs.py --llama-cpp ~/llama.cpp/build/bin/llama-simple \
        --ik-llama-cpp ~/ik_llama.cpp/build/bin/llama-cli --bitnet-cpp ~/BitNet/build/bin/llama-cli

Programs are named by path, each option any number of times; only what is named is run. Every format is
written of a small model of each architecture that recipes train, with random weights and a token a byte: what it says means
nothing, but it says it again. Each program continues three prompts with each file, greedily. It agrees if it ends with exit code 0 and begins, on average, at least half of
every text as tritforge does: activations are rounded differently, so that whole texts need not be equal, and a file that
is read wrongly shares next to nothing. The table has one row a file and program; the exit code is 1 where a claim and a
run contradict each other.

Needs nothing but Python's standard library. TRITFORGE names the binary, target/release/tritforge by default.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# 512 columns: the fewest that ik_llama.cpp takes in IQ2_BN.
SHAPE = """vocab_size = 257
hidden_size = 512
intermediate_size = 512
num_hidden_layers = 2
num_attention_heads = 8
num_key_value_heads = 4
max_position_embeddings = 128
"""
MODELS = {
    "bitnet": 'hidden_act = "silu"',
    "bitnet-b1.58": 'hidden_act = "relu2"',
    "bitnet-b1.58, untied": 'hidden_act = "relu2"\ntie_word_embeddings = false',
    "llama": 'hidden_act = "silu"\nuse_sub_norm = false',
}
FORMATS = ["tq2_0", "tq1_0", "i2_s", "i2_s_arm", "q2_0", "iq2_bn"]
PROMPTS = ["fn main() {", "/// The number of", "use std::"]
TOKENS = 12
SECONDS = 120


def continuation(program: Path, model: Path, prompt: str) -> tuple[str | None, str]:
    """What a program writes after a prompt, or None and the end of what it says instead."""
    common = [str(program), "-m", str(model), "-n", str(TOKENS)]
    if program.name == "llama-simple":
        command = [*common, prompt]
    else:
        command = [*common, "--temp", "0", "-p", prompt]
        if program.name == "llama-completion":
            command += ["-no-cnv"]
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=SECONDS, errors="replace")
    except subprocess.TimeoutExpired:
        return None, f"no end within {SECONDS} s"
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [""]
        return None, f"exit code {done.returncode}: {lines[-1]}"
    # Some print the prompt, some do not, some begin with a space or a mark for the beginning.
    _, found, after = done.stdout.partition(prompt)
    return (after if found else done.stdout), ""


def version(program: Path) -> str:
    """What a program says of its version; llama-simple says nothing."""
    try:
        done = subprocess.run(
            [str(program), "--version"], capture_output=True, stdin=subprocess.DEVNULL, timeout=SECONDS, errors="replace"
        )
    except subprocess.TimeoutExpired:
        return "unknown"
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("version")]
    return lines[0] if lines else "unknown: give --version-of"


def shared(ours: str, theirs: str) -> float:
    """The share of our text with which theirs begins."""
    both = os.path.commonprefix([ours, theirs])
    return len(both) / max(len(ours), 1)


def claim(verdict: dict) -> bool:
    """Whether this machine's program is said to load the file."""
    arm = platform.machine() in ("aarch64", "arm64")
    return verdict["loads"] and (arm or "ARM builds only" not in verdict["note"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for runtime in ("llama.cpp", "ik_llama.cpp", "bitnet.cpp"):
        option = "--" + runtime.replace("_", "-").replace(".", "-")
        parser.add_argument(option, dest=runtime, action="append", default=[], type=Path, metavar="PROGRAM")
    parser.add_argument("--version-of", action="append", default=[], metavar="PROGRAM=VERSION")
    args = parser.parse_args()
    given = dict(text.rsplit("=", 1) for text in args.version_of)
    programs = [(r, p.resolve()) for r in ("llama.cpp", "ik_llama.cpp", "bitnet.cpp") for p in getattr(args, r)]
    if not programs:
        parser.error("name at least one program: --llama-cpp, --ik-llama-cpp, --bitnet-cpp")
    for _, program in programs:
        if not os.access(program, os.X_OK):
            parser.error(f"{program}: no program")
    binary = os.environ.get("TRITFORGE", str(ROOT / "target/release/tritforge"))

    def tritforge(*arguments: str, cwd: Path) -> str:
        done = subprocess.run([binary, *arguments], cwd=cwd, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"tritforge {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    print(tritforge("--version", cwd=ROOT).strip(), "on", platform.machine())
    for runtime, program in programs:
        print(f"{runtime}: {program}, {given.get(str(program)) or given.get(program.name) or version(program)}")
    print("\n| model | format | runtime | claimed | found | |\n|---|---|---|---|---|---|", flush=True)
    contradictions = 0
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for model, more in MODELS.items():
            (work / "shape.toml").write_text(SHAPE + more)
            for format in FORMATS:
                file = work / "model.gguf"
                tritforge("synth", "shape.toml", "-o", file.name, "--format", format, "--embeddings", "f16", cwd=work)
                verdicts = json.loads(tritforge("inspect", file.name, "--json", cwd=work))["runtimes"]
                greedy = ("--temperature", "0", "-n", str(TOKENS), "--quiet")
                texts = [tritforge("generate", file.name, "--prompt", p, *greedy, cwd=work) for p in PROMPTS]
                ours = [text.removesuffix("\n").removeprefix(p) for text, p in zip(texts, PROMPTS)]
                for runtime, program in programs:
                    verdict = next(v for v in verdicts if v["runtime"] == runtime)
                    theirs = [continuation(program, file, prompt) for prompt in PROMPTS]
                    fault = next((why for text, why in theirs if text is None), "")
                    share = 0.0 if fault else sum(shared(o, t or "") for o, (t, _) in zip(ours, theirs)) / len(ours)
                    claimed, found = claim(verdict), share >= 0.5
                    contradictions += claimed != found
                    detail = fault or f"{100 * share:.0f} % of the texts"
                    note = verdict["note"] if claimed != found else ""
                    words = ["yes" if value else "no" for value in (claimed, found)]
                    mark = " CONTRADICTION" if claimed != found else ""
                    print(f"| {model} | {format} | {runtime} | {words[0]} | {words[1]}{mark} | {detail[:90]} {note} |", flush=True)
    print(f"\n{contradictions} contradictions")
    return min(contradictions, 1)


if __name__ == "__main__":
    sys.exit(main())
