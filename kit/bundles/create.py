"""Making a bundle, or finding that it is there: the same request twice costs a look at each file.

Nobody waits for the disk unless told to, as with `cp`: a bundle carries the digests of all that is
in it, so that what a power cut took is found, here by the next run and at the site by everybody.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kit
from kit import files
from kit.bundles import fingerprint
from kit.bundles.fingerprint import mark_of
from kit.digest import Digest
from kit.errors import content_error, usage_error
from kit.files import disk_errors, locked, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kit.bundles.contents import Content
    from kit.bundles.verifier import Index
    from kit.project import Project

DEFAULT_PART_SIZE = 4_000_000_000
"""Bytes: below what FAT32 and most scanners for malware take."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a bundle is made.

    Attributes:
        name: of the bundle; deliveries of one name follow each other.
        part_size: bytes of a part at most.
        fill: every part is full, but for the last; otherwise one also ends before a large file,
            which is then hashed once instead of twice.
        since: the bundle that the site has loaded already.
        sequence: which delivery of that name it is; None counts on.
        key: private key that signs, as `ssh-keygen` takes it.
        jobs: threads.
        sync: wait until the disk has all of it.
    """

    name: str
    part_size: int = DEFAULT_PART_SIZE
    fill: bool = False
    since: Index | None = None
    sequence: int | None = None
    key: Path | None = None
    jobs: int = 1
    sync: bool = False


@dataclass(frozen=True, slots=True)
class Made:
    """A finished bundle; `parts`: name, bytes, SHA-256; `was_there` if it was made before."""

    folder: Path
    name: str
    identity: str
    sequence: int
    parts: tuple[tuple[str, int, str], ...]
    objects: int
    requires: int
    base: str | None
    signer: str | None
    was_there: bool

    @property
    def size(self) -> int:
        """Bytes of the stream."""
        return sum(size for _, size, _ in self.parts)


def create(project: Project, contents: Sequence[Content], out: Path, settings: Settings) -> Made:
    """Write a bundle, or go on with one that was interrupted.

    Raises:
        KitError: another bundle stands there (exit 2), no room (exit 3), content that has changed
            or is not what it is known to be (exit 4).
    """
    home = project.home / "bundles"
    out = out.absolute()
    name = hashlib.sha256(os.fsencode(out)).hexdigest()[:32]
    with locked(home / "locks" / name):
        work = Bundle(contents, out, settings, home, home / "made" / f"{name}.json")
        if out.exists() or out.is_symlink():
            return work.present()
        return work.run()


class Bundle:
    """A bundle as it is asked for: its files as they are now, and what stands at its place."""

    def __init__(
        self,
        contents: Sequence[Content],
        out: Path,
        settings: Settings,
        home: Path,
        mark: Path,
    ) -> None:
        self.contents = contents
        self.out = out
        self.settings = settings
        self.home = home
        self.mark = mark
        self.key = None
        if settings.key:
            from kit.bundles import sign

            self.key = sign.public_key(settings.key)
        self.marks = fingerprint.marks(
            dict.fromkeys(
                entry.source
                for content in contents
                for entry in content.all_entries
                if isinstance(entry.source, str)
            )
        )
        self.stamp = self.stamped()

    def stamped(self) -> str:
        """What all bytes follow from as long as no file changes: no digest is needed to say it."""
        chosen = self.settings
        since = chosen.since.identity if chosen.since else ""
        # No name has a zero byte in it.
        rows = [kit.__version__, f"{chosen.name}\0{chosen.part_size}\0{chosen.fill}\0{since}"]
        for content in self.contents:
            rows.append(f"{content.label}\0{content.stack}\0{content.why}")
            for title, role, source, _ in content.all_entries:
                if isinstance(source, str):
                    # Making a hard link changes the last of the times.
                    device, inode, length, changed, _ = self.marks[source]
                    state = f"{device} {inode} {length} {changed}"
                else:
                    state = hashlib.sha256(source).hexdigest()
                rows.append(f"\0{title}\0{role}\0{state}")
        return hashlib.sha256("\0".join(rows).encode(errors="surrogatepass")).hexdigest()

    def run(self) -> Made:
        """Write it."""
        from kit.bundles.writing import Writing

        work = Writing(self)
        index = work.run()
        made = Made(
            folder=self.out,
            name=index.name,
            identity=index.identity,
            sequence=index.sequence,
            parts=index.parts,
            objects=len(index.items),
            requires=len(index.requires),
            base=index.base,
            signer=self.signer,
            was_there=False,
        )
        self.note(made, on_disk=self.settings.sync)
        work.remember(index.sequence)
        return made

    @property
    def signer(self) -> str | None:
        """Fingerprint of the key that signs."""
        if self.key is None:
            return None
        from kit.bundles import verifier

        return verifier.fingerprint(self.key)

    def present(self) -> Made:
        """The bundle that is there already, if it is this one and nobody has touched it."""
        known = read(self.mark)
        try:
            rows = tuple(tuple(row) for row in known["made"]["parts"])
            made = Made(**{**known["made"], "parts": rows, "folder": self.out, "was_there": True})
        except (KeyError, TypeError):
            made = None
        wanted = self.settings.sequence
        boot = known.pop("boot", "")
        if made is not None and known == self.description(made) and wanted in (None, made.sequence):
            # What was in memory only when it was made may be lost since.
            if boot is not None and boot != _boot():
                self.refuse_lost(made)
                boot = None
            if self.settings.sync and boot is not None:
                with disk_errors(self.out):
                    files.sync_files(self.out)
                    files.sync_folder(self.out.parent)
                boot = None
            if boot is None:
                self.note(made, on_disk=True)
            return made
        raise usage_error(
            f"{self.out}: something else stands there: another content, or changed since",
            hint=f"give another folder, or: rm -r {shlex.quote(str(self.out))}",
        )

    def refuse_lost(self, made: Made) -> None:
        """Hold the parts against their digests.

        Raises:
            KitError: one is not as it was made (exit 4).
        """
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(self.settings.jobs) as pool:
            paths = [self.out / name for name, _, _ in made.parts]
            found = pool.map(Digest.of_file, paths)
            for path, (_, _, expected), digest in zip(paths, made.parts, found, strict=True):
                if digest.hex != expected:
                    raise content_error(
                        f"{path}: damaged since it was made: expected {expected}, "
                        f"found {digest.hex}",
                        hint=f"rm -r {shlex.quote(str(self.out))}, and the same command again",
                    )

    def note(self, made: Made, *, on_disk: bool) -> None:
        """Write down what was made, and in which session of the host if its disk may lack some."""
        write_json(self.mark, {**self.description(made), "boot": None if on_disk else _boot()})

    def description(self, made: Made) -> dict[str, Any]:
        """What has to be so still for the folder to be what was made."""
        with disk_errors(self.out):
            paths = sorted(self.out.iterdir())
            rows = [[path.name, *mark_of(path.lstat())[1:4]] for path in paths]
        told = asdict(made)
        del told["folder"], told["was_there"]
        told["parts"] = [list(part) for part in made.parts]
        return {"made": {**told, "signer": self.signer}, "stamp": self.stamp, "files": rows}


def _boot() -> str:
    """Which session of the host this is: another one after every start of its kernel."""
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def read(path: Path) -> dict[str, Any]:
    """A note of the kit's own; empty if there is none, or it is damaged."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
