"""What a build took: seconds of each stage, the kit's own part of them, the compiler cache."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kit.console import table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

CCACHE_BEGIN, CCACHE_END = "kit:ccache:begin", "kit:ccache:end"
_STEP = re.compile(r"^#\d+ (?:\d+\.\d+ )?")
"""What BuildKit's plain progress writes before a line of a step."""
_COUNT = re.compile(r"([A-Za-z][\w ()/.-]*?)[:\s]\s*(\d+)(?:\s.*)?$")
_CLIPPED = "[output clipped, log limit"
"""What BuildKit writes in place of more output than it keeps."""
_HITS = ("direct_cache_hit", "preprocessed_cache_hit", "Hits")
_MISSES = ("cache_miss", "Misses")


@dataclass(frozen=True, slots=True)
class StageReport:
    """How one stage came about.

    Attributes:
        name: of the stage.
        manifest_digest: of its image.
        was_current: it was there already.
        seconds: all of it; of the build that made it.
        own_seconds: what the kit itself took of them: context, layer, loading.
        ccache: what the compiler cache says of itself: counter → value.
        log: of that build.
    """

    name: str
    manifest_digest: str
    was_current: bool
    seconds: float
    own_seconds: float
    ccache: Mapping[str, int] = field(default_factory=dict)
    log: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """As records and `--json` have it."""
        return {
            "stage": self.name,
            "manifest_digest": self.manifest_digest,
            "was_current": self.was_current,
            "seconds": round(self.seconds, 3),
            "own_seconds": round(self.own_seconds, 3),
            "ccache": dict(self.ccache),
            "log": str(self.log) if self.log else None,
        }

    @property
    def compiled(self) -> str:
        """`12 of 40 from the cache`, or nothing."""
        hits = sum(self.ccache.get(name, 0) for name in _HITS)
        misses = sum(self.ccache.get(name, 0) for name in _MISSES)
        return f"{hits} of {hits + misses} from the cache" if hits + misses else ""


class CacheStatistics:
    """Reads what `ccache --print-stats` or `ccache -s` said between the two marked lines.

    Attributes:
        counters: of the compiler cache.
        is_clipped: the engine left lines out, perhaps those.
    """

    def __init__(self) -> None:
        self.counters: dict[str, int] = {}
        self.is_clipped = False
        self._inside = False

    def see(self, line: str) -> None:
        """Take a line of an engine's output."""
        text = _STEP.sub("", line).strip()
        self.is_clipped |= text.startswith(_CLIPPED)
        if text == CCACHE_BEGIN:
            self._inside = True
        elif text == CCACHE_END:
            self._inside = False
        elif self._inside and (match := _COUNT.match(text)):
            self.counters[match[1].strip()] = int(match[2])


def shown(stages: Iterable[StageReport]) -> str:
    """The stages as a small table."""
    rows = [
        [
            stage.name,
            "up to date" if stage.was_current else "built",
            f"{stage.seconds:.1f} s",
            f"{stage.own_seconds:.1f} s",
            stage.compiled,
        ]
        for stage in stages
    ]
    return table(rows, ["STAGE", "STATE", "TOOK", "OF IT KIT", "COMPILED"])
