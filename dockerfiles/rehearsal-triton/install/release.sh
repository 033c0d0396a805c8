# Unpack the server where NGC's containers have it, install the wheels, write the backend's trees.
# usage: release.sh CONTEXT WHEELS ROOT
set -eu
context=$1 wheels=$2 root=$3
umask 022
export PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp PIP_ROOT_USER_ACTION=ignore

pip=$(echo "$context"/inputs/tools/pip-*.whl)/pip
python3 "$pip" install -q --no-index --no-deps --no-compile --no-cache-dir \
    --break-system-packages "$context"/inputs/runtime/*.whl "$wheels"/*.whl

server=/opt/tritonserver parts=/tmp/parts
python3 -m zipfile -e "$context"/inputs/server/nvidia_pytriton-*.whl "$parts"
mkdir -p "$server"/bin "$server"/lib "$server"/backends/python "$server"/licenses
cp "$parts"/pytriton/tritonserver/bin/tritonserver "$server"/bin/
cp "$parts"/pytriton/tritonserver/backends/python/* "$server"/backends/python/
cp "$parts"/pytriton/tritonserver/python_backend_stubs/3.11/* "$server"/backends/python/
cp "$parts"/nvidia_pytriton.libs/* "$server"/lib/
rm "$server"/lib/libpython3-* # of another Python's stub
cp "$parts"/nvidia_pytriton-*.dist-info/licenses/LICENSE "$server"/licenses/
echo 2.51.0 > "$server"/TRITON_VERSION # of nvidia-pytriton 0.7.0; a test asks the server
chmod 755 "$server"/bin/tritonserver "$server"/backends/python/triton_python_backend_stub
chmod -R u=rwX,go=rX "$server"
rm -rf "$parts"
if LD_LIBRARY_PATH=$server/lib ldd "$server"/bin/tritonserver \
    "$server"/backends/python/triton_python_backend_stub | grep 'not found'; then exit 1; fi

python3 -m kit_rehearsal_triton.install "$root" "$server"/backends
(cd "$wheels" && sha256sum ./*.whl) > "$root/wheels.sha256"

# Checked by nothing but the digest of the image: no time stamp of a source is written.
python3 -m compileall -q -j 1 --invalidation-mode unchecked-hash \
    -x '/(test|tests|idlelib|lib2to3|ensurepip)/' /usr/lib/python3.11 /usr/local/lib/python3.11
