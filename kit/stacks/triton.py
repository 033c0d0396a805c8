"""Triton's serving containers with TensorRT-LLM: the stack of one of them."""

from __future__ import annotations

from typing import Any

from kit.data import releases, sources
from kit.data import triton as table
from kit.locks.intent import Intent, Licence, SourceTree
from kit.stacks.stack import (
    PLATFORM,
    TENSORRT_LLM,
    Remarks,
    Stack,
    base_image,
    epoch,
    unsettled,
)

_BACKEND = "https://github.com/triton-inference-server/tensorrtllm_backend.git"
_CONTAINER_LICENCE = "nvidia-deep-learning-container"


def containers() -> list[str]:
    """The containers that there is a stack of, oldest first."""
    return [name for name in table.containers() if name not in left_out()]


def left_out() -> dict[str, str]:
    """The containers that there is none of, and why."""
    found = {}
    for name in table.containers():
        release = _release(name)
        if release is None:
            found[name] = table.hole(name, "tensorrt_llm") or "its TensorRT-LLM is not known"
        elif release not in releases.order():
            found[name] = f"it holds {release}, which the table of releases does not have"
    return found


def stack(container: str) -> Stack:
    """The intent of one container, and its comments."""
    row = table.row(container) or {}
    release = _release(container)
    assert release is not None, container
    remarks = Remarks()
    remarks.add("", f"Triton {container} with TensorRT-LLM {release}, {PLATFORM}.")
    if note := row.get("note"):
        remarks.add("", f"{note[0].upper()}{note[1:]}.")
    templates = sources.value(release, "triton_templates")
    tree, date = _templates(container, release, templates, remarks)
    image, _, tag = table.image(container).rpartition(":")
    python = row.get("python")
    found = {
        "RELEASE": release,
        "BASE_TAG": tag,
        "TRITON_VERSION": sources.triton_server(container),
        "RELEASE_CANDIDATE": _candidate(row, release, remarks),
        "TENSORRT_VERSION": _tensorrt(row, release, remarks),
        "CUDA_VERSION": row.get("cuda"),
        "PYTHON_VERSION": ".".join(python.split(".")[:2]) if python else None,
        "PYTORCH_VERSION": row.get("torch"),
        "GIT_COMMIT": tree.commit,
        "TEMPLATES": f"{tree.name}/{templates['folder']}",
    }
    intent = Intent(
        stack=f"triton-{container}",
        family="triton",
        platform=PLATFORM,
        epoch=epoch(release, date, remarks, "that"),
        debian=None,
        python=None,
        files=(),
        models=(),
        images=(base_image(image, tag, remarks),),
        sources=(tree,),
        release=release,
        arguments=tuple(sorted((name, text) for name, text in found.items() if text)),
        licences=tuple(
            Licence(item["name"], item["url"])
            for item in sources.licences()
            if item["name"] == _CONTAINER_LICENCE
        ),
    )
    return Stack(intent, remarks)


def _candidate(row: dict[str, Any], release: str, remarks: Remarks) -> str | None:
    """What the container's own Dockerfile installs where that is not what its table says."""
    wheel: str | None = row.get("backend_branch", {}).get("tensorrt_llm_wheel")
    if wheel in (None, release):
        return None
    remarks.add(
        "arguments.RELEASE_CANDIDATE", "The image has this version or RELEASE; which, is not known."
    )
    return wheel


def _tensorrt(row: dict[str, Any], release: str, remarks: Remarks) -> str | None:
    """The TensorRT to hold the image against; None where public places contradict each other."""
    told: str | None = row.get("tensorrt")
    if told is None:
        return None
    others = {releases.value(release, "tensorrt"), row.get("backend_branch", {}).get("tensorrt")}
    differing = sorted(other for other in others if other and _short(other) != _short(told))
    if not differing:
        return told
    remarks.add(
        "arguments",
        f"TENSORRT_VERSION is left out, so it is not checked: the container's table says {told}, "
        f"the release or the container's own Dockerfile {', '.join(differing)}.",
    )
    return None


def _short(version: str) -> list[str]:
    return version.split(".")[:3]


def _release(container: str) -> str | None:
    release: str | None = (table.row(container) or {}).get("tensorrt_llm")
    return release


def _templates(
    container: str, release: str, templates: dict[str, str], remarks: Remarks
) -> tuple[SourceTree, str | None]:
    """The tree with the templates of the model repository, and the date of its commit."""
    name = templates["source"]
    if name == "trtllm":
        remarks.add(
            f"sources.{name}",
            "The templates of the model repository moved into TensorRT-LLM with 0.20.0.",
        )
        if (doubt := unsettled(release)) is not None:
            remarks.add(f"sources.{name}", f"{doubt[0].upper()}{doubt[1:]}.")
        commit, date = sources.commit(release), sources.value(release, "commit_date")
        assert commit is not None, release
        return SourceTree(name, TENSORRT_LLM, commit, submodules=False, lfs=()), date
    tagged = sources.value(release, "triton_backend_commit")
    if tagged is not None:
        remarks.add(f"sources.{name}", f"Tag v{release}.")
        return SourceTree(name, _BACKEND, tagged["commit"], submodules=False, lfs=()), tagged[
            "date"
        ]
    branch = (table.row(container) or {})["backend_branch"]
    hole = sources.fact(release, "triton_backend_commit").hole
    remarks.add(f"sources.{name}", f"Branch {branch['name']}: {hole}.")
    return SourceTree(name, _BACKEND, branch["commit"], submodules=False, lfs=()), None
