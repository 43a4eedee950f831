"""Compare tritforge's logits with llama.cpp's on the same GGUF files and text.

    tests/interop/run.sh logits_llama_cpp.py --model A.gguf [--model B.gguf] [--lora A.gguf --llama-lora B.gguf] --text held_out.txt --tokens 512

For each file, the text is tokenized by llama.cpp (llama-cpp-python 0.3.36, without a BOS token) and by tritforge; the
first `--tokens` ids must be the same. Both then compute logits over windows of `--window` tokens, each starting with an
empty context, and the table reports over all positions:

    top-1           share of positions where both put the same token first
    mean KL         of llama.cpp's next-token distribution from tritforge's, KL(tritforge ‖ llama.cpp), in nats
    max |Δlogit|    largest difference of a logit
    perplexity      of each, over the positions whose next token lies in the same window

tritforge is run as

    tritforge eval MODEL.gguf --text FILE --dump-logits OUT.safetensors --tokens N --window W

and writes `ids` (i64 or u32 [N]) and `logits` (f32 [N, vocab]).

llama.cpp quantizes activations in blocks of 256 and sums in another order, so equality is not expected. The exit code
is 1 if token ids differ or top-1 agreement is below `--min-agreement`, 2 on unusable input.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from llama_cpp import GGML_TYPE_F32, Llama

DTYPES = {"F32": np.float32, "I64": np.int64, "U32": np.uint32}


@dataclass(frozen=True)
class Comparison:
    """What the table says about one model."""

    tokens: int
    top1: float
    kl: float
    max_difference: float
    our_perplexity: float
    their_perplexity: float


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Tensors of a safetensors file by name: a u64 length, a JSON header of that length, then the data."""
    content = path.read_bytes()
    data = 8 + int.from_bytes(content[:8], "little")
    tensors = {}
    for name, info in json.loads(content[8:data]).items():
        if name != "__metadata__":
            start, end = info["data_offsets"]
            tensors[name] = np.frombuffer(content[data + start : data + end], DTYPES[info["dtype"]]).reshape(info["shape"])
    return tensors


def run_tritforge(binary: str, model: Path, text: Path, tokens: int, window: int, lora: Path | None = None) -> tuple[list[int], np.ndarray]:
    """Token ids [N] and logits [N, vocab] as tritforge computes them."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "logits.safetensors"
        command = [binary, "eval", model, "--text", text, "--dump-logits", output, "--tokens", tokens, "--window", window]
        command += ["--lora", lora] if lora else []
        subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
        tensors = read_safetensors(output)
    return tensors["ids"].tolist(), tensors["logits"]


def run_llama_cpp(model: Path, text: Path, tokens: int, window: int, lora: Path | None = None) -> tuple[list[int], np.ndarray]:
    """Token ids [N] and logits [N, vocab] as llama.cpp computes them, with an f32 KV cache."""
    llama = Llama(
        str(model),
        lora_path=str(lora) if lora else None,
        n_ctx=window,
        n_batch=window,
        logits_all=True,
        type_k=GGML_TYPE_F32,
        type_v=GGML_TYPE_F32,
        verbose=False,
    )
    ids = llama.tokenize(text.read_bytes(), add_bos=False, special=False)[:tokens]
    logits = np.empty((len(ids), llama.n_vocab()), dtype=np.float32)
    for start in range(0, len(ids), window):
        part = ids[start : start + window]
        llama.reset()
        llama.eval(part)
        logits[start : start + len(part)] = llama.scores[: len(part)]
    llama.close()
    return ids, logits


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities in f64 along the last axis."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def perplexity(log_probabilities: np.ndarray, ids: list[int], window: int) -> float:
    """Of every token that is not the first of its window."""
    predicted = np.array([i for i in range(1, len(ids)) if i % window])
    return float(np.exp(-log_probabilities[predicted - 1, np.array(ids)[predicted]].mean()))


def compare(ours: np.ndarray, theirs: np.ndarray, ids: list[int], window: int) -> Comparison:
    """Distances between two [N, vocab] logit matrices."""
    if ours.shape != theirs.shape or len(ids) < 2:
        raise ValueError(f"logits of shapes {ours.shape} and {theirs.shape}; expected the same, and two tokens or more")
    our_log, their_log = log_softmax(ours), log_softmax(theirs)
    return Comparison(
        tokens=len(ids),
        top1=float((ours.argmax(axis=-1) == theirs.argmax(axis=-1)).mean()),
        kl=float((np.exp(our_log) * (our_log - their_log)).sum(axis=-1).mean()),
        max_difference=float(np.abs(ours - theirs).max()),
        our_perplexity=perplexity(our_log, ids, window),
        their_perplexity=perplexity(their_log, ids, window),
    )


def difference_of_ids(ours: list[int], theirs: list[int]) -> str | None:
    """Where the two tokenizers first disagree, if they do."""
    if ours == theirs:
        return None
    first = next((i for i, pair in enumerate(zip(ours, theirs)) if pair[0] != pair[1]), min(len(ours), len(theirs)))
    return (
        f"token ids differ at position {first}: tritforge {ours[first : first + 8]}, llama.cpp {theirs[first : first + 8]}"
        f" ({len(ours)} and {len(theirs)} tokens)"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare tritforge's logits with llama.cpp's on GGUF files.")
    parser.add_argument("--model", type=Path, action="append", required=True, help="a GGUF file; may be repeated")
    parser.add_argument("--lora", type=Path, help="a GGUF adapter that tritforge puts on every model")
    parser.add_argument("--llama-lora", type=Path, help="the same adapter, exported with --for llama.cpp")
    parser.add_argument("--text", type=Path, required=True, help="UTF-8 text that the models were not trained on")
    parser.add_argument("--tokens", type=int, default=512, help="how many tokens of the text to use (default 512)")
    parser.add_argument("--window", type=int, default=128, help="tokens a window (default 128)")
    parser.add_argument("--tritforge", default="target/release/tritforge", help="the tritforge binary")
    parser.add_argument("--min-agreement", type=float, default=0.95, help="least top-1 agreement (default 0.95)")
    arguments = parser.parse_args()
    print("| model | tokens | ids | top-1 | mean KL | max \\|Δlogit\\| | perplexity tritforge | llama.cpp |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    failed = False
    for model in arguments.model:
        try:
            work = (model, arguments.text, arguments.tokens, arguments.window)
            our_ids, ours = run_tritforge(arguments.tritforge, *work, arguments.lora)
            their_ids, theirs = run_llama_cpp(*work, arguments.llama_lora)
            difference = difference_of_ids(our_ids, their_ids)
            if difference is not None:
                print(f"| {model.name} | {len(their_ids)} | differ | | | | | |")
                print(f"error: {model}: {difference}", file=sys.stderr)
                failed = True
                continue
            result = compare(ours, theirs, our_ids, arguments.window)
        except (OSError, ValueError, KeyError, subprocess.CalledProcessError) as error:
            print(f"error: {model}: {error}", file=sys.stderr)
            return 2
        print(
            f"| {model.name} | {result.tokens} | agree | {result.top1:.2%} | {result.kl:.2e} | {result.max_difference:.3g}"
            f" | {result.our_perplexity:.4f} | {result.their_perplexity:.4f} |"
        )
        failed |= result.top1 < arguments.min_agreement
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
