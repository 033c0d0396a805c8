"""Small images in the shape of NGC's PyTorch images: Debian's tools, NVIDIA's places, no GPU code.

The big layer holds Debian packages and is made once and cached; what differs from one release to
the next (CUDA's version, PyTorch's, keys, packages that a build purges) is a small layer on top.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kit.digest import Digest
from kit.images import base
from kit.images.oci import Layer, Layout
from kit.locks import lock as locks
from kit.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping

EPOCH = 1_700_000_000
PYTHON = "3.11"
_SITE = f"usr/local/lib/python{PYTHON}/dist-packages"
_ROOT = Path(__file__).resolve().parent.parent.parent
_PACKAGES = (
    "base-files base-passwd coreutils dash bash libc-bin mawk sed grep findutils diffutils tar gzip"
    " dpkg apt debianutils make cmake gcc g++ python3 python3-dev python3-pip python3-venv"
    " python3-setuptools python3-wheel openmpi-bin libopenmpi-dev ccache pigz"
)
_LEFT_OUT = ("gfortran", "libgfortran-", "libicu-dev", "valgrind", "openssh-client", "libcoarrays")
"""Packages of that closure that nothing here runs; their names go out of the dependencies too."""
_KEPT_OUT = re.compile(
    r"usr/bin/(x86_64-linux-gnu-)?(lto-dump|dwp|ld\.gold|ctest|cpack|gprofng)[^/]*"
    r"|usr/lib/(gcc/)?x86_64-linux-gnu/.*(lto1|lib[atl]san[^/]*|libubsan[^/]*|libgprofng[^/]*|plugin/.*)"
    r"|usr/lib/(python3\.11|x86_64-linux-gnu/pmix2)/.*/lib(python|pmix)[^/]*\.a"
    r"|usr/include/x86_64-linux-gnu/pmix/.*"
)
_COMPILED = (f"usr/lib/python{PYTHON}/", "usr/lib/python3/dist-packages/")
_INTENT = f"""\
schema: kit.intent/1
stack: ngc-base
family: ngc-base
platform: linux/amd64
epoch: {EPOCH}
debian:
  suite: bookworm
  components: [main]
  groups:
    base: [{", ".join(_PACKAGES.split())}]
python:
  version: "{PYTHON}"
  groups:
    wheels:
      wheels:
        - numpy==1.26.4
        - tokenizers==0.21.0
        - setuptools==68.2.2
        - wheel==0.45.1
        - build==1.2.2
        - packaging==24.2
        - pyproject_hooks==1.2.0
"""
_FAMILY = """\
schema: kit.family/1
context: {}
environment:
  PATH: /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exclude: [usr/share/doc, usr/share/info, usr/share/lintian, usr/share/locale, usr/share/man,
  usr/share/bug, usr/share/zoneinfo, usr/share/i18n, usr/share/gdb, usr/share/gcc,
  usr/lib/python3.11/test, usr/lib/python3.11/idlelib, usr/share/perl, usr/lib/x86_64-linux-gnu/gconv,
  usr/lib/x86_64-linux-gnu/perl]
keep: [copyright]
groups:
  - name: base
    directories: [home, mnt, opt, proc, root, run, srv, sys, usr/local/bin, usr/local/lib,
      var/lib/dpkg/info, var/lib/dpkg/updates, var/lib/dpkg/triggers, var/cache/apt/archives/partial,
      var/lib/apt/lists/partial, var/log/apt]
    sticky: [tmp, var/tmp]
    links:
      usr/bin/awk: mawk
      usr/bin/cc: gcc
      usr/bin/c++: g++
      usr/bin/mpirun: mpirun.openmpi
      usr/bin/mpiexec: mpiexec.openmpi
      usr/bin/mpicc: mpicc.openmpi
      usr/bin/mpicxx: mpicxx.openmpi
      usr/include/x86_64-linux-gnu/mpi: ../../lib/x86_64-linux-gnu/openmpi/include
      usr/lib/x86_64-linux-gnu/libmpi.so: openmpi/lib/libmpi.so
    files:
      etc/passwd: |
        root:x:0:0:root:/root:/bin/bash
        ubuntu:x:1000:1000:Ubuntu:/home/ubuntu:/bin/bash
        nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
      etc/group: |
        root:x:0:
        ubuntu:x:1000:
        nogroup:x:65534:
      etc/nsswitch.conf: |
        passwd: files
        group: files
        hosts: files
