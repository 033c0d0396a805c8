"""A project with a locked model, and an engine that runs "containers" as processes in a folder.

The processes are the reference backend's real ones; only the walls of the container are missing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.digest import Digest
from kit.examples import recipe
from kit.examples.run import run
from kit.examples.taken import Choices
from kit.images.build import BuiltImage
from kit.images.engine import BuildRequest, Gpus, RunRequest
from kit.locks.lock import Input, Lock
from kit.project import Project
from kit.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kit.examples.recipe import Recipe
    from kit.images.oci import Image

ROOT = Path(__file__).resolve().parents[3]
MODEL = ROOT / "kit" / "examples" / "models" / "gpt2-tiny"
BACKEND = ROOT / "dockerfiles" / "rehearsal" / "src"
RELEASES = ("0.5.0", "0.9.0", "0.16.0")


@dataclass
class LocalEngine:
    """The engine protocol over plain processes; paths of the container are rewritten."""

    tree: Path
    requests: list[RunRequest] = field(default_factory=list)
    name: str = "local"

    def __post_init__(self) -> None:
        install = [sys.executable, "-m", "kit_rehearsal.install", str(self.tree)]
        subprocess.run(install, env=self._environment(), check=True, stdout=subprocess.DEVNULL)

    def version(self) -> str:
        return "1.0"

    def has(self, reference: str) -> bool:
        return True

    def load(self, image: Image, name: str) -> str:
        raise NotImplementedError

    def build(self, context: Path, dockerfile: Path, request: BuildRequest) -> None:
        raise NotImplementedError

    def inspect(self, reference: str) -> dict[str, Any]:
        raise NotImplementedError

    def save(self, reference: str) -> Iterator[bytes]:
        raise NotImplementedError

    def remove(self, reference: str) -> None:
        raise NotImplementedError

    def run(self, request: RunRequest, on_line: Callable[[str], None]) -> int:
        self.requests.append(request)
        places = {"/opt/tensorrt_llm": str(self.tree)}
        for mount in request.mounts:
            # Reached through a link, so that every run sees the same path, as in a container.
            link = self.tree / "mounts" / mount.target.strip("/").replace("/", "-")
            link.parent.mkdir(exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(mount.source)
            places[mount.target] = str(link)

        def here(text: str) -> str:
            # The deepest mount first: one may stand inside another.
            for place, real in sorted(places.items(), reverse=True):
                if text == place or text.startswith(f"{place}/"):
                    return real + text[len(place) :]
            return text

        process = subprocess.Popen(
            [here(word) for word in request.argv],
            cwd=here(request.workdir),
            env={**self._environment(), **request.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                on_line(line.rstrip("\n"))
        return process.wait()

    def _environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {"PATH": path, "PYTHONPATH": str(BACKEND), "PYTHONDONTWRITEBYTECODE": "1"}


def make_project(folder: Path) -> Project:
    """A project with the stack `rehearsal`, whose lock has the model; the model is in the store."""
    project = Project(folder / "project", folder / "home")
    (project.root / "lockfiles").mkdir(parents=True)
    (project.root / "dockerfiles").mkdir()
    (project.root / "lockfiles" / "rehearsal.yaml").write_text("stack: rehearsal\n")
    store = Store(project.store)
    inputs = tuple(
        sorted(
            Input(
                kind="model",
                group=MODEL.name,
                name=MODEL.name,
                version="",
                file=path.name,
                location=f"directory:{MODEL.name}",
                sha256=store.add_file(path),
                size=path.stat().st_size,
            )
            for path in MODEL.iterdir()
        )
    )
    lock = Lock("rehearsal", Digest.of_bytes(b"intent"), inputs)
    lock.write(project.lock_path("rehearsal"))
    return project


def make_image(project: Project, **labels: str) -> BuiltImage:
    """An image of the stack as the build would describe it."""
    from kit.locks import lock

    digest = lock.load(project.lock_path("rehearsal")).digest
    return BuiltImage(
        stack="rehearsal",
        lock=digest,
        manifest_digest=Digest.of_bytes(b"manifest"),
        image_id=Digest.of_bytes(b"configuration"),
        labels={
            "org.trtllm-kit.root": "/opt/tensorrt_llm/{release}",
            "org.trtllm-kit.releases": " ".join(RELEASES),
            "org.trtllm-kit.backend": "rehearsal",
            "org.trtllm-kit.lock": str(digest),
            **labels,
        },
    )


@dataclass
class Site:
    """A project, an engine and an image that go together."""

    project: Project
    engine: LocalEngine
    image: BuiltImage

    @classmethod
    def make(cls, folder: Path) -> Site:
        project = make_project(folder)
        return cls(project, LocalEngine(folder / "tree"), make_image(project))

    def run(
        self,
        example: str | Recipe = "gpt2-tiny",
        release: str = "0.16.0",
        output: Path | None = None,
        gpus: str = "none",
        **choices: Any,
    ) -> Path:
        chosen = recipe.find(example) if isinstance(example, str) else example
        asked, how = Gpus.parse(gpus), Choices(**choices)
        return run(self.project, self.engine, self.image, chosen, release, output, asked, how)
