"""A Hugging Face hub on loopback, as far as the real client's API needs it."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

from tests.stand_in.file_server import FileServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub(FileServer):
    """One repository `owner/model`; large files are kept as LFS, on another path after a redirect."""

    repo: str = "owner/model"
    token: str | None = None
    """Ask for this token; without it the repository does not exist, as on the real hub."""
    small: dict[str, bytes] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    storage: FileServer | None = None
    """Another server that large files are redirected to."""

    def __post_init__(self) -> None:
        repo = re.escape(self.repo)
        self.routes += [
            (re.compile(r"/api/models/(.+?)(?:/revision/(.+))?"), self._info),
            (re.compile(rf"/{repo}/resolve/([^/]+)/(.+)"), self._resolve),
        ]

    def _refused(self, answer: Any) -> bool:
        if self.token and answer.headers.get("Authorization") != f"Bearer {self.token}":
            answer.plain(401, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "no"})
            return True
        return False

    def _info(self, answer: Any, match: re.Match[str]) -> None:
        if self._refused(answer):
            return
        if match[1] != self.repo:
            answer.plain(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            return
        if match[2] not in (None, "main", COMMIT):
            answer.plain(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return
        siblings: list[dict[str, Any]] = [
            {"rfilename": name, "size": len(content), "blobId": hashlib.sha1(content).hexdigest()}
            for name, content in self.small.items()
        ]
        siblings += [
            {
                "rfilename": name,
                "size": len(content),
                "blobId": "0" * 40,
                "lfs": {
                    "sha256": hashlib.sha256(content).hexdigest(),
                    "size": len(content),
                    "pointerSize": 130,
                },
            }
            for name, content in self.large.items()
        ]
        body = {"id": self.repo, "modelId": self.repo, "sha": COMMIT, "siblings": siblings}
        answer.plain(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _resolve(self, answer: Any, match: re.Match[str]) -> None:
        if self._refused(answer):
            return
        commit, name = match[1], match[2]
        if commit == COMMIT and name in self.small:
            answer.plain(200, self.small[name])
        elif commit == COMMIT and name in self.large:
            assert self.storage is not None
            target = self.storage.put(f"/lfs/{name}", self.large[name])
            answer.plain(302, b"", {"Location": f"{target}?signature=query-secret"})
        else:
            answer.plain(404, b"", {"X-Error-Code": "EntryNotFound"})
