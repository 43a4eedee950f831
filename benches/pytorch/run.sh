#!/usr/bin/env bash
# Training of the same model in PyTorch and in tritforge, alternating, as Markdown tables:
#
#     benches/pytorch/run.sh                          S, M and L: eager, torch.compile, tritforge
#     benches/pytorch/run.sh --shapes S --rounds 5
#     benches/pytorch/run.sh --check                  only: do both compute the same loss?
#
# All arguments go to bench.py (--check: those after it to check.py). TRITFORGE_PYTHON names an interpreter that already
# has the packages of requirements.txt; otherwise they are installed once into .venv-pytorch/ at the root of the
# repository. torch.compile needs a C++ compiler.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

if [[ -n ${TRITFORGE_PYTHON:-} ]]; then
    python=$TRITFORGE_PYTHON
else
    venv=$root/.venv-pytorch
    python=$venv/bin/python
    if ! cmp -s "$here/requirements.txt" "$venv/installed.txt"; then
        python3 -m venv "$venv"
        "$python" -m pip install --requirement "$here/requirements.txt"
        cp "$here/requirements.txt" "$venv/installed.txt"
    fi
fi

cd "$root"
script=bench.py
if [[ ${1:-} == --check ]]; then
    script=check.py
    shift
fi
exec "$python" "$here/$script" "$@"
