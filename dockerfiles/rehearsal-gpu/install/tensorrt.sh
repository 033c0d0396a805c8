# Install TensorRT and its libraries, without what is never loaded.
# usage: tensorrt.sh CONTEXT
set -eu
context=$1
umask 022
export PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp PIP_ROOT_USER_ACTION=ignore

pip=$(echo "$context"/inputs/tools/pip-*.whl)/pip
python3 "$pip" install -q --no-index --no-deps --no-compile --no-cache-dir \
    --break-system-packages "$context"/inputs/tensorrt/*.whl

# The plugin library is linked against cuBLAS and cuDNN, so both have to be there. The backend
# gives the builder neither as a source of tactics: what cuDNN loads on demand (1.2 GB) is left out.
found=$(python3 -c 'import nvidia; print(*nvidia.__path__)')
rm -r "$found"/*/include "$found"/cudnn/lib/libcudnn_* "$found"/cublas/lib/libnvblas.*

# Whoever asks the image for its versions finds these two; what is left of cuDNN answers nobody.
printf '%s\n' "$found/cuda_runtime/lib" "$(dirname "$found")/tensorrt" > /etc/ld.so.conf.d/tensorrt.conf
ldconfig
