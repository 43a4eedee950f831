"""Time llama.cpp on one GGUF file as llama-bench does, and print JSON.

    python llama_cpp_bench.py MODEL.gguf -p 512 -n 128 -t 2 -r 1

`pp P` evaluates P tokens in one batch of an empty context, with logits for the last one; `tg N` evaluates N tokens one
by one from an empty context. Only `llama_decode` and llama-cpp-python's thin loop around it (tens of microseconds a
call) are timed: no tokenizer, no sampling. The KV cache is f16, attention fused (as llama.cpp chooses by itself).

Prints `{"models": [{"load_seconds": s, "rows": [{"test": "pp512", "threads": t, "tokens_per_second": [one a
repetition]}, …]}]}`, as `tritforge bench -o json` does. Every test runs once unmeasured, as there. Loading is timed from the constructor's call to its return, before anything is evaluated.
"""

import argparse
import json
import time

import llama_cpp
from llama_cpp import Llama


def seconds(llama: Llama, batches: list[list[int]]) -> float:
    """Wall time of evaluating the batches one after the other in an empty context."""
    llama.reset()
    begin = time.perf_counter()
    for batch in batches:
        llama.eval(batch)
    llama_cpp.llama_synchronize(llama.ctx)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description="Time llama.cpp on a GGUF file.")
    parser.add_argument("model")
    parser.add_argument("-p", "--prompt", type=int, default=512, help="tokens of the prompt test (default 512)")
    parser.add_argument("-n", "--generate", type=int, default=128, help="tokens of the decode test (default 128)")
    parser.add_argument("-t", "--threads", type=int, default=2, help="threads (default 2)")
    parser.add_argument("-r", "--repetitions", type=int, default=1, help="repetitions of each test (default 1)")
    parser.add_argument("--no-flash-attn", action="store_true", help="without llama.cpp's fused attention")
    arguments = parser.parse_args()
    longest = max(arguments.prompt, arguments.generate)
    begin = time.perf_counter()
    llama = Llama(
        arguments.model,
        n_ctx=longest,
        n_batch=longest,
        n_ubatch=512,
        n_threads=arguments.threads,
        n_threads_batch=arguments.threads,
        flash_attn=not arguments.no_flash_attn,
        verbose=False,
    )
    load = time.perf_counter() - begin
    # Any ids do; these are the same in every run, and in the vocabulary.
    ids = [1 + i * 7919 % (llama.n_vocab() - 1) for i in range(longest)]
    tests = {
        f"pp{arguments.prompt}": (arguments.prompt, [ids[: arguments.prompt]]),
        f"tg{arguments.generate}": (arguments.generate, [[id] for id in ids[: arguments.generate]]),
    }
    rows = []
    for name, (tokens, batches) in tests.items():
        if tokens:
            seconds(llama, batches)
            speeds = [tokens / seconds(llama, batches) for _ in range(arguments.repetitions)]
            rows.append({"test": name, "threads": arguments.threads, "tokens_per_second": speeds})
    print(json.dumps({"models": [{"load_seconds": load, "rows": rows}]}))


if __name__ == "__main__":
    main()
