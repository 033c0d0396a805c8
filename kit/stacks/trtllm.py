"""TensorRT-LLM from source: the stack of one release."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from kit.data import digests, sources
from kit.data import releases as table
from kit.locks.intent import (
    Apt,
    AptRepository,
    DebianGroup,
    File,
    Gap,
    Intent,
    Licence,
    Model,
    RequirementGroup,
    Requirements,
    SourceTree,
)
from kit.stacks.stack import (
    PLATFORM,
    TENSORRT_LLM,
    Remarks,
    Stack,
    base_image,
    epoch,
    unsettled,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_UBUNTU = "http://archive.ubuntu.com/ubuntu"
_UBUNTU_KEYRING = "usr/share/keyrings/ubuntu-archive-keyring.gpg"
SMALL_MODEL = Model("gpt2-tiny", "kit/examples/models/gpt2-tiny", None, None, ())
"""The project's own, so that a finished image can be tried at once."""


def releases() -> list[str]:
    """The releases that there is a stack of: every stable one, oldest first."""
    return table.versions()


def stack(release: str) -> Stack:
    """The intent of one release, and its comments. KeyError for one that the tables do not have."""
    remarks = Remarks()
    remarks.add("", f"TensorRT-LLM {release} from source, {PLATFORM} (the tables have no arm64).")
    if sources.fact(release, "build_wheel_args").inferred:
        remarks.add(
            "",
            "The tree of this release could not be read: what is not in its package metadata is "
            "inferred from forks and from the releases around it, see kit/data/sources.json.",
        )
    for row in sources.remarks(release):
        remarks.add(row["at"], row["text"])
    base = table.value(release, "base_image")
    trees = tuple(_trees(release, remarks))
    gaps = tuple(_gaps(release))
    if gaps:
        remarks.add(
            "gaps",
            "What upstream's build fetches beside all this and the tables cannot name. Until each "
            "is named under `files` or `sources` and taken out here, the lock stays unresolved.",
        )
    intent = Intent(
        stack=f"trtllm-{release}",
        family="trtllm",
        platform=PLATFORM,
        epoch=epoch(release, sources.value(release, "commit_date"), remarks),
        debian=None,
        python=None,
        files=tuple(_files(release, remarks)),
        models=(SMALL_MODEL,),
        images=(base_image(base["image"], base["tag"], remarks),),
        sources=trees,
        release=release,
        arguments=tuple(sorted(_arguments(release, remarks).items())),
        licences=tuple(Licence(row["name"], row["url"]) for row in sources.licences()),
        apt=_apt(release, remarks),
        requirements=_requirements(release, remarks),
        gaps=gaps,
    )
    return Stack(intent, remarks)


def _arguments(release: str, remarks: Remarks) -> dict[str, str]:
    """Build arguments; one that has no value for this release is left out."""
    architectures = table.value(release, "cuda_architectures_default")
    if architectures is None:
        remarks.add(
            "arguments",
            "CUDA_ARCHS: the release's own list is not known; without the argument its build "
            "takes its default.",
        )
    ccache = sources.value(release, "ccache")
    found = {
        "RELEASE": release,
        "BASE_TAG": table.value(release, "base_image")["tag"],
        "CUDA_VERSION": table.value(release, "cuda"),
        "PYTHON_VERSION": sources.value(release, "system")["python"],
        "TENSORRT_VERSION": table.value(release, "tensorrt"),
        "CUDNN_VERSION": _pinned(release, "cudnn"),
        "NCCL_VERSION": _pinned(release, "nccl"),
        "CUBLAS_VERSION": _pinned(release, "cublas"),
        "NVRTC_VERSION": _pinned(release, "nvrtc"),
        "CMAKE_VERSION": table.value(release, "cmake"),
        "CCACHE_VERSION": ccache.get("version"),
        "MPI4PY_VERSION": table.value(release, "mpi4py")["version"],
        "POLYGRAPHY_VERSION": table.value(release, "polygraphy"),
        "PYTORCH_VERSION": table.value(release, "pytorch")["base_image"],
        "GIT_COMMIT": sources.commit(release),
        "CUDA_ARCHS": ";".join(architectures) if architectures else None,
        "BUILD_WHEEL_ARGS": " ".join(
            sources.value(release, field) for field in ("build_wheel_args", "offline_args")
        ),
    }
    return {name: value for name, value in found.items() if value}


def _pinned(release: str, field: str) -> str | None:
    """The version of a library that the release pins as packages, None where it pins none."""
    fields = sources.value(release, "cuda_packages").values()
    return table.value(release, field) if field in fields else None


