"""Bring the tables up to date with what can be read by a program: `python -m kit.data.refresh`.

The Python index tells when versions of tensorrt-llm and tensorrt were uploaded and which were
yanked; Triton's table of containers, given as a file or a URL, tells what is in them. What is not
in these is never made up: it is listed, to be looked up by hand. What they lack is never removed:
an index may be a mirror with holes.
"""

from __future__ import annotations

import argparse
import copy
import datetime as dt
import json
import re
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kit.console import note, result
from kit.data import compatibility, layout, ranges, triton
from kit.errors import content_error, usage_error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kit.data.uploads import Upload
    from kit.locks.http import Client

FOLDER = Path(__file__).parent
_TABLES = ("releases", "tensorrt", "triton")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_INDEX = "Python index, tensorrt-llm {version}"
Table = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Findings:
    """What reading the sources brought, as lines for people.

    Attributes:
        changed: what the tables say otherwise now.
        by_hand: what the tables lack or contradict, and a person has to look up.
        noted: what is no reason to do anything.
    """

    changed: list[str] = field(default_factory=list)
    by_hand: list[str] = field(default_factory=list)
    noted: list[str] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None, folder: Path = FOLDER) -> int:
    """Refresh the tables of `folder`; with `--check` only say whether they are behind.

    Raises:
        KitError: a file or commit that is none (exit 2), no network (exit 3), a document that is
            not what it should be, or tables that `--check` finds behind (exit 4).
    """
    from kit.data import uploads
    from kit.locks import pip_settings
    from kit.locks.http import Client

    options = _options(arguments)
    client = Client()
    containers = _containers(options.triton_table, client)
    before = {name: json.loads((folder / f"{name}.json").read_bytes()) for name in _TABLES}
    tables = copy.deepcopy(before)
    found = Findings()
    month = f"{dt.datetime.now(tz=dt.timezone.utc):%Y-%m}"
    note("asking the Python index for tensorrt-llm and tensorrt")
    settings = pip_settings.load()
    refresh_releases(tables["releases"], uploads.of("tensorrt-llm", client, settings), found)
    refresh_tensorrt(tables["tensorrt"], uploads.of("tensorrt", client, settings), found)
    commit = f"@{options.triton_commit}" if options.triton_commit else f", read {month}"
    source = f"{compatibility.DOCUMENT}{commit}"
    refresh_triton(tables["triton"], tables["releases"], containers, source, found)
    behind = [name for name in _TABLES if tables[name] != before[name]]
    for line in found.changed:
        result(line)
    for line in found.by_hand:
        result(f"by hand: {line}")
    for line in found.noted:
        note(line)
    if options.check:
        if behind or found.by_hand:
            raise content_error(
                f"the tables are behind: {len(found.changed)} values to refresh, "
                f"{len(found.by_hand)} to look up by hand",
                hint=shlex.join(["python", "-m", "kit.data.refresh", *_without_check(options)]),
            )
    else:
        _write(tables, behind, month, folder)
    if not behind:
        result("nothing to refresh")
    return 0


def refresh_releases(table: Table, offered: Mapping[str, Upload], found: Findings) -> None:
    """Dates and yanks of the releases in the table; those that it lacks are listed.

    A first upload can only have been earlier than the table says, and a yank is only ever added:
    a mirror may have its own dates, and drop marks.
    """
    order = [row["version"] for row in table["releases"]]
    for version in order:
        if (upload := offered.get(version)) is None:
            continue
        released = _value(table, "released", version)
        if upload.first and (released is None or upload.first < released):
            _tell(table, "released", version, upload.first, f"{_INDEX}: first upload")
            found.changed.append(f"releases.json: {version}: {released} → {upload.first}")
        elif upload.first and upload.first > released:
            found.noted.append(
                f"releases.json: {version} came out on {released}; the index has files from "
                f"{upload.first} on: a mirror's own date, or older files were taken away"
            )
        yanked = _value(table, "yanked", version)
        if upload.yanked and not yanked:
            _tell(table, "yanked", version, True, f"{_INDEX}: yanked")
            found.changed.append(f"releases.json: {version} is yanked")
        elif yanked and not upload.yanked:
            found.noted.append(
                f"releases.json: {version} is yanked; the index does not mark it: a mirror may "
                "drop marks"
            )
        python = _value(table, "requires_python", version)
        said = upload.requires_python
        if said and not _same_range(said, python):
            found.by_hand.append(
                f"releases.json: requires_python of {version} is {python!r}, {said!r} on the index"
            )
    _list_missing(table, order, offered, found)


