"""Media that a bundle is written to, and what they take."""

from __future__ import annotations

import re
from pathlib import Path

from kit.console import note
from kit.errors import usage_error

FAT32_LARGEST = (1 << 32) - 1
"""Bytes of the largest file of FAT32: its directory entries hold 32 bits."""
_FAT = frozenset({"msdos", "umsdos", "vfat"})
_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(r"\\([0-7]{3})")


def refuse_large_parts(out: Path, part_size: int) -> None:
    """Refuse parts that are too large for one file on the disk of `out`, note those for FAT32.

    Raises:
        KitError: `out` is on FAT (exit 2).
    """
    if part_size <= FAT32_LARGEST:
        return
    hint = "--part-size 4G"
    if filesystem(out) in _FAT:
        raise usage_error(
            f"--part-size: {out} is on FAT32, whose files have {FAT32_LARGEST} bytes at most, not "
            f"{part_size}",
            hint=hint,
        )
    note(f"note: parts of {part_size} bytes fit on no FAT32 medium ({FAT32_LARGEST}): {hint}")


def filesystem(path: Path, mounts: str | None = None) -> str | None:
    """The type of the file system that holds a path, or would; None where the kernel does not say.

    Args:
        path: need not be there yet.
        mounts: what the kernel says of its mounts, for tests.
    """
    if mounts is None:
        try:
            mounts = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return None
    place = path.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    above = {place.resolve(), *place.resolve().parents}
    found: tuple[int, str] | None = None
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or not kind:
            continue
        point = Path(_ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4]))
        # Of several on one place the last one is on top.
        if point in above and (found is None or len(point.parts) >= found[0]):
            found = (len(point.parts), kind[0])
    return found[1] if found else None
