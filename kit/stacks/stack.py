"""One stack as the tables tell it: its intent, and what to say beside it."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kit.data import releases, sources
from kit.locks.intent import ImageReference

if TYPE_CHECKING:
    from kit.locks.intent import Intent

PLATFORM = "linux/amd64"
"""The tables have nothing of arm64, so there is no stack for it."""
TENSORRT_LLM = "https://github.com/NVIDIA/TensorRT-LLM.git"


@dataclass(slots=True)
class Remarks:
    """Comments by the part of the intent that they stand above, such as `apt.devel`."""

    lines: dict[str, list[str]] = field(default_factory=dict)

    def add(self, at: str, text: str) -> None:
        """Put a sentence above a part; it is wrapped when it is written."""
        self.lines.setdefault(at, []).append(text)


@dataclass(frozen=True, slots=True)
class Stack:
    """An intent with the comments of its parts; the head's stand under an empty name."""

    intent: Intent
    remarks: Remarks


def epoch(release: str, date: str | None, remarks: Remarks, of: str = "the release's") -> int:
    """Seconds of a commit's date; without one, of the day on which the release came out."""
    if date is not None:
        remarks.add("epoch", f"The time of {of} commit, {date}.")
        return int(dt.datetime.fromisoformat(date).timestamp())
    day = releases.value(release, "released")
    remarks.add("epoch", f"The day of the upload to PyPI, {day}: the commit's own is not known.")
    midnight = dt.datetime.fromisoformat(day).replace(tzinfo=dt.timezone.utc)
    return int(midnight.timestamp())


def base_image(name: str, tag: str, remarks: Remarks) -> ImageReference:
    """The base image, by digest where one is known."""
    from kit.data import digests

    known = digests.image(name, tag)
    if known is None:
        remarks.add("images.base", f"By its tag: {digests.UNSEEN}.")
        return ImageReference("base", f"{name}:{tag}")
    places = "one place" if known.agree == 1 else f"{known.agree} independent places"
    remarks.add("images.base", f"The digest stands in {places}, see kit/data/digests.json.")
    return ImageReference("base", f"{name}:{tag}@{known.digest}")


def unsettled(release: str) -> str | None:
    """Why the commit of a release is not beyond doubt; None where it is."""
    rows = sources.commits(release)
    if not rows:
        return None
    taken = sources.commit(release)
    places = "; ".join(f"{row['commit'][:12]} ({_times(row)}): {row['what']}" for row in rows)
    if len(rows) == 1:
        return f"the commit of {release} rests on one place: {places}"
    return f"the commit of {release} is disputed, {str(taken)[:12]} is taken: {places}"


def _times(row: dict[str, Any]) -> str:
    return "one place" if row["agree"] == 1 else f"{row['agree']} places"
