#!/bin/sh
# Set up the kit from the wheels in this bundle: needs Python 3.10 or newer and nothing else.
#     ./bootstrap FOLDER [--key SENDER.pub]
# Nothing is installed before signature, index and wheels are verified. Killed at any moment, or
# failed, the same command goes on.
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
# A folder is this program's own while it says so, and anybody's as soon as it does not.
unfinished=$target/.bootstrap-unfinished
if [ -e "$target" ] && [ ! -e "$unfinished" ] && [ -n "$(ls -A "$target")" ]; then
    echo "error: $target is there already" >&2
    exit 2
fi
wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
"$python" -I "$here/verify.py" "$here" "$@" --extract kit/kit "$wheels" >&2
# What is compiled is compiled for some versions: pip would only say that it finds none.
"$python" -I - "$wheels" >&2 <<'END'
import os, re, sys

names = os.listdir(sys.argv[1])
wheel = re.compile(r".+-cp3(\d+)-cp3\d+-.+\.whl")
found = {match[1] for match in map(wheel.fullmatch, names) if match}
if found and str(sys.version_info[1]) not in found:
    minors = sorted(map(int, found))
    carried = ", ".join(f"3.{minor}" for minor in minors)
    print(f"error: this is Python 3.{sys.version_info[1]}, the bundle has wheels for {carried}:")
    print(f"set PYTHON=python3.{minors[-1]}")
    sys.exit(3)
END
mkdir -p "$target"
: >"$unfinished"
rm -rf "$target"/*  # what a run has left that did not get to its end
# pip comes from the bundle: Python may be without it.
"$python" -I -m venv --without-pip "$target"
set -- "$wheels"/pip-*.whl
PIP_CONFIG_FILE=/dev/null "$target/bin/python" "$1/pip" install --quiet --no-index --no-cache-dir \
    --disable-pip-version-check --find-links "$wheels" --require-hashes \
    --requirement "$wheels/requirements.txt" >&2
rm "$unfinished"
"$target/bin/kit" --version
