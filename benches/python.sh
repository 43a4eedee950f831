# Sourced by the run.sh of a folder of benchmarks, which has its `here`: `root`, and the interpreter as `python`.

root=$(cd "$here/../.." && pwd)

# environment NAME [OPTIONS of pip install]: the packages of requirements.txt, once in .venv-NAME/ at the root of the repository, or
# TRITFORGE_PYTHON, which has them.
environment() {
    if [[ -n ${TRITFORGE_PYTHON:-} ]]; then
        python=$TRITFORGE_PYTHON
        return
    fi
    local venv=$root/.venv-$1
    shift
    python=$venv/bin/python
    if ! cmp -s "$here/requirements.txt" "$venv/installed.txt"; then
        python3 -m venv "$venv"
        "$python" -m pip install "$@" --requirement "$here/requirements.txt"
        cp "$here/requirements.txt" "$venv/installed.txt"
    fi
}
