# The release's own build, in the folder that upstream has, with everything already in place.
. /context/install/common.sh
source=/src/tensorrt_llm
home=/src/home
mkdir -p "$source" "$home" /out
export HOME=$home

# The tree, writable: the build generates files in it. A submodule without `.git` would make the
# build call git; an empty file is enough.
cp -R --no-preserve=mode,ownership,timestamps "$inputs/trtllm/." "$source"
(cd "$inputs/trtllm" && find . -type f -perm -100) | (cd "$source" && xargs -r -d '\n' chmod a+x)
cd "$source"
if [ -e .gitmodules ]; then
    while read -r path; do
        [ -n "$(ls -A "$path" 2> /dev/null)" ] || die "submodule $path is empty in the source tree"
        [ -e "$path/.git" ] || : > "$path/.git"
    done < <(sed -n 's/^[[:space:]]*path *= *//p' .gitmodules)
fi
# An index named in here is asked by pip up to 22.2 whatever its other settings say.
sed -i -E '/^(-i|--index-url|--extra-index-url|-f|--find-links)[ =]/d' requirements*.txt

# What the build installs stands in an environment of its own, which goes with the rest.
python3 -m venv --without-pip --system-site-packages "$home/venv"
export VIRTUAL_ENV=$home/venv PATH=$home/venv/bin:$PATH PIP_FIND_LINKS=$home/wheels
mkdir "$home/wheels"
for wheel in "$inputs"/{devel,tools,wheel}/*.whl; do
    ln -sf "$wheel" "$home/wheels"
done
build_tools "$inputs"/{devel,tools}/*.whl
install_files "${tools[@]}"
install_files "$inputs"/wheel/*.whl
build_wheels wheel "$home/built" "$inputs"/wheel/*.{tar.gz,zip}
install_files "$home"/built/*.whl

# Stubs are made by importing the bindings, which want a driver's libraries; nothing calls them.
mkdir "$home/driver"
for stub in /usr/local/cuda/lib64/stubs/lib{cuda,nvidia-ml}.so; do
    [ ! -e "$stub" ] || ln -s "$stub" "$home/driver/$(basename "$stub").1"
done
driver=/usr/local/cuda/compat/lib.real:$home/driver
export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$driver

set -f # BUILD_WHEEL_ARGS is words with blanks between them
# shellcheck disable=SC2086
set -- $BUILD_WHEEL_ARGS
set +f
options=$(python3 scripts/build_wheel.py --help)
given=" $* "
has() { [[ $options == *"$1"* && $given != *" $1 "* ]]; }
settings() { [[ $given != *"$1="* ]]; }

# Sources that CMake would fetch are handed to it, with the patches that it would have applied; what
# is not there is not built.
patches() {
    [ ! -e 3rdparty/fetch_content.json ] || python3 - "$1" << 'END'
import json, sys
with open("3rdparty/fetch_content.json", encoding="utf-8") as file:
    rows = json.load(file)["dependencies"]
print(*(f"3rdparty/{row['patch_file']}" for row in rows
        if row["name"] == sys.argv[1] and row.get("patch_file")), sep="\n", end="")
END
}
fetched=$home/fetched
for folder in "$inputs"/*/; do
    names=("$(basename "$folder")") # as CMake calls it
    case ${names[0]} in
        wheel | devel | tools | release | trtllm | conan) continue ;;
        deep_ep) names+=(deep_ep_download) ;;
    esac
    for name in "${names[@]}"; do
        mkdir -p "$fetched"
        cp -R --no-preserve=ownership "$folder" "$fetched/$name-src"
        chmod -R u+w "$fetched/$name-src"
        for patch in $(patches "$name"); do
            patch -p1 --forward --batch --directory "$fetched/$name-src" < "$patch"
        done
        set -- "$@" -D "FETCHCONTENT_SOURCE_DIR_${name^^}=$fetched/$name-src"
    done
