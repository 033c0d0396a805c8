"""Locks, images of stacks, manifests and engines of runs: digest against digest."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from kit.compat.rule import Result, Rule, same
from kit.compat.rules.release import again
from kit.data import releases
from kit.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kit.compat.facts import Facts
    from kit.compat.rule import Status

STAND_IN = "+standin"
"""Ends every version of an artifact that stands in for a real one."""
_PINNED = {
    "TENSORRT_VERSION": "tensorrt",
    "CUDA_VERSION": "cuda",
    "CUDNN_VERSION": "cudnn",
    "NCCL_VERSION": "nccl",
    "CUBLAS_VERSION": "cublas",
    "NVRTC_VERSION": "nvrtc",
    "CMAKE_VERSION": "cmake",
    "MPI4PY_VERSION": "mpi4py",
    "POLYGRAPHY_VERSION": "polygraphy",
}
"""Argument of a stack's Dockerfile → field of the table of releases."""


def _engine_manifest(facts: Facts) -> Iterable[Result]:
    engine, manifest = facts.engine, facts.manifest
    if engine is None or manifest is None:
        return
    hint = shlex.join(["kit", "manifest", "verify", facts.manifest_path])
    wanted = {
        artifact.path.removeprefix("engine/"): artifact for artifact in manifest.select("engine")
    }
    present = {
        path.relative_to(engine.folder).as_posix(): path
        for path in sorted(engine.folder.rglob("*"))
        if path.is_file() and path.suffix != ".cache"
    }
    for name in sorted({*wanted, *present}):
        expected = wanted[name].sha256 if name in wanted else None
        found = Digest.of_file(present[name]).hex if name in present else None
        yield Result(
            "ok" if expected == found else "mismatch",
            f"engine file {name}",
            expected,
            found,
            str(engine.folder / name),
            "",
            hint,
        )


def _manifest_image(facts: Facts) -> Iterable[Result]:
    if facts.manifest is None:
        return
    expected = facts.manifest.image.manifest_digest
    if facts.stack is not None:
        yield same(
            "image",
            expected,
            facts.stack.manifest_digest,
            f"stack {facts.stack.stack}",
            again(facts, facts.manifest.release),
        )
    if facts.image is not None and facts.image.manifest_digest is not None:
        yield same("image", expected, facts.image.manifest_digest, facts.image.reference)


def _lock_image(facts: Facts) -> Iterable[Result]:
    if facts.lock is None or facts.stack is None:
        return
    stack = facts.stack.stack
    found = facts.stack.lock or None
    yield same(
        "image lock", facts.lock.digest, found, f"label of stack {stack}", f"kit build {stack}"
    )


def _lock_manifest(facts: Facts) -> Iterable[Result]:
    if facts.lock is None or facts.manifest is None:
        return
    yield same(
        "lock",
        facts.manifest.lock,
        facts.lock.digest,
        facts.lock.path,
        shlex.join(["kit", "manifest", "verify", facts.manifest_path]),
    )


def _lock_pins(facts: Facts) -> Iterable[Result]:
    """The versions that a lock builds with against those of the release that it is of."""
    if facts.lock is None:
        return
    said = dict(facts.lock.lock.arguments)
    release = said.get("RELEASE")
    if release is None or release not in releases.order():
        return
    for argument, field in _PINNED.items():
        if argument not in said:
            continue
        fact = releases.fact(release, field)
        wanted = fact.value.get("version") if isinstance(fact.value, dict) else fact.value
        found = said[argument].removesuffix(STAND_IN)
        if wanted is None or isinstance(wanted, list):
            continue
        # A plan is bound to its TensorRT; another library may work, and is no longer the release.
        status: Status = "mismatch" if field == "tensorrt" else "warning"
        message = f"the lock of {release} builds with {field} {found}, the release with {wanted}"
        yield Result(
            "ok" if found == wanted else status,
            f"lock {field}",
            wanted,
            found,
            facts.lock.path,
            "" if found == wanted else message,
            None,
            fact.source,
        )


_KIT = ("kit: what a stack's image and a run's manifest record",)

RULES = (
    Rule(
        "engine-manifest",
        "The files of an engine are those that its run recorded, byte for byte.",
        _KIT,
        _engine_manifest,
    ),
    Rule(
        "lock-pins",
        "The lock of a release builds with the versions that the release pins.",
        ("NVIDIA/TensorRT-LLM docker/common of the release",),
        _lock_pins,
    ),
    Rule("manifest-image", "A run's image is the one that is there.", _KIT, _manifest_image),
    Rule("lock-image", "An image was built from the lock that is there.", _KIT, _lock_image),
    Rule("lock-manifest", "A run's image was built from the lock.", _KIT, _lock_manifest),
)
