"""Write the scripts of every release into a folder: `python -m kit_rehearsal.install TARGET`.

A user of release 0.9.0 then works in TARGET/0.9.0, with TARGET/0.9.0/bin on the PATH, and types
what that release's documentation says.
"""

from __future__ import annotations

import sys
from pathlib import Path

from .commands import SCRIPTS
from .files import write_text


def install(target: Path) -> list[Path]:
    """Write the scripts, always with the same bytes; returns their paths."""
    written = []
    for release, scripts in SCRIPTS.items():
        for script in scripts:
            place = script if script.endswith(".py") else f"bin/{script}"
            path = target / release / place
            write_text(
                path,
                "#!/usr/bin/env python3\n"
                "from kit_rehearsal.commands import main\n"
                f'raise SystemExit(main("{release}", "{script}"))\n',
            )
            path.chmod(0o755)
            written.append(path)
    return written


def main(argv: list[str]) -> int:
    """The command line: one argument, the folder."""
    if len(argv) != 1 or argv[0].startswith("-"):
        sys.stderr.write("usage: python -m kit_rehearsal.install TARGET_DIR\n")
        return 2
    for path in install(Path(argv[0])):
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
