"""How the kit runs containers on this host: what was tried and found to work.

Hosts differ: a hybrid cgroup tree that crun refuses, limits that may not be raised. So a tiny image
is run once with each way of running, the first that works is kept, and tried again only when the
engine, the kernel or the limits change.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import resource
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kit.digest import Digest
from kit.errors import environment_error
from kit.files import atomic_writer, write_json
from kit.images.layer import Entry, LayerWriter, text_file
from kit.images.oci import Image, Layer, Layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kit.images.engine import RunRequest

FORMAT = 2
"""Raised when other things are tried."""
PROBE = "localhost/trtllm-kit/probe:1"
CONTAINER_ID = 1000
"""User and group inside the container when the kit itself runs as root."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to start a container: OCI runtime (empty: the engine's own) and limits to lower."""

    runtime: str
    limits: tuple[str, ...]


def ways() -> list[Way]:
    """The ways to try, plainest first: no limit named, then the host's hard limits, then lower.

    A host without CAP_SYS_RESOURCE can start no container whose limits exceed what is left to
    the engine, which may be less than what is left to the kit (seen: 65536 processes refused).
    """
    limits: list[tuple[str, ...]] = [()]
    for ceiling in (None, 32768, 4096):
        chosen = []
        for name, kind in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC)):
            hard = resource.getrlimit(kind)[1]
            known = [value for value in (hard, ceiling) if value not in (None, -1)]
            chosen += [f"{name}={min(known)}:{min(known)}"] if known else []
        limits.append(tuple(chosen))
    choices = dict.fromkeys(limits)
    return [Way(runtime, choice) for choice in choices for runtime in ("", "crun", "runc")]


def working(
    memory: Path, engine: str, layout: Layout, attempt: Callable[[Image, Way], str | None]
) -> Way:
    """The first way that works, remembered in `memory`.

    Args:
        memory: file that keeps the answer.
        engine: name and version of the engine.
        layout: where the probe image is written.
        attempt: runs the probe image in a way; returns None or what went wrong.
    """
    limits = [resource.getrlimit(kind) for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC)]
    key = str(Digest.of_document([FORMAT, engine, platform.release(), limits, os.geteuid()]))
    try:
        known = json.loads(memory.read_bytes())
        if known["key"] == key:
            return Way(known["runtime"], tuple(known["limits"]))
    except (OSError, ValueError, KeyError):
        pass
    image = _probe_image(layout)
    failures = []
    for way in ways():
        problem = attempt(image, way)
        if problem is None:
            write_json(memory, {"key": key, "runtime": way.runtime, "limits": list(way.limits)})
            return way
        failures.append(f"  runtime {way.runtime or 'default'}, limits {way.limits}: {problem}")
    raise environment_error(
        f"{engine}: no way to run a container was found on this host\n" + "\n".join(failures),
        hint="podman info",
    )


def _probe_image(layout: Layout) -> Image:
    """An image with one program of a few hundred bytes that exits with 0."""
    program = _program(platform.machine())
    scratch = layout.root / "blobs" / f"new-probe-{os.getpid()}"
    with atomic_writer(scratch, 0o444) as stream:
        writer = LayerWriter(stream, 0)
        writer.add(Entry("true", "file", 0o755, size=len(program)), text_file(program))
        digest, size = writer.close()
    layout.blob(digest).parent.mkdir(parents=True, exist_ok=True)
    scratch.replace(layout.blob(digest))
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    return layout.write_image(
        name=PROBE,
        layers=(Layer(digest, size),),
        settings={"Cmd": ["/true"]},
        history=("kit: a program that exits with 0",),
        platform=f"linux/{architecture}",
        epoch=0,
    )


def _program(machine: str) -> bytes:
    """A static ELF-64 file, one loadable segment, that calls exit(0)."""
    codes = {
        "x86_64": (0x3E, bytes.fromhex("31ffb83c0000000f05")),  # edi = 0, eax = 60, syscall
        "aarch64": (0xB7, bytes.fromhex("000080d2a80b80d2010000d4")),  # x0 = 0, x8 = 93, svc
    }
    if machine not in codes:
        raise environment_error(f"{machine}: the kit runs on x86_64 and aarch64")
    number, code = codes[machine]
    start, size = 0x400000, 64 + 56 + len(code)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        2,
        number,
        1,
        start + 120,
        64,
        0,
        0,
        64,
        56,
        1,
        0,
        0,
        0,
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, start, start, size, size, 0x1000)
    return header + segment + code


def user_arguments() -> tuple[str, bool]:
    """`uid:gid` in the container, and whether files must be handed over to it (kit is root)."""
    if os.geteuid() == 0:
        return f"{CONTAINER_ID}:{CONTAINER_ID}", True
    return f"{os.geteuid()}:{os.getegid()}", False


@contextlib.contextmanager
def handed_over(request: RunRequest, *, active: bool) -> Iterator[None]:
    """While the container runs, its writable folders belong to its user."""
    folders = [mount.source for mount in request.mounts if mount.writable] if active else []
    for folder in folders:
        _give(folder, CONTAINER_ID)
    try:
        yield
    finally:
        for folder in folders:
            _give(folder, 0)


def _give(folder: Path, owner: int) -> None:
    """Give a folder with all that is in it to a user; links themselves, not their targets."""
    for top, folders, files in os.walk(folder):
        for path in [Path(top), *(Path(top) / name for name in folders + files)]:
            os.chown(path, owner, owner, follow_symlinks=False)