"""
_NVCC = """\
#!/bin/sh
# Says which CUDA it stands for, and compiles a .cu file as the C++ that it is here.
case "$*" in
*--version* | -V)
    echo "nvcc: NVIDIA (R) Cuda compiler driver (stand-in)"
    echo "Cuda compilation tools, release {short}, V{version}"
    exit 0 ;;
esac
last=
for option; do
    shift
    case "$option,$last" in
    -gencode,* | --generate-code,* | -arch,* | -Xcompiler,* | -ccbin,* | --compiler-options,*) ;;
    *,-gencode | *,--generate-code | *,-arch | *,-ccbin) ;;
    -gencode=*,* | --generate-code=*,* | -arch=*,* | --expt-*,* | --extended-lambda,*) ;;
    *.cu,*) set -- "$@" -x c++ "$option" -x none ;;
    *) set -- "$@" "$option" ;;
    esac
    last=$option
done
exec g++ -I/usr/local/cuda/include "$@"
"""
_SHINIT = """\
# Read by every shell of the image, through ENV and BASH_ENV.
export NVIDIA_STAND_IN_SHINIT=1
"""


@dataclass(frozen=True)
class NgcImage:
    """What one release's base image says of itself.

    Attributes:
        repository: `nvidia/pytorch` or `nvidia/tritonserver`.
        tag: of it.
        cuda: version of the toolkit, `12.6.3`.
        torch: version of its PyTorch, without a local part.
        packages: installed packages of NVIDIA that a build purges: name → version.
        keyring: OpenPGP keys of the Ubuntu stand-in.
        constraints: lines of `/etc/pip/constraint.txt`.
        distributions: further Python distributions that it has: name → version.
        triton: version of the Triton server in it; none without one.
    """

    repository: str
    tag: str
    cuda: str
    torch: str
    packages: Mapping[str, str] = field(default_factory=dict)
    keyring: bytes = b""
    constraints: tuple[str, ...] = ()
    distributions: Mapping[str, str] = field(default_factory=dict)
    triton: str = ""


class BaseImages:
    """Makes the images; `cache` keeps the packages and the big layer from one session to the next."""

    def __init__(self, cache: Path) -> None:
        asked = Digest.of_bytes((_INTENT + _FAMILY).encode()).short
        self.cache = cache / f"ngc-base-{asked}"
        self.root = self.cache / "project"
        self.home = self.cache / "home"
        self.layout = Layout(self.cache / "layout")

    @property
    def wheels(self) -> dict[str, Path]:
        """Real wheels of the public index that the miniature releases need: file name → file."""
        lock, store = self._inputs()
        return {item.file: store.path(item.sha256) for item in lock.select(kind="wheel")}

    @property
    def installed(self) -> set[str]:
        """Names of the packages that the big layer has."""
        status = self._status(self._packages())
        return set(re.findall(r"^Package: (.+)$", status, re.MULTILINE))

    def write(self, wanted: NgcImage) -> str:
        """Write the image into `layout`; returns its name there."""
        lower = self._packages()
        layer = _layer(self.layout, _files(wanted, self._status(lower)))
        name = f"localhost/{wanted.repository}:{wanted.tag}"
        self.layout.write_image(
            name=name,
            layers=(lower, layer),
            settings=_settings(wanted),
            history=("Debian packages", "stand-in for CUDA and PyTorch"),
            platform="linux/amd64",
            epoch=EPOCH,
        )
        return name

    def push(self, wanted: NgcImage, host: str) -> None:
        """Put the image into the registry at `host`."""
        name = self.write(wanted)
        place = f"docker://{host}/{wanted.repository}:{wanted.tag}"
        subprocess.run(
            [
                *("skopeo", "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"),
                *("--dest-compress-format", "gzip", "--dest-compress-level", "1"),
                *(f"oci:{self.layout.root}:{name}", place),
            ],
            check=True,
        )

    def _inputs(self) -> tuple[locks.Lock, Store]:
        path = self.root / "lockfiles" / "ngc-base.lock.yaml"
        done = self.cache / "fetched"
        if not done.exists():
            (self.root / "dockerfiles" / "ngc-base").mkdir(parents=True, exist_ok=True)
            (self.root / "lockfiles").mkdir(exist_ok=True)
            (self.root / "lockfiles" / "ngc-base.yaml").write_text(_INTENT)
            (self.root / "dockerfiles" / "ngc-base" / "family.yaml").write_text(_FAMILY)
            for command in ("lock", "fetch"):
                subprocess.run(
                    [sys.executable, "-m", "kit", command, "ngc-base"],
                    cwd=_ROOT,
                    env={**os.environ, "KIT_ROOT": str(self.root), "KIT_HOME": str(self.home)},
                    check=True,
                    stdout=subprocess.DEVNULL,
                )
            done.touch()
        return locks.load(path), Store(self.home / "store")

    def _packages(self) -> Layer:
        memo = self.cache / f"layer-{Digest.of_file(Path(__file__)).short}"
        if memo.exists():
            digest, size = memo.read_text().split()
            return Layer(Digest.parse(digest), int(size))
        lock, store = self._inputs()
        debs = {
            item.file: store.path(item.sha256)
            for item in lock.select(kind="deb", group="base")
            if not item.name.startswith(_LEFT_OUT)
        }
        family = base.load_family(self.root / "dockerfiles" / "ngc-base" / "family.yaml")
        whole = Layout(self.cache / "whole")
        images = base.assemble(
            whole,
            family,
            {"base": debs},
            platform="linux/amd64",
            epoch=EPOCH,
            name=lambda group: f"localhost/ngc-{group}",
        )
        layer = self._without_ballast(whole.blob(images[0].layers[0].digest))
        shutil.rmtree(whole.root)
        memo.write_text(f"{layer.digest} {layer.size}")
        return layer

    def _without_ballast(self, whole: Path) -> Layer:
        """The layer without what nothing here runs; a build has to load it again and again."""
        scratch = self.layout.root / "blobs" / "sha256" / "new"
        scratch.parent.mkdir(parents=True, exist_ok=True)
        with (
            tarfile.open(whole) as source,
            tarfile.open(scratch, "w") as target,
            tempfile.TemporaryDirectory() as unpacked,
        ):
            for member in source:
                content = source.extractfile(member) if member.isreg() else None
                if _KEPT_OUT.fullmatch(member.name):
                    continue
                if member.name == "var/lib/dpkg/status":
                    assert content is not None
                    text = _without_left_out(content.read().decode()).encode()
                    member.size, content = len(text), io.BytesIO(text)
                if content and member.name.startswith(_COMPILED) and member.name.endswith(".py"):
                    text = content.read()
                    content = io.BytesIO(text)
                    place = Path(unpacked, member.name)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(text)
                target.addfile(member, content)
            for path in _bytecode(Path(unpacked)):
                target.add(path, path.relative_to(unpacked), filter=_plain)
        digest, size = Digest.of_file(scratch), scratch.stat().st_size
        scratch.replace(self.layout.blob(digest))
        return Layer(digest, size)

    def _status(self, layer: Layer) -> str:
        """What dpkg knows of the big layer."""
        with tarfile.open(self.layout.blob(layer.digest)) as archive:
            member = archive.extractfile("var/lib/dpkg/status")
            assert member is not None
            return member.read().decode()


def _bytecode(root: Path) -> list[Path]:
    """What installing Debian's packages makes of Python sources; without it each start is slow."""
    interpreter = shutil.which(f"python{PYTHON}")
    if interpreter is None:
        return []
    subprocess.run(
        [
            *(interpreter, "-m", "compileall", "-q", "-j", "0", "-s", root, "-p", "/"),
            *("--invalidation-mode", "unchecked-hash", root),
        ],
        check=False,  # templates for another Python do not compile
    )
    return sorted(root.rglob("__pycache__/*.pyc"))


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mtime, info.mode = EPOCH, 0o644
    return info


