"""Which engine has a built image, and by which name: for `make release_run` and `devel_run`."""

from __future__ import annotations

import json
import sys

from kit.cli import guarded
from kit.console import result
from kit.errors import usage_error


def main() -> int:
    """Print `docker localhost/trtllm-kit/…` for the report on standard input.

    Raises:
        KitError: no report, as the build failed and has said why (exit 2).
    """
    try:
        report = json.load(sys.stdin)
        words = report["engine"]["name"], report["reference"]
    except (ValueError, KeyError, TypeError) as error:
        raise usage_error(
            f"standard input: expected what kit build --json prints: {error}",
            hint="kit build STACK",
        ) from error
    result(" ".join(words))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
