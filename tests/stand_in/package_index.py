"""A Python package index on loopback: simple pages as JSON (PEP 691) or HTML (PEP 503), and files."""

from __future__ import annotations

import hashlib
import html
import json
import re
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.stand_in.distributions import metadata_of, project_of, sdist, wheel
from tests.stand_in.file_server import FileServer

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PackageIndex", "sdist", "wheel"]


@dataclass
class PackageIndex(FileServer):
    """`offer` distributions, then point pip's configuration at `simple`.

    `index.offer(wheel("alpha", "1.0", requires=["beta>=2"]), sdist("beta", "2.0"))`
    """

    speaks_json: bool = True
    says_digest: bool = True
    says_metadata: bool = False
    """Whether wheels' METADATA can be had beside them (PEP 658)."""
    projects: dict[str, dict[str, bytes]] = field(default_factory=dict)
    stated: dict[str, str] = field(default_factory=dict)
    """file name → a sha256 that the pages state instead of the true one."""
    yanked: dict[str, str] = field(default_factory=dict)
    """file name → why its maker took it back (PEP 592)."""
    wanted_python: dict[str, str] = field(default_factory=dict)
    """file name → the Python that the pages say it wants."""

    def __post_init__(self) -> None:
        # NVIDIA's own index has its pages at the top of its host.
        self.routes.append((re.compile(r"/(?:simple/)?([a-z0-9-]+)/"), self._page))

    @property
    def simple(self) -> str:
        return f"{self.url}/simple"

    def add(self, project: str, name: str, content: bytes) -> None:
        """Offer a file of a project."""
        self.projects.setdefault(project, {})[name] = content
        self.put(f"/files/{name}", content)

    def offer(self, *distributions: tuple[str, bytes]) -> None:
        """Offer what `wheel` and `sdist` make; the project is read off the file's name."""
        for name, content in distributions:
            self.add(project_of(name), name, content)

    def populate(self, wheels: Mapping[str, Mapping[str, Any]]) -> None:
        """Offer a wheel for each `name==version`, with these options of `wheel`."""
        for pin, options in wheels.items():
            self.offer(wheel(*pin.split("=="), **options))

    def remove(self, project: str, name: str) -> None:
        """The file vanishes, page and all."""
        del self.projects[project][name]
        del self.files[f"/files/{name}"]

    def _page(self, answer: Any, match: re.Match[str]) -> None:
        files = self.projects.get(match[1])
        if files is None:
            answer.plain(404, b"")
            return
        digests = {
            name: self.stated.get(name) or hashlib.sha256(content).hexdigest()
            for name, content in files.items()
        }
        metadata = self._metadata(files) if self.says_metadata else {}
        if self.speaks_json and "v1+json" in answer.headers.get("Accept", ""):
            media = "application/vnd.pypi.simple.v1+json"
            body = self._json(match[1], digests, metadata)
        else:
            media, body = "text/html; charset=utf-8", self._html(digests, metadata)
        answer.plain(200, body, {"Content-Type": media})

    def _metadata(self, files: Mapping[str, bytes]) -> dict[str, str]:
        found = {}
        for name, content in files.items():
            if name.endswith(".whl"):
                try:
                    text = metadata_of(content)
                except (zipfile.BadZipFile, ValueError):
                    continue
                self.put(f"/files/{name}.metadata", text)
                found[name] = hashlib.sha256(text).hexdigest()
        return found

    def _json(self, project: str, digests: Mapping[str, str], metadata: Mapping[str, str]) -> bytes:
        entries = []
        for name, digest in digests.items():
            entry: dict[str, Any] = {
                "filename": name,
                "url": f"../../files/{name}",
                "hashes": {"sha256": digest} if self.says_digest else {},
                "size": len(self.projects[project][name]),
            }
            if name in metadata:
                entry["core-metadata"] = {"sha256": metadata[name]}
            if name in self.yanked:
                entry["yanked"] = self.yanked[name]
            if name in self.wanted_python:
                entry["requires-python"] = self.wanted_python[name]
            entries.append(entry)
        return json.dumps(
            {"meta": {"api-version": "1.1"}, "name": project, "files": entries}
        ).encode()

    def _html(self, digests: Mapping[str, str], metadata: Mapping[str, str]) -> bytes:
        links = []
        for name, digest in digests.items():
            fragment = f"#sha256={digest}" if self.says_digest else ""
            more = ""
            if name in metadata:
                more += f' data-dist-info-metadata="sha256={metadata[name]}"'
                more += f' data-core-metadata="sha256={metadata[name]}"'
            if name in self.yanked:
                more += f' data-yanked="{html.escape(self.yanked[name])}"'
            if name in self.wanted_python:
                more += f' data-requires-python="{html.escape(self.wanted_python[name])}"'
            links.append(f'<a href="../../files/{name}{fragment}"{more}>{name}</a>')
        return ("<!DOCTYPE html><html><body>\n" + "<br>\n".join(links) + "</body></html>").encode()