def _without_left_out(status: str) -> str:
    """A package list without dependencies on what was left out."""
    left_out = "|".join(re.escape(name) for name in _LEFT_OUT)
    gone = re.compile(rf"(?<=[:,]) (?:{left_out})[^,\n]*(?:, |(?=\n))")
    lines = []
    for line in status.split("\n"):
        kept = line
        if line.startswith(("Depends:", "Pre-Depends:", "Recommends:")):
            kept = gone.sub(" ", line + "\n").rstrip("\n").rstrip(", ")
        if not kept.endswith("s:"):
            lines.append(kept)
    return "\n".join(lines)


def _settings(wanted: NgcImage) -> dict[str, object]:
    environment = {
        "PATH": "/usr/local/cuda/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LD_LIBRARY_PATH": "/usr/local/cuda/compat/lib:/usr/local/nvidia/lib:/usr/local/nvidia/lib64",
        "CUDA_VERSION": wanted.cuda,
        "CUDA_HOME": "/usr/local/cuda",
        "NVIDIA_PYTORCH_VERSION": wanted.tag.removesuffix("-py3"),
        "PYTORCH_VERSION": f"{wanted.torch}+standin",
        "ENV": "/etc/shinit_v2",
        "BASH_ENV": "/etc/bash.bashrc",
        "PIP_CONSTRAINT": "/etc/pip/constraint.txt",
        "PYTHONIOENCODING": "utf-8",
    }
    if wanted.triton:
        environment |= {"TRITON_SERVER_VERSION": wanted.triton}
    return {
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "Entrypoint": ["/opt/nvidia/nvidia_entrypoint.sh"],
        "WorkingDir": "/workspace",
        "Labels": {
            "org.trtllm-kit.backend": "stand-in",
            "com.nvidia.pytorch.version": f"{wanted.torch}+standin",
        },
    }


