"""The kit itself as wheels: its own and those of what it imports, for every Python it runs on.

`lockfiles/python/kit.lock.yaml` pins the others; `python -m kit.bundles.wheels` writes it from
`lockfiles/python/dev.txt`, which has their versions and digests already, and from the package
index, which knows the files.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kit import project as projects
from kit.bundles.contents import Content, Entry
from kit.cli import guarded
from kit.console import note, result
from kit.digest import Digest
from kit.errors import content_error, environment_error, usage_error
from kit.files import write_bytes
from kit.locks import lock as locks
from kit.locks.lock import Input, Lock
from kit.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from packaging.requirements import Requirement
    from packaging.tags import Tag

    from kit.locks.http import Client
    from kit.locks.pypi import Link, PythonIndex
    from kit.project import Project

STACK = "kit"
"""What `kit fetch` calls the kit's own wheels; no stack, as no image is made of them."""
DISTRIBUTION = "trtllm-kit"
REQUIREMENTS = "requirements.txt"
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
_GLIBC, _MACHINE = "2.31", "amd64"
"""The oldest C library that the sites have: Ubuntu 20.04's and Debian 11's."""
_PINNED = re.compile(r"([a-z0-9-]+)==(\S+)( ; [^\\]+)? \\")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_INSTALLER = "pip"
_EPOCH = "1700000000"


def lock_path(project: Project) -> Path:
    """Where the lock of the wheels lies."""
    return project.root / "lockfiles" / "python" / "kit.lock.yaml"


def content(project: Project) -> Content:
    """Everything that `bootstrap` installs from.

    Raises:
        KitError: wheels that are not in the store (exit 3).
    """
    path = lock_path(project)
    if not path.exists():
        raise environment_error(
            f"{path}: there is no lock of the kit's own wheels, which a bundle carries",
            hint="python -m kit.bundles.wheels, or --without-kit",
        )
    lock = locks.load(path)
    store = Store(project.store)
    entries = [
        Entry(item.file, "wheel", str(store.path(item.sha256, str(item), STACK)), item.sha256)
        for item in lock.inputs
    ]
    name, wheel = own(project)
    text = requirements(lock, Digest.of_bytes(wheel.read_bytes()))
    entries.append(Entry(name, "wheel", str(wheel)))
    entries.append(Entry(REQUIREMENTS, "requirements", text.encode()))
    entries.sort(key=lambda entry: entry.title)
    return Content("kit", STACK, "", "to work at the site: ./bootstrap FOLDER", tuple(entries))


def requirements(lock: Lock, own_digest: Digest) -> str:
    """What pip is told to install: exact versions, every digest that may come of each."""
    versions: dict[str, dict[str, list[Input]]] = {}
    for item in lock.inputs:
        versions.setdefault(item.name, {}).setdefault(item.version, []).append(item)
    lines = [_line(f"{DISTRIBUTION}=={metadata.version(DISTRIBUTION)}", [own_digest])]
    for name, found in sorted(versions.items()):
        if name == _INSTALLER:
            continue
        for version, items in sorted(found.items()):
            # The group says for which Pythons: `3.10` or `3.11 3.12 3.13`, `any` for all.
            pythons = sorted({python for item in items for python in item.group.split("-")[1:]})
            marker = "" if pythons == sorted(PYTHONS) else f" ; {_marker(pythons)}"
            lines.append(_line(f"{name}=={version}{marker}", [item.sha256 for item in items]))
    return "".join(lines)


def _line(requirement: str, digests: list[Digest]) -> str:
    rows = sorted({f"    --hash=sha256:{digest.hex}" for digest in digests})
    return " \\\n".join([requirement, *rows]) + "\n"


def _marker(pythons: list[str]) -> str:
    return " or ".join(f'python_version == "{python}"' for python in pythons)


def own(project: Project) -> tuple[str, Path]:
    """File name and path of the kit's own wheel, made of what runs here.

    Raises:
        KitError: it cannot be made: no hatchling beside a checkout (exit 3).
    """
    folder = project.home / "bundles" / "wheel"
    folder.mkdir(parents=True, exist_ok=True)
    package = Path(projects.__file__).resolve().parent
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        place = Path(scratch)
        if (package.parent / "pyproject.toml").is_file():
            _build(package.parent, place)
        else:
            _repack(place)
        (made,) = place.glob("*.whl")
        target = folder / made.name
        if not target.exists() or target.read_bytes() != made.read_bytes():
            write_bytes(target, made.read_bytes())
    return target.name, target


def _build(root: Path, place: Path) -> None:
    """From a checkout, by its own build backend."""
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", place],
        cwd=root,
        env={"PATH": "/usr/bin:/bin", "SOURCE_DATE_EPOCH": _EPOCH},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise environment_error(
            f"the kit's own wheel cannot be built: {reason}",
            hint="make setup, or --without-kit",
        )


