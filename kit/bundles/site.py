"""What a site remembers of the bundles that it has loaded, and where their contents are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kit.digest import Digest
from kit.errors import content_error
from kit.files import write_json
from kit.images.oci import Layout
from kit.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from kit.bundles.verifier import Content, Index
    from kit.project import Project


def folder(project: Project, bundle: str, content: Content) -> Path:
    """Where a content lies that is neither an image nor an input of a stack."""
    name = content.name.replace("/", "-").lstrip(".") or "content"
    return project.contents / bundle / content.kind / name


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


def find(project: Project, digest: str, size: int) -> Path | None:
    """A file of this site that should have that content; whoever uses it hashes it."""
    own = Digest(digest)
    places = [Layout(project.images).blob(own), Store(project.store).place(own)]
    known = (one.get("objects", {}).get(digest) for one in every(project))
    places += [project.home / where for where in known if isinstance(where, str)]
    return next((place for place in places if _size(place) == size), None)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _record(project: Project, name: str) -> Path:
    return project.home / "bundles" / "loaded" / f"{name}.json"
