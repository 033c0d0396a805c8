"""A Python package index on loopback: simple pages as JSON (PEP 691) or HTML (PEP 503), and files."""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.stand_in.file_server import FileServer

if TYPE_CHECKING:
    from collections.abc import Mapping


def wheel(
    name: str, version: str, content: bytes = b"", tag: str = "py3-none-any"
) -> tuple[str, bytes]:
    """A small real wheel: its file name and its bytes."""
    folder = f"{name}-{version}.dist-info"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for member, text in {
            f"{name}/__init__.py": content,
            f"{folder}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
            f"{folder}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
            f"{folder}/RECORD": "",
        }.items():
            archive.writestr(zipfile.ZipInfo(member, (2020, 1, 1, 0, 0, 0)), text)
    return f"{name}-{version}-{tag}.whl", buffer.getvalue()


@dataclass
class PackageIndex(FileServer):
    """`add` distributions, then point pip's configuration at `simple`."""

    speaks_json: bool = True
    says_digest: bool = True
    projects: dict[str, dict[str, bytes]] = field(default_factory=dict)
    stated: dict[str, str] = field(default_factory=dict)
    """file name → a sha256 that the pages state instead of the true one."""

    def __post_init__(self) -> None:
        self.routes.append((re.compile(r"/simple/([a-z0-9-]+)/"), self._page))

    @property
    def simple(self) -> str:
        return f"{self.url}/simple"

    def add(self, project: str, name: str, content: bytes) -> None:
        """Offer a file of a project."""
        self.projects.setdefault(project, {})[name] = content
        self.put(f"/files/{name}", content)

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
        if self.speaks_json and "v1+json" in answer.headers.get("Accept", ""):
            media, body = "application/vnd.pypi.simple.v1+json", self._json(match[1], digests)
        else:
            media, body = "text/html; charset=utf-8", self._html(digests)
        answer.plain(200, body, {"Content-Type": media})

    def _json(self, project: str, digests: Mapping[str, str]) -> bytes:
        entries = [
            {
                "filename": name,
                "url": f"../../files/{name}",
                "hashes": {"sha256": digest} if self.says_digest else {},
                "size": len(self.projects[project][name]),
            }
            for name, digest in digests.items()
        ]
        return json.dumps(
            {"meta": {"api-version": "1.1"}, "name": project, "files": entries}
        ).encode()

    def _html(self, digests: Mapping[str, str]) -> bytes:
        links = [
            f'<a href="../../files/{name}{f"#sha256={digest}" if self.says_digest else ""}">{name}</a>'
            for name, digest in digests.items()
        ]
        return ("<!DOCTYPE html><html><body>\n" + "<br>\n".join(links) + "</body></html>").encode()
