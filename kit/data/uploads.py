"""When versions came onto the Python index, and which were yanked: from pip's first index."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import TYPE_CHECKING

from kit.errors import content_error, environment_error
from kit.locks.connection import NotFound, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kit.locks.http import Client
    from kit.locks.pip_settings import PipSettings

_ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.2, */*;q=0.01"
_TIME = re.compile(r"(20[0-9]{2}-[01][0-9]-[0-3][0-9])T")


@dataclass(frozen=True, slots=True)
class Upload:
    """What an index says of one version.

    Attributes:
        first: date of its first file, `2024-12-24`; None where the index tells no times.
        yanked: whether all of its files are.
        requires_python: as the index spells it; None where it says nothing or its files differ.
    """

    first: str | None
    yanked: bool
    requires_python: str | None


@dataclass(frozen=True, slots=True)
class File:
    """One file on a page of an index."""

    name: str
    time: str | None
    yanked: bool
    requires_python: str | None


def of(project: str, client: Client, settings: PipSettings) -> dict[str, Upload]:
    """Every version of a project by its number, from the first index that has it.

    Indexes are not mixed: another one may have rebuilt the same version, or have it since later.

    Raises:
        KitError: no index can be asked, or none has the project (exit 3); no page of an index
            (exit 4).
    """
    if settings.certificates:
        client.trust(settings.certificates)
    for index in settings.indexes:
        try:
            content, media, url = client.read(f"{index}/{project}/", {"Accept": _ACCEPT})
        except NotFound:
            continue
        try:
            return by_version(_json_files(content) if media.endswith("json") else _html(content))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise content_error(
                f"{shown(url)}: not the page of a package index: {type(error).__name__}"
            ) from error
    places = ", ".join(map(shown, settings.indexes)) or "nowhere: pip is configured to use none"
    raise environment_error(
        f"no package index has {project}; looked at {places}", hint="python -m pip config list"
    )


def by_version(files: Iterable[File]) -> dict[str, Upload]:
    """Files put together by version; one whose name is no distribution's is passed over."""
    from packaging.utils import (
        InvalidSdistFilename,
        InvalidWheelFilename,
        parse_sdist_filename,
        parse_wheel_filename,
    )

    found: dict[str, list[File]] = {}
    for file in files:
        try:
            if file.name.endswith(".whl"):
                version = parse_wheel_filename(file.name)[1]
            else:
                version = parse_sdist_filename(file.name)[1]
        except (InvalidWheelFilename, InvalidSdistFilename):
            continue
        found.setdefault(str(version), []).append(file)
    return {version: _together(files) for version, files in found.items()}


def _together(files: list[File]) -> Upload:
    times = [match[1] for file in files if file.time and (match := _TIME.match(file.time))]
    pythons = {file.requires_python for file in files}
    return Upload(
        first=min(times, default=None),
        yanked=all(file.yanked for file in files),
        requires_python=pythons.pop() if len(pythons) == 1 else None,
    )


def _json_files(content: bytes) -> Iterator[File]:
    for entry in json.loads(content)["files"]:
        yield File(
            entry["filename"],
            entry.get("upload-time"),
            bool(entry.get("yanked", False)),
            entry.get("requires-python"),
        )


def _html(content: bytes) -> list[File]:
    page = _Page()
    page.feed(content.decode("utf-8", errors="replace"))
    return page.files


class _Page(HTMLParser):
    """Collects links; `data-upload-time` is no standard's, but mirrors carry PyPI's times there."""

    def __init__(self) -> None:
        super().__init__()
        self.files: list[File] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep what is a link."""
        said = dict(attrs)
        if tag == "a" and (address := said.get("href")):
            name = address.partition("#")[0].partition("?")[0].rpartition("/")[2]
            self.files.append(
                File(
                    name,
                    said.get("data-upload-time"),
                    "data-yanked" in said,
                    said.get("data-requires-python"),
                )
            )
