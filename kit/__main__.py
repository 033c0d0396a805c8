"""The entry point: as little as possible before the first answer."""

from __future__ import annotations

import sys


def main() -> int:
    """Run `kit` with the arguments of this process; returns the exit code."""
    if sys.argv[1:] == ["--version"]:
        from kit import __version__

        print(f"kit {__version__}")
        return 0
    import gc

    # Reading a table makes a hundred thousand objects that all stay: looking for rubbish among
    # them again and again would be a tenth of a short command's time.
    gc.set_threshold(100_000)
    from kit.cli import run

    code = run(sys.argv[1:])
    gc.freeze()  # nor is it worth a look at the end
    return code


if __name__ == "__main__":
    sys.exit(main())
