#!/usr/bin/env bash
# Run one of the scripts beside this one with the Python packages it needs:
#
#     tests/interop/run.sh gguf_codes.py MODEL.gguf CODES.json
#     tests/interop/run.sh logits_llama_cpp.py --model MODEL.gguf --text held_out.txt --tokens 512
#     tests/interop/run.sh tensorboard_events.py RUN
#
# TRITFORGE_PYTHON names an interpreter that already has them. Otherwise they are installed once into .venv-interop/ at
# the root of the repository, in the versions of requirements.txt; a script with a list of its own, such as
# requirements-hugging_face.txt, has an environment of its own. llama-cpp-python is compiled there: that takes about
# ten minutes and a C++ compiler.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

if [[ $# -eq 0 ]]; then
    echo "usage: $0 SCRIPT.py [ARGUMENTS]" >&2
    exit 2
fi

if [[ -n ${TRITFORGE_PYTHON:-} ]]; then
    python=$TRITFORGE_PYTHON
else
    requirements=$here/requirements.txt
    venv=$root/.venv-interop
    if [[ -f $here/requirements-${1%.py}.txt ]]; then
        requirements=$here/requirements-${1%.py}.txt
        venv=$venv-${1%.py}
    fi
    python=$venv/bin/python
    if ! cmp -s "$requirements" "$venv/installed.txt"; then
        python3 -m venv "$venv"
        "$python" -m pip install --requirement "$requirements"
        cp "$requirements" "$venv/installed.txt"
    fi
fi

script=$1
shift
exec "$python" "$here/$script" "$@"
