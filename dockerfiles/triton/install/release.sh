# Hold the image against the lock; add templates, tools and the launch script.
set -euo pipefail
umask 022
export LC_ALL=C.UTF-8 PYTHONDONTWRITEBYTECODE=1
context=/context
# The ARGs of the stage: an ENV of the base image hides an ARG of the same name.
. $context/arguments

die() {
    echo "error: $*" >&2
    exit 1
}

# usage: expect WHAT WANTED FOUND; an empty WANTED is not known and fits everything
expect() {
    case $3 in
        "$2" | "$2".* | "$2"+*) ;;
        *) [ -z "$2" ] || die "image $BASE_TAG: expected $1 $2, found ${3:-none}" ;;
    esac
}

version_of() {
    python3 -c 'import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))' \
        "$1" 2> /dev/null || true
}

found=$(version_of tensorrt_llm)
[ -n "$RELEASE_CANDIDATE" ] && [ "$found" = "$RELEASE_CANDIDATE" ] ||
    expect tensorrt_llm "$RELEASE" "$found"
# Some tables have three numbers of TensorRT's version, and packages of TensorRT 9 name themselves
# 9.2.0.post12.dev5.
expect tensorrt "$(cut -d. -f1-3 <<< "${TENSORRT_VERSION%%+*}")" "$(version_of tensorrt)"
# Set by the server's own build; a file in its folder says the same.
server=${TRITON_SERVER_VERSION:-$(cat /opt/tritonserver/TRITON_VERSION 2> /dev/null || true)}
expect tritonserver "$TRITON_VERSION" "$server"
[ -x /opt/tritonserver/bin/tritonserver ] || die "image $BASE_TAG: no /opt/tritonserver/bin/tritonserver"

# /app is where the containers have them from 0.20.0 on; before that the documentation mounts a
# checkout at /tensorrtllm_backend.
tree=$context/inputs/$(dirname "$TEMPLATES")
[ -e "$tree/$(basename "$TEMPLATES")/inflight_batcher_llm" ] ||
    die "no $TEMPLATES/inflight_batcher_llm in the sources of the lock"
mkdir -p /app
for name in all_models tools scripts; do
    [ -e "$tree/$name" ] || die "no $name beside $TEMPLATES in the sources of the lock"
    rm -rf "/app/$name"
    cp -R --no-preserve=ownership,timestamps "$tree/$name" "/app/$name"
done
chmod -R u=rwX,go=rX /app/all_models /app/tools /app/scripts
for name in fill_template.py launch_triton_server.py; do
    [ -e "/app/tools/$name" ] || [ -e "/app/scripts/$name" ] || die "no $name in tools or scripts"
done
if [ ! -e /tensorrtllm_backend ] && dpkg --compare-versions "$RELEASE" lt 0.20.0; then
    mkdir /tensorrtllm_backend
    ln -s /app/all_models /app/tools /app/scripts /tensorrtllm_backend
fi
