"""The lock: every input of a stack with version, digest and size, and where to look for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from kit import document
from kit.digest import Digest
from kit.errors import KitError, usage_error
from kit.files import safe_member, write_bytes

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = "kit.lock/1"
Kind = Literal["deb", "wheel", "sdist", "file", "model", "oci", "git", "lfs"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_BARE = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_NOT_TEXTS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


@dataclass(frozen=True, slots=True, order=True)
class Input:
    """One file that a build or a run reads, pinned to the byte.

    Attributes:
        kind: what it is, and so which source can bring it; `oci` is one blob of an image, `git` the
            canonical archive of a commit's tree, `lfs` an object of Git LFS.
        group: the part of the stack that reads it (`base`, `devel`, `wheels`, a model's name).
        name: package name, file name, or model name.
        version: package version; the commit of a model snapshot or a source tree; the manifest
            digest of the image that a blob belongs to; empty for a plain file and an LFS object.
        file: the name it gets in a build context or in the model's folder, may hold `/`.
        location: a deb's path below its mirror, a file's URL, `hf:<repo>@<commit>` or
            `directory:<path below the project>` for a model; `oci:<registry>/<repository>`; the
            repository's URL for git and lfs; empty for wheel and sdist, which any package index
            serves by file name and digest. Never the host of a package index.
        sha256: the digest every copy must have.
        size: bytes.
    """

    kind: Kind
    group: str
    name: str
    version: str
    file: str
    location: str
    sha256: Digest
    size: int

    def __str__(self) -> str:
        return f"{self.kind} {self.name} {self.version}".rstrip() + f" ({self.file})"


@dataclass(frozen=True, slots=True)
class Lock:
    """All inputs of one stack, sorted; `intent` is the digest of what it was resolved from."""

    stack: str
    intent: Digest
    inputs: tuple[Input, ...]

    @property
    def digest(self) -> Digest:
        """Identity of the lock: the digest of its canonical text."""
        return Digest.of_bytes(self.text().encode())

    @property
    def size(self) -> int:
        """Bytes of all inputs together."""
        return sum({item.sha256: item.size for item in self.inputs}.values())

    def select(self, *, kind: Kind | None = None, group: str | None = None) -> list[Input]:
        """The inputs of a kind and a group, in the order of the lock."""
        return [
            item
            for item in self.inputs
            if kind in (None, item.kind) and group in (None, item.group)
        ]

    def text(self) -> str:
        """The lock file: stable order, one input a block, so that a changed pin is a small diff."""
        lines = [
            "# Written by `kit lock`; do not edit: change the intent and lock again.",
            f"schema: {SCHEMA}",
            f"stack: {_plain(self.stack)}",
            f"intent: {self.intent}",
            "inputs:" if self.inputs else "inputs: []",
        ]
        for item in sorted(self.inputs):
            lines += [
                f"- kind: {item.kind}",
                f"  group: {_plain(item.group)}",
                f"  name: {_quoted(item.name)}",
                f"  version: {_quoted(item.version)}",
                f"  file: {_quoted(item.file)}",
                f"  location: {_quoted(item.location)}",
                f"  sha256: {_hex(item.sha256)}",
                f"  size: {item.size}",
            ]
        return "\n".join(lines) + "\n"

    def write(self, path: Path) -> None:
        """Write the lock file atomically."""
        write_bytes(path, self.text().encode())


def load(path: Path) -> Lock:
    """Read a lock file.

    Raises:
        KitError: absent (says how to make it), malformed, unknown key, bad digest; with the place.
    """
    if not path.exists():
        stack = path.name.removesuffix(".lock.yaml")
        raise usage_error(f"{path}: there is no lock", hint=f"kit lock {stack}")
    top = document.load(path)
    schema = top.text("schema")
    if schema != SCHEMA:
        raise top.error(f"expected schema {SCHEMA}, found {schema}", "schema")
    lock = Lock(
        stack=top.text("stack"),
        intent=_digest(top, "intent"),
        inputs=tuple(sorted(_input(section) for section in top.sections("inputs"))),
    )
    top.close()
    _refuse_two_of_one_name(top, lock)
    return lock


def _refuse_two_of_one_name(top: document.Section, lock: Lock) -> None:
    seen: set[tuple[str, str, str]] = set()
    for item in lock.inputs:
        if (key := (item.kind, item.group, item.file)) in seen:
            raise top.error(f"{item} stands twice in group {item.group}", "inputs")
        seen.add(key)


def _input(section: document.Section) -> Input:
    kind = section.text("kind")
    if kind not in KINDS:
        raise section.error(f"unknown kind {kind!r}; known: {', '.join(KINDS)}", "kind")
    item = Input(
        kind=kind,
        group=section.text("group"),
        name=section.text("name"),
        version=section.text("version"),
        file=section.text("file"),
        location=section.text("location"),
        sha256=_digest(section, "sha256"),
        size=section.integer("size"),
    )
    if item.size < 0:
        raise section.error(f"size: expected bytes, found {item.size}", "size")
    try:
        safe_member(item.file, section.where("file"))
        safe_member(item.group, section.where("group"))
        if item.kind == "deb":
            safe_member(item.location, section.where("location"))
        elif item.kind == "model" and item.location.startswith("directory:"):
            safe_member(item.location.partition(":")[2], section.where("location"))
    except KitError as error:
        raise usage_error(str(error)) from error
    section.close()
    return item


def _digest(section: document.Section, key: str) -> Digest:
    text = section.text(key)
    try:
        return Digest.parse(text)
    except ValueError:
        raise section.error(f"{key}: expected 64 hexadecimal digits, found {text!r}", key) from None


def _hex(digest: Digest) -> str:
    """64 digits; should none of them be a letter, YAML would read a number."""
    return _quoted(digest.hex) if digest.hex.isdecimal() else digest.hex


def _plain(text: str) -> str:
    """A bare word where YAML reads it as the same text, else quoted."""
    if _BARE.fullmatch(text) and text.lower() not in _NOT_TEXTS:
        return text
    return _quoted(text)


def _quoted(text: str) -> str:
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if character.isprintable() else f"\\U{ord(character):08X}"
