#!/bin/sh
# Make the virtual environment $1 (default .venv) with everything that the notebooks, the book and the tests need, in the versions
# of constraints.txt. Called by make; needs a POSIX shell and a Python >= 3.11, which PYTHON=... can name.
set -eu
venv=${1:-.venv}

good() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
with_venv() { "$1" -c 'import venv, ensurepip' >/dev/null 2>&1; }

if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    found=""
    bare=""
    # 3.11 first: it is the version that was tested. The rest is in order of preference.
    for candidate in ${PYTHON:-python3.11 python3 python3.12 python3.13 python3.14 python}; do
        good "$candidate" || continue
        if with_venv "$candidate"; then
            found=$candidate
            break
        fi
        bare=$candidate
    done
    if [ -z "$found" ]; then
        if [ -n "$bare" ]; then
            echo "error: $bare is new enough, but cannot make virtual environments (its modules venv or ensurepip are missing)." >&2
            echo "       On Debian or Ubuntu: apt-get install python3-venv. Then run make again." >&2
        else
            echo "error: no Python >= 3.11 found (tried: ${PYTHON:-python3.11 python3 python3.12 python3.13 python3.14 python})." >&2
            echo "       Install one, or name it: make PYTHON=/path/to/python3.12" >&2
        fi
        exit 1
    fi
    echo "==> $venv: a new virtual environment from $("$found" --version 2>&1) ($found)"
    rm -rf "$venv"
    "$found" -m venv "$venv"
fi

echo "==> $venv: installing dpose with its extras book and dev, versions from constraints.txt"
# A CUDA machine, or one whose index offers CUDA builds only: choose with TORCH_INDEX=https://download.pytorch.org/whl/cpu (or /cu128 ...).
if [ -n "${TORCH_INDEX:-}" ]; then
    "$venv/bin/python" -m pip install --constraint constraints.txt --index-url "$TORCH_INDEX" torch
fi
"$venv/bin/python" -m pip install --constraint constraints.txt --editable ".[book,dev]"