def _repack(place: Path) -> None:
    """From an installed kit: the files that its RECORD names."""
    import base64
    import hashlib
    import zipfile

    distribution = metadata.distribution(DISTRIBUTION)
    version = distribution.version
    stem = f"{DISTRIBUTION.replace('-', '_')}-{version}"
    skipped = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
    rows = []
    with zipfile.ZipFile(place / f"{stem}-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as archive:

        def add(name: str, data: bytes) -> None:
            member = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            member.external_attr = 0o100644 << 16
            archive.writestr(member, data, zipfile.ZIP_DEFLATED)

        for file in sorted(distribution.files or [], key=str):
            name = str(file)
            if name.startswith("..") or name.endswith(".pyc") or file.name in skipped:
                continue
            data = Path(str(file.locate())).read_bytes()
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            rows.append(f"{name},sha256={digest},{len(data)}\n")
            add(name, data)
        if not rows:
            raise content_error(f"{DISTRIBUTION}: its RECORD names no files")
        record = f"{stem}.dist-info/RECORD"
        add(record, ("".join(rows) + f"{record},,\n").encode())


def resolve(project: Project, index: PythonIndex, client: Client) -> Lock:
    """The lock: of every package that the kit imports, the wheels that fit one of the Pythons.

    Raises:
        KitError: a package without a fitting wheel (exit 2), no network (exit 3).
    """
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    from kit.locks.pypi import identity, target_tags

    path = project.root / "lockfiles" / "python" / "dev.txt"
    text = path.read_text()
    pins = _pins(text)
    tags = {python: target_tags(python, _GLIBC, _MACHINE) for python in PYTHONS}
    wanted: dict[_Pin, set[str]] = {}
    for python in PYTHONS:
        for name in _closure(python):
            pin = _pinned(pins, name, python, path)
            wanted.setdefault(pin, set()).add(python)
    inputs = []
    for pin, pythons in sorted(wanted.items()):
        name, version, _, allowed = pin
        links: dict[str, set[str]] = {}
        offered: dict[str, tuple[Link, frozenset[Tag]]] = {}
        for link in index.links(name):
            if link.sha256 is None or link.sha256.hex not in allowed:
                continue
            try:
                fits = parse_wheel_filename(link.filename)[3]
            except InvalidWheelFilename:
                continue
            offered.setdefault(link.filename, (link, fits))
        for python in pythons:
            ranked = [
                (min(tags[python].index(tag) for tag in fits if tag in tags[python]), file)
                for file, (_, fits) in offered.items()
                if fits & set(tags[python])
            ]
            if not ranked:
                raise usage_error(f"{name} {version}: no wheel for Python {python}")
            links.setdefault(min(ranked)[1], set()).add(python)
        for file, served in sorted(links.items()):
            sha256, length = identity(offered[file][0], client)
            group = "-".join(["wheels", *sorted(served)])
            inputs.append(Input("wheel", group, name, version, file, "", sha256, length))
        note(f"{name} {version}: {len(links)} files")
    return Lock(STACK, Digest.of_bytes(text.encode()), tuple(sorted(inputs)))


class _Pin(NamedTuple):
    """One entry of dev.txt: where its marker holds, this version with one of these digests."""

    name: str
    version: str
    marker: str
    digests: tuple[str, ...]


def _pins(text: str) -> list[_Pin]:
    found = []
    for block in re.split(r"\n(?=\S)", text):
        if match := _PINNED.match(block):
            name, version, marker = match.groups(default="")
            digests = tuple(_HASH.findall(block))
            found.append(_Pin(name, version, marker.removeprefix(" ; ").strip(), digests))
    return found


def _pinned(pins: list[_Pin], name: str, python: str, path: Path) -> _Pin:
    from packaging.markers import Marker

    for pin in pins:
        if pin.name == name and (
            not pin.marker or Marker(pin.marker).evaluate(_environment(python))
        ):
            return pin
    raise usage_error(f"{path}: pins no {name} for Python {python}", hint="make relock")


def _environment(python: str) -> dict[str, str]:
    return {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
        "os_name": "posix",
        "extra": "",
    }


def _closure(python: str) -> list[str]:
    """What the kit imports there, and pip, by the metadata of what is installed here."""
    from packaging.utils import canonicalize_name

    found: set[str] = set()
    waiting = [DISTRIBUTION, _INSTALLER]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        waiting += [canonicalize_name(need.name) for need in _needs(name, python)]
    return sorted(found - {DISTRIBUTION})


def _needs(name: str, python: str) -> Iterator[Requirement]:
    from packaging.requirements import Requirement

    try:
        texts = metadata.requires(name) or []
    except metadata.PackageNotFoundError as error:
        raise environment_error(
            f"{name} is not installed here: what it needs is not known", hint="make setup"
        ) from error
    for text in texts:
        need = Requirement(text)
        if need.marker is None or need.marker.evaluate(_environment(python)):
            yield need


def main() -> int:
    """Write `lockfiles/python/kit.lock.yaml` anew."""
    from kit.locks.http import Client
    from kit.locks.pypi import PythonIndex

    project = projects.find()
    client = Client()
    lock = resolve(project, PythonIndex(client), client)
    path = lock_path(project)
    lock.write(path)
    result(f"{path}: {len(lock.inputs)} wheels, {lock.size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
