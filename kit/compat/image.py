"""What is inside an image: asked of the image itself, once per manifest digest."""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.compat import probe
from kit.compat.script import mountable
from kit.errors import content_error
from kit.files import write_json
from kit.images.engine import Mount, RunRequest
from kit.observation import Observation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kit.digest import Digest
    from kit.images.engine import Engine
    from kit.project import Project

_PLACE = "/kit/probe.py"
_RECORDED = ("python", "os", "openmpi", "cuda", "tensorrt", "nccl", "distributions")
"""What a manifest records of the answer: its schema has these keys and no others."""
_ANSWER_LIMIT = 4 << 20


def cached_versions(project: Project, digest: Digest) -> dict[str, Any] | None:
    """The versions that an earlier probe of that image found, or None."""
    found = cached(project, digest)
    return None if found is None else {key: found[key] for key in _RECORDED}


def versions(
    project: Project, engine: Engine, reference: str, manifest_digest: Digest
) -> dict[str, Any]:
    """The versions in the image `reference` as a manifest records them.

    Raises:
        KitError: as `ask`.
    """
    found = ask(project, engine, reference, manifest_digest)
    return {key: found[key] for key in _RECORDED}


def cached(project: Project, digest: Digest) -> dict[str, Any] | None:
    """The whole answer of an earlier probe of that image, or None."""
    try:
        content: Any = json.loads(_cache(project, digest).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    # Another version of the kit may have left it.
    return content if _is_answer(content) else None


def ask(project: Project, engine: Engine, reference: str, digest: Digest) -> dict[str, Any]:
    """The answer of `probe.py`, from the cache or run in the image.

    Args:
        project: where the cache is.
        engine: what has the image.
        reference: its name there.
        digest: what it is cached under: of its manifest, or the image's id.

    Raises:
        KitError: the image has no Python, or the probe failed in it (exit 4).
    """
    found = cached(project, digest)
    if found is None:
        found = _ask(project, engine, reference)
        write_json(_cache(project, digest), found)
    return found


def observations(answer: dict[str, Any]) -> Iterator[Observation]:
    """An answer as observations; the exact version where it has several of one component."""
    where = "in the container"
    torch = answer["torch"] or {}
    told = {
        **{key: answer[key] for key in probe.SINGLE},
        "tensorrt": answer["tensorrt_build"] or answer["tensorrt"],
        "torch": torch.get("version"),
        "torch_cuda": torch.get("cuda"),
        "torch_cxx11_abi": torch.get("cxx11_abi"),
    }
    for component, version in told.items():
        if version is not None:
            yield Observation(component, version, where, "probe")
    for component, path in (("mpirun", answer["mpirun"]), ("conda", answer["conda"])):
        if path is not None:
            yield Observation(component, None, path, "probe")
    for name, version in answer["distributions"].items():
        component = name.replace("-", "_")
        if told.get(component) is None:
            yield Observation(component, version, where, "probe")


def _cache(project: Project, digest: Digest) -> Path:
    return project.home / "probes" / f"{digest.hex}.json"


def _ask(project: Project, engine: Engine, reference: str) -> dict[str, Any]:
    said: deque[str] = deque(maxlen=8)
    answers: list[str] = []

    def take(line: str) -> None:
        said.append(line[:400])
        if line.startswith(probe.MARK) and not answers and len(line) <= _ANSWER_LIMIT:
            answers.append(line.removeprefix(probe.MARK))

    exit_code = engine.run(
        RunRequest(
            image=reference,
            argv=("python3", _PLACE),
            environment={"HOME": "/tmp"},  # noqa: S108 - in the container
            mounts=(Mount(mountable(project, Path(probe.__file__)), _PLACE),),
        ),
        take,
    )
    for answer in answers:
        try:
            content: Any = json.loads(answer)
        except (ValueError, RecursionError):
            content = None
        if _is_answer(content):
            found: dict[str, Any] = content
            return found
    lines = "\n  ".join(said)
    raise content_error(
        f"image {reference}: its versions could not be probed: "
        f"python3 {_PLACE} ended with {exit_code}\n  {lines}".rstrip()
    )


def _is_answer(content: Any) -> bool:
    """Whether it has the form that `probe.versions` describes; the image may say anything."""
    if not isinstance(content, dict) or set(content) != probe.KEYS:
        return False
    torch, libraries = content["torch"], content["libraries"]
    return (
        isinstance(content["python"], str)
        and all(isinstance(content[key], (str, type(None))) for key in probe.KEYS - probe.NESTED)
        and _is_mapping(content["distributions"], str)
        and (torch is None or _is_mapping(torch, (str, type(None))))
        and _is_mapping(libraries, list)
        and all(isinstance(path, str) for paths in libraries.values() for path in paths)
    )


def _is_mapping(content: Any, kind: Any) -> bool:
    return isinstance(content, dict) and all(isinstance(item, kind) for item in content.values())
