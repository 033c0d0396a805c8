# Build wheels from source, the same bytes every time: fixed folder, fixed mask, no debug paths.
# usage: wheels.sh CONTEXT OUTPUT
set -eu
context=$1 output=$2
umask 022
export SOURCE_DATE_EPOCH PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp PIP_ROOT_USER_ACTION=ignore
export CFLAGS="-g0 -O1" LDFLAGS="-Wl,--build-id=none -s"

mkdir -p "$output" /build
pip=$(echo "$context"/inputs/tools/pip-*.whl)/pip
python3 "$pip" install -q --no-index --no-deps --no-compile --target /build/tools \
    "$context"/inputs/tools/*.whl
export PYTHONPATH=/build/tools

for archive in "$context"/inputs/source/*.tar.gz; do
    python3 -m tarfile -e "$archive" /build/source
    python3 -m pip wheel -q --no-index --no-deps --no-build-isolation --no-cache-dir \
        --wheel-dir "$output" /build/source/*
    rm -rf /build/source
done

cp -r "$context"/src /build/backend
chmod -R u=rwX,go=rX /build/backend
mkdir -p /build/backend/kit_rehearsal/data
cp "$context"/cli.json /build/backend/kit_rehearsal/data/cli.json
python3 -m pip wheel -q --no-index --no-deps --no-build-isolation --no-cache-dir \
    --wheel-dir "$output" /build/backend
