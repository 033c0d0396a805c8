"""Into the site: verified as it is read, imported only once all of it has been, digests kept.

Objects are first written beside the store, each under its digest. When the last one is right, they
are linked to where they belong: blobs of images, inputs in the store, files in folders. Killed at
any moment, the same command goes on. What is loaded is on the disk.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit import files
from kit.bundles import admission, site, stacks, verifier
from kit.bundles.fingerprint import SMALL
from kit.console import progress
from kit.digest import Digest
from kit.errors import ExitCode, KitError, content_error, environment_error
from kit.files import disk_errors, locked, make_folder, write_back, write_json
from kit.images import records
from kit.images.oci import Layout
from kit.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from kit.bundles.admission import Admitted
    from kit.bundles.verifier import Content, Index, Item, Report
    from kit.project import Project

_HEADROOM = 1 << 19
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came in: the bundle, who signed it, and where each content is now."""

    index: Index
    signer: str | None
    pinned: bool
    places: tuple[tuple[Content, Path], ...]
    notes: tuple[str, ...]


def refuse(report: Report, folder: Path) -> Index:
    """The index of a bundle that is as it should be.

    Raises:
        KitError: it is not; every problem is named (exit 4).
    """
    if report.ok and report.bundle is not None:
        return report.bundle
    shown = [f"  - {problem}" for problem in report.problems[:_SHOWN]]
    more = len(report.problems) - _SHOWN
    shown += [f"  - and {more} more"] if more > 0 else []
    raise content_error(
        "\n".join([f"{folder}: not verified, nothing was imported:", *shown]),
        hint="carry what is named again",
    )


def load(
    project: Project,
    folder: Path,
    keys: Sequence[bytes],
    *,
    allow_rollback: bool = False,
    jobs: int = 1,
) -> Loaded:
    """Verify a bundle and import all of it.

    Args:
        project: whose home it is imported into.
        folder: of the bundle.
        keys: blobs of the keys that may have signed it.
        allow_rollback: take an older delivery than the last.
        jobs: threads.

    Raises:
        KitError: not verified, older than the last one, or the site lacks what a delta needs
            (exit 4); no room (exit 3).
        verifier.Refused: it cannot be read.
    """
    report = verifier.check_head(folder, keys)
    index = refuse(report, folder)
    stacks.check(index)
    home = project.home / "bundles"
    with disk_errors(home), locked(site.lock(project, index.name)):
        last = site.last(project, index.name)
        if not allow_rollback:
            site.refuse_rollback(last, index, folder)
        site.restore(project, index.name)
        site.refuse_meeting(project, index)
        work = _Loading(project, folder, index, keys, jobs)
        required = work.required()
        work.stage()
        work.stage_required(required)
        try:
            admitted = admission.admit(project, index, work.staging)
        except KitError as error:
            if error.exit_code == ExitCode.CONTENT:  # whatever is carried again, it is not let in
                shutil.rmtree(work.staging, ignore_errors=True)
            raise
        files.sync_disk(home)
        places = work.commit(admitted)
        notes = work.notes(places)
        site.remember(project, index, report.signer, places, work.origins)
        shutil.rmtree(work.staging, ignore_errors=True)
    pinned = report.pinned
    return Loaded(index, report.signer, pinned, tuple(places), (*notes, *admitted.notes))


