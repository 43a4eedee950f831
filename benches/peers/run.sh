#!/usr/bin/env bash
# Measure tritforge and llama.cpp on the same synthetic models, alternating, and print Markdown tables:
#
#     cargo build --release
#     benches/peers/run.sh
#     benches/peers/run.sh --formats tq2_0 --rounds 7
#
# All arguments go to compare.py. TRITFORGE_PYTHON names an interpreter that already has llama-cpp-python; otherwise it
# is compiled once into .venv-peers/ at the root of the repository, for this CPU (GGML_NATIVE): about ten minutes and a
# C++ compiler. The models (1.7 GB for the 2B4T shape) are written once to runs/peers/.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../python.sh"
CMAKE_ARGS="-DGGML_NATIVE=ON" environment peers --no-binary llama-cpp-python

cd "$root"
exec "$python" "$here/compare.py" "$@"
