#!/usr/bin/env bash
# Every architecture in every type that llama.cpp loads: a small model of each is trained, exported, and run by tritforge and llama.cpp on held-out
# text; what llama.cpp does not load is decoded by gguf_codes.py, a reader of its own.
#
#     tests/interop/table.sh
#
# Prints one Markdown table an architecture; the exit code is 1 if token ids, codes or scales differ, or top-1 agreement is below 95 %.
# Python packages go into .venv-interop/ (run.sh).
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$work"

# Text of the repository: code for training, a document for the comparison.
cat "$root"/crates/{ternary,gguf,kernels,infer,nn}/src/*.rs > text.txt
cp "$root/docs/formats.md" held_out.txt
cp "$here/recipe.toml" .
larger=(model.max_position_embeddings=128 tokenizer.vocab_size=512 data.seq_len=128 train.steps=300 train.batch_size=4)

failed=0
# Exports a checkpoint in every type and compares them.
compare() {
    local name=$1 weights=$2 formats=(tq2_0 tq1_0 q2_0) models=()
    if [[ $weights == none ]]; then formats=(f32 f16 q8_0 q6_k); fi
    for format in "${formats[@]}"; do
        "$tritforge" export "$name-$weights" -o "$name-$format.gguf" --format "$format" --embeddings f32 > export.log
        models+=(--model "$work/$name-$format.gguf")
    done
    echo
    echo "$name, ${weights/none/full precision}"
    echo
    "$here/run.sh" logits_llama_cpp.py "${models[@]}" --text "$work/held_out.txt" --tokens 1024 --tritforge "$tritforge" || failed=1
    rm -f ./*.gguf
}
train() {
    local name=$1 weights=$2 activations=absmax
    shift 2
    if [[ $weights == none ]]; then activations=none; fi
    "$tritforge" train recipe.toml --quiet "${larger[@]/#/--set=}" --set "run.out=\"$name-$weights\"" \
        --set "quant.weights=$weights" --set "quant.activations=$activations" "$@" > train.log
}
for weights in absmean none; do
    train bitnet $weights
    compare bitnet $weights
    train llama $weights --set model.use_sub_norm=false
    compare llama $weights
    # Recipes train neither: the trained Llama, with what they have more.
    "$tritforge" export "llama-$weights" -o llama-hf --format hf-f32 > export.log
    for name in qwen2 qwen3; do
        python3 "$here/as_qwen.py" $name llama-hf $name-hf
        "$tritforge" import $name-hf -o "$name-$weights" > import.log
        compare $name $weights
    done
    rm -r ./*-hf
done

echo
echo "bitnet-b1.58, which llama.cpp does not load"
"$tritforge" train recipe.toml --quiet "${larger[@]/#/--set=}" --set 'run.out="relu2"' --set model.hidden_act=relu2 > train.log
for format in tq2_0 tq1_0 i2_s i2_s_arm q2_0 iq2_bn; do
    "$tritforge" export relu2 -o relu2.gguf --format $format > export.log
    "$tritforge" inspect relu2.gguf --codes-digest --json > codes.json
    echo -n "$format: "
    "$here/run.sh" gguf_codes.py "$work/relu2.gguf" "$work/codes.json" | tail -1 || failed=1
done
exit $failed