def _trees(release: str, remarks: Remarks) -> Iterator[SourceTree]:
    commit = sources.commit(release)
    assert commit is not None, release
    if (doubt := unsettled(release)) is not None:
        remarks.add("sources.trtllm", f"{doubt[0].upper()}{doubt[1:]}.")
    objects = sources.value(release, "lfs")
    if objects is None:
        patterns = tuple(sources.value(release, "lfs_patterns") or ())
        hole = sources.fact(release, "lfs_patterns").hole
        remarks.add("sources.trtllm", f"LFS: {hole or 'as in 0.16.0, not read at the commit'}.")
    else:
        patterns = tuple(item["path"] for item in objects)
    yield SourceTree("trtllm", TENSORRT_LLM, commit, submodules=True, lfs=patterns)
    for row in _fetched(release):
        if row["commit"] is not None:
            remarks.add(f"sources.{row['name']}", f"FetchContent, {row['ref']}.")
            yield SourceTree(row["name"], row["url"], row["commit"], submodules=True, lfs=())


def _fetched(release: str) -> list[dict[str, Any]]:
    """What cmake would fetch for the wheel itself; tests and micro benchmarks are not built."""
    rows = sources.value(release, "fetchcontent")
    return [row for row in rows if row["for"] == "wheel"]


def _gaps(release: str) -> Iterator[Gap]:
    named = sources.gaps(release)
    for gap in named:
        yield Gap(gap["name"], gap["group"], gap["reason"])
    for row in _fetched(release):
        if row["commit"] is None and row["name"] not in {gap["name"] for gap in named}:
            reason = f"cmake fetches {row['name']} {row['ref']}: {row['hole']}"
            yield Gap(row["name"], "wheel", reason)


def _files(release: str, remarks: Remarks) -> Iterator[File]:
    """What devel unpacks, and the keyring of the CUDA repository."""
    ccache = sources.value(release, "ccache")
    addresses = (
        table.value(release, "tensorrt_tarball")["x86_64"],
        sources.value(release, "cuda_repository")["keyring"],
        sources.value(release, "cmake_archive"),
        ccache.get("url"),
    )
    for url in filter(None, addresses):
        known = digests.file(url)
        name = url.rpartition("/")[2]
        if known is None:
            remarks.add(f"files.{name}", f"{digests.UNSEEN[0].upper()}{digests.UNSEEN[1:]}.")
        yield File(name, url, known.digest if known else None, "devel")


def _apt(release: str, remarks: Remarks) -> Apt:
    codename = sources.value(release, "system")["codename"]
    cuda = sources.value(release, "cuda_repository")
    packages = list(sources.value(release, "apt_packages"))
    for name, field in sources.value(release, "cuda_packages").items():
        packages.append(f"{name}={table.value(release, field)}" if field else name)
    if sources.fact(release, "cuda_repository").inferred and release == "0.5.0":
        remarks.add("apt.cuda", "As 0.6.0 does: this release asks the base image's own sources.")
    return Apt(
        base="base",
        repositories=(
            AptRepository(
                "ubuntu",
                _UBUNTU,
                (codename, f"{codename}-updates", f"{codename}-security"),
                ("main", "universe"),
                _UBUNTU_KEYRING,
            ),
            AptRepository(
                "cuda", cuda["url"], ("./",), (), f"file:{cuda['keyring'].rpartition('/')[2]}"
            ),
        ),
        groups=(DebianGroup("devel", tuple(packages)),),
    )


def _requirements(release: str, remarks: Remarks) -> Requirements:
    archive = table.value(release, "tensorrt_tarball")["x86_64"].rpartition("/")[2]
    devel = sources.value(release, "pip_devel")
    wheel = sources.value(release, "wheel_requirements")
    build = sources.value(release, "mpi4py_build")
    mpi4py = table.value(release, "mpi4py")["version"]
    # Both in one environment cannot be: mpi4py is built with an old setuptools.
    apart = [text for text in devel["packages"] if _name(text) in map(_name, build)]
    packages = [
        f"polygraphy=={table.value(release, 'polygraphy')}",
        f"mpi4py=={mpi4py}" if mpi4py else "mpi4py",
        *build,
        *(text for text in devel["packages"] if text not in apart),
    ]
    files = [f"trtllm/{name}" for name in ("requirements.txt", *devel["files"])]
    if devel["files"]:
        remarks.add(
            "requirements.release",
            f"Upstream installs {', '.join(devel['files'])} in devel already; here it comes in "
            "with the release, so that it cannot contradict what mpi4py is built with.",
        )
    return Requirements(
        base="base",
        indexes=tuple(sources.value(release, "indexes")),
        groups=(
            RequirementGroup(
                "devel",
                tuple(packages),
                (),
                (f"devel/{archive}!*/python/tensorrt-*-cp{{python}}-*.whl",),
            ),
            RequirementGroup("wheel", tuple(wheel["packages"]), (f"trtllm/{wheel['file']}",), ()),
            RequirementGroup("release", tuple(apart), tuple(files), ()),
        ),
    )


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    return match[0].lower() if match else requirement
