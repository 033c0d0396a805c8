"""Which stages a build needs, what each depends on, and the Dockerfile that builds it alone."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kit.digest import Digest
from kit.errors import nearest, usage_error
from kit.images import base, dockerfile
from kit.images.family import load_family, stage_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kit.images.dockerfile import Dockerfile
    from kit.images.family import Family
    from kit.locks.intent import Intent
    from kit.locks.lock import Input, Lock
    from kit.project import Project

FORMAT = 3
"""Raised when this module, or what turns its answer into an image, builds something else."""
EPOCH, JOBS, RECACHE = "SOURCE_DATE_EPOCH", "JOBS", "CCACHE_RECACHE"
OWN_ARGUMENTS = frozenset({EPOCH, JOBS, RECACHE})
"""ARGs that no intent and no person fills in."""
_BYTES_PER_JOB = 4 << 30
"""Memory that one compiler of CUDA templates may take."""
_IN_CONTEXT = ("deb", "wheel", "sdist", "file")


@dataclass(frozen=True, slots=True)
class Plan:
    """One stage to build.

    Attributes:
        stage: its steps.
        bases: base images that it reads: group, or image of the lock.
        uses: stages that it reads, its parent among them.
        inputs: what stands in its context as files.
        sources: what stands there as trees.
        tree_inputs: what the trees are made of.
        files: of the project: name in the context → file.
        digests: what those held when the key was made.
        values: its ARGs, as far as they count.
        key: identity of everything that its result depends on; None where no lock says.
    """

    stage: dockerfile.Stage
    bases: tuple[str, ...]
    uses: tuple[str, ...]
    inputs: tuple[Input, ...]
    sources: tuple[str, ...]
    tree_inputs: tuple[Input, ...]
    files: Mapping[str, Path]
    digests: Mapping[str, Digest]
    values: Mapping[str, str]
    key: Digest | None

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.stage.name


@dataclass(frozen=True, slots=True)
class Recipe:
    """A family read and checked for one stack.

    Attributes:
        root: of the project that it is of.
        intent: of the stack.
        folder: of the family.
        family: its `family.yaml`.
        file: its Dockerfile.
        arguments: what the intent, and whoever builds, fill its ARGs in with.
        overrides: those of them that differ from the intent's.
    """

    root: Path
    intent: Intent
    folder: Path
    family: Family
    file: Dockerfile
    arguments: Mapping[str, str]
    overrides: Mapping[str, str]

    @property
    def default_target(self) -> str:
        """`release`, or the last stage."""
        names = list(self.file.stages)
        return "release" if "release" in names else names[-1]

    def plan(self, lock: Lock | None, target: str) -> list[Plan]:
        """The stages that `target` needs, in the order in which they are built.

        Args:
            lock: None where there is none yet: then no stage has a key.
            target: name of a stage.

        Raises:
            KitError: a stage, a group or a file that is not there (exit 2).
        """
        if target not in self.file.stages:
            known = nearest(target, self.file.stages)
            raise usage_error(f"--target {target}: no such stage; {known}")
        wanted = {target}
        for name in reversed(list(self.file.stages)):
            if name in wanted:
                wanted |= {use for use in self.file.stages[name].uses if use in self.file.stages}
        plans: dict[str, Plan] = {}
        for name, stage in self.file.stages.items():
            if name in wanted:
                plans[name] = self._plan(stage, lock, plans)
        return list(plans.values())

    def text(self, plan: Plan, images: Mapping[str, str], *, fresh: bool) -> str:
        """The Dockerfile of one stage: what it stands on and reads are images.

        A stage of one FROM alone, for each image, would do too; but Podman makes a container and
        a commit of every stage.

        Args:
            plan: the stage.
            images: stage, or ARG of a base image → name of its image in the engine.
            fresh: compilers answer nothing from their cache.
        """
        bases = self.family.bases
        lines = [
            step.text for step in self.file.globals if not all(word in bases for word in step.words)
        ]
        parent = plan.stage.parent
        lines.append(f"FROM {images.get(parent, parent)} AS {plan.name}")
        while parent in self.file.stages:
            # An image does not keep the SHELL that its steps were run by.
            if shell := self.file.stages[parent].shell:
                lines.append(shell.text)
                break
            parent = self.file.stages[parent].parent
        if fresh:
            lines.append(f"ARG {RECACHE}=1")
        lines += [step.reading(images) for step in plan.stage.steps]
        return "\n".join(lines) + "\n"

    def _plan(self, stage: dockerfile.Stage, lock: Lock | None, before: dict[str, Plan]) -> Plan:
        where = f"dockerfiles/{self.intent.family}/family.yaml"
        wanted = stage_of(self.family, stage.name, where)
        bases = tuple(self.family.bases[use] for use in stage.uses if use in self.family.bases)
        uses = tuple(use for use in stage.uses if use in before)
        sources = {source.name for source in self.intent.sources}
        inputs: list[Input] = []
        trees: list[Input] = []
        for group in wanted.groups if lock else ():
            assert lock is not None
            found = lock.select(group=group)
            waiting = any(gap.group == group for gap in lock.unresolved)
            if not found and not waiting and group not in wanted.optional:
                known = nearest(group, {item.group for item in lock.inputs})
                raise usage_error(
                    f"{where}: stage {stage.name}: the lock of {lock.stack} has no group "
                    f"{group!r}; {known}"
                )
            if group in sources:
                trees += [item for item in found if item.kind in ("git", "lfs")]
            inputs += [item for item in found if item.kind in _IN_CONTEXT]
        files = self._files(wanted.reads, where)
        plan = Plan(
            stage=stage,
            bases=bases,
            uses=uses,
            inputs=tuple(inputs),
            sources=tuple(group for group in wanted.groups if group in sources),
            tree_inputs=tuple(trees),
            files=files,
            digests={name: Digest.of_file(path) for name, path in files.items()},
            values=self._values(stage),
            key=None,
        )
        if lock is None or lock.unresolved:
            return plan
        return replace(plan, key=self._key(plan, lock, before))

    def _key(self, plan: Plan, lock: Lock, before: Mapping[str, Plan]) -> Digest:
        texts = [step.text for step in (plan.stage.start, *plan.stage.steps)]
        counting = {name: value for name, value in plan.values.items() if name != JOBS}
        return Digest.of_document(
            [
                FORMAT,
                self.intent.epoch,
                self.intent.platform,
                texts,
                counting,
                [self._base_identity(name, lock) for name in plan.bases],
                {name: str(before[name].key) for name in plan.uses},
                {name: str(digest) for name, digest in plan.digests.items()},
                sorted(
                    [item.kind, item.group, item.file, str(item.sha256)] for item in plan.inputs
                ),
                sorted(
                    [item.kind, item.group, item.name, str(item.sha256)]
                    for item in plan.tree_inputs
                ),
                [self._source(name) for name in plan.sources],
            ]
        )

    def _source(self, name: str) -> list[object]:
        """What of the intent decides which files a tree gets."""
        found = next(source for source in self.intent.sources if source.name == name)
        return [found.name, found.commit, found.submodules, list(found.lfs)]

    def _base_identity(self, name: str, lock: Lock) -> object:
        if self.family.image is not None:
            return sorted({item.version for item in lock.select(kind="oci", group=name)})
        names = [group.name for group in self.family.groups]
        below = names[: names.index(name) + 1]
        pins = [
            [group, item.file, str(item.sha256)]
            for group in below
            for item in lock.select(kind="deb", group=group)
        ]
        return [base.FORMAT, base.plain(self.family), name, pins]

    def _values(self, stage: dockerfile.Stage) -> dict[str, str]:
        given = {**self.arguments, EPOCH: str(self.intent.epoch)}
        defaults = self.file.defaults
        found = {}
        for name, default in stage.arguments.items():
            value = given.get(name, default if default is not None else defaults.get(name))
            if value is not None and name != RECACHE:
                found[name] = value
        return found

    def _files(self, reads: tuple[str, ...], where: str) -> dict[str, Path]:
        files: dict[str, Path] = {}
        for name in reads:
            given = self.family.context.get(name)
            path = self.folder / name if given is None else self.root / given
            if path.is_dir() and not path.is_symlink():
                files |= {
                    f"{name}/{found.relative_to(path).as_posix()}": found
                    for found in sorted(path.rglob("*"))
                    if found.is_file() and not any(map(_is_litter, found.relative_to(path).parts))
                }
            else:
                files[name] = path
        for name, path in files.items():
            if path.is_symlink() or not path.is_file():
                raise usage_error(f"{where}: {name}: no plain file {path}")
        return files


def recipe(
    project: Project, intent: Intent, overrides: Mapping[str, str], arguments: Mapping[str, str]
) -> Recipe:
    """Read the family of a stack.

    Args:
        project: where it is.
        intent: of the stack.
        overrides: ARGs that are to have other values than those of the intent.
        arguments: values of the intent, or of its lock.

    Raises:
        KitError: a malformed file, a Dockerfile that is refused, an unknown ARG (exit 2).
    """
    root = project.root_of(intent.stack)
    folder = root / "dockerfiles" / intent.family
    family = load_family(folder / "family.yaml")
    file = dockerfile.read(folder / "Dockerfile", family.bases)
    open_arguments = file.arguments - OWN_ARGUMENTS - family.bases.keys()
    for what, names in (("--arg", overrides), (f"lockfiles/{intent.stack}.yaml", arguments)):
        for name in names:
            if name not in open_arguments:
                known = nearest(name, open_arguments)
                raise usage_error(f"{what} {name}: the Dockerfile has no such ARG; {known}")
    changed = {name: v for name, v in sorted(overrides.items()) if arguments.get(name) != v}
    return Recipe(root, intent, folder, family, file, {**arguments, **changed}, changed)


def default_jobs() -> int:
    """Compilers at a time: a core and four GiB of memory each, at least one."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(len(os.sched_getaffinity(0)), memory // _BYTES_PER_JOB))


def _is_litter(name: str) -> bool:
    """What editors and earlier builds leave beside sources."""
    return (
        name.startswith(".")
        or name in ("__pycache__", "build", "dist")
        or (name.endswith(("~", ".egg-info", ".pyc")))
    )
