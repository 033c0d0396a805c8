"""Making a bundle, or finding that it is there: the same request twice costs a look at each file.

A bundle that has its name is on the disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import kit
from kit import files
from kit.bundles import fingerprint
from kit.bundles.fingerprint import mark_of
from kit.errors import ExitCode, KitError, usage_error
from kit.files import disk_errors, locked, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from kit.bundles.contents import Content
    from kit.bundles.fingerprint import Mark, Print
    from kit.bundles.verifier import Index
    from kit.project import Project

DEFAULT_PART_SIZE = 4_000_000_000
"""Bytes: below what FAT32 and most scanners for malware take."""
LARGEST = (1 << 53) - 1
"""Of part sizes and sequence numbers: beyond it, some readers of JSON round."""
_ROWS = 512
"""Lines that are hashed together."""
JOURNAL = ".journal"
"""What is done, in the folder of a bundle that is not whole yet."""


class Settings(NamedTuple):
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
    """

    name: str
    part_size: int = DEFAULT_PART_SIZE
    fill: bool = False
    since: Index | None = None
    sequence: int | None = None
    key: Path | None = None
    jobs: int = 1


class Made(NamedTuple):
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


class _Noted(NamedTuple):
    """What was made, and what of its note is not so any more and digests have to decide."""

    made: Made
    moved: frozenset[str]


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
        self.partial = out.with_name(f".{out.name}.partial")
        self.settings = settings
        self.home = home
        self.mark = mark
        self.key = None
        if settings.key:
            from kit.bundles import sign

            self.key = sign.public_key(settings.key)
        self.stamp = self.stamped("%d %d %d %d %d")
        self.settled = True

    @cached_property
    def marks(self) -> dict[str, Mark]:
        """The state of every file.

        Raises:
            KitError: one changed while it was gathered (exit 4).
        """
        found: dict[str, Mark] = {}
        for content in self.contents:
            for entry in content.all_entries:
                path = entry.source
                if isinstance(path, str):
                    mark = entry.mark or fingerprint.looked_at(path)
                    if found.setdefault(path, mark) != mark:
                        from kit.bundles.plan import refuse_changed

                        refuse_changed(path, found[path], mark)
        return found

    @cached_property
    def request(self) -> str:
        """What is asked for, by sizes and times of contents; what they leave open, digests decide.

        The last of the times also moves when a file gets another mode, or a hard link, as `kit
        build` and `kit run` make them to the store; the number of a disk, when a host is started.
        """
        return self.stamped("%d %d", slice(2, 4))

    def stamped(self, told: str, of_marks: slice = slice(None)) -> str:
        """What all bytes follow from as long as no file changes: no digest is needed to say it.

        Args:
            told: how marks are written.
            of_marks: what is told of each.
        """
        chosen = self.settings
        since = chosen.since.identity if chosen.since else ""
        hasher = hashlib.sha256()
        # No name has a zero byte in it.
        rows = [kit.__version__, f"{chosen.name}\0{chosen.part_size}\0{chosen.fill}\0{since}"]
        for content in self.contents:
            rows.append(f"{content.label}\0{content.stack}\0{content.why}")
            for title, role, source, _, mark in content.all_entries:
                if isinstance(source, str):
                    state = told % (mark or self.marks[source])[of_marks]
                else:
                    state = hashlib.sha256(source).hexdigest()
                rows.append(f"\0{title}\0{role}\0{state}")
                if len(rows) >= _ROWS:
                    hasher.update("\0".join(rows).encode(errors="surrogatepass"))
                    rows = [""]
        hasher.update("\0".join(rows).encode(errors="surrogatepass"))
        return hasher.hexdigest()

    def settle(self, prints: Mapping[str, Print]) -> None:
        """Whether the stamp tells every other state of the files from that which was hashed."""
        self.settled = all(
            one.settled and one.mark == self.marks[path] for path, one in prints.items()
        )

    def run(self) -> Made:
        """Write it."""
        from kit.bundles.writing import Writing

        noted = self.noted(self.partial)
        if noted is not None and not noted.moved:  # killed before the last step
            self.give_name()
            return self.present()
        return Writing(self).run()

    def give_name(self) -> None:
        """The last step: the bundle stands where it was asked for."""
        with disk_errors(self.out):
            (self.partial / JOURNAL).unlink(missing_ok=True)
            files.sync_folder(self.partial)
            self.partial.rename(self.out)
        self.keep_name()

    def keep_name(self) -> None:
        """Make the name survive a power cut."""
        with disk_errors(self.out):
            files.sync_folder(self.out)
            try:
                files.sync_folder(self.out.parent)
            except PermissionError:  # it may be written, and not read
                files.sync_disk(self.out)

    def made(self, index: Index) -> Made:
        """What is said of a bundle with this index."""
        return Made(
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

    @property
    def signer(self) -> str | None:
        """Fingerprint of the key that signs."""
        if self.key is None:
            return None
        from kit.bundles import verifier

        return verifier.fingerprint(self.key)

    def present(self) -> Made:
        """The bundle that is there already, if it is this one and nobody has touched it.

        Raises:
            KitError: it is not (exit 2), or damaged (exit 4).
        """
        noted = self.noted(self.out)
        if (
            noted is None
            or ("stamp" in noted.moved and not self.is_same(noted.made))
            or ("times" in noted.moved and not self.is_whole(noted.made))
        ):
            raise self.refused()
        if "name" in noted.moved:
            self.keep_name()
        if noted.moved:
            self.note(noted.made, self.out)
        return noted.made

    def noted(self, folder: Path) -> _Noted | None:
        """What was made, if these files are asked for and `folder` has what was made of them."""
        known = read(self.mark) if folder.is_dir() else {}
        try:
            rows = tuple(tuple(row) for row in known["made"]["parts"])
            made = Made(**{**known["made"], "parts": rows, "folder": self.out, "was_there": True})
        except (KeyError, TypeError):
            return None
        now = self.description(made, folder)
        if self.settings.sequence not in (None, made.sequence):
            return None
        if any(known.get(key) != now[key] for key in ("made", "files")):
            return None
        moved = {"times"} if known.get("times") != now["times"] else set()
        if known.get("stamp") != self.stamp:
            if known.get("request") != self.request:
                return None
            moved.add("stamp")
        if folder != self.partial and known.get("named") is not True:  # killed just then
            moved.add("name")
        return _Noted(made, frozenset(moved))

    def is_same(self, made: Made) -> bool:
        """Whether the files have the content that was carried.

        Raises:
            KitError: one is not what it is known to be (exit 4).
        """
        from kit.bundles.writing import Writing

        return Writing(self).is_same(made)

    def is_whole(self, made: Made) -> bool:
        """Whether what was made is as it was."""
        from kit.bundles import verifier

        keys = [] if self.key is None else [self.key]
        try:
            report = verifier.check(self.out, keys, self.settings.jobs)
        except verifier.Refused as error:
            raise KitError(str(error), exit_code=ExitCode(error.code)) from error
        found = report.bundle
        return report.ok and found is not None and found.identity == made.identity

    def refused(self) -> KitError:
        """That something else stands there, and what to do about it."""
        import shlex

        from kit.bundles import verifier

        try:
            names = {path.name for path in self.out.iterdir()}
        except OSError:
            names = set()
        told, hint = f"{self.out}: something else stands there", "give another folder"
        beside = {verifier.SUMS, verifier.SIGNATURE, *verifier.BESIDE}
        parts = (re.fullmatch("part-[0-9]{4}", name) for name in names - beside - {verifier.INDEX})
        if verifier.INDEX not in names or not all(parts):
            return usage_error(f"{told}: no bundle", hint=hint)
        return usage_error(
            f"{told}: another content, or changed since",
            hint=f"{hint}, or: rm -r {shlex.quote(str(self.out))}",
        )

    def note(self, made: Made, folder: Path) -> None:
        """Write down what `folder` has."""
        told = self.description(made, folder)
        told["stamp"] = self.stamp if self.settled else None
        told["request"] = self.request
        told["named"] = folder == self.out
        write_json(self.mark, told)

    def description(self, made: Made, folder: Path) -> dict[str, Any]:
        """What was made, and the state of its files, the last of their times apart."""
        with disk_errors(folder):
            paths = sorted(folder.iterdir())
            if folder == self.partial:
                paths = [path for path in paths if path.name != JOURNAL]
            marks = {path.name: mark_of(path.lstat()) for path in paths}
        told = made._asdict()
        del told["folder"], told["was_there"]
        told["parts"] = [list(part) for part in made.parts]
        return {
            "made": {**told, "signer": self.signer},
            "files": [[name, *mark[1:4]] for name, mark in marks.items()],
            "times": [mark[4] for mark in marks.values()],
        }


def read(path: Path) -> dict[str, Any]:
    """A note of the kit's own; empty if there is none, or it is damaged."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
