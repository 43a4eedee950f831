#!/usr/bin/env bash
# Trains a tiny model, exports it in every packing, and lets PyPI `gguf` decode every ternary tensor: the codes and scales must
# be exactly ours. Needs Python 3 and network for the first run (run.sh: gguf and numpy).
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

cp "$root/LICENSE-APACHE" "$work/text.txt"
cp "$here/recipe.toml" "$work"
cd "$work"
"$tritforge" train recipe.toml --quiet
check() {
    "$tritforge" export "$1" -o "$2.gguf" --format "$2"
    "$tritforge" inspect "$2.gguf" --codes-digest --json > "$2.json"
    "$here/run.sh" gguf_codes.py "$2.gguf" "$2.json"
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