def refresh_tensorrt(table: Table, offered: Mapping[str, Upload], found: Findings) -> None:
    """Dates of the packages in the table, and a row for each that is newer than its first."""
    from packaging.version import Version

    rows = {row["version"]: row for row in table["pypi"]}
    begin = min(map(Version, rows))
    for version, upload in sorted(offered.items(), key=lambda pair: Version(pair[0])):
        if Version(version) < begin:
            continue
        if upload.first is None:
            if version not in rows:
                found.by_hand.append(
                    f"tensorrt.json: {version} is on the index, which does not say since when"
                )
        elif version not in rows:
            rows[version] = {
                "version": version,
                "released": upload.first,
                "depends": None,
                "placeholder": None,
                "hole": "sdist not opened",
            }
            found.changed.append(f"tensorrt.json: new {version}, uploaded on {upload.first}")
        elif upload.first < (released := rows[version]["released"]):
            rows[version]["released"] = upload.first
            found.changed.append(f"tensorrt.json: {version}: {released} → {upload.first}")
    table["pypi"] = sorted(rows.values(), key=lambda row: Version(row["version"]))


def refresh_triton(
    table: Table,
    releases: Table,
    rows: Sequence[Mapping[str, str | None]],
    source: str,
    found: Findings,
) -> None:
    """New containers, in `triton.json` and with their release in `releases.json`.

    A cell that differs is listed, not taken over: upstream's table has had wrong ones, such as
    0.14.1.48 for TensorRT 10.14.1.48.
    """
    known = {row["container"]: row for row in table["containers"]}
    order = [row["version"] for row in releases["releases"]]
    for cells in rows:
        month = str(cells["container"])
        if month in known:
            found.by_hand.extend(
                f"triton.json: {name} of {month} is {known[month][name]!r}, "
                f"{cells[name]!r} in Triton's table"
                for name in compatibility.CELLS
                if known[month][name] != cells[name]
            )
            continue
        known[month] = row = _container(cells, source)
        release = cells["tensorrt_llm"]
        found.changed.append(f"triton.json: new {month} with TensorRT-LLM {release}")
        if release and release in order:
            _ship(releases, release, rows, source, found)
        elif release:
            row["note"] = f"{release} is not in the table of releases"
    table["containers"] = [known[month] for month in sorted(known)]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m kit.data.refresh",
        description="Refresh the tables of kit/data from the Python index and Triton's own table.",
        epilog="example: python -m kit.data.refresh --check --triton-table compatibility.md",
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 4 if the tables are behind"
    )
    parser.add_argument(
        "--triton-table",
        metavar="FILE|URL",
        help=f"{compatibility.DOCUMENT}; without it only the Python index is read",
    )
    parser.add_argument(
        "--triton-commit", metavar="COMMIT", help="the commit that it was taken from"
    )
    options = parser.parse_args(arguments)
    if options.triton_commit and not _COMMIT.fullmatch(options.triton_commit):
        raise usage_error(
            f"--triton-commit: expected 40 hexadecimal digits, found {options.triton_commit!r}",
            hint=f"git log -1 --format=%H -- {compatibility.DOCUMENT.partition(' ')[2]}",
        )
    if options.triton_commit and not options.triton_table:
        raise usage_error("--triton-commit says where --triton-table is from, which is not given")
    return options


def _without_check(options: argparse.Namespace) -> list[str]:
    named = {"--triton-table": options.triton_table, "--triton-commit": options.triton_commit}
    return [word for name, text in named.items() if text for word in (name, text)]


