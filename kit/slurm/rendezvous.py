"""Starts Open MPI's daemons on other nodes without ssh; in containers, standard library only.

    python3 rendezvous.py agent NODE WORD…   what mpirun calls in the place of `ssh NODE WORD…`
    python3 rendezvous.py follow NODE        what the container of every other node does

Both meet in a folder that all nodes see: the agent leaves the command there, the node's container
does it, and leaves its exit code, which becomes the agent's. A file `over` sends home whom nobody
has called.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

FOLDER = "/kit/nodes"
PATIENCE = 180.0
"""Seconds that a node has for taking its command; storage over a network may show it late."""
_PAUSE = 0.05


def main(arguments: list[str]) -> int:
    """Play one of the two parts; returns the exit code."""
    part, node = arguments[0], arguments[1].partition(".")[0]
    return _agent(node, arguments[2:]) if part == "agent" else _follow(node)


def _agent(node: str, words: list[str]) -> int:
    _leave(f"{node}.command", words)
    limit = time.monotonic() + PATIENCE
    while _read(f"{node}.taken") is None:
        if time.monotonic() > limit:
            print(f"node {node} has not answered for {PATIENCE:.0f} s", file=sys.stderr, flush=True)
            return 1
        time.sleep(_PAUSE)
    while (code := _read(f"{node}.ended")) is None:
        time.sleep(_PAUSE)
    return int(code)


def _follow(node: str) -> int:
    while (words := _read(f"{node}.command")) is None:
        if _read("over") is not None:
            return 0
        time.sleep(_PAUSE)
    _leave(f"{node}.taken", 0)
    # What ssh does with its words: one line for the user's shell on the other side.
    code = subprocess.call(["/bin/sh", "-c", " ".join(words)])
    _leave(f"{node}.ended", code)
    return code


def _leave(name: str, content: object) -> None:
    path = f"{FOLDER}/{name}"
    with open(f"{path}.new", "w", encoding="ascii") as stream:  # noqa: PTH123 - start-up time
        json.dump(content, stream)
    os.replace(f"{path}.new", path)  # noqa: PTH105


def _read(name: str) -> Any:
    # Listed first: a network's file system remembers for long that a file was not there.
    if name not in os.listdir(FOLDER):  # noqa: PTH208
        return None
    with open(f"{FOLDER}/{name}", encoding="ascii") as stream:  # noqa: PTH123
        return json.load(stream)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
