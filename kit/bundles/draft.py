"""A bundle laid out before everything in it is hashed.

Where each object stands follows from sizes alone, once it is known which files are the same. Large
files that are certainly like no other one get a digest that stands in for theirs, and are hashed
while the parts before them are written.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from kit.bundles.fingerprint import Print, sample
from kit.errors import content_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kit.bundles.contents import Content
    from kit.bundles.fingerprint import Mark
    from kit.bundles.plan import Plan

LATE = 1 << 20
"""Bytes of a file that is worth hashing while parts are written already."""


def distinct(marks: Mapping[str, Mark], unknown: Mapping[str, Mark]) -> dict[str, Mark]:
    """Large files of `unknown` that are like none of `marks`, by size or by a sample."""
    sizes: dict[int, list[str]] = {}
    for path, mark in marks.items():
        if mark[2] >= LATE:
            sizes.setdefault(mark[2], []).append(path)
    found = {}
    for size, paths in sizes.items():
        samples = [sample(path, size) for path in paths] if paths[1:] else [b""]
        for path, own in zip(paths, samples, strict=True):
            if path in unknown and samples.count(own) == 1:
                found[path] = unknown[path]
    return found


def stand_ins(contents: Sequence[Content], late: Mapping[str, Mark]) -> dict[str, Print]:
    """What stands for the digest of each late file: what it should be, else no other file's."""
    claims = {
        entry.source: entry.claimed.hex
        for content in contents
        for entry in content.all_entries
        if entry.claimed is not None
    }
    return {path: Print(mark, claims.get(path) or _unlike_any(path)) for path, mark in late.items()}


def _unlike_any(path: str) -> str:
    return hashlib.sha256(b"stand-in for " + os.fsencode(path)).hexdigest()


def ranges(plan_: Plan) -> list[tuple[int, int]]:
    """Where each part begins and ends in the stream."""
    starts = range(0, plan_.size, plan_.part_size)
    return [(start, min(start + plan_.part_size, plan_.size)) for start in starts]


def refuse_other(draft: Plan, plan_: Plan, digest_of: Callable[[str], str]) -> None:
    """Refuse a plan in which something stands elsewhere than it was written by the draft."""
    is_same = len(draft.items) == len(plan_.items) and draft.derived_end == plan_.derived_end
    if not is_same or not all(
        one.offset == two.offset
        and (one.offset < draft.derived_end or digest_of(one.sha256) == two.sha256)
        for one, two in zip(draft.items, plan_.items, strict=True)
    ):
        raise content_error(
            "a file changed while the bundle was made", hint="run the same command again"
        )
