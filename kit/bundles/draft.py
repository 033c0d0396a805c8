"""A bundle laid out, and mostly written, before everything in it is hashed.

Where each object stands follows from sizes alone, once it is known which files are the same. Large
files that are certainly like no other one get a digest that stands in for theirs. What such a file
really has comes out of the part that begins with it, or is hashed while other parts are written.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from concurrent.futures import Future
from typing import TYPE_CHECKING

from kit.bundles import parts
from kit.bundles.fingerprint import Print, sample
from kit.errors import content_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import Executor
    from pathlib import Path

    from kit.bundles.contents import Content
    from kit.bundles.fingerprint import Mark, Memory
    from kit.bundles.parts import Written
    from kit.bundles.plan import Plan

LATE = 1 << 20
"""Bytes of a file that is worth hashing while parts are written already."""


def stand_ins(
    contents: Sequence[Content], marks: Mapping[str, Mark], unknown: Mapping[str, Mark], least: int
) -> dict[str, Print]:
    """What stands for the digests of large files: what they should be, else no other file's.

    Args:
        contents: of the bundle.
        marks: of all its files.
        unknown: those that have not been hashed.
        least: bytes of a large file.

    Returns:
        For files of `unknown` that are like none of `marks`, by size or by a sample, and that are
        not said to be the same either.
    """
    claims = {
        entry.source: entry.claimed.hex
        for content in contents
        for entry in content.all_entries
        if entry.claimed is not None
    }
    shared = Counter(claims.values())
    sizes: dict[int, list[str]] = {}
    for path, mark in marks.items():
        if mark[2] >= least:
            sizes.setdefault(mark[2], []).append(path)
    found = {}
    for size, paths in sizes.items():
        samples = [sample(path, size) for path in paths] if paths[1:] else [b""]
        counts = Counter(samples)
        for path, own in zip(paths, samples, strict=True):
            claim = claims.get(path)
            if path in unknown and counts[own] == 1 and (claim is None or shared[claim] == 1):
                found[path] = Print(unknown[path], claim or _unlike_any(path))
    return found


class Draft:
    """Parts that are written while the digests of some of their objects are not known yet.

    Args:
        plan_: the layout, with digests that stand in.
        late: the files that they stand for.
        memory: told every digest that is found.
        pool: what runs it.
        on_bytes: told how many bytes have been hashed or written.
    """

    def __init__(
        self,
        plan_: Plan,
        late: Mapping[str, Print],
        memory: Memory,
        pool: Executor,
        on_bytes: Callable[[int], object],
    ) -> None:
        self.plan = plan_
        self._paths = {found.digest: path for path, found in late.items()}
        self._memory = memory
        self._pool = pool
        self._on_bytes = on_bytes
        self._found: dict[str, Future[Print]] = {}

    def write(
        self, folder: Path, done: Mapping[int, Written]
    ) -> Iterator[tuple[int, Future[Written]]]:
        """Start to write every part that holds no digests of others and is not `done`.

        A part that ends with the name of a late object waits for the one that begins with it. So
        the last part comes first: whatever is waited for has been started, by whichever thread.
        """
        for number, (start, end) in reversed(list(enumerate(self.plan.ranges, 1))):
            is_free = not self._paths or start >= self.plan.derived_end
            head: Future[Print] | None = None
            item = self.plan.heads.get(number)
            if item is not None and item.sha256 in self._paths:
                written = done.get(number)
                if is_free and written is None:
                    head = self._found[item.sha256] = Future()
                elif written is not None and written.head is not None:
                    found = self._found[item.sha256] = Future()
                    found.set_result(self._print(item.sha256, written.head))
            for one in self.plan.objects_in(start, end):
                if one.sha256 in self._paths and one.sha256 not in self._found:
                    path = self._paths[one.sha256]
                    task = self._pool.submit(self._memory.hash, path, self._on_bytes)
                    self._found[one.sha256] = task
            if is_free and number not in done:
                yield number, self._pool.submit(self._part, number, folder, head)

    def _part(self, number: int, folder: Path, head: Future[Print] | None) -> Written:
        def on_head(digest: str) -> None:
            if head is not None:
                head.set_result(self._print(self.plan.heads[number].sha256, digest))

        try:
            return parts.write(self.plan, number, folder, self._on_bytes, self.digest_of, on_head)
        except BaseException as error:
            if head is not None and not head.done():
                head.set_exception(error)
            raise

    def _print(self, stand_in: str, digest: str) -> Print:
        mark = self.plan.prints[self._paths[stand_in]].mark
        return self._memory.note(Print(mark, digest))

    def digest_of(self, sha256: str) -> str:
        """What a digest of the plan really is, once it is known."""
        return self._found[sha256].result().digest if sha256 in self._found else sha256

    def prints(self) -> dict[str, Print]:
        """Late files with what has been found, once all of them are."""
        return {self._paths[sha256]: task.result() for sha256, task in self._found.items()}

    def refuse_other(self, plan_: Plan) -> None:
        """Refuse a plan in which something stands elsewhere than it was written.

        Raises:
            KitError: so it is: a file has changed (exit 4).
        """
        draft = self.plan
        is_same = len(draft.items) == len(plan_.items) and draft.derived_end == plan_.derived_end
        if not is_same or not all(
            one.offset == two.offset
            and (one.offset < draft.derived_end or self.digest_of(one.sha256) == two.sha256)
            for one, two in zip(draft.items, plan_.items, strict=True)
        ):
            raise content_error(
                "a file changed while the bundle was made", hint="run the same command again"
            )


def _unlike_any(path: str) -> str:
    return hashlib.sha256(b"stand-in for " + os.fsencode(path)).hexdigest()
