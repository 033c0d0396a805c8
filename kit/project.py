"""Where things are: the project's own files, and the home of what is fetched and built."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from kit.errors import environment_error, nearest, usage_error

_PACKAGE = Path(__file__).resolve().parent
_BUNDLED = _PACKAGE / "bundled"
"""The project that an installed kit brings along."""


@dataclass(frozen=True, slots=True)
class Project:
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
        """Names of all stacks that have an intent."""
        intents = (self.root / "lockfiles").glob("*.yaml")
        return sorted(p.stem for p in intents if not p.name.endswith(".lock.yaml"))

    def intent_path(self, stack: str) -> Path:
        """`lockfiles/<stack>.yaml`; an unknown one is an error that names the nearest."""
        if stack not in self.stacks:
            raise usage_error(f"unknown stack {stack!r}; {nearest(stack, self.stacks)}")
        return self.root / "lockfiles" / f"{stack}.yaml"

    def lock_path(self, stack: str) -> Path:
        """`lockfiles/<stack>.lock.yaml`, whether or not it exists yet."""
        return self.intent_path(stack).with_suffix(".lock.yaml")


def find() -> Project:
    """The project at `KIT_ROOT`, else around the working folder, else the one the kit came with.

    `KIT_HOME` moves the store and the images; by default they stand in the user's cache folder.
    """
    return Project(_root(), _home().absolute())


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
