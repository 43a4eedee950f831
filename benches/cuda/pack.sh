#!/usr/bin/env bash
# Puts what benches/cuda/device.sh needs on a machine with a GPU into a folder: stripped binaries of this machine, with the kernels' PTX
# inside them, and the shapes of models. Nothing is compiled there.
#
#     benches/cuda/pack.sh                    into target/cuda-device
#     benches/cuda/pack.sh FOLDER
#
# Copy the folder to the machine and run its device.sh.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
folder=${1:-$root/target/cuda-device}
# What the machine can hold of a program: the C library of Ubuntu 24.04, and a few seconds of a slow line.
newest=2.39
most=$((60 << 20))

cd "$root"
cargo build --release --locked --workspace --features tritforge-cli/cuda --bin tritforge
# Where cargo puts the test program.
tests=$(cargo test --release --locked --workspace --features tritforge-cli/cuda --test kernels --no-run --message-format=json |
    python3 -c '
import json, sys
for message in map(json.loads, sys.stdin):
    if message.get("executable") and message["target"]["name"] == "kernels":
        print(message["executable"])')

rm -rf "$folder"
mkdir -p "$folder"
strip -o "$folder/tritforge" "${CARGO_TARGET_DIR:-target}/release/tritforge"
strip -o "$folder/kernels" "$tests"
cp "$here/device.sh" "$here/bandwidth.py" "$here/table.py" "$folder"
cp configs/2b4t.toml configs/700m.toml configs/125m.toml configs/tiny.toml "$folder"

for program in tritforge kernels; do
    needs=$(objdump -T "$folder/$program" | grep -oE 'GLIBC_[0-9.]+' | sort -uV | tail -1)
    if [[ $(printf '%s\nGLIBC_%s\n' "$needs" "$newest" | sort -V | tail -1) != "GLIBC_$newest" ]]; then
        echo "$program needs $needs, newer than $newest: build on an older system" >&2
        exit 1
    fi
done
bytes=$(du -sb "$folder" | cut -f1)
if ((bytes > most)); then
    echo "$folder has $bytes bytes, more than $most" >&2
    exit 1
fi
echo "$folder: $((bytes >> 20)) MiB; run its device.sh on a machine with a GPU"
