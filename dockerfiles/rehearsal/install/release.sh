# Install the locked wheels and those from source; compile them once, so that a start is quick.
# usage: release.sh CONTEXT WHEELS ROOT
set -eu
context=$1 wheels=$2 root=$3
umask 022
export PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp PIP_ROOT_USER_ACTION=ignore

pip=$(echo "$context"/inputs/tools/pip-*.whl)/pip
python3 "$pip" install -q --no-index --no-deps --no-compile --no-cache-dir \
    --break-system-packages "$context"/inputs/runtime/*.whl "$wheels"/*.whl
python3 -m kit_rehearsal.install "$root"
(cd "$wheels" && sha256sum ./*.whl) > "$root/wheels.sha256"

# Checked by nothing but the digest of the image: no time stamp of a source is written.
python3 -m compileall -q -j 1 --invalidation-mode unchecked-hash \
    -x '/(test|tests|idlelib|lib2to3|ensurepip)/' /usr/lib/python3.* /usr/local/lib/python3.*
