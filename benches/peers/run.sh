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
root=$(cd "$here/../.." && pwd)

if [[ -n ${TRITFORGE_PYTHON:-} ]]; then
    python=$TRITFORGE_PYTHON
else
    venv=$root/.venv-peers
    python=$venv/bin/python
    if ! cmp -s "$here/requirements.txt" "$venv/installed.txt"; then
        python3 -m venv "$venv"
        CMAKE_ARGS="-DGGML_NATIVE=ON" "$python" -m pip install --no-binary llama-cpp-python \
            --requirement "$here/requirements.txt"
        cp "$here/requirements.txt" "$venv/installed.txt"
    fi
fi

cd "$root"
exec "$python" "$here/compare.py" "$@"
