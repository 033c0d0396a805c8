# The image that is used: the wheel with its closure, and the release's tree as users know it.
. /context/install/common.sh
root=/app/tensorrt_llm
tree=$inputs/trtllm

build_wheels release /tmp/built "$inputs"/release/*.{tar.gz,zip}
install_files "$inputs"/release/*.whl
install_files /tmp/built/*.whl
install_files /wheel/tensorrt_llm*.whl

mkdir -p "$root"
for name in README.md docs examples benchmarks; do
    [ ! -e "$tree/$name" ] || cp -R --no-preserve=ownership,timestamps "$tree/$name" "$root/$name"
done
cp -R --no-preserve=ownership,timestamps /wheel/include "$root/include"
(cd /wheel && sha256sum tensorrt_llm*.whl) > "$root/wheels.sha256"
# Upstream leaves the wheel in the image from 1.2.0 on.
! dpkg --compare-versions "$RELEASE" ge 1.2.0 || cp /wheel/tensorrt_llm*.whl "$root"

# The C++ benchmarks as programs instead of sources; 0.8.0 has them a folder higher.
if [ -e /wheel/benchmarks ]; then
    mkdir -p "$root/benchmarks/cpp"
    find "$root/benchmarks/cpp" \( -name '*.cpp' -o -name '*.cu' -o -name '*.h' \
        -o -name CMakeLists.txt \) -delete
    programs=$root/benchmarks/cpp
    dpkg --compare-versions "$RELEASE" ge 0.9.0 || programs=$root/benchmarks
    cp -R /wheel/benchmarks/. "$programs"
fi

# Libraries and programs of the Python package where C++ projects and shells look for them.
package=$(python3 -m pip show --files tensorrt_llm | sed -n 's/^Location: //p')/tensorrt_llm
[ -e "$package/libs/libnvinfer_plugin_tensorrt_llm.so" ] ||
    die "the wheel has no libs/libnvinfer_plugin_tensorrt_llm.so"
ln -s "$package/libs" "$root/lib"
[ ! -e "$package/bin" ] || ln -s "$package/bin" "$root/bin"
echo "$root/lib" > /etc/ld.so.conf.d/tensorrt_llm.conf
ldconfig
if [ -e "$root/bin/executorWorker" ]; then
    ! ldd "$root/bin/executorWorker" | grep -E 'tensorrt_llm.*not found' ||
        die "executorWorker does not find its libraries"
fi

# Readable for whoever the container runs as; the examples writable, as upstream has them.
chmod -R u=rwX,go=rX "$root"
chmod -R a+w "$root/examples"
clean
