"""What a site remembers of the bundles that it has loaded, and where their contents are."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import shutil
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from kit.digest import Digest
from kit.errors import content_error, environment_error
from kit.files import write_json
from kit.images.oci import Layout
from kit.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from kit.bundles.verifier import Content, Index
    from kit.project import Project

_LONGEST, _KEPT = 240, 160
"""Bytes of a folder's name: with what is put before and after it, disks take 255."""


def folder(project: Project, bundle: str, content: Content) -> Path:
    """Where a content lies that is neither an image nor an input of a stack: no two in one place.

    Letters, digits, `.`, `_`, `-` and `+` stay as they are. All else, and a dot that would hide the
    folder, is written `%2F`; what gets too long by that ends in `%-` and the SHA-256 of the name.
    """
    name = quote(content.name, safe="+")
    if name.startswith("."):
        name = f"%2E{name[1:]}"
    if len(name) > _LONGEST:
        name = f"{name[:_KEPT]}%-{Digest.of_bytes(content.name.encode()).hex}"
    return project.contents / bundle / content.kind / name


def has_folder(content: Content) -> bool:
    """Whether a content gets a folder of its own: neither an image nor an input of a stack does."""
    return content.kind != "image" and not is_input(content)


def is_input(content: Content) -> bool:
    """Whether the files of a content go into the store, where builds look for them."""
    return bool(content.stack) and content.kind in ("inputs", "model")


def refuse_meeting(project: Project, index: Index) -> None:
    """Refuse contents whose folders the disk takes for one, though they have different names.

    Raises:
        KitError: two of a bundle, or one of it and one that is here (exit 3).
    """
    kept = [content for content in index.contents if has_folder(content)]
    scratch = project.home / "bundles" / "loading" / f".{index.name}.names"
    shutil.rmtree(scratch, ignore_errors=True)
    names = functools.cache(_names)
    try:
        for content in kept:
            place = folder(project, index.name, content)
            probe = scratch / content.kind / place.name
            try:
                probe.parent.mkdir(parents=True, exist_ok=True)
                probe.mkdir()
                meets = any(
                    (there := names(path.parent))
                    and path.name not in there
                    and os.path.lexists(path)
                    for path in (place.parent.parent, place)
                )
            except FileExistsError:
                meets = True
            if meets:
                raise environment_error(
                    f"{content.kind}/{content.name} and another content have one name on the disk "
                    f"of {project.home}, which takes small and capital letters for the same; "
                    "nothing was imported",
                    hint="export KIT_HOME=<a folder on another disk>",
                )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _names(folder: Path) -> set[str]:
    """What is in a folder; nothing if it is not there."""
    try:
        return {path.name for path in folder.iterdir()}
    except FileNotFoundError:
        return set()


def restore(project: Project, name: str) -> None:
    """Put folders back that a load was killed replacing: after the old one went, before the new.

    `name` is the bundle whose lock the caller holds; of others, only those that nobody loads.
    """
    for old in sorted(project.contents.glob("*/*/.*.old")):
        bundle = old.parent.parent.name
        place = old.with_name(old.name[1 : -len(".old")])
        if bundle == name:
            _put_back(old, place)
        else:
            with _idle(project, bundle) as idle:
                if idle:
                    _put_back(old, place)


def lock(project: Project, bundle: str) -> Path:
    """The file that whoever loads a bundle of that name has locked."""
    return project.home / "bundles" / "locks" / f"load-{bundle}"


def _put_back(old: Path, place: Path) -> None:
    if not os.path.lexists(place):
        with contextlib.suppress(FileNotFoundError):  # another process was first
            old.rename(place)


@contextlib.contextmanager
def _idle(project: Project, bundle: str) -> Iterator[bool]:
    """Whether nobody loads that bundle, and nobody will meanwhile; waits for none."""
    with lock(project, bundle).open("a+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def last(project: Project, name: str) -> dict[str, Any] | None:
    """The record of the last bundle of that name; None if there was none.

    Raises:
        KitError: the record is damaged: then nobody knows what may be loaded (exit 4).
    """
    path = _record(project, name)
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise content_error(
            f"{path}: damaged: {error}", hint=f"look at it, then rm {path}"
        ) from error
    if not isinstance(found, dict) or type(found.get("sequence")) is not int:
        raise content_error(f"{path}: damaged", hint=f"look at it, then rm {path}")
    return found


def every(project: Project) -> Iterator[dict[str, Any]]:
    """The records of all bundles that were loaded, by name."""
    for path in sorted((project.home / "bundles" / "loaded").glob("*.json")):
        found = last(project, path.stem)
        if found is not None:
            yield found


def refuse_rollback(known: Mapping[str, Any] | None, index: Index, place: Path) -> None:
    """Refuse a bundle that is older than the last one of its name (exit 4)."""
    if known is None or known["identity"] == index.identity:
        return
    if index.sequence > known["sequence"]:
        return
    older = "older than" if index.sequence < known["sequence"] else "another one than"
    raise content_error(
        f"{place}: delivery {index.sequence} of {index.name} is {older} delivery "
        f"{known['sequence']}, which was loaded last ({known['identity']})",
        hint=f"kit bundle load {place} --allow-rollback, if that is meant",
    )


def remember(
    project: Project,
    index: Index,
    signer: str | None,
    places: Sequence[tuple[Content, Path]],
    origins: Mapping[str, str],
) -> None:
    """Write down what was loaded, and where each object is for the next delta."""
    before = last(project, index.name) or {}
    rows = [
        {
            "kind": content.kind,
            "name": content.name,
            "why": content.why,
            "manifest": content.manifest,
            "path": str(place),
        }
        for content, place in places
    ]
    write_json(
        _record(project, index.name),
        {
            "name": index.name,
            "sequence": index.sequence,
            "identity": index.identity,
            "signer": signer,
            "contents": rows,
            "objects": {**before.get("objects", {}), **origins},
        },
    )


def candidates(project: Project, wanted: Mapping[str, int]) -> dict[str, list[Path]]:
    """Digest → every file of this site that may have that content, likely ones first.

    Whoever uses one hashes it. What loads have left that were killed is among them.

    Args:
        project: whose home is looked into.
        wanted: digest → bytes.
    """
    layout, store = Layout(project.images), Store(project.store)
    known = [one.get("objects", {}) for one in every(project)]
    staged = sorted((project.home / "bundles" / "loading").glob("*/"))
    found = {}
    for digest, size in wanted.items():
        own = Digest(digest)
        places = [layout.blob(own), store.place(own)]
        for objects in known:
            if isinstance(where := objects.get(digest), str):
                places += _replaced(project, project.home / where)
        places += [folder / digest for folder in staged]
        found[digest] = [place for place in dict.fromkeys(places) if _size(place) == size]
    return found


def _replaced(project: Project, path: Path) -> Iterator[Path]:
    """A file, and where it is while the folder of its content is being replaced."""
    yield path
    with contextlib.suppress(ValueError):
        bundle, kind, name, *rest = path.relative_to(project.contents).parts
        for other in (f".{name}.old", f".{name}.new"):
            yield project.contents.joinpath(bundle, kind, other, *rest)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _record(project: Project, name: str) -> Path:
    return project.home / "bundles" / "loaded" / f"{name}.json"
