"""Compare the token ids of a GGUF file by tritforge with those by llama.cpp, on a megabyte of mixed text.

    tests/interop/run.sh tokenizer_llama_cpp.py --model MODEL.gguf

The text is that of mixed_text.py, or `--text FILE`. Both read it as plain text, without BOS and without special tokens. The exit code is
1 if an id differs; the first difference is shown with the text around it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from llama_cpp import Llama
from mixed_text import mixed_text


def tritforge_ids(binary: str, model: Path, text: bytes) -> list[int]:
    """Ids by `tritforge tokenize`."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(text)
        file.flush()
        command = [binary, "tokenize", str(model), "--text", file.name, "--json"]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return json.loads(output.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare token ids of tritforge and llama.cpp.")
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file")
    parser.add_argument("--text", type=Path, help="UTF-8 text; mixed text by default")
    parser.add_argument("--tritforge", default="target/release/tritforge", help="the tritforge binary")
    arguments = parser.parse_args()
    text = arguments.text.read_bytes() if arguments.text else mixed_text().encode()
    llama = Llama(str(arguments.model), vocab_only=True, verbose=False)
    theirs = llama.tokenize(text, add_bos=False, special=False)
    ours = tritforge_ids(arguments.tritforge, arguments.model, text)
    print(f"{arguments.model.name}: {len(text)} bytes, {len(ours)} ids by tritforge, {len(theirs)} by llama.cpp")
    if ours == theirs:
        print("identical")
        return 0
    first = next((i for i, pair in enumerate(zip(ours, theirs)) if pair[0] != pair[1]), min(len(ours), len(theirs)))
    around = slice(max(first - 4, 0), first + 8)
    for name, ids in (("tritforge", ours), ("llama.cpp", theirs)):
        print(f"  {name} from {around.start}: {ids[around]} {llama.detokenize(ids[around])!r}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
