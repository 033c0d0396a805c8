"""What is inside an image: asked of the image itself, once per manifest digest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.compat import probe
from kit.compat.script import mountable
from kit.errors import content_error
from kit.files import write_json
from kit.images.engine import Mount, RunRequest

if TYPE_CHECKING:
    from kit.digest import Digest
    from kit.images.engine import Engine
    from kit.project import Project

_PLACE = "/kit/probe.py"
_KEYS = {"python", "os", "openmpi", "cuda", "tensorrt", "nccl", "distributions"}


def cached_versions(project: Project, manifest_digest: Digest) -> dict[str, Any] | None:
    """What an earlier probe of that image found, or None."""
    try:
        content: Any = json.loads(_cache(project, manifest_digest).read_bytes())
    except (OSError, ValueError):
        return None
    # Another version of the kit may have left it.
    return content if isinstance(content, dict) and set(content) == _KEYS else None


def versions(
    project: Project, engine: Engine, reference: str, manifest_digest: Digest
) -> dict[str, Any]:
    """The versions in the image `reference`, from the cache or from `probe.py` run in it.

    Raises:
        KitError: the image has no Python, or the probe failed in it (exit 4).
    """
    found = cached_versions(project, manifest_digest)
    if found is None:
        found = _ask(project, engine, reference)
        write_json(_cache(project, manifest_digest), found)
    return found


def _cache(project: Project, manifest_digest: Digest) -> Path:
    return project.home / "probes" / f"{manifest_digest.hex}.json"


def _ask(project: Project, engine: Engine, reference: str) -> dict[str, Any]:
    lines: list[str] = []
    exit_code = engine.run(
        RunRequest(
            image=reference,
            argv=("python3", _PLACE),
            environment={"HOME": "/tmp"},  # noqa: S108 - in the container
            mounts=(Mount(mountable(project, Path(probe.__file__)), _PLACE),),
        ),
        lines.append,
    )
    for line in lines:
        if line.startswith(probe.MARK):
            answer: dict[str, Any] = json.loads(line.removeprefix(probe.MARK))
            return answer
    said = "\n  ".join(lines[-8:])
    raise content_error(
        f"image {reference}: its versions could not be probed: "
        f"python3 {_PLACE} ended with {exit_code}\n  {said}".rstrip()
    )
