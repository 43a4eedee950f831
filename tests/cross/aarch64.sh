#!/bin/sh
# Builds the engine's crates for aarch64 and runs their tests on this x86-64 machine under user-mode emulation: once on a
# processor with every extension (dotprod, i8mm), once on one with plain NEON. It shows that results are right; it says
# nothing about speed.
#
# For Debian bookworm. Missing packages are installed from its archive (as root; some 350 MB), among them a second Rust
# compiler, since rustup may be out of reach: with `rustup target add aarch64-unknown-linux-gnu` done, Debian's is not used.
#
#   tests/cross/aarch64.sh                      # all crates that the engine is made of
#   tests/cross/aarch64.sh -p tritforge-kernels # one of them
set -eu
cd "$(dirname "$0")/../.."
target=aarch64-unknown-linux-gnu

packages="gcc-aarch64-linux-gnu libc6-dev-arm64-cross libc6:arm64 qemu-user-static"
if ! [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
    packages="$packages rustc-web libstd-rust-web-dev:arm64"
    export RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc
fi
# shellcheck disable=SC2086 # a list of words
if ! dpkg-query -W -f '${db:Status-Abbrev}\n' $packages 2>/dev/null | grep -c '^ii' | grep -qx "$(echo $packages | wc -w)"; then
    dpkg --add-architecture arm64
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $packages
fi

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/cross"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc CXX_aarch64_unknown_linux_gnu=aarch64-linux-gnu-g++

[ $# -gt 0 ] || set -- -p tritforge-kernels -p tritforge-ternary -p tritforge-gguf -p tritforge-config -p tritforge-text -p tritforge-infer
for processor in max cortex-a53; do
    echo "== emulated processor: $processor"
    # Tests that start themselves again read the first variable; cargo reads the second. No library prefix (-L): the
    # loader must be that of libc6:arm64, like the C library it finds.
    export TRITFORGE_TEST_RUNNER="qemu-aarch64-static -cpu $processor"
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$TRITFORGE_TEST_RUNNER"
    cargo test --release --target $target --lib --tests "$@"
done
