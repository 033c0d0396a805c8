"""From an intent to a lock: asks every source what exactly the words mean today."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kit.errors import content_error, usage_error
from kit.locks import intent as intents
from kit.locks.lock import Input, Lock, Unresolved, twice
from kit.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kit.images.engine import Engine
    from kit.locks.http import Client
    from kit.locks.intent import File, Intent
    from kit.project import Project


def resolve(
    project: Project,
    stack: str,
    *,
    client: Client | None = None,
    engine: Callable[[], Engine] | None = None,
) -> Lock:
    """Pin every input of a stack to the byte; writes nothing but what it had to look into.

    The lock is the same on every host that sees the same upstreams; its caller writes it to
    `project.lock_path(stack)`.

    Args:
        project: where intents and the store are.
        stack: name of the stack.
        client: what upstreams are asked through.
        engine: gives the container engine; called only if requirements stand on a base image,
            whose own pip resolves them in a container without a network.

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
    inputs += _on_base(project, intent, inputs, client, engine)
    if (item := twice(inputs)) is not None:
        raise usage_error(
            f"{path}: {item}: group {item.group} has another input of that file name: "
            "take one of them out"
        )
    return Lock(
        stack=intent.stack,
        intent=intent.digest,
        inputs=tuple(sorted(inputs)),
        arguments=intent.arguments,
        unresolved=tuple(
            Unresolved("file", gap.group, gap.name, "", "", gap.reason) for gap in intent.gaps
        ),
    )


def held_against(lock: Lock, before: Lock) -> Lock:
    """The lock, held against what the one before it knew of the same intent from elsewhere.

    A lock that comes from tables knows some digests with their source, of inputs that it pins and
    of some that it does not; the source is taken over.

    Raises:
        KitError: an upstream has other content under the same version (exit 4).
    """
    if lock.intent != before.intent:
        return lock
    known = {(item.kind, item.group, item.name, item.version): item for item in before.inputs}
    gaps = {(gap.kind, gap.group, gap.name, gap.version): gap.sha256 for gap in before.unresolved}
    found = []
    for item in lock.inputs:
        key = (item.kind, item.group, item.name, item.version)
        if item.kind == "oci":  # the intent's reference holds an image's digest
            found.append(item)
            continue
        same = known.get(key)
        source = same.source if same is not None else ""
        expected = same.sha256 if same is not None and source else gaps.get(key)
        if expected not in (None, item.sha256):
            raise content_error(
                f"{item}: the upstream has other content under this version: expected {expected} "
                f"({source or 'publicly known'}), found {item.sha256}",
                hint=f"see what the mirror serves; to trust it, take the digest out of "
                f"lockfiles/{lock.stack}.lock.yaml",
            )
        found.append(replace(item, source=source) if source else item)
    return replace(lock, inputs=tuple(found))


def _on_base(
    project: Project,
    intent: Intent,
    inputs: Sequence[Input],
    client: Client,
    engine: Callable[[], Engine] | None,
) -> list[Input]:
    """The closures that stand on a base image: what they look into is fetched first."""
    found: list[Input] = []
    if intent.apt is not None:
        from kit.locks.apt import resolve_apt

        keyrings = {
            repository.keyring.removeprefix("file:") for repository in intent.apt.repositories
        }
        _fetch(
            project,
            intent,
            [
                item
                for item in inputs
                if (item.kind == "oci" and item.group == intent.apt.base)
                or (item.kind == "file" and item.name in keyrings)
            ],
            client,
        )
        found += resolve_apt(
            intent.apt, project, [*inputs], intent.architecture, intent.stack, client
        )
    if intent.requirements is not None:
        from kit.locks.requirements import resolve_requirements

        if engine is None:
            raise usage_error(f"the requirements of {intent.stack} are resolved in a container")
        wanted = intent.requirements
        groups = {wanted.base}
        archives = set()
        for group in wanted.groups:
            groups |= {text.partition("/")[0] for text in group.files}
            archives |= {text.partition("!")[0] for text in group.archives}
        _fetch(
            project,
            intent,
            [
                item
                for item in inputs
                if (item.kind in ("oci", "git") and item.group in groups)
                or (item.kind == "file" and f"{item.group}/{item.file}" in archives)
            ],
            client,
        )
        found += resolve_requirements(
            wanted, project, [*inputs], intent.platform, engine(), client, intent.stack
        )
    return found


def _fetch(project: Project, intent: Intent, inputs: Sequence[Input], client: Client) -> None:
    from kit.locks.fetch import fetch

    fetch(project, Lock(intent.stack, intent.digest, tuple(inputs)), client=client)


def check_current(lock: Lock, intent: Intent) -> None:
    """Make sure that the lock was made from this intent, and pins everything.

    Raises:
        KitError: the intent has changed since, or is another stack's; the lock came from tables
            and was never resolved (exit 4).
    """
    if lock.stack != intent.stack:
        raise content_error(f"the lock is of stack {lock.stack!r}, the intent of {intent.stack!r}")
    if lock.intent != intent.digest:
        raise content_error(
            f"the lock of {intent.stack} was made from another intent: expected {intent.digest}, "
            f"found {lock.intent}",
            hint=f"kit lock {intent.stack}",
        )
    lock.require_resolved()


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
    """Download the file into the store, so that a wrong digest is found when it is locked.

    One without a digest in the intent is trusted as it comes; its lock holds all later ones to it.
    """
    from kit.locks.connection import shown
    from kit.locks.mirrors import rewrite

    url = rewrite(file.url)
    digest = file.sha256
    size = client.length(url)
    if digest is None or size is None:
        found, size = client.measure(url)
        if digest not in (None, found):
            raise content_error(f"{shown(url)}: wrong content: expected {digest}, found {found}")
        digest = found
    store = Store(project.store)
    with store.receive(digest, size) as reception:
        if reception.done:
            stored = store.checked(digest, f"file {file.name}", stack).stat().st_size
            if stored != size:
                raise content_error(
                    f"{shown(url)}: wrong size: expected {stored} bytes of {digest}, "
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
        sha256=digest,
        size=size,
    )
