"""Check that llama.cpp gives the texts of tests/golden/tokenizers/ids.json the ids that a vocabulary's own library gives.

    tests/interop/run.sh golden_ids_llama_cpp.py MODEL.gguf NAME

MODEL.gguf is a model exported with the tokenizer of that directory whose name in `ids` is NAME: `bpe`, `added` (sentencepiece),
`r50k`, `llama3`, `o200k` or `qwen` (tiktoken). The exit code is 1 if ids differ. Known to differ: texts that are not in Unicode form NFC
with `qwen`, which llama.cpp does not normalize, and texts with U+2581 itself with `added`.
"""

import argparse
import json
import sys
from pathlib import Path

from llama_cpp import Llama

GOLDENS = Path(__file__).resolve().parent.parent / "golden" / "tokenizers" / "ids.json"


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare llama.cpp's tokenizer with the goldens.")
    parser.add_argument("model", type=Path, metavar="MODEL.gguf")
    parser.add_argument("name", metavar="NAME")
    arguments = parser.parse_args()
    goldens = json.loads(GOLDENS.read_text())
    model = Llama(str(arguments.model), vocab_only=True, verbose=False)
    wrong = 0
    # llama.cpp takes a text to end at a zero character.
    pairs = [(text, ids) for text, ids in zip(goldens["texts"], goldens["ids"][arguments.name]) if "\0" not in text]
    for text, expected in pairs:
        found = model.tokenize(text.encode(), add_bos=False, special=False)
        if found != expected:
            wrong += 1
            print(f"{text!r}:\n  llama.cpp {found}\n  expected  {expected}")
    print(f"{len(pairs) - wrong} of {len(pairs)} texts have the same ids")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
