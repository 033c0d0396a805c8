"""What a wheel stage has made, out of its image into a folder: for the Makefile's `wheel_build`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from kit.cli import guarded
from kit.console import note, result
from kit.digest import CHUNK, Digest
from kit.errors import content_error, usage_error
from kit.files import atomic_writer, disk_errors, safe_member
from kit.images.layer import clean, members
from kit.images.oci import Layout
from kit.project import find

OUTPUT = "out/"
SUMS = "SHA256SUMS"


def main() -> int:
    """Take `/out` of STACK's image DIGEST to FOLDER; prints the wheel with its digest."""
    if len(sys.argv) != 4:
        raise usage_error("usage: python -m kit.commands.wheels STACK DIGEST FOLDER")
    stack, digest, folder = sys.argv[1:]
    image = Layout(find().images).image(Digest.parse(digest), stack)
    paths = take(image.layout.blob(image.layers[-1].digest), Path(folder))
    for path in paths:
        if path.suffix == ".whl":
            result(f"{Digest.of_file(path).hex}  {path}")
    return 0


def take(layer: Path, folder: Path) -> list[Path]:
    """Write the files of a layer's `/out` below `folder`, each held against SHA256SUMS.

    A file that is there is replaced; others are left alone.

    Raises:
        KitError: there is no SHA256SUMS, or a file is not what it says (exit 4).
    """
    written: dict[str, Path] = {}
    links: dict[str, str] = {}
    with layer.open("rb") as stream, disk_errors(folder):
        for member, content in members(stream):
            path = clean(member.name)
            if member.islnk():  # a second name of a file that comes before
                links[path] = clean(member.linkname)
            if content is None or not path.startswith(OUTPUT):
                continue
            name = path.removeprefix(OUTPUT)
            target = folder / safe_member(name, f"layer {layer.name}")
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_writer(target, member.mode & 0o755) as sink:
                shutil.copyfileobj(content, sink, CHUNK)
            written[name] = target
        for path, first in links.items():
            made = written.get(first.removeprefix(OUTPUT))
            if made is not None and path.startswith(OUTPUT):
                name = path.removeprefix(OUTPUT)
                target = folder / safe_member(name, f"layer {layer.name}")
                target.parent.mkdir(parents=True, exist_ok=True)
                with atomic_writer(target, made.stat().st_mode & 0o755) as sink:
                    sink.write(made.read_bytes())
                written[name] = target
    if SUMS not in written:
        raise content_error(
            f"layer {layer.name}: no /{OUTPUT}{SUMS}", hint="kit build STACK --target wheel"
        )
    for line in written[SUMS].read_text(encoding="utf-8").splitlines():
        wanted, _, name = line.partition("  ")
        made = written.get(name.removeprefix("./"))
        found = None if made is None else Digest.of_file(made).hex
        if found != wanted:
            raise content_error(f"{name}: expected {wanted}, found {found}")
    note(f"{len(written)} files in {folder}")
    return list(written.values())


if __name__ == "__main__":
    sys.exit(guarded(main))
