"""Container engines behind one protocol: what the kit asks of Podman and of Docker."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from kit.errors import KitError, content_error, usage_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from kit.images.oci import Image

_WIDEST = 1000
"""Characters of a line of output that a message repeats; the log has all of them."""
_UUID = re.compile(r"(GPU|MIG)-[0-9a-fA-F-]{8,}")


@dataclass(frozen=True, slots=True)
class Gpus:
    """Which GPUs a container sees: `none`, `all`, or a list of indices and UUIDs."""

    all: bool = False
    devices: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.all or bool(self.devices)

    def __str__(self) -> str:
        return "all" if self.all else ",".join(self.devices) or "none"

    @classmethod
    def parse(cls, text: str) -> Gpus:
        """Read `none`, `all`, `0,1` or `GPU-…`; raises KitError for anything else (exit 2)."""
        if text in ("none", ""):
            return cls()
        if text == "all":
            return cls(all=True)
        devices = tuple(part.strip() for part in text.split(","))
        for device in devices:
            if not device.isdecimal() and not _UUID.fullmatch(device):
                raise usage_error(
                    f"--gpus {text}: {device!r} is neither an index nor a UUID (GPU-…)",
                    hint="use all, none, 0,1 or the UUIDs that `nvidia-smi -L` prints",
                )
        return cls(devices=devices)


@dataclass(frozen=True, slots=True)
class Mount:
    """A host folder or file at a place in the container."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class RunRequest:
    """One command in a container: no network, no capabilities, a root that is read-only.

    `node` is the name of this host among those whose ranks talk to each other: with it the
    container has the host's network, and its writable folders are left to whoever shares them out.
    """

    image: str
    argv: tuple[str, ...]
    workdir: str = "/"
    environment: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    gpus: Gpus = field(default_factory=Gpus)
    shm_bytes: int = 1 << 30
    node: str | None = None


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What a build gets beside its context.

    `fresh` ignores every cached step; `images` are those of the engine that the steps read, which
    no other build uses now.
    """

    tag: str
    target: str
    arguments: Mapping[str, str]
    log: Callable[[str], None]
    fresh: bool = False
    images: tuple[str, ...] = ()

    def failed(self, code: int, tail: list[str]) -> KitError:
        """The error of a build that ended with `code`, with the end of its output."""
        end = "\n".join(f"  | {line[:_WIDEST]}" for line in tail[-15:])
        return content_error(f"building {self.tag} failed with exit code {code}\n{end}")


def load(engine: Engine, image: Image, name: str, stack: str) -> str:
    """Bring an image into an engine; where it is refused, damage on this side is looked for.

    Raises:
        KitError: the engine could not (exit 3), a layer is damaged (exit 4).
    """
    try:
        return engine.load(image, name)
    except KitError:
        image.layout.refuse_damaged(image, stack)
        raise


class Engine(Protocol):
    """A container engine that is there and works."""

    @property
    def name(self) -> str:
        """`podman` or `docker`."""

    def version(self) -> str:
        """The engine's version, as it says itself."""

    def has(self, reference: str) -> bool:
        """Whether an image of that id or name is in the engine's storage."""

    def load(self, image: Image, name: str) -> str:
        """Bring an image of a layout into the engine under a name; returns its id there."""

    def build(self, context: Path, dockerfile: Path, request: BuildRequest) -> None:
        """Build with the network off and tag the result; raises KitError with the log's end."""

    def inspect(self, reference: str) -> dict[str, Any]:
        """What the engine knows of an image, as Docker says it: Config, RootFS, GraphDriver."""

    def save(self, reference: str) -> Iterator[bytes]:
        """The image as a docker-archive tar stream."""

    def run(self, request: RunRequest, on_line: Callable[[str], None]) -> int:
        """Run to the end, hand over every line of output as it comes, return the exit code.

        The container is gone afterwards, also when the caller is interrupted.
        Raises KitError when the engine itself failed (exit 3).
        """

    def remove(self, reference: str) -> None:
        """Forget an image by name or id; absent is fine."""
