# Build the reference backend and its server into wheels; both are Python alone.
# usage: wheels.sh CONTEXT OUTPUT
set -eu
context=$1 output=$2
umask 022
export SOURCE_DATE_EPOCH PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp PIP_ROOT_USER_ACTION=ignore

mkdir -p "$output" /build
pip=$(echo "$context"/inputs/tools/pip-*.whl)/pip
python3 "$pip" install -q --no-index --no-deps --no-compile --target /build/tools \
    "$context"/inputs/tools/*.whl
export PYTHONPATH=/build/tools

cp -r "$context"/src "$context"/backend /build/
chmod -R u=rwX,go=rX /build/src /build/backend
mkdir -p /build/src/kit_rehearsal/data /build/backend/kit_rehearsal_triton/data
cp "$context"/cli.json /build/src/kit_rehearsal/data/
cp "$context"/repository.json /build/backend/kit_rehearsal_triton/data/
python3 -m pip wheel -q --no-index --no-deps --no-build-isolation --no-cache-dir \
    --wheel-dir "$output" /build/src /build/backend
