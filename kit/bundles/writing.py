"""Writing a bundle: parts in parallel, every step can be killed, equal content gives equal bytes.

Everything is written into a hidden folder beside the bundle's, which gets its name when it is
whole. A journal in there says which parts are done; what it says holds for one plan only, and only
as far as the parts still hash to what it says.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from kit import files
from kit.bundles import create, draft, parts, sign, verifier
from kit.bundles import plan as plans
from kit.bundles.fingerprint import Memory, Print, batches
from kit.bundles.parts import Written
from kit.bundles.verifier import part_name
from kit.console import progress, size
from kit.digest import Digest
from kit.errors import environment_error
from kit.files import disk_errors, locked, write_bytes, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from concurrent.futures import Future

    from kit.bundles.create import Bundle
    from kit.bundles.fingerprint import Mark
    from kit.bundles.plan import Plan
    from kit.bundles.verifier import Index

_JOURNAL = ".journal"
_DONE = re.compile(r"([1-9][0-9]{0,3}) ([0-9a-f]{64})(?: ([0-9a-f]{64}))?")
_HEADROOM = 1 << 19
BOOTSTRAP = Path(__file__).with_name("bootstrap.sh")


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
        plan_, written = self.write(self.resume())
        self.plan = plan_
        sequence = self.settings.sequence or self.next_sequence(plan_)
        rows = [
            (verifier.part_name(number), length, written[number].sha256)
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

    def resume(self) -> dict[int, Written]:
        """Parts that an interrupted run has finished; what belongs to another one goes away."""
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
                return {}
            rows = map(_DONE.fullmatch, lines[1:])  # a power cut leaves odd ones
            finished = {int(row[1]): Written(row[2], row[3]) for row in rows if row}
            kept = {_JOURNAL, *map(part_name, finished)}
            for path in self.folder.iterdir():  # what was being written when it was killed
                if path.name not in kept:
                    path.unlink()
            written = {number: self.folder / part_name(number) for number in finished}
            there = {number: path for number, path in written.items() if path.exists()}
            with ThreadPoolExecutor(self.settings.jobs) as pool:
                found = pool.map(Digest.of_file, there.values())
                return {
                    number: finished[number]
                    for number, digest in zip(there, found, strict=True)
                    if digest.hex == finished[number].sha256
                }

    def write(self, finished: dict[int, Written]) -> tuple[Plan, dict[int, Written]]:
        """Hash and write; returns the plan, and number → part.

        Small files come first: what they are decides where everything stands. Large ones are
        hashed by writing the part that begins with them. Where parts have to be full, what fits
        into memory is hashed first and read from there, and of more than that a part is written as
        soon as what it holds is hashed. Parts that hold digests of others come last.
        """
        memory = Memory(self.bundle.home / "digests.json")
        known = {path: memory.find(mark) for path, mark in self.marks.items()}
        prints = {path: found for path, found in known.items() if found is not None}
        unknown = {path: mark for path, mark in self.marks.items() if path not in prints}
        late = self.late(unknown)
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
                rough = self.planned({**prints, **late})
                plans.refuse_too_much(rough)
                self.require_room(rough, finished)
                stand_ins = {found.digest for found in late.values()}
                once = [item.size for item in rough.heads.values() if item.sha256 in stand_ins]
                written = sum(rough.part_sizes[n - 1] for n in done)
                bar.total = total + rough.size - sum(once) - written
                work = draft.Draft(rough, late, memory, pool, bar.update)
                self.record(list(work.write(self.folder, done)), done)
                prints |= work.prints()
                memory.save()
                plan_ = self.planned(prints) if late else rough
                work.refuse_other(plan_)
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

    def late(self, unknown: Mapping[str, Mark]) -> dict[str, Print]:
        """What stands for the digests of files that are hashed while parts are written."""
        if self.settings.since:
            return {}  # what is carried follows from digests
        if sum(mark[2] for mark in unknown.values()) > _memory():
            least = draft.LATE
        elif not self.settings.fill:
            least = plans.LARGE
        else:
            return {}
        return draft.stand_ins(self.contents, self.marks, unknown, least)

    def planned(self, prints: Mapping[str, Print]) -> Plan:
        """The layout, with what is known of the files."""
        chosen = self.settings
        return plans.plan(
            chosen.name, self.contents, prints, chosen.part_size, chosen.since, fill=chosen.fill
        )

    def record(
        self, tasks: Iterable[tuple[int, Future[Written]]], done: dict[int, Written]
    ) -> None:
        """Wait for parts, and write into the journal which are done."""
        with (self.folder / _JOURNAL).open("a") as journal:
            for number, task in tasks:
                done[number] = task.result()
                journal.write(" ".join([str(number), *filter(None, done[number])]) + "\n")
                journal.flush()

    def require_room(self, plan_: Plan, finished: dict[int, Written]) -> None:
        """Refuse what the disk has no room for (exit 3)."""
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
        else:
            (self.folder / verifier.SIGNATURE).unlink(missing_ok=True)


def _all(
    memory: Memory, paths: Sequence[str], on_bytes: Callable[[int], object]
) -> dict[str, Print]:
    return {path: memory.hash(path, on_bytes) for path in paths}


def _memory() -> int:
    """Bytes that the system will probably keep of what was read last."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
