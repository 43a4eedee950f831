"""Compare greedy continuations by tritforge with those by llama.cpp.

    tests/interop/run.sh greedy_llama_cpp.py --model MODEL.gguf [--ours OTHER.gguf]

Five prompts, `--tokens` tokens each, KV caches in f32. llama.cpp quantizes activations where the weights are quantized, so that near ties
can fall otherwise, and after the first such token the texts are different ones: the table shows how many tokens agree in their place, and
at how many places of llama.cpp's text tritforge finds the same token the likeliest. The exit code is 1 if the share of the latter, over all
prompts, is below `--bound`, or that of the former with `--free`: to be asked where llama.cpp computes in f32, as with an F32 file.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from llama_cpp import GGML_TYPE_F32, Llama
from logits_llama_cpp import read_safetensors

PROMPTS = [
    "The capital of France is",
    "Water boils at a temperature of",
    "def fibonacci(n):\n",
    "Once upon a time, there was a little girl who",
    "The three primary colors are",
]


def continued_by_llama(llama: Llama, prompt: list[int], count: int) -> list[int]:
    """The likeliest token, `count` times."""
    llama.reset()
    llama.eval(prompt)
    tokens = []
    while len(tokens) < count:
        tokens.append(int(llama.scores[llama.n_tokens - 1].argmax()))
        llama.eval(tokens[-1:])
    return tokens


def continued_by_tritforge(binary: str, model: Path, count: int, folder: Path) -> list[str]:
    """Texts in the order of the prompts."""
    lines = folder / "prompts.jsonl"
    lines.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    command = [binary, "generate", model, "--batch", lines, "-n", count, "--kv", "f32"]
    command += ["--temperature", "0", "--ignore-eos", "--quiet"]
    output = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True)
    return [json.loads(line)["text"] for line in output.stdout.splitlines()]


def likeliest(binary: str, model: Path, text: str, folder: Path) -> tuple[list[int], list[int]]:
    """Ids of a text and the token that tritforge finds the likeliest after each."""
    (folder / "text.txt").write_text(text)
    dump = folder / "logits.safetensors"
    command = [binary, "eval", model, "--text", folder / "text.txt", "--dump-logits", dump]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    tensors = read_safetensors(dump)
    return tensors["ids"].tolist(), tensors["logits"].argmax(axis=-1).tolist()


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare greedy continuations of tritforge and llama.cpp.")
    parser.add_argument("--model", type=Path, required=True, help="the GGUF file for llama.cpp")
    parser.add_argument("--ours", type=Path, help="that for tritforge; the same by default")
    parser.add_argument("--tokens", type=int, default=32, help="tokens a prompt (default 32)")
    parser.add_argument("--bound", type=float, default=0.9, help="least share that agrees (default 0.9)")
    parser.add_argument("--tritforge", default="target/release/tritforge", help="the tritforge binary")
    parser.add_argument("--free", action="store_true", help="the bound is on tokens in their place, too")
    arguments = parser.parse_args()
    ours = arguments.ours or arguments.model
    llama = Llama(
        str(arguments.model), n_ctx=256, n_batch=256, logits_all=True, type_k=GGML_TYPE_F32, type_v=GGML_TYPE_F32, verbose=False
    )
    print("| prompt | in their place | the likeliest after llama.cpp's text | llama.cpp's text |")
    print("| --- | --- | --- | --- |")
    places = agreeing = places_forced = agreeing_forced = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        texts = continued_by_tritforge(arguments.tritforge, ours, arguments.tokens, folder)
        for prompt, text in zip(PROMPTS, texts):
            ids = llama.tokenize(prompt.encode(), add_bos=False, special=False)
            theirs = continued_by_llama(llama, ids, arguments.tokens)
            # What comes after the end of a text is no text that `eval` reads.
            end = theirs.index(llama.token_eos()) if llama.token_eos() in theirs else len(theirs)
            whole = llama.tokenize((prompt + text).encode(), add_bos=False, special=True)
            equal = sum(a == b for a, b in zip(whole[len(ids) :], theirs))
            continuation = llama.detokenize(ids + theirs[:end]).decode(errors="ignore")[len(prompt) :]
            forced_ids, best = likeliest(arguments.tritforge, ours, prompt + continuation, folder)
            pairs = list(zip(forced_ids[len(ids) :], best[len(ids) - 1 :]))
            forced = sum(a == b for a, b in pairs)
            print(f"| {prompt!r} | {equal} of {len(theirs)} | {forced} of {len(pairs)} | {continuation!r} |")
            places, agreeing = places + len(theirs), agreeing + equal
            places_forced, agreeing_forced = places_forced + len(pairs), agreeing_forced + forced
    free, forced = agreeing / places, agreeing_forced / places_forced
    print(f"\n{free:.1%} agree in their place, {forced:.1%} after the same text")
    return int((min(free, forced) if arguments.free else forced) < arguments.bound)


if __name__ == "__main__":
    sys.exit(main())
