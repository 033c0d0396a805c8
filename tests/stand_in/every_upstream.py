"""One upstream of every kind on loopback, and a lock of files from all of them."""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kit.digest import Digest
from kit.locks.http import Client
from kit.locks.intent import load
from kit.locks.lock import Input, Lock
from kit.locks.resolve import resolve
from kit.project import Project
from tests.stand_in.file_server import FileServer
from tests.stand_in.git_server import GitServer
from tests.stand_in.hub import COMMIT, Hub
from tests.stand_in.lfs_server import LfsServer
from tests.stand_in.package_index import PackageIndex
from tests.stand_in.registry import FailingRegistry, Pushed, image

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

KINDS = ("file", "wheel", "deb", "model", "oci", "lfs", "git")
SECRET = "token-secret"
ATTRIBUTES = b"*.a filter=lfs diff=lfs merge=lfs -text\n"
INTENT = """\
schema: kit.intent/1
stack: small
family: rehearsal
platform: linux/amd64
epoch: 1700000000
sources:
- {{name: tree, url: '{url}', commit: {commit}, lfs: ['**']}}
"""


@dataclass
class EveryUpstream:
    """Serves one file of `size` bytes of every kind; `with EveryUpstream(folder) as upstream`.

    `environment` points the kit at the servers, `shelf` says which server has the bytes of a kind,
    and where.
    """

    folder: Path
    size: int = 200_000
    lock: Lock = field(init=False)
    project: Project = field(init=False)
    pushed: Pushed = field(init=False)

    def __enter__(self) -> Self:
        self._stack = contextlib.ExitStack()
        enter = self._stack.enter_context
        self.files = enter(FileServer())
        self.debian = enter(FileServer())
        self.storage = enter(FileServer())
        self.index = enter(PackageIndex())
        self.registry = enter(FailingRegistry())
        self.weights = enter(FileServer())
        self.hub = enter(Hub(token=SECRET, storage=self.weights))
        self.git = enter(GitServer(self.folder / "repositories", lfs=LfsServer(self.storage, {})))
        root = self.folder / "project"
        (root / "lockfiles").mkdir(parents=True)
        (root / "dockerfiles").mkdir()
        self.project = Project(root, self.folder / "home-of-the-lock")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "KIT_DEBIAN_MIRROR": f"{self.debian.url}/debian",
            "PIP_INDEX_URL": self.index.simple,
            "PIP_EXTRA_INDEX_URL": "",
            "PIP_FIND_LINKS": "",
            "PIP_NO_INDEX": "",
            "PIP_CERT": "",
            "PIP_CONFIG_FILE": "/dev/null",
            "HF_ENDPOINT": self.hub.url,
            "HF_TOKEN": SECRET,
            "HF_HUB_OFFLINE": "",
            "TRANSFORMERS_OFFLINE": "",
        }

    def fill(self) -> Lock:
        """Serve everything and lock it; the environment has to be in place."""
        content = {kind: random.Random(kind).randbytes(self.size) for kind in KINDS}
        inner = self.git.repository("sub.git").commit({"sub.h": b"deep\n" * 5})
        top = self.git.repository("top.git").commit(
            {
                ".gitattributes": ATTRIBUTES,
                ".gitmodules": b'[submodule "s"]\n\tpath = sub\n\turl = ../sub.git\n',
                "large.bin": content["git"],
                "lib.a": self.git.lfs.add(content["lfs"]),
            },
            submodules={"sub": inner},
        )
        path = self.project.root / "lockfiles" / "small.yaml"
        path.write_text(INTENT.format(url=f"{self.git.url}/top.git", commit=top))
        sources = resolve(self.project, "small", client=Client(back_off=0.01)).inputs
        wheel = "alpha-1.0-py3-none-any.whl"
        self.index.add("alpha", wheel, content["wheel"])
        self.hub.large = {"model.safetensors": content["model"]}
        self.weights.put("/lfs/model.safetensors", content["model"])
        self.pushed = self.registry.publish(image(self.size), "1.0")
        place = "pool/main/t/tool/tool_1_amd64.deb"
        self.debian.put(f"/debian/{place}", content["deb"])
        blob = self.files.put("/blob.bin", content["file"])
        rows = [
            ("file", "blob.bin", "", "blob.bin", blob),
            ("wheel", "alpha", "1.0", wheel, f"{self.index.url}/files/{wheel}"),
            ("deb", "tool", "1", "tool_1_amd64.deb", place),
            ("model", "tiny", COMMIT, "model.safetensors", f"hf:owner/model@{COMMIT}"),
        ]
        inputs = [
            Input(kind, "data", name, version, file, location, _digest(content[kind]), self.size)
            for kind, name, version, file, location in rows
        ]
        blobs = {self.pushed.digest: self.pushed.content, **self.pushed.blobs}
        name = self.registry.name
        inputs += [
            Input(
                "oci",
                "base",
                name,
                str(self.pushed.digest),
                f"blobs/sha256/{digest.hex}",
                f"oci:{name}",
                digest,
                len(found),
            )
            for digest, found in blobs.items()
        ]
        self.lock = Lock("small", load(path).digest, tuple(sorted([*inputs, *sources])))
        self.lock.write(self.project.lock_path("small"))
        return self.lock

    def only(self, kind: str) -> Lock:
        """A lock of nothing but the inputs of one kind."""
        return Lock("small", self.lock.intent, tuple(self.lock.select(kind=kind)))

    def item(self, kind: str) -> Input:
        """The input of a kind that has most bytes."""
        return max(self.lock.select(kind=kind), key=lambda item: item.size)

    def shelf(self, kind: str) -> tuple[Any, str]:
        """The server that has the bytes of `item(kind)`, and their path there."""
        digest = self.item(kind).sha256
        return {
            "file": (self.files, "/blob.bin"),
            "wheel": (self.index, "/files/alpha-1.0-py3-none-any.whl"),
            "deb": (self.debian, "/debian/pool/main/t/tool/tool_1_amd64.deb"),
            "model": (self.weights, "/lfs/model.safetensors"),
            "oci": (self.registry, self.registry.path(digest)),
            "lfs": (self.storage, f"/{digest.hex}"),
            "git": (self.git, "/top.git/git-upload-pack"),
        }[kind]

    def well(self) -> None:
        """Take all faults away, and forget who asked."""
        for kind in KINDS:
            server, _ = self.shelf(kind)
            server.faults.clear()
            server.forever.clear()
            getattr(server, "requests", server.seen).clear()


def _digest(content: bytes) -> Digest:
    return Digest.of_bytes(content)
