#!/bin/sh
# Set up the kit from the wheels in this bundle: needs Python 3.10 or newer and nothing else.
#     ./bootstrap FOLDER [--key SENDER.pub]
# Nothing is installed before signature, index and wheels are verified.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
python=${PYTHON:-python3}
[ $# -ge 1 ] || { echo "usage: $0 FOLDER [--key SENDER.pub]" >&2; exit 2; }
target=$1
shift
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || {
    echo "error: Python 3.10 or newer is needed; set PYTHON=python3.11" >&2
    exit 3
}
[ ! -e "$target" ] || { echo "error: $target is there already" >&2; exit 2; }
wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT
"$python" -I "$here/verify.py" "$here" "$@" --extract kit/kit "$wheels" >&2
# pip comes from the bundle: Python may be without it.
"$python" -I -m venv --without-pip "$target"
set -- "$wheels"/pip-*.whl
PIP_CONFIG_FILE=/dev/null "$target/bin/python" "$1/pip" install --quiet --no-index --no-cache-dir \
    --disable-pip-version-check --find-links "$wheels" --require-hashes \
    --requirement "$wheels/requirements.txt" >&2
"$target/bin/kit" --version
