"""A small stack in the shape of the real ones: a pulled base, three stages, inputs of every kind."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from dataclasses import dataclass

from kit.images import base
from kit.images.family import Family, Group
from kit.images.oci import Layer, Layout
from kit.locks import lock as locks
from kit.store import Store

EPOCH = 1_600_000_000
_PACKAGES = (
    *("coreutils", "dash", "gcc-12-base", "libacl1", "libattr1", "libc6", "libgcc-s1"),
    *("libgmp10", "libpcre2-8-0", "libselinux1"),
)
FAMILY = """\
schema: kit.family/1
image: base
stages:
  - name: devel
    groups: [devel, absent?]
    reads: [install/devel.sh]
  - name: wheel
    groups: [wheel, tree]
    reads: [install/wheel.sh, shared]
  - name: release
    groups: [tree]
    reads: [install/release.sh, shared/name]
"""
DOCKERFILE = """\
# A comment does not count.
ARG BASE
ARG COLOUR=red

FROM ${BASE} AS devel
SHELL ["/bin/dash", "-ec"]
ARG SOURCE_DATE_EPOCH
ARG TOOL
RUN --mount=type=bind,source=.,target=/context sh /context/install/devel.sh
ENV PATH=/opt/tool/bin:$PATH \\
    CUDA_VERSION=99
ENV ADDED=1

# Nor does this one.
FROM devel AS wheel
ARG SOURCE_DATE_EPOCH
ARG COLOUR
ARG JOBS=""
RUN --mount=type=bind,source=.,target=/context \\
    --mount=type=cache,id=ccache,target=/ccache \\
    /bin/sh /context/install/wheel.sh

FROM devel AS release
ARG SOURCE_DATE_EPOCH
RUN --mount=type=bind,source=.,target=/context \\
    --mount=type=bind,from=wheel,source=/wheels/made,target=/mnt/wheels/made \\
    sh /context/install/release.sh
LABEL org.trtllm-kit.root="/app/tensorrt_llm" org.trtllm-kit.releases="0.16.0"
WORKDIR /app/tensorrt_llm
"""
DEVEL = """\
set -eu
echo "devel begins"; sleep 1
test -z "$(ls -A /context/shared 2>/dev/null)"
mkdir -p /opt/tool/bin
cp /context/inputs/devel/tool.txt /opt/tool/bin/tool
echo "$TOOL at $SOURCE_DATE_EPOCH" > /opt/tool/version
ln /opt/tool/version /opt/tool/again
cp -p /opt/base/same /tmp/same && rm /opt/base/same && mv /tmp/same /opt/base/same
rm -r /opt/base/folder /opt/base/gone && mkdir -p /opt/base/folder/again/deep && echo d > /opt/base/folder/d
echo changed >> /opt/base/one
"""
WHEEL = """\
set -eu
. /context/arguments
echo "wheel begins"; sleep 1
test "$(cat /opt/tool/version)" = "7 at $SOURCE_DATE_EPOCH"
test -d /context/inputs/tree/3rdparty || mkdir -p /nowhere
test "$COLOUR" != broken || { echo "c++: fatal error: Killed signal terminated program cc1plus"; exit 1; }
if test -n "${CCACHE_RECACHE:-}" || ! test -e "/ccache/$COLOUR"; then hit=0; else hit=1; fi
date > "/ccache/$COLOUR"
mkdir -p /wheels/made
{ cat /context/inputs/tree/main.c /context/inputs/wheel/part.txt /context/shared/name; echo "$COLOUR"; } \\
    > /wheels/made/x.whl
