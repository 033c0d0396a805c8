"""Scripts of the kit that containers run: copies which any user may read, whatever the umask.

The package itself may be root's alone, and the container's user is another one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.digest import Digest
from kit.files import disk_errors, write_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from kit.project import Project

_MODE = 0o644


def mountable(project: Project, source: Path) -> Path:
    """A copy of `source` below KIT_HOME, named by its content; made once, made again if damaged."""
    content = source.read_bytes()
    folder = project.home / "scripts"
    target = folder / f"{Digest.of_bytes(content).short}-{source.name}"
    if not _is_good(target, content):
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o755)
            write_bytes(target, content, _MODE)
    return target


def _is_good(target: Path, content: bytes) -> bool:
    try:
        return target.stat().st_mode & 0o777 == _MODE and target.read_bytes() == content
    except OSError:
        return False
