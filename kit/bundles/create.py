"""Writing a bundle: parts in parallel, every step can be killed, equal content gives equal bytes.

Everything is written into a hidden folder beside the bundle's, which gets its name when it is
whole. A journal in there says which parts are done; what it says holds for one plan only, and only
as far as the parts still hash to what it says.

Nobody waits for the disk unless told to, as with `cp`: a bundle carries the digests of all that is
in it, so that what a power cut took is found, here by the next run and at the site by everybody.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kit
from kit import files
from kit.bundles import draft, fingerprint, parts, sign, verifier
from kit.bundles.fingerprint import Memory, Print, batches, mark_of
from kit.bundles.plan import Plan, plan, refuse_too_much
from kit.bundles.verifier import Part, part_name
from kit.console import progress, size
from kit.digest import Digest
from kit.errors import content_error, environment_error, usage_error
from kit.files import disk_errors, locked, write_bytes, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from concurrent.futures import Future

    from kit.bundles.contents import Content
    from kit.bundles.fingerprint import Mark
    from kit.bundles.verifier import Index
    from kit.project import Project

DEFAULT_PART_SIZE = 4_000_000_000
"""Bytes: below what FAT32 and most scanners for malware take."""
_JOURNAL = ".journal"
_DONE = re.compile(r"([1-9][0-9]{0,3}) ([0-9a-f]{64})")
_HEADROOM = 1 << 19
BOOTSTRAP = Path(__file__).with_name("bootstrap.sh")


@dataclass(frozen=True, slots=True)
class Settings:
    """How a bundle is made.

    Attributes:
        name: of the bundle; deliveries of one name follow each other.
        part_size: bytes of a part.
        since: the bundle that the site has loaded already.
        sequence: which delivery of that name it is; None counts on.
        key: private key that signs, as `ssh-keygen` takes it.
        jobs: threads.
        sync: wait until the disk has all of it.
    """

    name: str
    part_size: int = DEFAULT_PART_SIZE
    since: Index | None = None
    sequence: int | None = None
    key: Path | None = None
    jobs: int = 1
    sync: bool = False


@dataclass(frozen=True, slots=True)
class Made:
    """A finished bundle; `was_there` if nothing had to be done."""

    folder: Path
    name: str
    identity: str
    sequence: int
    parts: tuple[Part, ...]
    objects: int
    requires: int
    base: str | None
    signer: str | None
    was_there: bool

    @property
    def size(self) -> int:
        """Bytes of the stream."""
        return sum(part.size for part in self.parts)


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
        work = _Writing(contents, out, settings, home, home / "made" / f"{name}.json")
        if out.exists() or out.is_symlink():
            return work.present()
        return work.run()


class _Writing:
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
        self.issued = home / "issued.json"
        self.folder = out.with_name(f".{out.name}.partial")
        self.key = sign.public_key(settings.key) if settings.key else None
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
        since = self.settings.since
        rows: list[Any] = [kit.__version__, self.settings.name, self.settings.part_size]
        rows.append(since.identity if since else None)
        for content in self.contents:
            rows.append([content.kind, content.name, content.stack, content.why])
            for entry in content.all_entries:
                source = entry.source
                if isinstance(source, str):
                    # Making a hard link changes the last of the times.
                    state: Any = self.marks[source][:4]
                else:
                    state = hashlib.sha256(source).hexdigest()
                rows.append([entry.title, entry.role, state])
        return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()

    def run(self) -> Made:
        finished = self.resume()
        plan_, written = self.write(finished)
        sequence = self.settings.sequence or self.next_sequence(plan_)
        rows = [
            (verifier.part_name(number), length, written[number])
            for number, length in enumerate(plan_.part_sizes, 1)
        ]
        text = plan_.text(sequence, rows)
        index = verifier.parse(text, str(self.out / verifier.INDEX))
        self.write_beside(text, index, plan_)
        with disk_errors(self.out):
            (self.folder / _JOURNAL).unlink()
            if self.settings.sync:
                files.sync_files(self.folder)
            self.folder.rename(self.out)
            if self.settings.sync:
                files.sync_folder(self.out.parent)
        made = Made(
            folder=self.out,
            name=index.name,
            identity=index.identity,
            sequence=sequence,
            parts=index.parts,
            objects=len(index.items),
            requires=len(index.requires),
            base=index.base,
            signer=self.signer,
            was_there=False,
        )
        self.note(made, on_disk=self.settings.sync)
        self.remember(plan_, sequence)
        return made

    @property
    def signer(self) -> str | None:
        return verifier.fingerprint(self.key) if self.key else None

    def present(self) -> Made:
        """The bundle that is there already, if it is this one and nobody has touched it."""
        known = _read(self.mark)
        try:
            rows = tuple(Part(*row) for row in known["made"]["parts"])
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
        with ThreadPoolExecutor(self.settings.jobs) as pool:
            paths = [self.out / part.name for part in made.parts]
            for part, found in zip(made.parts, pool.map(Digest.of_file, paths), strict=True):
                if found.hex != part.sha256:
                    raise content_error(
                        f"{self.out / part.name}: damaged since it was made: expected "
                        f"{part.sha256}, found {found.hex}",
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

    def next_sequence(self, plan_: Plan) -> int:
        """One more than the last of that name, unless this is the last itself."""
        last = _read(self.issued).get(plan_.name)
        since = self.settings.since
        least = since.sequence + 1 if since and since.name == plan_.name else 1
        if not isinstance(last, list):
            return least
        sequence, digest = int(last[0]), last[1]
        return max(least, sequence if digest == plan_.digest else sequence + 1)

    def remember(self, plan_: Plan, sequence: int) -> None:
        with locked(self.issued.with_suffix(".lock")):
            found = _read(self.issued)
            last = found.get(plan_.name)
            if not isinstance(last, list) or last[0] <= sequence:
                write_json(self.issued, {**found, plan_.name: [sequence, plan_.digest]})

    def resume(self) -> dict[int, str]:
        """Parts that an interrupted run has finished; what belongs to another one goes away."""
        with disk_errors(self.folder):
            files.make_folder(self.out.parent)
            try:
                lines = (self.folder / _JOURNAL).read_text("ascii").split("\n")[:-1]
            except (FileNotFoundError, UnicodeDecodeError):
                lines = []
            if not lines or lines[0] != self.stamp:
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder.mkdir()
                (self.folder / _JOURNAL).write_text(f"{self.stamp}\n")
                return {}
            rows = map(_DONE.fullmatch, lines[1:])  # a power cut leaves odd ones
            finished = {int(row[1]): row[2] for row in rows if row}
            kept = {_JOURNAL, *map(part_name, finished)}
            for path in self.folder.iterdir():  # what was being written when it was killed
                if path.name not in kept:
                    path.unlink()
            written = {number: self.folder / part_name(number) for number in finished}
            there = {number: path for number, path in written.items() if path.exists()}
            with ThreadPoolExecutor(self.settings.jobs) as pool:
                found = pool.map(Digest.of_file, there.values())
                return {
                    number: digest.hex
                    for number, digest in zip(there, found, strict=True)
                    if digest.hex == finished[number]
                }

    def write(self, finished: dict[int, str]) -> tuple[Plan, dict[int, str]]:
        """Hash and write, both at the same time; returns the plan, and number → digest.

        What fits into memory is hashed first, and read from there when the parts are written. Of
        more than that, a part is written as soon as what it holds is hashed: where everything
        stands follows from sizes alone, once it is known which files are the same. Parts that hold
        digests of others come last then.
        """
        memory = Memory(self.home / "digests.json")
        known = {path: memory.find(mark) for path, mark in self.marks.items()}
        prints = {path: found for path, found in known.items() if found is not None}
        unknown = {path: mark for path, mark in self.marks.items() if path not in prints}
        late: dict[str, Mark] = {}
        if sum(mark[2] for mark in unknown.values()) > _memory() and not self.settings.since:
            late = draft.distinct(self.marks, unknown)
        stand_ins = draft.stand_ins(self.contents, late)
        early = {path: mark for path, mark in unknown.items() if path not in late}
        done = dict(finished)
        total = sum(mark[2] for mark in unknown.values())
        with (
            disk_errors(self.folder),
            progress(total, f"bundle {self.settings.name}") as bar,
            ThreadPoolExecutor(self.settings.jobs) as pool,
        ):
            try:
                groups = [pool.submit(_all, memory, paths, bar.update) for paths in batches(early)]
                for group in groups:
                    prints |= group.result()
                memory.save()
                rough = self.planned({**prints, **stand_ins})
                refuse_too_much(rough)
                self.require_room(rough, finished)
                total += sum(rough.part_sizes) - sum(rough.part_sizes[n - 1] for n in done)
                bar.total = total
                hashes: dict[str, Future[Print]] = {}
                names = {found.digest: path for path, found in stand_ins.items()}

                def digest_of(sha256: str) -> str:
                    return hashes[sha256].result().digest if sha256 in hashes else sha256

                writes = []
                for number, (start, end) in enumerate(draft.ranges(rough), 1):
                    for sha256 in (item.sha256 for item in rough.objects_in(start, end)):
                        if sha256 in names and sha256 not in hashes:
                            hashes[sha256] = pool.submit(memory.hash, names[sha256], bar.update)
                    if (not late or start >= rough.derived_end) and number not in done:
                        task = pool.submit(
                            parts.write, rough, number, self.folder, bar.update, digest_of
                        )
                        writes.append((number, task))
                self.record(writes, done)
                prints |= {names[sha256]: task.result() for sha256, task in hashes.items()}
                memory.save()
                plan_ = self.planned(prints) if late else rough
                draft.refuse_other(rough, plan_, digest_of)
                missing = [n for n in range(1, len(plan_.part_sizes) + 1) if n not in done]
                self.record(
                    [
                        (n, pool.submit(parts.write, plan_, n, self.folder, bar.update))
                        for n in missing
                    ],
                    done,
                )
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return plan_, done

    def planned(self, prints: Mapping[str, Print]) -> Plan:
        settings = self.settings
        return plan(settings.name, self.contents, prints, settings.part_size, settings.since)

    def record(self, tasks: Iterable[tuple[int, Future[str]]], done: dict[int, str]) -> None:
        """Wait for parts, and write into the journal which are done."""
        with (self.folder / _JOURNAL).open("a") as journal:
            for number, task in tasks:
                done[number] = task.result()
                journal.write(f"{number} {done[number]}\n")
                journal.flush()

    def require_room(self, plan_: Plan, finished: dict[int, str]) -> None:
        sizes = enumerate(plan_.part_sizes, 1)
        needed = sum(length for number, length in sizes if number not in finished)
        free = files.free_bytes(self.folder)
        if needed + _HEADROOM > free:
            raise environment_error(
                f"not enough disk for {self.out}: {size(needed)} are missing, "
                f"{size(free)} are free",
                hint=f"df -h {self.out.parent}",
            )

    def write_beside(self, text: bytes, index: Index, plan_: Plan) -> None:
        """Index, verifier, bootstrap, transfer sheet, the list of all, and its signature."""
        from kit.bundles import sheet

        facts = sheet.facts(index, plan_, self.signer)
        beside = {
            verifier.INDEX: text,
            verifier.PROGRAM: Path(verifier.__file__).read_bytes(),
            "bootstrap": BOOTSTRAP.read_bytes(),
            "transfer-sheet.txt": sheet.text(facts).encode(),
            "transfer-sheet.html": sheet.html(facts).encode(),
        }
        sums = {name: hashlib.sha256(content).hexdigest() for name, content in beside.items()}
        sums |= {part.name: part.sha256 for part in index.parts}
        listed = "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)).encode()
        for name, content in beside.items():
            mode = 0o755 if name == "bootstrap" else 0o644
            write_bytes(self.folder / name, content, mode, durable=False)
        write_bytes(self.folder / verifier.SUMS, listed, durable=False)
        if self.settings.key is not None and self.key is not None:
            signature = sign.sign(self.settings.key, self.key, listed)
            write_bytes(self.folder / verifier.SIGNATURE, signature, durable=False)
        else:
            (self.folder / verifier.SIGNATURE).unlink(missing_ok=True)


def _all(
    memory: Memory, paths: Sequence[str], on_bytes: Callable[[int], object]
) -> dict[str, Print]:
    return {path: memory.hash(path, on_bytes) for path in paths}


def _memory() -> int:
    """Bytes that the system will probably keep of what was read last."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _boot() -> str:
    """Which session of the host this is: another one after every start of its kernel."""
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
