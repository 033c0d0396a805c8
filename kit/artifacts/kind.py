"""What lies at a path, by its shape and its first bytes; nothing large is read."""

from __future__ import annotations

import contextlib
import re
import zlib
from typing import TYPE_CHECKING, Literal, NamedTuple

from kit.artifacts import bounded, checkpoint, engine, engine_config, plan, pointer, snapshot, tar
from kit.errors import KitError, usage_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Kind = Literal[
    "plan",
    "engine",
    "checkpoint",
    "safetensors",
    "timing-cache",
    "wheel",
    "sdist",
    "source",
    "lfs-pointer",
    "model-repository",
    "snapshot",
    "oci-layout",
    "image-archive",
    "bundle",
    "lock",
    "manifest",
    "host-facts",
    "elf",
    "unknown",
]

_HEAD = 16 << 10
"""Bytes that tell what a file is; an archive may begin with extended headers."""
_LOCK_LIMIT = 1 << 20
"""Bytes: 2000 inputs; YAML takes two hundred times its size of memory."""
_PLAN_SUFFIXES = (".engine", ".plan", ".trt")
_SUFFIXES: tuple[tuple[tuple[str, ...], Kind], ...] = (
    (_PLAN_SUFFIXES, "plan"),
    ((".whl",), "wheel"),
    ((".safetensors",), "safetensors"),
    ((".cache",), "timing-cache"),
)
_SCHEMAS: dict[str, Kind] = {"kit.manifest/1": "manifest", "kit.host/1": "host-facts"}
_BUNDLE = re.compile(rb"\s*\{\s*\"schema\"\s*:\s*\"kit\.bundle/")
"""How the index of a bundle begins; it may be larger than any other document."""
_PART = re.compile(r"part-\d{4}")
_LOCK = re.compile(rb"^schema: kit\.lock/", re.MULTILINE)
_TAR_PLACE, _TAR_MAGIC = 257, b"ustar"
_IMAGE_MEMBER = re.compile(r"(oci-layout|index\.json|manifest\.json|repositories|blobs)(/.*)?"
                           r"|[0-9a-f]{64}(\.json|\.tar|/.*)")  # fmt: skip
_SDIST = re.compile(r"(?P<stem>[A-Za-z0-9._-]+-[0-9][A-Za-z0-9.!+]*)\.tar\.gz")
_REFERENCE = re.compile(
    r"[a-z0-9][a-z0-9._-]*(:[0-9]+)?(/[a-z0-9][a-z0-9._-]*)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[0-9a-f]{64})?"
)
_INSIDE_LIMIT = 200
"""Folders of a folder that are looked into."""


def of(path: Path) -> Kind:
    """What lies at `path`.

    Raises:
        KitError: nothing lies there (exit 2); a config.json that would tell is damaged (exit 4).
    """
    if path.is_dir():
        return _folder(path)
    head, size = bounded.head(path, _HEAD)
    if pointer.of(head) is not None:
        return "lfs-pointer"
    if head.startswith((plan.PLAN_MAGIC, plan.REHEARSAL_MAGIC)):
        return "plan"
    for suffixes, kind in _SUFFIXES:
        if path.name.endswith(suffixes):
            return kind
    if head.startswith(b"\x7fELF"):
        return "elf"
    if head.startswith(b"\x1f\x8b"):
        return _archive(path.name, _inflated(head))
    if head[_TAR_PLACE:].startswith(_TAR_MAGIC):
        return _archive(path.name, head)
    if _BUNDLE.match(head):
        return "bundle"
    if head.lstrip().startswith(b"{") and size <= bounded.DOCUMENT_LIMIT:
        return _document(path)
    return "lock" if _LOCK.search(head) and size <= _LOCK_LIMIT else "unknown"


def is_reference(text: str) -> bool:
    """Whether a text that is no path names an image: it has a tag or a digest."""
    return _REFERENCE.fullmatch(text) is not None and (":" in text or "@" in text)


