"""Which machine a library is for: its ELF header, or that of a static one's first object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.artifacts import bounded

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

_MACHINES = {3: "i386", 21: "ppc64", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
"""`e_machine` of the ELF specification, under the names that `uname -m` has for them."""
_ELF = b"\x7fELF"
_ARCHIVE = b"!<arch>\n"
_HEADER = 60
_HEADERS_LIMIT = 16
"""Symbol table, its 64-bit form and long names stand before the first object; nothing else does."""


def machine(path: Path) -> str | None:
    """`x86_64`, `aarch64` …; None for what is no ELF file and no archive of ELF files.

    Raises:
        KitError: there is no such file (exit 2) or it is none (exit 4).
    """
    with bounded.opened(path) as stream:
        head = stream.read(len(_ARCHIVE))
        if head.startswith(_ELF):
            return _machine(head + stream.read(20 - len(head)))
        return _in_archive(stream) if head == _ARCHIVE else None


def _in_archive(stream: BinaryIO) -> str | None:
    offset = len(_ARCHIVE)
    for _ in range(_HEADERS_LIMIT):
        stream.seek(offset)
        header = stream.read(_HEADER)
        digits = header[48:58].strip()
        if len(header) < _HEADER or header[58:] != b"`\n" or not digits.isdigit():
            return None
        name, size = header[:16].rstrip(), int(digits)
        if name not in (b"/", b"//", b"/SYM64/"):
            return _machine(stream.read(20))
        offset += _HEADER + size + size % 2
    return None


def _machine(head: bytes) -> str | None:
    if len(head) < 20 or not head.startswith(_ELF):
        return None
    number = int.from_bytes(head[18:20], "big" if head[5] == 2 else "little")
    return _MACHINES.get(number, f"ELF machine {number}")
