#!/usr/bin/env bash
# Trains a tiny model, exports it in every packing, and lets PyPI `gguf` decode every ternary tensor: the codes and scales must
# be exactly ours. Needs Python 3 and network for the first run (gguf and numpy go into .venv-gguf/).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

if [[ -n ${TRITFORGE_PYTHON:-} ]]; then
    python=$TRITFORGE_PYTHON
else
    venv=$root/.venv-gguf
    python=$venv/bin/python
    if ! "$python" -c 'import gguf' 2>/dev/null; then
        python3 -m venv "$venv"
        "$python" -m pip install --quiet gguf==0.19.0 numpy==2.4.6
    fi
fi

cargo build --release --locked --manifest-path "$root/Cargo.toml"
tritforge=$root/target/release/tritforge
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cp "$root/LICENSE-APACHE" "$work/text.txt"
cat > "$work/recipe.toml" <<'TOML'
[run]
name = "interop"
seed = 3
[model]
hidden_size = 256
intermediate_size = 512
num_hidden_layers = 2
num_attention_heads = 4
num_key_value_heads = 2
hidden_act = "silu"
max_position_embeddings = 64
[tokenizer]
kind = "bpe"
vocab_size = 320
[data]
train = ["text.txt"]
seq_len = 32
[optim]
lr = 2e-3
[train]
steps = 8
batch_size = 2
TOML
cd "$work"
"$tritforge" train recipe.toml --quiet
check() {
    "$tritforge" export "$1" -o "$2.gguf" --format "$2"
    "$tritforge" inspect "$2.gguf" --codes-digest --json > "$2.json"
    "$python" "$here/gguf_codes.py" "$2.gguf" "$2.json"
}
for format in tq2_0 tq1_0 i2_s i2_s_arm q2_0 q2_0_g128 pq2_0 ptq1_0 iq2_bn iq1_bn; do
    check runs/interop "$format"
done
# Scales of rows and of groups, where there is room for them, with a ternary embedding.
for granularity in row 256 128 64; do
    case $granularity in
    row) formats="tq2_0 tq1_0 q2_0 q2_0_g128 pq2_0 ptq1_0 iq2_bn iq1_bn" ;;
    256) formats="tq2_0 tq1_0 q2_0 q2_0_g128 pq2_0 ptq1_0" ;;
    128) formats="q2_0 q2_0_g128 pq2_0 ptq1_0" ;;
    64) formats="q2_0" ;;
    esac
    "$tritforge" train recipe.toml --quiet --set quant.granularity=$granularity --set quant.embedding=$granularity \
        --set run.out=runs/$granularity
    for format in $formats; do
        check "runs/$granularity" "$format"
    done
done