stat -c '%Y %a %n' /context/inputs/tree/main.c /context/inputs/tree/build.sh
echo "kit:ccache:begin"
echo "direct_cache_hit	$hit"
echo "cache_miss	$((1 - hit))"
echo "kit:ccache:end"
echo "$JOBS jobs"
"""
RELEASE = """\
set -eu
echo "release begins"; sleep 1; stat -c '%a %n' /opt/base/*
test ! -e /wheels
mkdir -p /app/tensorrt_llm
cp /mnt/wheels/made/x.whl /app/tensorrt_llm/
/context/inputs/tree/build.sh > /app/tensorrt_llm/said
rm /opt/tool/again
"""


@dataclass(frozen=True)
class Site:
    """A project with the stack `staged`, its lock not made yet."""

    root: object

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def intent(self, reference, file_url, source_url, commit, extra=""):
        self.write(
            "lockfiles/staged.yaml",
            f"schema: kit.intent/1\nstack: staged\nfamily: staged\nplatform: linux/amd64\n"
            f"epoch: {EPOCH}\nrelease: 0.16.0\narguments: {{TOOL: '7'}}\n"
            f"images:\n- {{name: base, reference: '{reference}'}}\n"
            f"sources:\n- {{name: tree, url: '{source_url}', commit: {commit}}}\n"
            f"files:\n- {{name: tool.txt, group: devel, url: '{file_url}/tool'}}\n"
            f"- {{name: part.txt, group: wheel, url: '{file_url}/part'}}\n{extra}",
        )

    def family(self):
        folder = "dockerfiles/staged"
        self.write(f"{folder}/family.yaml", FAMILY)
        self.write(f"{folder}/Dockerfile", DOCKERFILE)
        self.write(f"{folder}/install/devel.sh", DEVEL)
        self.write(f"{folder}/install/wheel.sh", WHEEL)
        self.write(f"{folder}/install/release.sh", RELEASE)
        self.write(f"{folder}/shared/name", "shared name\n")


def base_image(folder, rehearsal):
    """A base of several layers: packages, files and links, then whiteouts, one layer twice."""
    layout = Layout(folder)
    pins = locks.load(rehearsal.lock_path("rehearsal")).select(kind="deb")
    store = Store(rehearsal.store)
    packages = {p.file: store.path(p.sha256) for p in pins if p.name in _PACKAGES}
    top = ("dev", "proc", "sys", "run", "etc", "mnt", "root", "var/lib/dpkg")
    group = Group("base", top, ("tmp",), {}, {"etc/passwd": "root:x:0:0:root:/root:/bin/sh\n"})
    family = Family({}, {}, ("usr/share",), (), (group,))
    lower = base.assemble(
        layout, family, {"base": packages}, platform="linux/amd64", epoch=5, name=lambda g: g
    )[0]
    middle = _layer(
        layout,
        ("opt/", None),
        ("opt/base/", None),
        ("opt/base/same", b"same"),
        ("opt/base/gone", b"gone"),
        ("opt/base/one", b"one"),
        ("opt/base/two", "opt/base/one"),
        ("opt/base/hidden", b"hidden"),
        ("opt/base/folder/a", b"a"),
        ("opt/base/folder/below/b", b"b"),
        ("opt/base/folder/again/deep/c", b"c"),
        ("opt/base/emptied/x", b"x"),
    )
    upper = _layer(
        layout,
        ("opt/base/.wh.hidden", b""),
        ("opt/base/folder/.wh.below", b""),
        ("opt/base/emptied/.wh..wh..opq", b""),
        ("opt/base/emptied/y", b"y"),
    )
    empty = _layer(layout)
    return layout.write_image(
        name="base",
        layers=(*lower.layers, middle, empty, upper, empty),
        settings={
            "Env": ["CUDA_VERSION=12", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"],
            "Labels": {"org.trtllm-kit.backend": "stand-in", "com.example.version": "24"},
            "ExposedPorts": {"8888/tcp": {}},
            "Entrypoint": ["/bin/sh"],
            "WorkingDir": "/opt",
        },
        history=(
            *("packages", "files", "nothing", "whiteouts"),
            {"created": "2024-01-01T00:00:00Z", "created_by": "ENV", "empty_layer": True},
            "nothing",
        ),
        platform="linux/amd64",
        epoch=9,
    )


def push(image, host, tag, form="oci"):
    """Into a registry, compressed, in the form of OCI or of Docker."""
    subprocess.run(
        [
            *("skopeo", "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"),
            *("--format", form, "--dest-compress-format", "gzip"),
            *(f"oci:{image.layout.root}:base", f"docker://{host}/nvidia/pytorch:{tag}"),
        ],
        check=True,
    )
    return f"{host}/nvidia/pytorch:{tag}"


def layer_paths(layout, layer):
    """The paths of a layer of the kit's own."""
    with tarfile.open(layout.blob(layer.digest)) as archive:
        return {member.name: member for member in archive}


def config(layout, digest):
    """The configuration of an image by manifest digest."""
    manifest = json.loads(layout.blob(digest).read_bytes())
    return json.loads(
        (layout.root / "blobs/sha256" / manifest["config"]["digest"][7:]).read_bytes()
    )


def _layer(layout, *members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.mode, member.mtime = 0o755 if content is None else 0o644, 77
            if content is None:
                member.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                member.type, member.linkname = tarfile.LNKTYPE, content
            else:
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return Layer(layout.put(stream.getvalue()), len(stream.getvalue()))
