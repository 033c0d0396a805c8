"""Writing a bundle: parts in parallel, every step can be killed, equal content gives equal bytes.

Everything is written into a hidden folder beside the bundle's, which gets its name when it is
whole. A journal in there says which parts are done and which large files are copied; that holds for
one state of all files only, and only as far as they still hash to what it says.
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
from kit.bundles.fingerprint import Memory, Print, batches
from kit.bundles.verifier import part_name
from kit.console import progress
from kit.digest import Digest
from kit.files import disk_errors, locked, write_bytes, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tqdm import tqdm

    from kit.bundles.create import Bundle
    from kit.bundles.parts import Begun
    from kit.bundles.plan import Plan
    from kit.bundles.verifier import Index

_JOURNAL = ".journal"
_KINDS = ("part", "head")
"""Of lines of the journal: parts that are written, and large files that parts begin with."""
_DONE = re.compile(r"(part|head) ([1-9][0-9]{0,5}) ([0-9a-f]{64})")
_HEADROOM = 1 << 19
BOOTSTRAP = Path(__file__).with_name("bootstrap.sh")


class _Left(NamedTuple):
    """What an interrupted run has done: number → digest."""

    parts: dict[int, str]
    heads: dict[int, str]


class _Pass(NamedTuple):
    """What one run writes with."""

    memory: Memory
    left: _Left
    pool: ThreadPoolExecutor
    bar: tqdm[Any]
    journal: TextIO

    def note(self, kind: str, number: int, digest: str) -> None:
        """Write down what is done."""
        self.journal.write(f"{kind} {number} {digest}\n")
        self.journal.flush()


class Writing:
    """One run of `kit bundle create` that has something to write."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.contents = bundle.contents
        self.out = bundle.out
        self.settings = bundle.settings
        self.marks = bundle.marks
        self.folder = bundle.out.with_name(f".{bundle.out.name}.partial")
        self.issued = bundle.home / "issued.json"

    def run(self) -> Index:
        """Write all of it, or the rest; what was made has its name then."""
        plans.refuse_names(self.contents)
        plan_, written = self.write(self.resume())
        self.plan = plan_
        sequence = self.settings.sequence or self.next_sequence(plan_)
        rows = [
            (verifier.part_name(number), length, written[number])
            for number, length in enumerate(plan_.part_sizes, 1)
        ]
        text = plan_.text(sequence, rows)
        index = verifier.parse(text, str(self.out / verifier.INDEX))
        with disk_errors(self.out):
            whole = {part.name for part in index.parts}
            for path in self.folder.iterdir():
                if path.name not in whole | {_JOURNAL}:  # begun by a run that was killed
                    path.unlink()
            self.write_beside(text, index, plan_)
            (self.folder / _JOURNAL).unlink()
            if self.settings.sync:
                files.sync_files(self.folder)
            self.folder.rename(self.out)
            if self.settings.sync:
                files.sync_folder(self.out.parent)
        return index

    def next_sequence(self, plan_: Plan) -> int:
        """One more than the last of that name, unless this is the last itself."""
        last = create.read(self.issued).get(plan_.name)
        since = self.settings.since
        least = since.sequence + 1 if since and since.name == plan_.name else 1
        if not isinstance(last, list):
            return least
        sequence, digest = int(last[0]), last[1]
        return max(least, sequence if digest == plan_.digest else sequence + 1)

    def remember(self, sequence: int) -> None:
        """Count on from here."""
        plan_ = self.plan
        with locked(self.issued.with_suffix(".lock")):
            found = create.read(self.issued)
            last = found.get(plan_.name)
            if not isinstance(last, list) or last[0] <= sequence:
                write_json(self.issued, {**found, plan_.name: [sequence, plan_.digest]})

    def resume(self) -> _Left:
        """What an interrupted run has done; what belongs to another one goes away."""
        with disk_errors(self.folder):
            files.make_folder(self.out.parent)
            try:
                lines = (self.folder / _JOURNAL).read_text("ascii").split("\n")[:-1]
            except (FileNotFoundError, UnicodeDecodeError):
                lines = []
            if not lines or lines[0] != self.bundle.stamp:
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder.mkdir()
                (self.folder / _JOURNAL).write_text(f"{self.bundle.stamp}\n")
                return _Left({}, {})
            rows = [row for row in map(_DONE.fullmatch, lines[1:]) if row]  # one may be torn
            done = {name: {int(r[2]): r[3] for r in rows if r[1] == name} for name in _KINDS}
            kept = {_JOURNAL, *map(part_name, done["part"]), *map(_head, done["head"])}
            for path in self.folder.iterdir():  # what was being written when it was killed
                if path.name not in kept:
                    path.unlink()
            written = {number: self.folder / part_name(number) for number in done["part"]}
            there = {number: path for number, path in written.items() if path.exists()}
            with ThreadPoolExecutor(self.settings.jobs) as pool:
                found = zip(there, pool.map(Digest.of_file, there.values()), strict=True)
                whole = {n: one.hex for n, one in found if one.hex == done["part"][n]}
        return _Left(whole, done["head"])

    def write(self, left: _Left) -> tuple[Plan, dict[int, str]]:
        """Hash and write; returns the plan, and number of a part → digest.

        Parts that begin with large files are begun at once, which hashes these files, while small
        files are hashed. With all digests known, everything has its place: these parts are
        finished, and the others written.
        """
        memory = Memory(self.bundle.home / "digests.json")
        with (
            disk_errors(self.folder),
            progress(0, f"bundle {self.settings.name}") as bar,
            (self.folder / _JOURNAL).open("a") as journal,
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
        known = {path: work.memory.find(mark) for path, mark in self.marks.items()}
        prints = {path: found for path, found in known.items() if found is not None}
        heads = self.heads()
        left = {
            path: Print(self.marks[path], work.left.heads[number])
            for path, number in heads.items()
            if number in work.left.heads
        }
        prints |= left
        unknown = {path: mark for path, mark in self.marks.items() if path not in prints}
        new = {path: self.folder / _head(heads[path]) for path in heads if path in unknown}
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
            for path, found in left.items()
        ]
        for group in groups:
            prints |= group.result()
        for task in as_completed(begun):
            path = begun[task]
            prints[path] = work.memory.note(task.result().found)
            work.note("head", heads[path], prints[path].digest)
        work.memory.save()
        for path, mark in self.marks.items():
            plans.refuse_changed(path, mark, prints[path].mark)
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
        done = dict(work.left.parts)
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
            work.note("part", tasks[task], task.result())
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


def _all(
    memory: Memory, paths: Sequence[str], on_bytes: Callable[[int], object]
) -> dict[str, Print]:
    return {path: memory.hash(path, on_bytes) for path in paths}


def _head(number: int) -> str:
    return f"head-{number:04d}"
