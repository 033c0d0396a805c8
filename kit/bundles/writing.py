"""Writing a bundle: parts in parallel, every step can be killed, equal content gives equal bytes.

Everything is written into a hidden folder beside the bundle's, which gets its name when it is
whole. A journal in there says which parts are done, of which plan, and which large files are
copied, in which state. That holds for this plan and this state only, and only as far as the copies
still hash to what it says.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from kit import files
from kit.bundles import create, fingerprint, parts, sign, verifier
from kit.bundles import plan as plans
from kit.bundles.create import JOURNAL
from kit.bundles.fingerprint import Memory, Print, batches
from kit.bundles.verifier import part_name
from kit.console import progress
from kit.digest import Digest
from kit.errors import usage_error
from kit.files import disk_errors, locked, write_bytes, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tqdm import tqdm

    from kit.bundles.create import Bundle, Made
    from kit.bundles.parts import Begun
    from kit.bundles.plan import Plan
    from kit.bundles.verifier import Index

_LINE = re.compile(r"(part|head) ([1-9][0-9]{0,5}) ([0-9a-f]{64}) ([0-9a-f]{64}|-|[-0-9 ]{9,})")
"""Of the journal: a part that is written, or a large file that a part begins with; what it is
of follows: the digest of a plan, or the mark of a file if that is settled."""
_HEADROOM = 1 << 19
BOOTSTRAP = Path(__file__).with_name("bootstrap.sh")


class _Done(NamedTuple):
    """A part or a large file that is written: its digest, and what it is of."""

    digest: str
    of: str


class _Left(NamedTuple):
    """What an interrupted run has done, by number."""

    parts: dict[int, _Done]
    heads: dict[int, _Done]


class _Pass(NamedTuple):
    """What one run writes with."""

    memory: Memory
    left: _Left
    pool: ThreadPoolExecutor
    bar: tqdm[Any]
    journal: TextIO

    def note(self, kind: str, number: int, done: _Done) -> None:
        """Write down what is done."""
        self.journal.write(f"{kind} {number} {done.digest} {done.of}\n")
        self.journal.flush()


class Writing:
    """One run of `kit bundle create` that has something to write."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.contents = bundle.contents
        self.out = bundle.out
        self.settings = bundle.settings
        self.marks = bundle.marks
        self.folder = bundle.partial
        self.issued = bundle.home / "issued.json"

    def run(self) -> Made:
        """Write all of it, or the rest; what was made has its name then.

        A kill costs nothing that was done: the number is reserved before anything is said with it,
        and what is noted of the bundle is true from the moment that it has its name.
        """
        plans.refuse_names(self.contents)
        plan_, written = self.write(self.resume())
        sequence = self.reserve(plan_)
        rows = [
            (verifier.part_name(number), length, written[number])
            for number, length in enumerate(plan_.part_sizes, 1)
        ]
        text = plan_.text(sequence, rows)
        index = verifier.parse(text, str(self.out / verifier.INDEX))
        made = self.bundle.made(index)
        with disk_errors(self.out):
            whole = {part.name for part in index.parts}
            for path in self.folder.iterdir():
                if path.name not in whole | {JOURNAL}:  # begun by a run that was killed
                    path.unlink()
            self.write_beside(text, index, plan_)
            files.sync_files(self.folder)
            self.bundle.note(made, self.folder)
            self.bundle.give_name()
            self.bundle.note(made, self.out)
        return made

    def reserve(self, plan_: Plan) -> int:
        """The number of this delivery, which from now on no other one gets.

        Raises:
            KitError: there are no more numbers (exit 2).
        """
        with locked(self.issued.with_suffix(".lock")):
            found = create.read(self.issued)
            last = found.get(plan_.name)
            known = (int(last[0]), str(last[1])) if isinstance(last, list) else None
            sequence = self.settings.sequence or self.next_sequence(plan_, known)
            if sequence > create.LARGEST:
                raise usage_error(
                    f"{plan_.name}: the last delivery has the last number that there is",
                    hint="--name ANOTHER",
                )
            if known is None or known[0] <= sequence:
                write_json(self.issued, {**found, plan_.name: [sequence, plan_.digest]})
        return sequence

    def next_sequence(self, plan_: Plan, last: tuple[int, str] | None) -> int:
        """One more than the last of that name, unless this is the last itself."""
        since = self.settings.since
        least = since.sequence + 1 if since and since.name == plan_.name else 1
        if last is None:
            return least
        sequence, digest = last
        return max(least, sequence if digest == plan_.digest else sequence + 1)

    def is_same(self, made: Made) -> bool:
        """Whether what was made would be made again: all files that have changed are hashed."""
        memory = self.memory()
        prints = self.remembered(memory)
        unknown = {path: mark for path, mark in self.marks.items() if path not in prints}
        total = sum(mark[2] for mark in unknown.values())
        with (
            progress(total, f"bundle {self.settings.name}") as bar,
            ThreadPoolExecutor(self.settings.jobs) as pool,
        ):
            groups = [pool.submit(_all, memory, paths, bar.update) for paths in batches(unknown)]
            for group in groups:
                prints |= group.result()
        memory.save()
        self.bundle.settle(prints)
        text = self.planned(prints).text(made.sequence, made.parts)
        return hashlib.sha256(text).hexdigest() == made.identity

    def memory(self) -> Memory:
        """Digests of files, by their marks."""
        return Memory(self.bundle.home / "digests.json")

    def remembered(self, memory: Memory) -> dict[str, Print]:
        """The digests that need no hashing."""
        known = {path: memory.find(mark) for path, mark in self.marks.items()}
        return {path: found for path, found in known.items() if found is not None}

    def resume(self) -> _Left:
        """What an interrupted run has done; what belongs to another one goes away."""
        with disk_errors(self.folder):
            new = [path for path in self.out.parents if not path.exists()]
            files.make_folder(self.out.parent)
            for path in new:
                files.sync_folder(path.parent)
            try:
                lines = (self.folder / JOURNAL).read_text("ascii").split("\n")[:-1]
            except (FileNotFoundError, UnicodeDecodeError):
                lines = []
            request = self.bundle.request
            if not lines or lines[0] != request:
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder.mkdir()
                (self.folder / JOURNAL).write_text(f"{request}\n")
                return _Left({}, {})
            done = _left(lines[1:])
            kept = {JOURNAL, *map(part_name, done.parts), *map(_head, done.heads)}
            for path in self.folder.iterdir():  # what was being written when it was killed
                if path.name not in kept:
                    path.unlink()
            written = {number: self.folder / part_name(number) for number in done.parts}
            there = {number: path for number, path in written.items() if path.exists()}
            with ThreadPoolExecutor(self.settings.jobs) as pool:
                found = zip(there, pool.map(Digest.of_file, there.values()), strict=True)
                whole = {n for n, one in found if one.hex == done.parts[n].digest}
        return _Left({number: done.parts[number] for number in whole}, done.heads)

    def write(self, left: _Left) -> tuple[Plan, dict[int, str]]:
        """Hash and write; returns the plan, and number of a part → digest.

        Parts that begin with large files are begun at once, which hashes these files, while small
        files are hashed. With all digests known, everything has its place: these parts are
        finished, and the others written.
        """
        memory = self.memory()
        with (
            disk_errors(self.folder),
            progress(0, f"bundle {self.settings.name}") as bar,
            (self.folder / JOURNAL).open("a") as journal,
            ThreadPoolExecutor(self.settings.jobs) as pool,
        ):
            try:
                work = _Pass(memory, left, pool, bar, journal)
                prints, begun = self.hash(work)
                plan_ = self.planned(prints)
                plans.refuse_too_much(plan_)
                return plan_, self.write_parts(plan_, begun, work)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def hash(self, work: _Pass) -> tuple[dict[str, Print], dict[str, Begun]]:
        """The digests of all files, and by digest those that a part begins with already."""
        prints = self.remembered(work.memory)
        heads = self.heads()
        copied = {
            path: Print(self.marks[path], work.left.heads[number].digest)
            for path, number in heads.items()
            if number in work.left.heads
        }
        prints |= {
            path: one
            for path, one in copied.items()
            if work.left.heads[heads[path]].of == _said(one)
        }
        unknown = {path: mark for path, mark in self.marks.items() if path not in prints}
        new = {
            path: self.folder / _head(number)
            for path, number in heads.items()
            if path in unknown and path not in copied
        }
        early = {path: mark for path, mark in unknown.items() if path not in new}
        self.require_room(sum(self.marks[path][2] for path in new))
        work.bar.total = sum(mark[2] for mark in unknown.values())
        done = work.bar.update
        groups = [work.pool.submit(_all, work.memory, paths, done) for paths in batches(early)]
        largest = self.settings.part_size
        begun = {
            work.pool.submit(parts.begin, path, new[path], largest, done): path for path in new
        }
        taken = [
            work.pool.submit(parts.taken_up, self.folder / _head(heads[path]), found)
            for path, found in copied.items()
        ]
        for group in groups:
            prints |= group.result()
        for task in as_completed(begun):
            path = begun[task]
            one = prints[path] = work.memory.note(task.result().found)
            work.note("head", heads[path], _Done(one.digest, _said(one)))
        work.memory.save()
        for path, mark in self.marks.items():
            plans.refuse_changed(path, mark, prints[path].mark)
        self.bundle.settle(prints)
        found = [task.result() for task in taken] + [task.result() for task in begun]
        return prints, {one.found.digest: one for one in found if one is not None}

    def heads(self) -> dict[str, int]:
        """Files that parts begin with, numbered: large ones that are certainly like no other."""
        if self.settings.since or self.settings.fill:
            return {}  # what is carried, or where it stands, follows from digests
        if len(self.marks) > verifier.MOST_OBJECTS:
            return {}  # digests say whether that many can be carried: nothing is written before
        least = plans.large(sum(mark[2] for mark in self.marks.values()))
        found = fingerprint.unique(self.marks, least)
        small = [path for path in found if self.marks[path][2] <= self.settings.part_size]
        return {path: number for number, path in enumerate(small, 1)}

    def write_parts(self, plan_: Plan, begun: dict[str, Begun], work: _Pass) -> dict[int, str]:
        """Finish what is begun, write what is not; returns number → digest."""
        left = work.left.parts.items()
        done = {number: one.digest for number, one in left if one.of == plan_.digest}
        missing = [n for n in range(1, len(plan_.part_sizes) + 1) if n not in done]
        starts = {}
        for number in missing:
            head = plan_.heads.get(number)
            if head is not None and head.sha256 in begun:
                starts[number] = begun[head.sha256]
        there = sum(start.found.size for start in starts.values())
        needed = sum(plan_.part_sizes[number - 1] for number in missing) - there
        self.require_room(needed)
        work.bar.total = (work.bar.total or 0) + needed
        tasks = {}
        for number in missing:
            words = plan_, number, self.folder, work.bar.update
            if number in starts:
                tasks[work.pool.submit(parts.finish, starts[number], *words)] = number
            else:
                tasks[work.pool.submit(parts.write, *words)] = number
        for task in as_completed(tasks):
            done[tasks[task]] = task.result()
            work.note("part", tasks[task], _Done(task.result(), plan_.digest))
        return done

    def planned(self, prints: Mapping[str, Print]) -> Plan:
        """Where everything stands."""
        chosen = self.settings
        return plans.plan(
            chosen.name, self.contents, prints, chosen.part_size, chosen.since, fill=chosen.fill
        )

    def require_room(self, needed: int) -> None:
        """Refuse what the disk has no room for (exit 3)."""
        hint = f"df -h {self.out.parent}"
        files.require_room(self.folder, needed, _HEADROOM, whose=self.out, hint=hint)

    def write_beside(self, text: bytes, index: Index, plan_: Plan) -> None:
        """Index, verifier, bootstrap, transfer sheet, the list of all, and its signature."""
        from kit.bundles import sheet

        facts = sheet.facts(index, plan_, self.bundle.signer)
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
        if self.settings.key is not None and self.bundle.key is not None:
            signature = sign.sign(self.settings.key, self.bundle.key, listed)
            write_bytes(self.folder / verifier.SIGNATURE, signature, durable=False)


def _left(lines: Sequence[str]) -> _Left:
    """What a journal says; a line of it may be torn."""
    found = _Left({}, {})
    for row in filter(None, map(_LINE.fullmatch, lines)):
        places = found.parts if row[1] == "part" else found.heads
        places[int(row[2])] = _Done(row[3], row[4])
    return found


def _said(found: Print) -> str:
    """The mark of a file for the journal; an unsettled one is none, and `-`."""
    return " ".join(map(str, found.mark)) if found.settled else "-"


def _all(
    memory: Memory, paths: Sequence[str], on_bytes: Callable[[int], object]
) -> dict[str, Print]:
    return {path: memory.hash(path, on_bytes) for path in paths}


def _head(number: int) -> str:
    return f"head-{number:04d}"
