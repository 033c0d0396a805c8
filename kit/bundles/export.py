"""Input for tools that sites already run: a Hauler manifest, a Zarf package definition.

Both carry the files of a bundle as they are, so that at the other end it verifies as ever. What
the images and models are called in a registry is the business of `push`.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from kit.bundles import verifier
from kit.bundles.push import component
from kit.digest import Digest
from kit.errors import content_error, usage_error

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kit.bundles.verifier import Index

_SNIFFED = 512
_LONGEST_LINE = 1 << 20
_TEMPLATE = re.compile(rb"###ZARF_[A-Z0-9_]+###")
_MARKUP = (b"<", b"\xef\xbb\xbf", b"\xfe\xff", b"\xff\xfe")
_BINARY = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_TARGET = "/var/lib/trtllm-kit/bundles"


def hauler(folder: Path, index: Index) -> str:
    """For `hauler store sync --filename`, run where the paths are right.

    A store knows a file by its name alone (hauler-dev/hauler, pkg/reference), so each bundle has a
    folder of its own there; paths are read as addresses (pkg/getter), so what is special in one is
    escaped.
    """
    place = f"trtllm-kit-{_unique(component(index.name), index)}-{index.sequence}"
    rows = [
        {"path": quote(os.fsencode(folder / name)), "name": f"{place}/{name}"}
        for name in _names(folder)
    ]
    return _yaml(
        {
            "apiVersion": "content.hauler.cattle.io/v1",
            "kind": "Files",
            "metadata": {"name": _plain(index)},
            "spec": {"files": rows},
        }
    )


def zarf(folder: Path, index: Index) -> str:
    """A `zarf.yaml`: every file with its digest, which `zarf package create` checks.

    Raises:
        KitError: a file that would not be the same after a deployment (exit 4), a folder whose
            name is no text (exit 2).
    """
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:
        raise usage_error(f"{folder}: YAML cannot name that folder", hint="mv it") from error
    for name in _names(folder):
        _refuse_rewritten(folder / name)
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


def _refuse_rewritten(path: Path) -> None:
    """Refuse a file that Zarf takes for text and would write anew, and not as it was.

    Whatever begins and ends in text is read line by line on deployment and written again: without
    carriage returns, with a newline at its end, and only up to the first line of a MiB
    (zarf-dev/zarf, src/pkg/variables/templates.go, and its package `helpers`, text.go).
    """
    with os.fdopen(verifier.opened(path), "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        first = stream.read(_SNIFFED)
        stream.seek(max(0, size - _SNIFFED))
        if not (_is_text(first) and _is_text(stream.read(_SNIFFED))):
            return
        stream.seek(0)
        at_end = True
        while line := stream.readline(_LONGEST_LINE):
            at_end = line.endswith(b"\n")
            if line.endswith(b"\r\n") or len(line) == _LONGEST_LINE or _TEMPLATE.search(line):
                at_end = False
                break
    if not at_end:
        raise content_error(
            f"{path}: begins and ends in text; Zarf would rewrite it on deployment, and it would "
            "not verify any more",
            hint="kit bundle create with another --part-size, so that the parts end elsewhere",
        )


def _is_text(sample: bytes) -> bool:
    """Whether Go's http.DetectContentType may say so; rather once too often."""
    return sample.lstrip().startswith(_MARKUP) or not _BINARY.search(sample)


def _plain(index: Index) -> str:
    """What Kubernetes takes as a name, and no bundle of another name has."""
    kept = re.sub(r"[^a-z0-9]+", "-", index.name).strip("-")
    return f"trtllm-kit-{_unique(kept, index)}"


def _unique(kept: str, index: Index) -> str:
    """The spelling of a name, with its digest behind it if others may be spelled the same."""
    return kept if kept == index.name else f"{kept}-{Digest.of_bytes(index.name.encode()).short}"


def _yaml(document: object) -> str:
    """JSON is YAML; indented, so that it can be read and edited."""
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    # YAML reads an escaped pair of surrogates as two halves of nothing: what is beyond \uffff
    # stands for itself. Below, a line end of Unicode's would be folded, and controls are refused.
    return "".join(
        sign if sign.isprintable() or sign == "\n" or sign > "\uffff" else f"\\u{ord(sign):04x}"
        for sign in text
    )
