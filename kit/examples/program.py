"""Programs: examples that are source code, built and run inside a release image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kit import document
from kit.data import releases
from kit.digest import Digest
from kit.errors import usage_error
from kit.examples import dialect
from kit.files import disk_errors, safe_member, write_bytes

if TYPE_CHECKING:
    from kit.project import Project

SCHEMA = "kit.program/1"
FILE = "program.yaml"
FOLDER = Path(__file__).parent
"""Every folder in here that has a `program.yaml` is an example."""

# CMake's tree is of no use to anybody else; only what the program says is an output.
_BUILD = f"{dialect.CACHE}/build"
_REPORT = f"{dialect.OUTPUT}/runtime.txt"


@dataclass(frozen=True, slots=True)
class Program:
    """One CMake project that links against a release's runtime.

    Attributes:
        name: of the example, of its folder, and of the program that CMake makes.
        description: for people.
        folder: where its files lie.
        files: what is mounted into the container, relative to `folder`.
        releases: that it is meant for.
    """

    name: str
    description: str
    folder: Path
    files: tuple[str, ...]
    releases: tuple[str, ...]

    @property
    def digest(self) -> Digest:
        """Identity of what it does: its files."""
        return Digest.of_document(
            {name: Digest.of_file(self.folder / name).hex for name in self.files}
        )


def names() -> list[str]:
    """The names of all programs."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{FILE}"))


def find(name: str) -> Program:
    """The program of that name, one of `names()`."""
    return load(FOLDER / name / FILE)


def load(path: Path) -> Program:
    """Read a `program.yaml`.

    Raises:
        KitError: malformed, unknown key, a file that is not there; with file, line and column
            (exit 2).
    """
    top = document.load(path)
    schema = top.text("schema")
    if schema != SCHEMA:
        raise top.error(f"expected schema {SCHEMA}, found {schema}", "schema")
    name = top.text("name")
    if name != path.parent.name:
        raise top.error(
            f"name: expected {path.parent.name!r}, the name of the folder, found {name!r}", "name"
        )
    files = top.texts("files")
    for file in files:
        safe_member(file, top.where("files"))
        if not (path.parent / file).is_file():
            raise top.error(f"files: there is no {file}", "files")
    try:
        meant_for = tuple(releases.select(top.text("releases")))
    except ValueError as error:
        raise top.error(str(error), "releases") from error
    if "CMakeLists.txt" not in files or not meant_for:
        raise top.error("expected a CMakeLists.txt among files, and a release among releases")
    program = Program(name, top.text("description"), path.parent, files, meant_for)
    top.close()
    return program


def commands(program: Program, release: str, root: str) -> list[dialect.Command]:
    """Configure, build, run; `root` is where the image keeps the release's tree.

    Raises:
        KitError: the program is not meant for that release (exit 2).
    """
    if release not in program.releases:
        near = releases.closest(release, list(program.releases))
        raise usage_error(
            f"example {program.name} is not meant for release {release}; "
            f"nearest release that can: {near or 'none'}",
            hint=f"kit plan {program.name} --release {near}" if near else "kit example list",
        )
    binary = f"{_BUILD}/{program.name}"
    configure = ("cmake", "-S", dialect.MODEL, "-B", _BUILD, f"-DTRTLLM_ROOT={root}")
    return [
        dialect.Command("configure", configure, 0, (f"{_BUILD}/CMakeCache.txt",)),
        dialect.Command("build", ("cmake", "--build", _BUILD), 0, (binary,)),
        dialect.Command("run", (binary, _REPORT), 0, (_REPORT,)),
    ]


def mountable(project: Project, program: Program) -> Path:
    """A copy of the program's files that any user may read, whatever the umask."""
    folder = project.home / "programs" / f"{program.digest.short}-{program.name}"
    with disk_errors(folder):
        for name in program.files:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(target, (program.folder / name).read_bytes(), 0o644)
        for place in (
            folder.parent,
            folder,
            *(path for path in folder.rglob("*") if path.is_dir()),
        ):
            place.chmod(0o755)
    return folder