def _containers(place: str | None, client: Client) -> list[dict[str, str | None]]:
    from kit.locks.connection import shown

    if place is None:
        return []
    if urlsplit(place).scheme in ("http", "https"):
        content, _, url = client.read(place)
        where = shown(url)
    else:
        where = place
        try:
            content = Path(place).read_bytes()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise usage_error(f"--triton-table {place}: {reason}") from error
    return compatibility.rows(content.decode("utf-8", errors="replace"), where)


def _write(tables: Mapping[str, Table], names: Sequence[str], month: str, folder: Path) -> None:
    from kit.files import write_bytes

    for name in names:
        table = tables[name]
        table["read"] = max(table["read"], month)
        write_bytes(folder / f"{name}.json", layout.text(table).encode())
        note(f"written: {folder / name}.json")


def _value(table: Table, name: str, version: str) -> Any:
    order = [row["version"] for row in table["releases"]]
    return ranges.find(table["fields"][name], version, order)["value"]


def _tell(table: Table, name: str, version: str, value: Any, source: str) -> None:
    order = [row["version"] for row in table["releases"]]
    told = {"value": value, "source": source}
    table["fields"][name] = ranges.replace(table["fields"][name], version, told, order)


def _same_range(one: str, other: str | None) -> bool:
    """Whether two spellings such as `<4,>=3.10` and `>=3.10, <4` ask for the same Python."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        return other is not None and SpecifierSet(one) == SpecifierSet(other)
    except InvalidSpecifier:
        return one == other


def _list_missing(
    table: Table, order: list[str], offered: Mapping[str, Upload], found: Findings
) -> None:
    """Releases that the table lacks, and what of them no index knows."""
    from packaging.version import Version

    left_out = table.get("left_out", {})
    missing = sorted(Version(text) for text in offered.keys() - {*order, *left_out})
    stable = [version for version in missing if not version.is_prerelease]
    previews = [
        str(version)
        for version in missing
        if version.is_prerelease and not version.is_devrelease and version > Version(order[-1])
    ]
    for version in stable:
        upload = offered[str(version)]
        found.by_hand.append(
            f"releases.json: {version} is not in the table: uploaded on {upload.first}, "
            f"yanked {upload.yanked}, requires Python {upload.requires_python}; its other fields "
            "(or a reason under left_out) have to be looked up"
        )
    if stable:
        for name, rows in table["fields"].items():
            if name not in ("released", "yanked", "requires_python"):
                sources = [row["source"] for row in rows if "source" in row]
                found.noted.append(
                    f"  {name}: last read in {sources[-1] if sources else 'nothing'}"
                )
    if previews:
        found.noted.append(f"previews newer than the table: {', '.join(previews)}")


def _container(cells: Mapping[str, str | None], source: str) -> dict[str, Any]:
    row: dict[str, Any] = {name: cells[name] for name in ("container", *compatibility.CELLS)}
    if empty := [name for name in compatibility.CELLS if cells[name] is None]:
        row["holes"] = {" ".join(empty): "empty in Triton's table"}
    return {**row, "source": source}


def _ship(
    releases: Table,
    release: str,
    rows: Sequence[Mapping[str, str | None]],
    source: str,
    found: Findings,
) -> None:
    """Give a release all containers that Triton's table names for it, besides those it had."""
    order = [row["version"] for row in releases["releases"]]
    had = ranges.find(releases["fields"]["triton_container"], release, order)
    tags = [
        triton.image(str(row["container"])).rpartition(":")[2]
        for row in rows
        if row["tensorrt_llm"] == release
    ]
    value = sorted({*(had["value"] or []), *tags})
    if value != had["value"]:
        if had["value"] and not set(had["value"]) <= set(tags):
            source = f"{had['source']}; {source}"
        _tell(releases, "triton_container", release, value, source)
        new = ", ".join(tag for tag in value if tag not in (had["value"] or []))
        found.changed.append(f"releases.json: {release} is shipped in {new}")


if __name__ == "__main__":
    from kit.cli import guarded

    sys.exit(guarded(main))
