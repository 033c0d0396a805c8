"""How GPUs reach one another: the matrices of `nvidia-smi topo`, and the NVSwitch fabric."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from kit.host.facts import Fabric, Gpu, Pair
from kit.host.system import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PEERS = ("topo", "-p2p", "r")
"""May one GPU read the other's memory: OK, or why not (CNS, GNS, TNS, NS, DR, U)."""
LINKS = ("topo", "-m")
"""Over what: NV# (so many NVLinks), PIX, PXB, PHB, NODE, SYS."""
_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
_COMM = "nv-fabricmanager"[:15]
"""The kernel keeps fifteen letters of a program's name."""
READY = "completed"


def matrix(text: str) -> dict[tuple[int, int], str]:
    """The cells of a topology matrix by GPU indices, first < second.

    Columns of network cards and of CPUs, the underlined header of `topo -m`, legends and errors
    are passed over. Where the two directions differ, the one that is not `OK` is given.
    """
    columns: list[str] = []
    cells: dict[tuple[int, int], str] = {}
    for line in _ESCAPE.sub("", text).splitlines():
        words = line.split()
        if not words:
            # A blank line stands before the legend.
            columns = columns if not cells else []
        elif not columns and words[0] == "GPU0" and (len(words) == 1 or _is_device(words[1])):
            columns = words
        elif columns and (row := _index(words[0])) is not None:
            for column, cell in zip(columns, words[1:], strict=False):
                other = _index(column)
                if other is None or other == row:
                    continue
                pair = (min(row, other), max(row, other))
                if cells.get(pair, "OK") == "OK":
                    cells[pair] = cell
    return cells


def pairs(peers: str, links: str) -> tuple[Pair, ...]:
    """Every pair of GPUs that either matrix has."""
    reads, over = matrix(peers), matrix(links)
    return tuple(Pair(*pair, reads.get(pair), over.get(pair)) for pair in sorted({*reads, *over}))


def fabric(gpus: list[Gpu], version: str | None, root: Path = ROOT) -> Fabric | None:
    """NVSwitch and its manager; None where there is neither a switch nor a GPU on a fabric.

    Hopper and later tell the state of their fabric. On machines before, and inside guests that
    were given GPUs but no switches, only the switches' devices tell that there is one. A fabric
    that is ready was made so by a manager, though it may run outside this machine.
    """
    switches = len(list((root / "dev").glob("nvidia-nvswitch[0-9]*")))
    states = [gpu.fabric for gpu in gpus if gpu.fabric is not None]
    if not switches and not states:
        return None
    here = _runs(root)
    ready = bool(states) and all(state == READY for state in states)
    # Without switches of its own a guest cannot see the manager, which then runs on the host.
    running = True if here or ready else False if switches else None
    return Fabric(switches=switches, is_needed=True, running=running, version=version)


def manager_version(text: str) -> str | None:
    """What `nv-fabricmanager --version` says: `Fabric Manager version is : 535.161.08`."""
    found = re.search(r"Fabric Manager version is\s*:\s*(\d+(?:\.\d+)+)", text)
    return found.group(1) if found else None


def _runs(root: Path) -> bool:
    for comm in (root / "proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):  # it may have ended
            if comm.read_text(errors="replace").strip() == _COMM:
                return True
    return False


def _index(word: str) -> int | None:
    found = re.fullmatch(r"GPU(\d{1,3})", word)
    return int(found.group(1)) if found else None


def _is_device(word: str) -> bool:
    """Whether a word heads a column: a row of one GPU (`GPU0 X`) looks like a header else."""
    return word not in ("X", "OK")
