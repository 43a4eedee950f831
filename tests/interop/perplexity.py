"""Compare the perplexity of an imported model, by tritforge, with that of its GGUF file, by llama.cpp.

    tritforge import SmolLM2-135M-Instruct.Q4_1.gguf -o models/smollm2
    tests/interop/run.sh perplexity.py --model SmolLM2-135M-Instruct.Q4_1.gguf --ours models/smollm2 --text test.txt

Both tokenize the text, and must find the same ids; each of the first `--windows` windows of `--window` tokens starts with an empty
context, and its second half is scored. llama.cpp (llama-cpp-python 0.3.36) quantizes activations, so equality is not expected:
the exit code is 1 if the perplexities differ by more than `--bound` of llama.cpp's.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from logits_llama_cpp import difference_of_ids, log_softmax, run_llama_cpp, run_tritforge


def perplexity(logits: np.ndarray, ids: list[int], window: int) -> float:
    """Of the tokens in the second half of each window."""
    nats = []
    for start in range(0, len(ids), window):
        rows = np.arange(start + window // 2 - 1, start + window - 1)
        log_probabilities = log_softmax(logits[rows])
        nats.append(-log_probabilities[np.arange(len(rows)), np.array(ids)[rows + 1]])
    return float(np.exp(np.concatenate(nats).mean()))


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare perplexities of one model in tritforge and llama.cpp.")
    parser.add_argument("--model", type=Path, required=True, help="the GGUF file for llama.cpp")
    parser.add_argument("--ours", type=Path, action="append", required=True, help="checkpoint or GGUF file for tritforge")
    parser.add_argument("--text", type=Path, required=True, help="UTF-8 text")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--bound", type=float, default=0.01, help="largest relative difference (default 0.01)")
    parser.add_argument("--tritforge", default="target/release/tritforge", help="the tritforge binary")
    arguments = parser.parse_args()
    tokens = arguments.windows * arguments.window
    their_ids, logits = run_llama_cpp(arguments.model, arguments.text, tokens, arguments.window)
    theirs, best = perplexity(logits, their_ids, arguments.window), logits.argmax(axis=-1)
    print(f"llama.cpp {arguments.model.name}: {theirs:.4f}")
    failed = False
    for model in arguments.ours:
        ids, logits = run_tritforge(arguments.tritforge, model, arguments.text, tokens, arguments.window)
        difference = difference_of_ids(ids, their_ids)
        if difference is not None:
            print(f"error: {difference}", file=sys.stderr)
            return 1
        ours = perplexity(logits, ids, arguments.window)
        relative = abs(ours / theirs - 1)
        agreement = float((logits.argmax(axis=-1) == best).mean())
        print(f"tritforge {model.name}: {ours:.4f}, {relative:.3%} apart, top-1 agreement {agreement:.2%}")
        failed |= relative > arguments.bound
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
