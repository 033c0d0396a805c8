"""From an intent to a lock: asks every source what exactly the words mean today."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.errors import content_error, usage_error
from kit.locks import intent as intents
from kit.locks.lock import Input, Lock
from kit.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kit.locks.http import Client
    from kit.locks.intent import File, Intent
    from kit.project import Project


def resolve(project: Project, stack: str, *, client: Client | None = None) -> Lock:
    """Pin every input of a stack to the byte; writes nothing but what it had to look into.

    The lock is the same on every host that sees the same upstreams; its caller writes it to
    `project.lock_path(stack)`.

    Raises:
        KitError: the intent is malformed or names what does not exist (exit 2), a source cannot
            be reached (exit 3), a source holds wrong content (exit 4).
    """
    from kit.locks.http import Client

    path = project.intent_path(stack)
    intent = intents.load(path)
    client = client or Client()
    inputs: list[Input] = []
    if intent.debian is not None:
        from kit.locks.deb import resolve_debian

        inputs += resolve_debian(intent.debian, intent.architecture, stack)
    if intent.python is not None:
        from kit.locks.pypi import PythonIndex, resolve_python

        glibc = intent.python.glibc or _glibc(inputs, str(path))
        index = PythonIndex(client)
        inputs += resolve_python(intent.python, glibc, intent.architecture, index, client)
    inputs += [_file(file, project, client, stack) for file in intent.files]
    for model in intent.models:
        if model.directory is not None:
            from kit.locks.directory import resolve_directory

            inputs += resolve_directory(project.root, model)
        else:
            from kit.locks.hf import resolve_hub

            inputs += resolve_hub(model, client)
    if intent.images:
        from kit.locks.oci import resolve_images

        inputs += resolve_images(intent.images, intent.platform, client)
    if intent.sources:
        from kit.locks.git import resolve_sources

        inputs += resolve_sources(project, intent.sources, client)
    return Lock(stack=intent.stack, intent=intent.digest, inputs=tuple(sorted(inputs)))


def check_current(lock: Lock, intent: Intent) -> None:
    """Make sure that the lock was made from this intent.

    Raises:
        KitError: the intent has changed since, or is another stack's (exit 4).
    """
    if lock.stack != intent.stack:
        raise content_error(f"the lock is of stack {lock.stack!r}, the intent of {intent.stack!r}")
    if lock.intent != intent.digest:
        raise content_error(
            f"the lock of {intent.stack} was made from another intent: expected {intent.digest}, "
            f"found {lock.intent}",
            hint=f"kit lock {intent.stack}",
        )


def _glibc(inputs: Sequence[Input], where: str) -> str:
    """`2.36` of a locked `libc6` 2.36-9+deb12u10: what the wheels will meet in the image."""
    for item in inputs:
        if item.kind == "deb" and item.name == "libc6":
            return item.version.partition(":")[2] or item.version.partition("-")[0]
    raise usage_error(
        f"{where}: python: no libc6 among the Debian packages: which C library do wheels meet? "
        'say it under `python`, such as `glibc: "2.36"`'
    )


def _file(file: File, project: Project, client: Client, stack: str) -> Input:
    """Download the file into the store, so that a wrong digest is found when it is locked."""
    from kit.locks.connection import shown
    from kit.locks.mirrors import rewrite

    url = rewrite(file.url)
    size = client.length(url)
    if size is None:
        found, size = client.measure(url)
        if found != file.sha256:
            raise content_error(
                f"{shown(url)}: wrong content: expected {file.sha256}, found {found}"
            )
    store = Store(project.store)
    with store.receive(file.sha256, size) as reception:
        if reception.done:
            stored = store.checked(file.sha256, f"file {file.name}", stack).stat().st_size
            if stored != size:
                raise content_error(
                    f"{shown(url)}: wrong size: expected {stored} bytes of {file.sha256}, "
                    f"the server has {size}"
                )
        client.download(url, reception)
    return Input(
        kind="file",
        group=file.group,
        name=file.name,
        version="",
        file=file.name,
        location=file.url,
        sha256=file.sha256,
        size=size,
    )