class _Loading:
    def __init__(
        self, project: Project, folder: Path, index: Index, keys: Sequence[bytes], jobs: int
    ) -> None:
        self.project = project
        self.folder = folder
        self.index = index
        self.keys = keys
        self.jobs = jobs
        self.staging = project.home / "bundles" / "loading" / index.identity
        self.layout = Layout(project.images)
        self.store = Store(project.store)
        self.origins: dict[str, str] = {}
        self.left: dict[str, int] = {}

    def required(self) -> dict[str, Path]:
        """Where what a delta leaves out is at this site, hashed.

        Raises:
            KitError: something is missing or damaged (exit 4).
        """
        wanted = self.index.requires
        places = site.candidates(self.project, wanted)
        with ThreadPoolExecutor(self.jobs) as pool:
            tasks = {digest: pool.submit(_first, places[digest], digest) for digest in wanted}
            good = {digest: path for digest, task in tasks.items() if (path := task.result())}
        missing = [digest for digest in wanted if digest not in good]
        if missing:
            uses = self.index.uses()
            lines = [f"  - {digest}: {uses[digest][0]}" for digest in missing[:_SHOWN]]
            more = [f"  - and {len(missing) - _SHOWN} more"] if len(missing) > _SHOWN else []
            raise content_error(
                "\n".join(
                    [
                        (
                            f"{self.folder}: a delta to bundle {self.index.base}: this site lacks "
                            f"{len(missing)} of its {len(wanted)} objects; nothing was written:"
                        ),
                        *lines,
                        *more,
                    ]
                ),
                hint="kit bundle load THAT-BUNDLE first, or ask for one that is no delta",
            )
        return good

    def stage(self) -> None:
        """Write every object under its digest; what does not verify stops everything."""
        make_folder(self.staging)
        with os.scandir(self.staging) as entries:
            self.left = {entry.name: entry.stat().st_size for entry in entries}
        needed = [item for item in self.index.items if self.left.get(item.sha256) != item.size]
        missing = sum(item.size for item in needed)
        hint = "export KIT_HOME=<a folder on a larger disk>"
        home = self.project.home
        files.require_room(self.staging, missing, _HEADROOM, whose=home, hint=hint)
        self.refuse_other_sizes()
        bad: list[str] = []
        items = self.index.items
        small = [number for number, item in enumerate(items) if item.size < SMALL]
        large = [number for number, item in enumerate(items) if item.size >= SMALL]
        large.sort(key=lambda number: -items[number].size)
        with (
            verifier.Stream(self.folder, self.index, once=True) as stream,
            progress(self.index.size, f"load {self.index.name}") as bar,
            ThreadPoolExecutor(self.jobs) as pool,
        ):
            # Small ones by one thread, in their order: what they cost is their names, and two
            # threads that make names in one folder wait for each other.
            batches = [small, *verifier.batches(large, self.index)]
            tasks = [pool.submit(self.batch, stream, batch, bar.update, bad) for batch in batches]
            tasks.append(pool.submit(self.frames, stream, bad))
            try:
                for task in tasks:
                    task.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if bad:
            self.refuse_damaged()

    def refuse_other_sizes(self) -> None:
        for part in self.index.parts:
            try:
                found = (self.folder / part.name).lstat().st_size
            except FileNotFoundError:
                found = -1
            if found != part.size:
                self.refuse_damaged()

    def refuse_damaged(self) -> None:
        """Look at all of it once more, to name everything that is wrong."""
        refuse(verifier.check(self.folder, self.keys, self.jobs), self.folder)
        raise environment_error(f"{self.folder}: reads differently each time", hint="dmesg | tail")

    def batch(
        self,
        stream: verifier.Stream,
        numbers: Sequence[int],
        on_bytes: Callable[[int], object],
        bad: list[str],
    ) -> None:
        for number in numbers:
            if bad:
                return
            item = self.index.items[number]
            if not self.copy(stream, item):
                bad.append(item.sha256)
            on_bytes(item.size)

    def copy(self, stream: verifier.Stream, item: Item) -> bool:
        """One object into the staging folder; False if it is not what it is called.

        One that is there already, from a run that was killed, is hashed in its stead.
        """
        place = self.staging / item.sha256
        if item.sha256 in self.left:
            if Digest.of_file(place).hex == item.sha256:
                return self.matches(stream, item)
            place.unlink()
        hasher = hashlib.sha256()
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
        written = 0
        try:
            for piece in stream.pieces(item.offset, item.size):
                hasher.update(piece)
                rest = piece
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
                written += len(piece)
                if item.size >= SMALL:
                    write_back(descriptor, written)
            os.fchmod(descriptor, 0o444)  # whatever the umask: containers have another user
        except verifier.Gap:
            return False
        finally:
            os.close(descriptor)
        return hasher.hexdigest() == item.sha256

    def matches(self, stream: verifier.Stream, item: Item) -> bool:
        """Whether the bundle still holds what was taken from it before."""
        hasher = hashlib.sha256()
        try:
            for piece in stream.pieces(item.offset, item.size):
                hasher.update(piece)
        except verifier.Gap:
            return False
        return hasher.hexdigest() == item.sha256

    def frames(self, stream: verifier.Stream, bad: list[str]) -> None:
        """What stands between the objects."""
        try:
            for number in range(len(self.index.items) + 1):
                start, count, expected = stream.frame(number)
                if stream.read(start, count) != expected:
                    bad.append(f"frame {number}")
                    return
        except verifier.Gap:
            bad.append("gap")

    def stage_required(self, required: dict[str, Path]) -> None:
        """Keep what is taken from an earlier delivery: the folder that it is in may go away."""
        for digest, path in required.items():
            if path != self.staging / digest:
                _place(path, self.staging / digest)

    def source(self, digest: str) -> Path:
        """The file in the staging folder."""
        return self.staging / digest

    def commit(self, admitted: Admitted) -> list[tuple[Content, Path]]:
        """Link everything to where it belongs; images get their names last."""
        places = []
        for content in self.index.contents:
            if content.kind == "image":
                place = self.commit_image(content)
            elif site.is_input(content):
                place = self.project.store
                self.commit_inputs(content)
            else:
                place = self.commit_folder(content)
                if content.kind == "kit":  # so that this site can make bundles with it, too
                    self.commit_inputs(content)
            places.append((content, place))
        files.sync_disk(self.project.home)
        self.commit_names(admitted)
        return places

    def link(self, source: Path, target: Path, digest: str) -> None:
        _place(source, target)
        self.origins.setdefault(digest, os.path.relpath(target, self.project.home))

    def commit_inputs(self, content: Content) -> None:
        for file in content.files:
            target = self.store.place(Digest(file.sha256))
            self.link(self.source(file.sha256), target, file.sha256)

    def commit_image(self, content: Content) -> Path:
        for sha256 in (content.manifest, *(file.sha256 for file in content.files)):
            self.link(self.source(sha256), self.layout.blob(Digest(sha256)), sha256)
        return self.layout.blob(Digest(content.manifest))

    def commit_names(self, admitted: Admitted) -> None:
        """Name the images; the latest of a stack is the one that its record says."""
        names = {f"by-digest:{manifest}": manifest for manifest in admitted.media_types}
        for stack, found in admitted.records.items():
            manifest = Digest.parse(found["manifest_digest"]).hex
            names.pop(f"by-digest:{manifest}", None)
            names[f"{stack}:latest"] = manifest
            write_json(records.of_stack(self.project, stack), {**found, "stages": []})
        for name, manifest in names.items():
            media_type = admitted.media_types[manifest]
            reference = f"localhost/trtllm-kit/{name}"
            self.layout.name_manifest(reference, Digest(manifest), media_type)

    def commit_folder(self, content: Content) -> Path:
        """A folder of the content's own, replaced as a whole."""
        place = site.folder(self.project, self.index.name, content)
        fresh = place.with_name(f".{place.name}.new")
        old = place.with_name(f".{place.name}.old")
        for left in (fresh, old):
            shutil.rmtree(left, ignore_errors=True)
        made: set[Path] = set()
        for file in content.files:
            target = fresh / file.title
            if target.parent not in made:
                make_folder(target.parent)
                made.add(target.parent)
            if os.path.lexists(target):
                raise environment_error(
                    f"{content.kind}/{content.name}: {file.title} and another of its files have "
                    f"one name on the disk of {self.project.home}, which takes small and capital "
                    "letters for the same",
                    hint="export KIT_HOME=<a folder on another disk>",
                )
            self.link(self.source(file.sha256), target, file.sha256)
            self.origins[file.sha256] = os.path.relpath(place / file.title, self.project.home)
        if place.exists():
            place.rename(old)  # killed here, the next load has `restore` put it back
        fresh.rename(place)
        shutil.rmtree(old, ignore_errors=True)
        return place

    def notes(self, places: Sequence[tuple[Content, Path]]) -> list[str]:
        """What whoever loads should know: locks here that say something else."""
        found = [(content.name, place) for content, place in places if content.kind == "stack"]
        return [note for name, place in found for note in stacks.notes(self.project, name, place)]


