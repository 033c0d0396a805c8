"""From contents to the bytes of a bundle: which object stands where, and what the index says."""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
import os
import threading
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import kit
from kit.bundles import documents, fingerprint, verifier
from kit.bundles.documents import EMPTY, Known
from kit.bundles.fingerprint import SMALL, hashed, mark_of
from kit.digest import CHUNK
from kit.errors import content_error, usage_error
from kit.files import disk_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from kit.bundles.contents import Content, Entry
    from kit.bundles.fingerprint import Mark, Print
    from kit.bundles.verifier import Index, Item
    from kit.errors import KitError

OCI_LAYOUT = documents.canonical({"imageLayoutVersion": "1.0.0"})
LARGE = 1 << 26
"""Bytes of a file that is worth a part of its own."""
_MOST_LARGE = 1000
_ZEROS = bytes(512)
_ENCODE = json.JSONEncoder(separators=(",", ":")).encode


def large(size: int) -> int:
    """Bytes of a file that gets a part of its own in a stream of this size.

    However large a bundle is, its large files do not make more parts than it may have.
    """
    return max(LARGE, size // _MOST_LARGE)


@dataclass(frozen=True)
class Plan:
    """A bundle before it is written: all that its bytes depend on but the sequence number.

    Attributes:
        name: of the bundle.
        part_size: bytes of a part at most.
        fill: every part is full, but for the last; otherwise one also ends before a large file, so
            that the digest of the file comes out of the part's.
        items: objects with their places.
        sources: digest → file of this host or the bytes themselves.
        prints: the state in which each file was hashed.
        known: the contents.
        requires: digest → bytes of what the site has to have already.
        base: identity of the bundle that this is a delta to.
    """

    name: str
    part_size: int
    fill: bool
    items: tuple[Item, ...]
    sources: Mapping[str, str | bytes]
    prints: Mapping[str, Print]
    known: tuple[Known, ...]
    requires: Mapping[str, int]
    base: str | None

    @cached_property
    def size(self) -> int:
        """Bytes of the stream."""
        return verifier.stream_size(self.items)

    @cached_property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """Where each part begins and ends in the stream."""
        least = large(self.size)
        ends = [] if self.fill else [item.offset for item in self.items if item.size >= least]
        starts = [0]
        for end in (*ends, self.size):
            starts += range(starts[-1] + self.part_size, end, self.part_size)
            starts.append(end)
        return tuple(itertools.pairwise(starts))

    @cached_property
    def part_sizes(self) -> tuple[int, ...]:
        """Bytes of every part."""
        return tuple(end - start for start, end in self.ranges)

    @cached_property
    def heads(self) -> Mapping[int, Item]:
        """Number of a part, from 1 → the object that it begins with, if it holds all of it."""
        places = {item.offset: item for item in self.items if item.size}
        rows = [(n, places.get(start), end) for n, (start, end) in enumerate(self.ranges, 1)]
        return {n: item for n, item, end in rows if item and item.offset + item.size <= end}

    @cached_property
    def digest(self) -> str:
        """Identity of what it says and of how it is cut; equal plans give equal parts."""
        return self._outline[0]

    @property
    def index_size(self) -> int:
        """Bytes of the index at most."""
        row = len(verifier.part_name(1)) + len(self.digest)
        return self._outline[1] + len(str(1 << 53)) + row * len(self.part_sizes)

    @cached_property
    def _outline(self) -> tuple[str, int]:
        """Digest and bytes of the index without what is known only at the end."""
        text = self.draft()
        return hashlib.sha256(text).hexdigest(), len(text)

    def draft(self) -> bytes:
        """The index without what is known only at the end."""
        return self.text(0, [("", size, "") for size in self.part_sizes])

    def text(self, sequence: int, parts: Sequence[tuple[str, int, str]]) -> bytes:
        """`bundle.json`: one row a line, so that two of them can be compared by eye."""
        head = {
            "schema": verifier.SCHEMA,
            "name": self.name,
            "sequence": sequence,
            "kit": kit.__version__,
            "part_size": self.part_size,
            "base": self.base,
        }
        lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
        lines.append(_lines("parts", map(_ENCODE, parts)))
        carried = [(item.sha256, item.size) for item in self.items]
        for key, rows in (("objects", carried), ("requires", self.requires.items())):
            lines.append(_lines(key, [f'"{sha256} {size}"' for sha256, size in rows]))
        digests = [*(item.sha256 for item in self.items), *self.requires]
        numbers = {digest: number for number, digest in enumerate(digests)}
        entries = ",\n".join(_entry(item, numbers) for item in self.known)
        lines.append(f'"contents": [\n{entries}\n]')
        return ("{\n" + ",\n".join(lines) + "\n}\n").encode()

    def pieces(self, start: int, end: int) -> Iterator[bytes | memoryview]:
        """The bytes of the stream from `start` to `end`; each piece is overwritten by the next.

        Raises:
            KitError: a file has changed since it was hashed (exit 4), or cannot be read (exit 3).
        """
        at = start
        offsets = self._offsets
        number = max(0, bisect.bisect_right(offsets, start) - 1)
        while at < end and number < len(self.items):
            item = self.items[number]
            top = item.offset - 512
            if at < item.offset:
                header = verifier.header(item.path, item.size)
                yield header[at - top : end - top]
                at = min(item.offset, end)
            until = min(item.offset + item.size, end)
            if at < until:
                yield from self._content(item, at - item.offset, until - item.offset)
                at = until
            rest = item.offset + item.size + verifier.padding(item.size)
            if at < min(rest, end):
                yield _ZEROS[: min(rest, end) - at]
                at = min(rest, end)
            number += 1
        if at < end:
            yield bytes(end - at)

    @cached_property
    def _offsets(self) -> list[int]:
        return [item.offset - 512 for item in self.items]

    def _content(self, item: Item, start: int, end: int) -> Iterator[bytes | memoryview]:
        source = self.sources[item.sha256]
        if isinstance(source, bytes):
            yield source[start:end]
            return
        with disk_errors(source):
            descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._refuse_changed(source, mark_of(os.fstat(descriptor)))
                if end - start < SMALL:
                    yield os.pread(descriptor, end - start, start)
                    self._refuse_changed(source, mark_of(os.fstat(descriptor)))
                    return
                buffer = memoryview(bytearray(min(CHUNK, max(1, end - start))))
                while start < end:
                    count = os.preadv(descriptor, [buffer[: end - start]], start)
                    if not count:
                        break
                    yield buffer[:count]
                    start += count
                self._refuse_changed(source, mark_of(os.fstat(descriptor)))
            finally:
                os.close(descriptor)

    @cached_property
    def _again(self) -> tuple[threading.Lock, dict[str, Print]]:
        """What had to be hashed once more."""
        return threading.Lock(), {}

    def _refuse_changed(self, source: str, now: Mark) -> None:
        """Refuse a file that has another content by now; its digest decides if its mark cannot."""
        lock, found = self._again
        if _is_same(found.get(source, self.prints[source]), now):
            return
        with lock:
            known = found.get(source, self.prints[source])
            if _is_same(known, now):  # another thread was first
                return
            refuse_changed(source, known.mark, now)
            # Small ones are hashed as often as they are read; of large ones once is enough.
            again = fingerprint.hashed_for_good(source) if now[2] >= SMALL else hashed(source)
            refuse_changed(source, known.mark, again.mark)
            if again.digest != known.digest:
                raise _changed(source)
            found[source] = again


def _is_same(known: Print, now: Mark) -> bool:
    return known.settled and known.mark == now


def refuse_changed(path: str, before: Mark, now: Mark) -> None:
    """Refuse a file that is another one by now.

    Raises:
        KitError: it is (exit 4).
    """
    # A hard link, as `kit build` and `kit run` make them into the store, moves the last of the
    # times: what that leaves open, digests decide.
    if now[:4] != before[:4]:
        raise _changed(path)


def _changed(path: str) -> KitError:
    return content_error(
        f"{path}: changed while the bundle was made", hint="run the same command again"
    )


def plan(
    name: str,
    contents: Sequence[Content],
    prints: Mapping[str, Print],
    part_size: int,
    since: Index | None,
    *,
    fill: bool,
) -> Plan:
    """Lay out a bundle.

    Raises:
        KitError: a file is not what it is known to be (exit 4).
    """
    known = tuple(_known(content, prints) for content in contents)
    sources: dict[str, str | bytes] = {}
    sizes: dict[str, int] = {}
    index = documents.layout_index(known)
    head = [_add(sources, sizes, content) for content in (OCI_LAYOUT, index)]
    if since is None and any(item.content.image is None for item in known):
        _add(sources, sizes, EMPTY)
    for item in known:
        manifest = item.manifest
        if manifest is not None:
            # It follows from the index: a delta leaves it out.
            if since is None:
                _add(sources, sizes, manifest)
        elif item.image_digest is not None and item.content.image is not None:
            sources.setdefault(item.image_digest, item.content.image.source)
            sizes.setdefault(item.image_digest, item.image_size)
    for item in known:
        rows = zip(item.content.entries, item.digests, item.sizes, strict=True)
        for entry, digest, size in rows:
            sources.setdefault(digest, entry.source)
            sizes.setdefault(digest, size)
    there = _held(since)
    carried = [digest for digest in sizes if digest in head or digest not in there]
    taken = frozenset(carried)
    requires = {digest: size for digest, size in sizes.items() if digest not in taken}
    if since is not None and not requires:  # then it is no delta, and needs its manifests
        return plan(name, contents, prints, part_size, None, fill=fill)
    return Plan(
        name=name,
        part_size=part_size,
        fill=fill,
        items=tuple(verifier.laid_out((digest, sizes[digest]) for digest in carried)),
        sources=sources,
        prints=prints,
        known=known,
        requires=requires,
        base=since.identity if since else None,
    )


def refuse_too_much(made: Plan) -> None:
    """Refuse what no bundle can hold: too many objects, files or parts, too long an index (2)."""
    hint = "tar -cf DATA.tar FOLDER, and give that instead of the folder"
    count = len(made.items) + len(made.requires)
    if count > verifier.MOST_OBJECTS:
        raise usage_error(
            f"{count} objects: a bundle holds {verifier.MOST_OBJECTS} at most", hint=hint
        )
    for item in made.known:
        if len(item.content.entries) > verifier.MOST_OBJECTS:
            raise usage_error(
                f"{item.content.label}: {len(item.content.entries)} files, expected "
                f"{verifier.MOST_OBJECTS} at most",
                hint=hint,
            )
    if len(made.part_sizes) > verifier.MOST_PARTS:
        least = -(-made.size // verifier.MOST_PARTS)
        raise usage_error(
            f"--part-size {made.part_size}: that would be {len(made.part_sizes)} parts, "
            f"expected {verifier.MOST_PARTS} at most",
            hint=f"--part-size {least}",
        )
    if made.index_size > verifier.INDEX_LIMIT:
        raise usage_error(
            f"the index would have {made.index_size} bytes, expected {verifier.INDEX_LIMIT} at "
            f"most: {len(made.items)} objects with long names",
            hint=hint,
        )
    if made.index_size > verifier.MOST_VALUES:  # each takes more than a byte
        try:
            verifier.refuse_bomb(made.draft(), "the index")
        except verifier.Refused as error:
            raise usage_error(str(error), hint=hint) from error


def refuse_names(contents: Sequence[Content]) -> None:
    """Refuse what may be called so in no bundle (exit 2)."""
    try:
        for said in contents:
            titles = [entry.title for entry in said.entries]
            verifier.check_names(said.kind, said.name, said.stack, said.why, titles)
    except verifier.Refused as error:
        raise usage_error(f"no bundle can hold this: {error}") from error


def _held(since: Index | None) -> frozenset[str]:
    """What a site has that has loaded an earlier bundle: files, and all of images.

    What else is an object of a bundle makes it an OCI layout, and is kept nowhere.
    """
    if since is None:
        return frozenset()
    files = (file.sha256 for content in since.contents for file in content.files)
    images = (content.manifest for content in since.contents if content.kind == "image")
    return frozenset(itertools.chain(files, images))


def _known(content: Content, prints: Mapping[str, Print]) -> Known:
    rows = [_digest(content, entry, prints) for entry in content.entries]
    digests, sizes = tuple(row[0] for row in rows), tuple(row[1] for row in rows)
    if content.image is None:
        return Known(content, digests, sizes, None, 0)
    return Known(content, digests, sizes, *_digest(content, content.image, prints))


def _digest(content: Content, entry: Entry, prints: Mapping[str, Print]) -> tuple[str, int]:
    if isinstance(entry.source, bytes):
        return hashlib.sha256(entry.source).hexdigest(), len(entry.source)
    found = prints[entry.source]
    if entry.claimed is not None and entry.claimed.hex != found.digest:
        raise content_error(
            f"{content.label}: {entry} is not what it was: expected {entry.claimed}, "
            f"found sha256:{found.digest}",
        )
    return found.digest, found.size


def _add(sources: dict[str, str | bytes], sizes: dict[str, int], content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    sources.setdefault(digest, content)
    sizes.setdefault(digest, len(content))
    return digest


def _lines(key: str, rows: Iterable[str]) -> str:
    lines = ",\n".join(rows)
    return f'"{key}": [\n{lines}\n]' if lines else f'"{key}": []'


def _entry(item: Known, numbers: Mapping[str, int]) -> str:
    content = item.content
    manifest = item.manifest
    digest = hashlib.sha256(manifest).hexdigest() if manifest is not None else item.image_digest
    head = {
        "kind": content.kind,
        "name": content.name,
        "stack": content.stack,
        "why": content.why,
        "manifest": digest,
    }
    files: list[Any] = []
    last: tuple[int, str] | None = None
    for entry, digest in zip(content.entries, item.digests, strict=True):
        number = numbers[digest]
        # Mostly the next object with the same role: then the title is enough.
        is_next = last == (number - 1, entry.role)
        files.append(entry.title if is_next else (entry.title, number, entry.role))
        last = (number, entry.role)
    return "{" + json.dumps(head)[1:-1] + ", " + _lines("files", map(_ENCODE, files)) + "}"
