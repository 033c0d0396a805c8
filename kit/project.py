"""Where things are: the project's own files, and the home of what is fetched and built."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from kit.errors import environment_error, nearest, usage_error

_PACKAGE = Path(__file__).resolve().parent
_BUNDLED = _PACKAGE / "bundled"
"""The project that an installed kit brings along."""


class Project(NamedTuple):
    """A folder with `lockfiles/` and `dockerfiles/`, and the home of everything derived from it."""

    root: Path
    home: Path

    @property
    def store(self) -> Path:
        """Content-addressed inputs."""
        return self.home / "store"

    @property
    def images(self) -> Path:
        """Built images: one OCI layout with every blob once."""
        return self.home / "images"

    @property
    def is_bundled(self) -> bool:
        """Whether this is the project that came with an installed kit, which nobody edits."""
        return self.root == _BUNDLED

    @property
    def runs(self) -> Path:
        """Where runs are kept: in the project, or where the user stands if it came with the kit."""
        return (Path.cwd() if self.is_bundled else self.root) / "runs"

    @property
    def stacks(self) -> list[str]:
        """Names of all stacks: the project's own, and what bundles brought if it is one thing."""
        brought = (name for name, roots in self._delivered.items() if _are_one(roots, name))
        return sorted({*_intents(self.root), *brought})

    def owns(self, stack: str) -> bool:
        """Whether a stack is the project's own."""
        return stack in _intents(self.root)

    def roots_of(self, stack: str) -> list[Path]:
        """Folders with the files of a stack: the project, if it has it, then loaded bundles'."""
        own = [self.root] if self.owns(stack) else []
        return own + [root for root in self._delivered.get(stack, []) if root != self.root]

    def root_of(self, stack: str) -> Path:
        """The folder with `lockfiles/` and `dockerfiles/` of a stack.

        Raises:
            KitError: an unknown stack, with the nearest; one that two bundles have brought along,
                each another one, while the project has none of that name (exit 2).
        """
        roots = self.roots_of(stack)
        if not roots:
            raise usage_error(f"unknown stack {stack!r}; {nearest(stack, self.stacks)}")
        if not self.owns(stack) and not _are_one(roots, stack):
            raise usage_error(
                f"stack {stack!r} came with several bundles, each time another one: "
                + ", ".join(map(str, roots)),
                hint=f"export KIT_ROOT={roots[0]}",
            )
        return roots[0]

    def intent_path(self, stack: str) -> Path:
        """`lockfiles/<stack>.yaml`; an unknown one is an error that names the nearest."""
        return self.root_of(stack) / "lockfiles" / f"{stack}.yaml"

    def lock_path(self, stack: str) -> Path:
        """`lockfiles/<stack>.lock.yaml`, whether or not it exists yet."""
        return self.intent_path(stack).with_suffix(".lock.yaml")

    @property
    def contents(self) -> Path:
        """What bundles brought that is neither an image nor an input: `<bundle>/<kind>/<name>`."""
        return self.home / "bundles" / "content"

    @property
    def _delivered(self) -> dict[str, list[Path]]:
        """Stacks that loaded bundles brought along, each a small project of its own."""
        found: dict[str, list[Path]] = {}
        for folder in sorted(self.contents.glob("*/stack/*")):
            if not folder.name.startswith("."):  # one that is just being written
                for stack in _intents(folder):
                    found.setdefault(stack, []).append(folder)
        return found


def find() -> Project:
    """The project at `KIT_ROOT`, else around the working folder, else the one the kit came with.

    `KIT_HOME` moves the store and the images; by default they stand in the user's cache folder.
    """
    return Project(_root(), _home().absolute())


def _intents(root: Path) -> list[str]:
    intents = (root / "lockfiles").glob("*.yaml")
    return [path.stem for path in intents if not path.name.endswith(".lock.yaml")]


def _are_one(roots: list[Path], stack: str) -> bool:
    """Whether a stack has the same lock in all of these folders."""
    if len(roots) < 2:
        return True
    paths = (root / "lockfiles" / f"{stack}.lock.yaml" for root in roots)
    return len({path.read_bytes() if path.exists() else None for path in paths}) == 1


def _home() -> Path:
    if given := os.environ.get("KIT_HOME"):
        return Path(given)
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache) / "trtllm-kit"
    try:
        return Path.home() / ".cache" / "trtllm-kit"
    except RuntimeError as error:  # a container with a user id that nobody has
        raise environment_error(
            "no place for the store: this user has no home folder",
            hint="export KIT_HOME=<a folder that you own>",
        ) from error


def _root() -> Path:
    if given := os.environ.get("KIT_ROOT"):
        root = Path(given).absolute()
        if not _is_project(root):
            raise usage_error(
                f"KIT_ROOT={given}: no lockfiles/ and dockerfiles/ there",
                hint="unset KIT_ROOT, or point it at a checkout of the kit",
            )
        return root
    here = Path.cwd()
    for folder in [here, *here.parents, _PACKAGE.parent, _BUNDLED]:
        if _is_project(folder):
            return folder
    raise usage_error(
        f"no project found from {here} upwards: expected lockfiles/ and dockerfiles/",
        hint="cd to a checkout of the kit, or set KIT_ROOT",
    )


def _is_project(folder: Path) -> bool:
    return (folder / "lockfiles").is_dir() and (folder / "dockerfiles").is_dir()