def _first(paths: Sequence[Path], digest: str) -> Path | None:
    """The first file that hashes to that; what cannot be read counts only where none does."""
    unread: list[OSError] = []
    for path in paths:
        try:
            if Digest.of_file(path).hex == digest:
                return path
        except OSError as error:  # noqa: PERF203 (of a few files)
            unread.append(error)
    for trouble in unread:
        if not isinstance(trouble, FileNotFoundError):
            raise trouble
    return None


def _place(source: Path, target: Path) -> None:
    """Give a file of the staging folder another name: a link, or a copy where there are none."""
    try:
        try:
            os.link(source, target)
        except FileNotFoundError:
            make_folder(target.parent)
            os.link(source, target)
    except FileExistsError:
        # By its name it is this content, but it may have been damaged since.
        if not target.samefile(source):
            fresh = target.with_name(f".{target.name}.new")
            fresh.unlink(missing_ok=True)
            os.link(source, fresh)
            fresh.replace(target)
    except FileNotFoundError:
        raise
    except OSError:  # another disk, or a file system without links
        with source.open("rb") as stream, files.atomic_writer(target, 0o444) as output:
            shutil.copyfileobj(stream, output, 1 << 20)


def receipt_places(loaded: Loaded) -> list[dict[str, Any]]:
    """Contents and where they are, for reports."""
    return [
        {
            "name": content.name,
            "kind": content.kind,
            "why": content.why,
            "manifest": f"sha256:{content.manifest}",
            "files": len(content.files),
            "path": str(place),
        }
        for content, place in loaded.places
    ]