def _document(path: Path) -> Kind:
    try:
        schema = bounded.text(bounded.json_object(path), "schema")
    except KitError:
        return "unknown"
    return _SCHEMAS.get(schema or "", "unknown")


def _inflated(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(head, _HEAD)
    except zlib.error:
        return b""


def _archive(name: str, head: bytes) -> Kind:
    """A tar archive, by the names of its first members; extended headers are none."""
    if not head[_TAR_PLACE:].startswith(_TAR_MAGIC):
        return "unknown"
    first = next((path for path in _first_paths(name, head) if path), "")
    match = _SDIST.fullmatch(name)
    if match and first.partition("/")[0].lower() == match["stem"].lower():
        return "sdist"
    return "image-archive" if _IMAGE_MEMBER.fullmatch(first) else "unknown"


class _Head(NamedTuple):
    """The beginning of an archive as a source of bytes."""

    content: bytes

    def take(self, offset: int, count: int) -> bytes:
        return self.content[offset : offset + count]


def _first_paths(name: str, head: bytes) -> Iterator[str]:
    with contextlib.suppress(KitError):  # the rest of the archive is missing, as it should be
        for member in tar.members(_Head(head), name, tar.Limit()):
            yield member.path


def _folder(folder: Path) -> Kind:
    present = bounded.names(folder)
    if "oci-layout" in present and "index.json" in present:
        return "oci-layout"
    if _is_bundle(folder, present):
        return "bundle"
    if snapshot.is_cache(folder):
        return "snapshot"
    if (kind := _model(folder, present)) is not None:
        return kind
    if "manifest.json" in present:
        kind = _document(folder / "manifest.json")
        if kind == "manifest":
            return kind
    if any((folder / place).is_file() for place in _SOURCES):
        return "source"
    folders = [name for name in present[:_INSIDE_LIMIT] if (folder / name).is_dir()]
    if "config.pbtxt" in present or any(
        (folder / name / "config.pbtxt").is_file() for name in folders
    ):
        return "model-repository"
    if any(_is_part(folder / name) for name in folders if name in engine.PARTS):
        return "engine"
    return "unknown"


def _is_bundle(folder: Path, present: tuple[str, ...]) -> bool:
    """Whether it has a bundle's index, or parts that have lost theirs."""
    if "bundle.json" in present:
        return _BUNDLE.match(bounded.head(folder / "bundle.json", _HEAD)[0]) is not None
    return any(_PART.fullmatch(name) for name in present)


_SOURCES = ("tensorrt_llm/version.py", "tensorrt_llm/__init__.py")


def _model(folder: Path, present: tuple[str, ...]) -> Kind | None:
    """Engine, checkpoint or model folder: by config.json, else by the names of the files."""
    config = bounded.json_object(folder / "config.json") if "config.json" in present else {}
    if engine_config.layout(config) != "none":
        return "engine"
    if checkpoint.is_checkpoint(config):
        return "checkpoint"
    if snapshot.is_snapshot(config):
        return "snapshot"
    if any(engine.RANK_FILE.fullmatch(name) for name in present):
        return "engine"
    if any(checkpoint.RANK_FILE.fullmatch(name) for name in present) or "config.ini" in present:
        return "checkpoint"
    inner = [name for name in present if checkpoint.FT_FOLDER.fullmatch(name)]
    if any((folder / name / "config.ini").is_file() for name in inner):
        return "checkpoint"
    return None


def _is_part(folder: Path) -> bool:
    return _model(folder, bounded.names(folder)) == "engine"


def absent(text: str) -> KitError:
    """The error for a text that is neither a path nor the name of an image (exit 2)."""
    return usage_error(
        f"{text}: there is no such file or folder, and without a tag it is no image either",
        hint=f"kit inspect {text}:latest" if _REFERENCE.fullmatch(text) else None,
    )
