# Sourced by the scripts beside it: `here`, `root`, the binary as `tritforge` (TRITFORGE, or built now), and `work`, a directory that
# goes when the script ends.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
if [[ -z ${TRITFORGE:-} ]]; then
    cargo build --release --locked --manifest-path "$root/Cargo.toml"
fi
tritforge=$(realpath "${TRITFORGE:-$root/target/release/tritforge}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
