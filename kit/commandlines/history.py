"""Since when a release refuses something, and what it became: the tables, read over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from kit import data

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

READ = frozenset({"extracted", "docs", "read"})
"""How options were read where the parser of that very release is known."""
_STEPS = ("trtllm-build", "examples/run.py", "examples/quantization/quantize.py")
_FAMILY_BUILD = "build.py"


class Past(NamedTuple):
    """`since`: the first release of the present state; `until`: the first one that ended it later.

    Each is None where no release of the table differs before, or after.
    """

    since: str | None = None
    until: str | None = None


def past(script: str, release: str, holds: Callable[[str], bool]) -> Past:
    """How long something has held for a script, told release by release of those that have it."""
    known = [name for name in data.release_order() if data.source(script, name) is not None]
    if release not in known:
        return Past()
    place = known.index(release)
    since = until = None
    for before in range(place - 1, -1, -1):
        if not holds(known[before]):
            since = known[before + 1]
            break
    for after in range(place + 1, len(known)):
        if not holds(known[after]):
            until = known[after]
            break
    return Past(since, until)


def had(script: str, flag: str, release: str) -> bool:
    """Whether some earlier release of a script had an option, read at that very release."""
    for earlier in data.release_order()[: data.release_order().index(release)]:
        found = data.source(script, earlier)
        is_read = found is not None and found["status"] in READ
        if is_read and data.option(script, flag, earlier) is not None:
            return True
    return False


def renamed(script: str, flag: str, release: str) -> Mapping[str, Any] | None:
    """The row that tells what an option became, the latest that applies; None without one."""
    order = data.release_order()
    rows = [
        row
        for row in data.renames()["options"]
        if row["script"] == _older_place(script)
        and row["old"] == flag
        and order.index(row["since"]) <= order.index(release)
        and (row["new"] is None or data.option(script, row["new"].split()[0], release) is not None)
    ]
    return max(rows, key=lambda row: order.index(row["since"]), default=None)


def elsewhere(script: str, flag: str, release: str) -> list[str]:
    """Other scripts of the release that have an option: two, the steps of the pipelines first."""
    folder = script.rpartition("/")[0]
    found = [
        name
        for name in data.scripts(release)
        if name != script
        and data.option(name, flag, release) is not None
        and (name.rpartition("/")[0] in {folder, "", "examples"} or not folder)
    ]
    return sorted(found, key=lambda name: name not in _STEPS)[:2]


def nearest(script: str, flag: str, release: str) -> str | None:
    """The option of the release that is spelled most like one that it does not have."""
    import difflib

    flags = [name for row in data.options(script, release) for name in row["flags"]]
    close = difflib.get_close_matches(flag, flags, n=1, cutoff=0.75)
    return close[0] if close else None


class Successor(NamedTuple):
    """What took the place of a file that a release does not have."""

    since: str | None
    until: str | None
    names: tuple[str, ...]
    note: str | None
    source: str | None


def successor(path: str, release: str) -> Successor:
    """What became of a script: since when it is gone, or when it comes; what replaced it."""
    order = data.release_order()
    place = order.index(release)
    having = [order.index(name) for name in order if _exists(path, name)]
    earlier = [at for at in having if at < place]
    later = [at for at in having if at > place]
    since = order[max(earlier) + 1] if earlier else None
    until = order[min(later)] if later and not earlier else None
    rows = [
        row
        for row in data.renames()["scripts"]
        if row["old"] == path and order.index(row["since"]) <= place
    ]
    if rows:
        row = rows[-1]
        return Successor(since, until, tuple(row["new"]), row.get("note"), row["source"])
    for row in data.renames()["folders"]:
        if path.startswith(row["old"] + "/") and order.index(row["since"]) <= place:
            moved = row["new"] + path.removeprefix(row["old"])
            return Successor(since or row["since"], until, (moved,), None, row["source"])
    return Successor(since, until, _family(path, release) if earlier else (), None, None)


def _family(path: str, release: str) -> tuple[str, ...]:
    """What stands in the same folder, or above it, of the release for a step that is gone."""
    folder, _, name = path.rpartition("/")
    files = data.files(release) or []
    converter = f"{folder}/convert_checkpoint.py"
    if name == _FAMILY_BUILD and converter in files and "trtllm-build" in data.commands(release):
        return (converter, "trtllm-build")
    if "convert" in name and converter in files:
        return (converter,)
    above = f"{folder.rpartition('/')[0]}/{name}"
    if above in files:
        return (above,)
    general = f"examples/quantization/{name}"
    return (general,) if general in files else ()


def _exists(path: str, release: str) -> bool:
    files = data.files(release)
    if files is not None and path.endswith(".py"):
        return path in files
    return path in data.commands(release) or path in data.scripts(release)


def _older_place(script: str) -> str:
    """The name under which `renames.json` keeps a script whose folder has moved."""
    for row in data.renames()["folders"]:
        if script.startswith(row["new"] + "/"):
            return str(row["old"] + script.removeprefix(row["new"]))
    return script
