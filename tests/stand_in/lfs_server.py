"""The batch API of Git LFS, answered by a `GitServer`; objects lie on a server of their own."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.stand_in.file_server import Fault, FileServer

MEDIA_TYPE = "application/vnd.git-lfs+json"


def pointer(content: bytes) -> bytes:
    """What stands in git for an object."""
    oid = hashlib.sha256(content).hexdigest()
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (
        oid.encode(),
        len(content),
    )


@dataclass
class LfsServer:
    """What `add` was given; `storage` serves it under links that are good for a while."""

    storage: FileServer
    header: dict[str, str] = field(default_factory=dict)
    """What every download has to send."""
    largest_batch: int = 1000
    lifetime: int | None = None
    """Seconds, by `expires_in`."""
    expires_at: str | None = None
    faults: list[Fault] = field(default_factory=list)
    errors: dict[str, tuple[int, str]] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)
    """What every object's row says instead."""
    batches: list[dict[str, Any]] = field(default_factory=list)
    _sizes: dict[str, int] = field(default_factory=dict)

    def add(self, content: bytes) -> bytes:
        """Serve an object; returns its pointer."""
        oid = hashlib.sha256(content).hexdigest()
        self.storage.put(f"/{oid}", content)
        self._sizes[oid] = len(content)
        return pointer(content)

    def forget(self, content: bytes) -> None:
        """No longer know an object."""
        del self._sizes[hashlib.sha256(content).hexdigest()]

    def answer(self, answer: Any, path: str, body: bytes) -> None:
        if not path.endswith(".git/info/lfs/objects/batch") or answer.command != "POST":
            answer.plain(404, b"")
            return
        if not answer.headers.get("Accept", "").startswith(MEDIA_TYPE):
            answer.plain(406, b"")
            return
        question = json.loads(body)
        self.batches.append(question)
        if self.faults:
            fault = self.faults.pop(0)
            rest = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
            answer.plain(fault.status or 500, b"{}", rest)
            return
        if len(question["objects"]) > self.largest_batch:
            answer.plain(413, b"{}")
            return
        rows = [self._row(row["oid"], row["size"]) for row in question["objects"]]
        text = json.dumps({"transfer": "basic", "objects": rows, "hash_algo": "sha256"})
        answer.plain(200, text.encode(), {"Content-Type": MEDIA_TYPE})

    def _row(self, oid: str, size: int) -> dict[str, Any]:
        if oid not in self._sizes:
            return {"oid": oid, "size": size, "error": {"code": 404, "message": "not\x1b[31mhere"}}
        if oid in self.errors:
            code, message = self.errors[oid]
            return {"oid": oid, "size": size, "error": {"code": code, "message": message}}
        link: dict[str, Any] = {
            "href": f"{self.storage.url}/{oid}?signature=query-secret-{time.monotonic_ns()}",
            "header": self.header,
        }
        if self.lifetime is not None:
            link["expires_in"] = self.lifetime
        if self.expires_at is not None:
            link["expires_at"] = self.expires_at
        return {"oid": oid, "size": self._sizes[oid], "actions": {"download": link}, **self.changes}
