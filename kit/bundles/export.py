"""Input for tools that sites already run: a Hauler manifest, a Zarf package definition.

Both carry the files of a bundle as they are, so that at the other end it verifies as ever. What
the images and models are called in a registry is the business of `push`.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from kit.bundles import verifier

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kit.bundles.verifier import Index

_TARGET = "/var/lib/trtllm-kit/bundles"


def hauler(folder: Path, index: Index) -> str:
    """For `hauler store sync --filename`, run where the paths are right."""
    rows = [{"path": str(folder / name), "name": name} for name in _names(folder)]
    return _yaml(
        {
            "apiVersion": "content.hauler.cattle.io/v1",
            "kind": "Files",
            "metadata": {"name": _plain(index)},
            "spec": {"files": rows},
        }
    )


def zarf(folder: Path, index: Index) -> str:
    """A `zarf.yaml`: every file with its digest, which `zarf package create` checks."""
    target = f"{_TARGET}/{index.identity[:12]}"
    rows = [
        {
            "source": str(folder / name),
            "target": f"{target}/{name}",
            "shasum": verifier.sha256_of(folder / name) if digest is None else digest,
            **({"executable": True} if name == "bootstrap" else {}),
        }
        for name, digest in _names(folder).items()
    ]
    return _yaml(
        {
            "kind": "ZarfPackageConfig",
            "metadata": {
                "name": _plain(index),
                "version": str(index.sequence),
                "description": f"bundle {index.name} {index.sequence}, id {index.identity}",
            },
            "components": [{"name": "bundle", "required": True, "files": rows}],
        }
    )


FORMATS: dict[str, Callable[[Path, Index], str]] = {"hauler": hauler, "zarf": zarf}
"""What can be emitted."""


def _names(folder: Path) -> dict[str, str | None]:
    """The files of a bundle, and their digests where a list says them."""
    text = verifier.content(folder / verifier.SUMS).decode("ascii")
    listed = (line.split("  ") for line in text.splitlines())
    found: dict[str, str | None] = {name: digest for digest, name in listed}
    for name in (verifier.SUMS, verifier.SIGNATURE):
        if (folder / name).exists():
            found[name] = None
    return found


def _plain(index: Index) -> str:
    return "trtllm-kit-" + re.sub(r"[^a-z0-9]+", "-", index.name).strip("-")


def _yaml(document: object) -> str:
    """JSON is YAML; indented, so that it can be read and edited."""
    return json.dumps(document, indent=2) + "\n"
