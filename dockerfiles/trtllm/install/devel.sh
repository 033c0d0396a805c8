# Tools, the pinned CUDA libraries, TensorRT and what comes with them, on the base image.
. /context/install/common.sh
devel=$inputs/devel

# apt knows the packages of the lock and no repository.
apt_offline() {
    DEBIAN_FRONTEND=noninteractive apt-get --yes --quiet --allow-change-held-packages \
        -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists=/tmp/lists -o APT::Sandbox::User=root -o Dpkg::Use-Pty=0 \
        -o Dpkg::Options::=--force-confold "$@"
}

# Installed packages, `name version` a line.
# usage: installed PATTERN…
installed() {
    dpkg-query --show --showformat '${db:Status-Abbrev} ${Package} ${Version}\n' "$@" 2> /dev/null |
        awk '$1 ~ /^[ih]i/ { print $2, $3 }' || true
}

# Remove what is left of a library in other versions than the one that the release pins.
# usage: purge_others PINNED PATTERN
purge_others() {
    [ -n "$1" ] || return 0
    local name version others=()
    while read -r name version; do
        case $version in
            "$1" | "$1"-* | "$1"+*) ;; # tables of some releases lack the package's own revision
            *) [ -n "$(echo "$devel/${name}"_*.deb)" ] || others+=("$name") ;;
        esac
    done < <(installed "$2")
    [ ${#others[@]} -eq 0 ] || apt_offline purge "${others[@]}"
}

# usage: expect WHAT WANTED FOUND; an empty WANTED fits everything
expect() {
    case $3 in
        "$2" | "$2".* | "$2"+*) ;;
        *) [ -z "$2" ] || die "$1: release $RELEASE expects $2, found ${3:-none}" ;;
    esac
}

version_of() {
    python3 -c 'import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))' \
        "$1" 2> /dev/null || true
}

base="base image${BASE_TAG:+ with tag $BASE_TAG}"
expect "Python of the $base" "$(cut -d. -f1,2 <<< "$PYTHON_VERSION")" \
    "$(python3 -c 'import platform; print(platform.python_version())')"
expect "CUDA of the $base" "$(cut -d. -f1,2 <<< "$CUDA_VERSION")" \
    "$(/usr/local/cuda/bin/nvcc --version | sed -n 's/.*release \([0-9.]*\),.*/\1/p')"
found=$(version_of torch)
expect "PyTorch of the $base" "${PYTORCH_VERSION%%+*}" "${found%%+*}"

# The base image's own TensorRT goes. Then apt does what the lock was made for, in one go: that was
# done without the holds of the base image. Of the libraries that the release pins no other version
# stays; what the base image already has in that version is no input and is not touched. What is an
# input is installed even if dpkg has it: NGC's images lack the static NVRTC of installed packages.
mkdir -p /tmp/lists/partial
mapfile -t held < <(apt-mark showhold)
[ ${#held[@]} -eq 0 ] || apt-mark unhold "${held[@]}" > /dev/null
mapfile -t own < <(installed 'libnvinfer*' 'libnvonnxparsers*' 'libnvparsers*' 'tensorrt*' \
    'python3-libnvinfer*' | cut -d ' ' -f 1)
[ ${#own[@]} -eq 0 ] || apt_offline purge "${own[@]}"
python3 -m pip uninstall --quiet --yes tensorrt 2> /dev/null || true
debs=("$devel"/*.deb)
[ ${#debs[@]} -eq 0 ] ||
    apt_offline install --no-install-recommends --allow-downgrades --reinstall "${debs[@]}"
purge_others "$CUDNN_VERSION" 'libcudnn[0-9]*'
purge_others "$NCCL_VERSION" 'libnccl[0-9-]*'
purge_others "$CUBLAS_VERSION" 'libcublas-*'
purge_others "$NVRTC_VERSION" 'cuda-nvrtc-dev*'
for name in "${held[@]}"; do
    [ -z "$(installed "$name")" ] || apt-mark hold "$name" > /dev/null
done

# From 0.18.0 on the requirements do not fit the constraints of the base image.
if [ -e /etc/pip/constraint.txt ] && dpkg --compare-versions "$RELEASE" ge 0.18.0; then
    : > /etc/pip/constraint.txt
fi

unpack() {
    tar --extract --no-same-owner --no-same-permissions --file "$1" --directory "$2"
}

[ -z "$CMAKE_VERSION" ] || [ -n "$(echo "$devel"/cmake-"$CMAKE_VERSION"*-linux-*.tar.gz)" ] ||
    die "no archive of CMake $CMAKE_VERSION in group devel"
for archive in "$devel"/cmake-"$CMAKE_VERSION"*-linux-*.tar.gz; do
    unpack "$archive" /usr/local
    ln -sfn "$(basename "$archive" .tar.gz)" /usr/local/cmake
    # Put before a CMake of the base image up to 0.6.0, after it from 0.6.1 on.
    dpkg --compare-versions "$RELEASE" ge 0.6.1 || ln -sfn cmake /usr/local/cmake-first
done
for archive in "$devel"/ccache-"$CCACHE_VERSION"*-linux-*.tar.xz; do
    unpack "$archive" /tmp
    install -m 755 /tmp/ccache-*/ccache /usr/local/bin/ccache
done

# TensorRT, with the Python package for this interpreter.
tag=cp$(python3 -c 'import sys; print("%d%d" % sys.version_info[:2])')
for archive in "$devel"/[Tt]ensor[Rr][Tt]-*.tar.gz; do
    mkdir /tmp/tensorrt
    unpack "$archive" /tmp/tensorrt
    rm -rf /usr/local/tensorrt
    mv /tmp/tensorrt/* /usr/local/tensorrt
done
chmod -R u=rwX,go=rX /usr/local/tensorrt
package=(/usr/local/tensorrt/python/tensorrt-*-"$tag"-*.whl)
[ ${#package[@]} -eq 1 ] || die "no TensorRT archive for Python tag $tag in group devel"
install_files "${package[@]}"
# The package of 9.3.0.1 calls itself 9.3.0.post12.dev1, that of 10.7.0.23 10.7.0.
expect "TensorRT's Python package" "$(cut -d. -f1-3 <<< "${TENSORRT_VERSION%%+*}")" \
    "$(version_of tensorrt)"

# Everything else of the group, but what is only there to build mpi4py.
build_tools "$devel"/*.whl
for wheel in "${wheels[@]}"; do
    case ${wheel##*/} in
        opencv_python_headless-*)
            # Its folder is the same as that of the base image's own OpenCV.
            python3 -m pip uninstall --quiet --yes opencv opencv-python || true
            rm -rf "$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/cv2"
            ;;
    esac
done
install_files "${wheels[@]}"

# mpi4py against the MPI of the base image. Its sources want an old setuptools and, where they come
# without the generated C file, an old Cython: those of the lock, not those of the base image.
tools+=("$inputs"/tools/*.whl)
for archive in "$devel"/mpi4py-*.tar.gz; do
    if [ ${#tools[@]} -gt 0 ]; then
        install_files --target /tmp/mpi4py-tools "${tools[@]}"
        PYTHONPATH=/tmp/mpi4py-tools build_wheels tools /tmp/wheels "$archive"
    else
        build_wheels devel /tmp/wheels "$archive"
    fi
    python3 -m pip uninstall --quiet --yes mpi4py || true
    install_files /tmp/wheels/mpi4py-*.whl
done

expect polygraphy "$POLYGRAPHY_VERSION" "$(version_of polygraphy)"
expect mpi4py "$MPI4PY_VERSION" "$(version_of mpi4py)"
ldconfig
clean