@dataclass(frozen=True)
class _Member:
    content: bytes = b""
    mode: int = 0o644
    link: str = ""
    kind: bytes = tarfile.REGTYPE


def _files(wanted: NgcImage, status: str) -> dict[str, _Member]:
    short = ".".join(wanted.cuda.split(".")[:2])
    cuda = f"usr/local/cuda-{short}"
    driver = _shared_object("libcuda.so.1", "int cuInit(unsigned f) { return f ? 1 : 100; }\n")
    entry = '#!/bin/bash\n. /etc/shinit_v2\nexec "$@"\n'
    torch = (
        f'__version__ = "{wanted.torch}+standin"\n\n\n'
        "def compiled_with_cxx11_abi():\n    return True\n"
    )
    nvcc = _NVCC.format(short=short, version=wanted.cuda)
    about = json.dumps({"cuda": {"name": "CUDA SDK", "version": wanted.cuda}})
    runtime = "#pragma once\ninline int cudaRuntimeStandIn() { return 0; }\n"
    files = {
        "usr/local/cuda": _Member(link=f"cuda-{short}", kind=tarfile.SYMTYPE, mode=0o777),
        f"{cuda}/bin/nvcc": _Member(nvcc.encode(), 0o755),
        f"{cuda}/include/cuda_runtime.h": _Member(runtime.encode()),
        f"{cuda}/version.json": _Member(about.encode()),
        f"{cuda}/lib64/stubs/libcuda.so": _Member(driver, 0o755),
        f"{cuda}/compat/lib.real/libcuda.so.1": _Member(driver, 0o755),
        "etc/shinit_v2": _Member(_SHINIT.encode()),
        "etc/bash.bashrc": _Member(b"[ -r /etc/shinit_v2 ] && . /etc/shinit_v2\n"),
        "etc/pip/constraint.txt": _Member("".join(f"{c}\n" for c in wanted.constraints).encode()),
        "opt/nvidia/nvidia_entrypoint.sh": _Member(entry.encode(), 0o755),
        "workspace": _Member(kind=tarfile.DIRTYPE, mode=0o755),
        f"usr/lib/python{PYTHON}/.wh.EXTERNALLY-MANAGED": _Member(),
        "usr/share/keyrings/ubuntu-archive-keyring.gpg": _Member(wanted.keyring),
        f"{_SITE}/torch/__init__.py": _Member(torch.encode()),
    }
    versions = {"torch": f"{wanted.torch}+standin", **wanted.distributions}
    for name, version in versions.items():
        dist = f"{name}-{version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        record = f"{name}/__init__.py,,\n{dist}/METADATA,,\n{dist}/RECORD,,\n"
        files.setdefault(f"{_SITE}/{name}/__init__.py", _Member())
        files[f"{_SITE}/{dist}/METADATA"] = _Member(metadata.encode())
        files[f"{_SITE}/{dist}/RECORD"] = _Member(record.encode())
        files[f"{_SITE}/{dist}/INSTALLER"] = _Member(b"pip\n")
    if wanted.triton:
        server = f"#!/bin/sh\necho tritonserver {wanted.triton} '(stand-in)'\n"
        files["opt/tritonserver/bin/tritonserver"] = _Member(server.encode(), 0o755)
        files["opt/tritonserver/TRITON_VERSION"] = _Member(f"{wanted.triton}\n".encode())
    paragraphs = [status.strip("\n")]
    for name, version in wanted.packages.items():
        file = f"usr/lib/x86_64-linux-gnu/{name}.preinstalled"
        files[file] = _Member(b"of the base image\n")
        parents = [str(p) for p in reversed(Path(f"/{file}").parents)][1:]
        lines = "".join(f"{line}\n" for line in ["/.", *parents, f"/{file}"])
        files[f"var/lib/dpkg/info/{name}.list"] = _Member(lines.encode())
        paragraphs.append(
            f"Package: {name}\nStatus: hold ok installed\nMaintainer: nobody <nobody@example>\n"
            f"Architecture: amd64\nVersion: {version}\nDescription: a stand-in"
        )
    # dpkg warns of every package without a list of files; nothing here removes those of Debian.
    for paragraph in status.split("\n\n"):
        fields = dict(re.findall(r"^([\w-]+): *(.*)$", paragraph, re.MULTILINE))
        if fields:
            same = fields.get("Multi-Arch") == "same"
            name = fields["Package"] + (f":{fields['Architecture']}" if same else "")
            files[f"var/lib/dpkg/info/{name}.list"] = _Member()
    files["var/lib/dpkg/status"] = _Member(("\n\n".join(paragraphs) + "\n").encode())
    return files


def _shared_object(name: str, source: str) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / name
        subprocess.run(
            [
                *("cc", "-shared", "-fPIC", "-O1", f"-Wl,-soname,{name}", "-Wl,--build-id=none"),
                *("-s", "-nostdlib", "-x", "c", "-", "-o", output),
            ],
            input=source.encode(),
            check=True,
            capture_output=True,
        )
        return output.read_bytes()


def _layer(layout: Layout, files: Mapping[str, _Member]) -> Layer:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        made: set[str] = set()
        for path, member in sorted(files.items()):
            for parent in reversed(Path(path).parents[:-1]):
                if str(parent) not in made:
                    made.add(str(parent))
                    archive.addfile(_info(str(parent), _Member(kind=tarfile.DIRTYPE, mode=0o755)))
            archive.addfile(_info(path, member), io.BytesIO(member.content))
    content = stream.getvalue()
    return Layer(layout.put(content), len(content))


def _info(path: str, member: _Member) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.type, info.mode, info.linkname = member.kind, member.mode, member.link
    info.size, info.mtime = len(member.content), EPOCH
    return info
