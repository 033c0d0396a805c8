# What the stages share; read by the others, first of all.
set -euo pipefail
shopt -s nullglob # a pattern that fits nothing is no word
umask 022
export LC_ALL=C.UTF-8 HOME=/root SOURCE_DATE_EPOCH PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1
context=/context
inputs=$context/inputs
# The ARGs of the stage, in a file: an ENV of the base image hides an ARG of the same name, and NGC's
# images have CUDA_VERSION, CUDNN_VERSION and more of them.
. $context/arguments

# pip takes nothing but files of the lock. The base image's own settings go: a further index (asked
# even by a pip that installs nothing) and constraints, which the lock has already been held against.
unset PIP_CONSTRAINT PIP_EXTRA_INDEX_URL PIP_INDEX_URL
export PIP_CONFIG_FILE=/dev/null PIP_NO_INDEX=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_NO_PYTHON_VERSION_WARNING=1
export NVIDIA_TENSORRT_DISABLE_INTERNAL_PIP=1 # the sources of tensorrt-cu12 start a pip of their own
export PIP_BREAK_SYSTEM_PACKAGES=1 # Ubuntu 24.04 marks its Python as managed by apt

# Same sources, same bytes: no debug paths of scratch folders, the time of the lock.
export CFLAGS="-g0 ${CFLAGS:-}" CXXFLAGS="-g0 ${CXXFLAGS:-}"

started=$(mktemp /tmp/started.XXXXXX)

die() {
    echo "error: $*" >&2
    exit 1
}

# Install exactly these wheels and source distributions; the lock has chosen them.
install_files() {
    [ $# -eq 0 ] || python3 -m pip install --quiet --no-deps --no-compile "$@"
}

# Tell wheels that only build mpi4py 3 (`tools`) from those that are wanted (`wheels`).
build_tools() {
    local wheel
    tools=() wheels=()
    for wheel in "$@"; do
        case ${wheel##*/} in
            [Cc]ython-[0-2].* | wheel-* | setuptools-[1-5]?.* | setuptools-6[0-8].*)
                tools+=("$wheel")
                ;;
            *) wheels+=("$wheel") ;;
        esac
    done
}

# Source distributions as wheels in a folder. What they need to be built stands in the folder `build`
# of their group and is installed for that alone; without such a folder the tools at hand are used.
# usage: build_wheels GROUP FOLDER ARCHIVE…
build_wheels() {
    local needs=$inputs/$1/build folder=$2 archive options=(--no-build-isolation)
    [ ! -d "$needs" ] || options=(--find-links "$needs" --find-links "$inputs/$1")
    shift 2
    for archive in "$@"; do
        rm -rf /tmp/sdist && mkdir /tmp/sdist
        case $archive in
            *.zip) python3 -m zipfile -e "$archive" /tmp/sdist ;;
            *) tar --extract --no-same-owner --file "$archive" --directory /tmp/sdist ;;
        esac
        python3 -m pip wheel --quiet --no-deps "${options[@]}" --wheel-dir "$folder" /tmp/sdist/*
    done
    rm -rf /tmp/sdist
}

# Take away what differs from one run to the next, and nothing else:
# - logs, backups and package caches of apt, dpkg, debconf and ldconfig: times, inode numbers;
# - bytecode written in this step: it carries the time stamps of sources, which a layer does not
#   keep. It is made again, valid whatever the time stamps are, so that a start stays quick.
clean() {
    local logs=/var/log state=/var/lib cache=/var/cache
    rm -rf "$logs"/apt/* "$logs"/dpkg.log "$logs"/alternatives.log "$logs"/fontconfig.log
    rm -rf "$cache"/apt/* "$cache"/ldconfig "$cache"/debconf/*-old "$state"/apt/lists/*
    rm -f "$state"/dpkg/*-old "$state"/dpkg/lock* "$state"/dpkg/triggers/Lock /etc/ld.so.cache~
    find /usr /opt /root /app -xdev -name '*.pyc' -cnewer "$started" -delete 2> /dev/null || true
    # Templates and sources for another Python do not compile; nobody imports them.
    find /usr /opt -xdev -name '*.py' -cnewer "$started" | sort |
        python3 -W ignore -m compileall -qq -j 1 --invalidation-mode unchecked-hash -i - || true
    rm -rf /root/.cache /root/.local /tmp/* /var/tmp/*
}
