"""Families: how the stages of a Dockerfile are built, and what each of them may read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit import document
from kit.errors import KitError, nearest, usage_error
from kit.files import safe_member

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SCHEMA = "kit.family/1"
BASE = "BASE"
"""The ARG that stands for the image that a family builds on."""
_TAKEN = ("Dockerfile", "arguments", "inputs")
"""What every context has at its top already."""
_NAME = re.compile(r"[a-z][a-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Group:
    """One layer: packages of a group of the lock, and what their scripts would have made."""

    name: str
    directories: tuple[str, ...]
    sticky: tuple[str, ...]
    links: Mapping[str, str]
    files: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of the Dockerfile, and all that its steps may read.

    Attributes:
        name: as the Dockerfile has it.
        groups: groups of the lock: inputs at `inputs/<group>/<file>`, a source as a tree.
        optional: those of them that a lock may lack.
        reads: files and folders of the family, and names of `context`.
    """

    name: str
    groups: tuple[str, ...]
    optional: frozenset[str]
    reads: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Family:
    """`dockerfiles/<family>/family.yaml`.

    Attributes:
        context: further files and folders of the project that a stage may read: name → path.
        environment: of the assembled base images.
        exclude: folders that they do without.
        keep: file names that are kept there all the same.
        groups: layers assembled from Debian packages, each on the one before.
        image: the image of the lock that is the base instead; None for an assembled base.
        stages: in the order in which they are built.
    """

    context: Mapping[str, str]
    environment: Mapping[str, str]
    exclude: tuple[str, ...]
    keep: tuple[str, ...]
    groups: tuple[Group, ...]
    image: str | None = None
    stages: tuple[Stage, ...] = ()

    @property
    def bases(self) -> dict[str, str]:
        """The ARGs that stand for base images: name → group, or image of the lock."""
        if self.image is not None:
            return {BASE: self.image}
        return {group.name.upper(): group.name for group in self.groups}

    def leaves_out(self, path: str) -> bool:
        """Whether a path is documentation that the image does without."""
        return path.startswith(tuple(f"{folder}/" for folder in self.exclude)) and (
            path.rsplit("/", 1)[-1] not in self.keep
        )


def load_family(path: Path) -> Family:
    """Read a `family.yaml`; malformed or unknown keys are errors with their place (exit 2)."""
    top = document.load(path)
    if (schema := top.text("schema")) != SCHEMA:
        raise top.error(f"expected schema {SCHEMA}, found {schema}", "schema")
    family = Family(
        context=_texts(top.optional_section("context")),
        environment=_texts(top.optional_section("environment")),
        exclude=top.texts("exclude"),
        keep=top.texts("keep"),
        groups=tuple(_group(section) for section in top.sections("groups")),
        image=top.optional_text("image"),
        stages=tuple(_stage(section) for section in top.sections("stages")),
    )
    for name, place in family.context.items():
        safe_member(place, f"{path}: context: {name}")
    if (family.image is None) == (not family.groups):
        raise top.error("expected either `image`, the base, or `groups` that one is assembled from")
    seen: set[str] = set()
    for stage in family.stages:
        if stage.name in seen:
            raise top.error(f"stage {stage.name!r} stands twice", "stages")
        seen.add(stage.name)
    top.close()
    return family


def stage_of(family: Family, name: str, where: str) -> Stage:
    """The stage of that name; an unknown one is an error that names the nearest (exit 2)."""
    for stage in family.stages:
        if stage.name == name:
            return stage
    known = nearest(name, [stage.name for stage in family.stages])
    raise usage_error(f"{where}: unknown stage {name!r}; {known}")


def _group(section: document.Section) -> Group:
    group = Group(
        name=section.text("name"),
        directories=section.texts("directories"),
        sticky=section.texts("sticky"),
        links=_texts(section.section("links")),
        files=_texts(section.section("files")),
    )
    section.close()
    return group


def _stage(section: document.Section) -> Stage:
    name = section.text("name")
    if not _NAME.fullmatch(name):
        raise section.error(f"not the name of a stage: {name!r}", "name")
    groups = section.texts("groups")
    reads = section.texts("reads")
    try:
        for read in reads:
            if safe_member(read, section.where("reads")).parts[0] in _TAKEN:
                raise section.error(f"reads: a context has its own {read!r}", "reads")
    except KitError as error:
        raise usage_error(str(error)) from error
    stage = Stage(
        name=name,
        groups=tuple(group.removesuffix("?") for group in groups),
        optional=frozenset(group.removesuffix("?") for group in groups if group.endswith("?")),
        reads=reads,
    )
    section.close()
    return stage


def _texts(section: document.Section | None) -> dict[str, str]:
    if section is None:
        return {}
    return {key: section.text(key) for key in section.keys()}  # noqa: SIM118
