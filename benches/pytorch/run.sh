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
source "$here/../python.sh"
environment pytorch

cd "$root"
script=bench.py
if [[ ${1:-} == --check ]]; then
    script=check.py
    shift
fi
exec "$python" "$here/$script" "$@"