done
# Some CMake files find such a source by the folder that it would be fetched into. build_wheel.py
# empties that folder first, so it is filled at the last moment.
if [ -e "$fetched" ]; then
    cmake=$(command -v cmake)
    cat > "$home/venv/bin/cmake" << END
#!/bin/sh
case " \$* " in
    *" -S "*) mkdir -p _deps && ln -sfn "$fetched"/* _deps ;;
esac
exec "$cmake" "\$@"
END
    chmod a+x "$home/venv/bin/cmake"
    hash -r
fi
if [ ! -e "$inputs/googletest" ] && settings BUILD_TESTS; then
    set -- "$@" -D BUILD_TESTS=OFF
fi
# UCX is found in the base image; its C++ binding then wants rapids-cmake.
if [ ! -e "$inputs/rapids-cmake" ] && settings ENABLE_UCX && grep -qs ENABLE_UCX cpp/CMakeLists.txt; then
    set -- "$@" -D ENABLE_UCX=0
fi
has --no-venv && set -- "$@" --no-venv
[ -z "$CUDA_ARCHS" ] || set -- "$@" --cuda_architectures "$CUDA_ARCHS"
[ -z "$JOBS" ] || set -- "$@" -j "$JOBS"

# nvcc names intermediate files by its process number, and the linker keeps that name: beside the
# object they are named after the source. The seed stands for numbers that CUDA 12 draws for symbols
# of anonymous namespaces; the path of the source is part of those too, so one seed is enough.
known=$(/usr/local/cuda/bin/nvcc --help 2> /dev/null || true)
for flag in --objdir-as-tempdir --frandom-seed; do
    [[ $known != *"$flag"* ]] || NVCC_APPEND_FLAGS="${NVCC_APPEND_FLAGS:-} ${flag/seed/seed=1}"
done
export NVCC_APPEND_FLAGS=${NVCC_APPEND_FLAGS:-}

# Packages that conan would download, as `conan cache save` wrote them.
export CONAN_HOME=$home/conan
for archive in "$inputs"/conan/*.tgz; do
    conan cache restore "$archive"
done

# Compilers behind ccache: its hits are keyed by what the compiler is and what it reads.
if command -v ccache > /dev/null; then
    export CCACHE_DIR=/ccache CCACHE_COMPILERCHECK=content CCACHE_TEMPDIR=$home/ccache
    # Set by a build that may not read it; to ccache any value means yes.
    [ -z "${CCACHE_RECACHE-}" ] && unset CCACHE_RECACHE || export CCACHE_RECACHE
    if has --use_ccache; then
        set -- "$@" --use_ccache
    else
        export CMAKE_CXX_COMPILER_LAUNCHER=ccache CMAKE_CUDA_COMPILER_LAUNCHER=ccache
    fi
    ccache --zero-stats > /dev/null
fi

echo "python3 scripts/build_wheel.py $*"
python3 scripts/build_wheel.py "$@" 2>&1 | python3 "$context/install/ends.py"

if command -v ccache > /dev/null; then
    echo kit:ccache:begin
    ccache --print-stats
    echo kit:ccache:end
fi

# What stays: the wheel with its members in order, the headers, the benchmarks.
set -- build/tensorrt_llm*.whl
[ $# -eq 1 ] && [ -e "$1" ] || die "expected one wheel in $source/build, found: $*"
python3 "$context/install/repack.py" "$1" /out
cp -R cpp/include /out/include
if [ -e cpp/build/benchmarks ]; then
    find cpp/build/benchmarks -maxdepth 1 -type f -perm -100 | while read -r binary; do
        install -D -m 755 "$binary" "/out/benchmarks/$(basename "$binary")"
    done
fi
chmod -R u=rwX,go=rX /out
(cd /out && find . -type f ! -name SHA256SUMS | sort | xargs -d '\n' sha256sum > SHA256SUMS)

cd /
rm -rf /src
export HOME=/root PATH=${PATH#*:}
clean
