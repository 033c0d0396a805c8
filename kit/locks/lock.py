"""The lock: every input of a stack with version, digest and size, and where to look for it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal, get_args

from kit import document
from kit.digest import Digest
from kit.errors import KitError, content_error, usage_error
from kit.files import safe_member, write_bytes
from kit.locks.arguments import arguments
from kit.locks.checks import is_address

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SCHEMA = "kit.lock/1"
Kind = Literal["deb", "wheel", "sdist", "file", "model", "oci", "git", "lfs"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_IN_CONTEXT = frozenset({"deb", "wheel", "sdist", "file"})
"""Kinds that stand in one folder of a build context, whatever their kind."""
_LARGEST = 1 << 62
"""Bytes of the largest file that a system can have, or about that."""
_SHOWN = 5
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
            serves by file name and digest. Deb, wheel and sdist have a URL where the intent
            names their repository or index; never the host of a configured one.
        sha256: the digest every copy must have.
        size: bytes.
        source: where the digest is known from, if it was not found here; says nothing else.
    """

    kind: Kind
    group: str
    name: str
    version: str
    file: str
    location: str
    sha256: Digest
    size: int
    source: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.kind} {self.name} {self.version}".rstrip() + f" ({self.file})"


@dataclass(frozen=True, slots=True)
class Unresolved:
    """What only a connected machine can pin: an input, or what stands for a closure of them.

    Attributes:
        reason: why it is not pinned here.
        sha256: its digest where that much is known.
    """

    kind: Kind
    group: str
    name: str
    version: str
    location: str
    reason: str
    sha256: Digest | None = None

    def __lt__(self, other: Unresolved) -> bool:
        return self._order() < other._order()

    def __str__(self) -> str:
        return f"{self.kind} {self.name} {self.version}".rstrip() + f": {self.reason}"

    def _order(self) -> tuple[str, ...]:
        known = self.sha256.hex if self.sha256 else ""
        return (
            *(self.kind, self.group, self.name, self.version, self.location, self.reason),
            known,
        )


@dataclass(frozen=True, slots=True)
class Lock:
    """All inputs of one stack, sorted; `intent` is the digest of what it was resolved from.

    A lock with `unresolved` entries comes from tables: `kit lock` has to make it whole.
    """

    stack: str
    intent: Digest
    inputs: tuple[Input, ...]
    arguments: tuple[tuple[str, str], ...] = ()
    unresolved: tuple[Unresolved, ...] = ()

    @property
    def digest(self) -> Digest:
        """Identity of the lock: the digest of its canonical text.

        Where a digest is known from does not count: it changes no byte of what is built.
        """
        bare = replace(self, inputs=tuple(replace(item, source="") for item in self.inputs))
        return Digest.of_bytes(bare.text().encode())

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
        ]
        if self.arguments:
            lines += ["arguments:", *(f"  {name}: {_quoted(v)}" for name, v in self.arguments)]
        lines.append("inputs:" if self.inputs else "inputs: []")
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
                *([f"  source: {_quoted(item.source)}"] if item.source else []),
            ]
        if self.unresolved:
            lines.append("unresolved:")
        for gap in sorted(self.unresolved):
            lines += [
                f"- kind: {gap.kind}",
                f"  group: {_plain(gap.group)}",
                f"  name: {_quoted(gap.name)}",
                f"  version: {_quoted(gap.version)}",
                f"  location: {_quoted(gap.location)}",
                f"  reason: {_quoted(gap.reason)}",
                *([f"  sha256: {_hex(gap.sha256)}"] if gap.sha256 else []),
            ]
        return "\n".join(lines) + "\n"

    def require_resolved(self) -> None:
        """Refuse a lock that does not pin everything (exit 4)."""
        if self.unresolved:
            gaps = "\n".join(f"  - {gap}" for gap in self.unresolved[:_SHOWN])
            more = len(self.unresolved) - _SHOWN
            gaps += f"\n  … and {more} more" if more > 0 else ""
            raise content_error(
                f"the lock of {self.stack} does not pin everything, "
                f"{len(self.unresolved)} are unresolved:\n{gaps}",
                hint=f"kit lock {self.stack} (where the upstreams can be reached)",
            )

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
    return _read(document.load(path))


def loads(content: bytes, name: str) -> Lock:
    """Like `load`, of text that comes from elsewhere; `name` stands for the file in messages."""
    return _read(document.loads(content, name))


def _read(top: document.Section) -> Lock:
    schema = top.text("schema")
    if schema != SCHEMA:
        raise top.error(f"expected schema {SCHEMA}, found {schema}", "schema")
    lock = Lock(
        stack=top.text("stack"),
        intent=_digest(top, "intent"),
        inputs=tuple(sorted(_input(section) for section in top.sections("inputs"))),
        arguments=arguments(top),
        unresolved=tuple(sorted(_unresolved(section) for section in top.sections("unresolved"))),
    )
    top.close()
    if (item := twice(lock.inputs)) is not None:
        raise top.error(f"{item} stands twice in group {item.group}", "inputs")
    return lock


def twice(inputs: Iterable[Input]) -> Input | None:
    """An input that would take the place of another one before it, in a build context or folder."""
    seen: set[tuple[str, PurePosixPath]] = set()
    for item in inputs:
        apart = "" if item.kind in _IN_CONTEXT else item.kind
        if (key := (apart, PurePosixPath(item.group, item.file))) in seen:
            return item
        seen.add(key)
    return None


def _is_location(kind: Kind, text: str) -> bool:
    """Whether a location leads into the network without a secret, or is none of the network's."""
    if "://" in text or kind in ("file", "git", "lfs"):
        return is_address(text)
    return True


def _input(section: document.Section) -> Input:
    item = Input(
        kind=_kind(section),
        group=section.text("group"),
        name=section.text("name"),
        version=section.text("version"),
        file=section.text("file"),
        location=section.text("location"),
        sha256=_digest(section, "sha256"),
        size=section.integer("size"),
        source=section.optional_text("source") or "",
    )
    if not 0 <= item.size <= _LARGEST:
        found = item.size if item.size < 0 else "more than any file has"
        raise section.error(f"size: expected bytes, found {found}", "size")
    if not _is_location(item.kind, item.location):
        # It may hold a login: it is not told.
        raise section.error("location: expected http(s)://… without a login or query", "location")
    try:
        safe_member(item.file, section.where("file"))
        safe_member(item.group, section.where("group"))
        if item.kind == "deb" and "://" not in item.location:
            safe_member(item.location, section.where("location"))
        elif item.kind == "model" and item.location.startswith("directory:"):
            safe_member(item.location.partition(":")[2], section.where("location"))
    except KitError as error:
        raise usage_error(str(error)) from error
    section.close()
    return item


def _unresolved(section: document.Section) -> Unresolved:
    gap = Unresolved(
        kind=_kind(section),
        group=section.text("group"),
        name=section.text("name"),
        version=section.text("version"),
        location=section.text("location"),
        reason=section.text("reason"),
        sha256=_digest(section, "sha256") if "sha256" in section else None,
    )
    section.close()
    return gap


def _kind(section: document.Section) -> Kind:
    kind = section.text("kind")
    if kind not in KINDS:
        raise section.error(f"unknown kind {kind!r}; known: {', '.join(KINDS)}", "kind")
    return kind


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
