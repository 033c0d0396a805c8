"""Python packages on top of a base image, as its own pip would install them today.

pip runs in a container of the base image, which has no network: it asks an index on this host that
records what it takes (`recording_index`). Nothing is installed; what one stage would install counts
as installed for the stages that stand on it.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.console import note
from kit.errors import KitError, content_error, environment_error, usage_error
from kit.files import content, disk_errors, locked, make_folder, write_bytes, write_json
from kit.images.dockerfile import instructions
from kit.images.engine import Mount, RunRequest
from kit.images.oci import Layout
from kit.images.pulled import pulled
from kit.locks import intent as intents
from kit.locks.archived_wheels import take_out
from kit.locks.lock import Input, Lock
from kit.locks.pip_messages import explained
from kit.locks.recording_index import RecordingIndex
from kit.locks.requirement_files import RequirementFiles
from kit.locks.stub_sdists import stub_index
from kit.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kit.images.engine import Engine
    from kit.locks.closures import RequirementGroup, Requirements
    from kit.locks.http import Client
    from kit.locks.intent import Intent
    from kit.locks.recording_index import Offer, Session
    from kit.project import Project

_SCRIPT = Path(__file__).parent / "container" / "pip_report.py"
_GIVEN = "/kit/given"
"""What the container reads: it cannot write there, so nothing that is written there later follows
a link of its making."""
_WORK = "/kit/work"
"""Where it writes; nothing is read from there but its answer."""
_ANSWER_LIMIT = 64 << 20
_INDEX = "/kit/index"
_FIRST_WITH_REPORT = (22, 2)
"""The first pip that can tell what it would install (`--dry-run --report`)."""
_UNCONSTRAINED_FROM = (0, 18)
"""The first release whose build empties the constraints of its base image before anything else,
since its requirements do not fit them (docker/Dockerfile.multi)."""
BUILD_FOLDER = "build"
"""Where, inside of a group, the inputs stand that only its source distributions' builds need."""


def resolve_requirements(
    requirements: Requirements,
    project: Project,
    inputs_so_far: Sequence[Input],
    platform: str,
    engine: Engine,
    client: Client,
    stack: str,
) -> list[Input]:
    """Every wheel and source distribution that pip would install, group by group.

    What the builds of source distributions need comes along, as `build/<file>` of the same group:
    it is for the isolated builds alone.

    Args:
        requirements: what the intent asks for.
        project: where the intent, the store and room for work are.
        inputs_so_far: the base image, the source trees and the archives; all fetched.
        platform: of the base image.
        engine: runs the container.
        client: what indexes are asked through.
        stack: the intent's name.

    Raises:
        KitError: requirements that cannot be met, no such file (exit 2); an index, the engine or
            the disk fails, the image has no pip that can do it (exit 3); wrong content (exit 4).
    """
    intent = intents.load(project.intent_path(stack))
    # One folder, so that whatever a killed run has left goes with the next.
    folder = project.home / "requirements" / stack
    with locked(folder.with_name(f"{stack}.lock")):
        shutil.rmtree(folder, ignore_errors=True)
        try:
            make_folder(folder)
            # Whoever reaches the socket asks with this user's logins.
            folder.chmod(0o700)
            for name in ("given", "work", "index"):
                make_folder(folder / name)
                (folder / name).chmod(0o755)
            store = Store(project.store)
            reference = _bring_base(requirements.base, project, intent, inputs_so_far, engine)
            with (
                disk_errors(folder),
                RecordingIndex(client, store, folder / "index") as index,
            ):
                return _Resolution(
                    intent=intent,
                    requirements=requirements,
                    inputs=inputs_so_far,
                    platform=platform,
                    engine=engine,
                    reference=reference,
                    index=index,
                    store=store,
                    folder=folder,
                    stands_on=_stages(
                        project.root_of(stack) / "dockerfiles" / intent.family / "Dockerfile"
                    ),
                ).run()
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _bring_base(
    name: str, project: Project, intent: Intent, inputs: Sequence[Input], engine: Engine
) -> str:
    """Load the base image into the engine, unless it is there; returns its id there."""
    stack = intent.stack
    if not any(item.kind == "oci" and item.group == name for item in inputs):
        raise usage_error(f"requirements: there is no image {name!r} among the images of {stack}")
    lock = Lock(stack, intent.digest, tuple(inputs))
    place = f"localhost/trtllm-kit/{stack}-{name}:pulled"  # the same that builds stand on
    image = pulled(Layout(project.images), lock, Store(project.store), name, place)
    if engine.has(image.image_id.hex):
        return image.image_id.hex
    note(f"requirements: loading image {name} into {engine.name}")
    return engine.load(image, place)


def _stages(path: Path) -> dict[str, str]:
    """Stage → what it stands on, as the family's Dockerfile says; empty without one."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    return {
        step.words[2].lower(): step.words[0].lower()
        for step in instructions(text)
        if step.name == "FROM" and len(step.words) == 3
    }


@dataclass(slots=True)
class _Resolution:
    """All groups of one intent, in its order."""

    intent: Intent
    requirements: Requirements
    inputs: Sequence[Input]
    platform: str
    engine: Engine
    reference: str
    index: RecordingIndex
    store: Store
    folder: Path
    stands_on: dict[str, str]
    done: list[str] = field(default_factory=list)

    def run(self) -> list[Input]:
        write_bytes(self._given / "pip_report.py", _SCRIPT.read_bytes())
        python = self._probe()
        found: list[Input] = []
        for group in self.requirements.groups:
            arguments, indexes = self._arguments(group, python)
            if arguments:
                found += self._group(group.name, arguments, indexes)
            self.done.append(group.name)
        return found

    @property
    def _given(self) -> Path:
        return self.folder / "given"

    def _probe(self) -> str:
        """`3.12`, if the image has a Python and a pip that can do it."""
        result = self._in_container({"arguments": []}, "versions", [])
        pip = result["pip"]
        if pip is None:
            raise environment_error(
                f"image {self.requirements.base}: its Python {result['python']} has no pip",
                hint="stand on an image that has one, such as the release's own base image",
            )
        if _numbers(pip) < _FIRST_WITH_REPORT:
            raise environment_error(
                f"image {self.requirements.base}: expected pip 22.2 or newer, which can tell what "
                f"it would install, found {pip}"
            )
        return str(result["python"])

    def _arguments(self, group: RequirementGroup, python: str) -> tuple[list[str], list[str]]:
        """What pip is asked for, and the indexes that the group's files name."""
        arguments = []
        for text in group.archives:
            archive, _, pattern = text.partition("!")
            place = self._archive(archive)
            member = pattern.replace("{python}", python.replace(".", ""))
            wheels = take_out(place, member, self._given / "archives", archive)
            arguments += [f"{_GIVEN}/archives/{wheel.name}" for wheel in wheels]
        trees = [item for item in self.inputs if item.kind == "git"]
        files = RequirementFiles(self.store, trees, self._given / "trees", self.intent.stack)
        indexes = files.copy(group.files)
        for name in group.files:
            arguments += ["--requirement", f"{_GIVEN}/trees/{name}"]
        return [*arguments, *group.packages], indexes

    def _archive(self, name: str) -> Path:
        for item in self.inputs:
            if item.kind == "file" and f"{item.group}/{item.file}" == name:
                return self.store.path(item.sha256, str(item), self.intent.stack)
        raise usage_error(f"requirements: archives: there is no file {name} in {self.intent.stack}")

    def _group(self, name: str, arguments: list[str], indexes: list[str]) -> list[Input]:
        note(f"requirements: {name}: asking the pip of image {self.requirements.base}")
        wanted = [url.rstrip("/") for url in [*self.requirements.indexes, *indexes]]
        installs = self.index.session(name, wanted)
        builds = self.index.session(f"{name}+build", wanted)
        job = {
            "name": name,
            "arguments": arguments,
            "index": f"/{installs.name}",
            "build_index": f"/{builds.name}",
            "below": self._below(name),
            "constrained": not self._is_unconstrained(),
        }
        result = self._in_container(job, name, [installs, builds])
        chosen = [
            (item, self.index.offer(item["url"]))
            for item in result["install"]
            if not item["url"].startswith("file:")
        ]
        for _, offer in chosen:
            self._refuse_stub(name, offer, wanted)
        inputs = [self._input(name, offer, item["name"], item["version"]) for item, offer in chosen]
        numbers = {offer.number for _, offer in chosen}
        inputs += [
            self._build_input(name, offer)
            for number, offer in sorted(builds.delivered.items())
            if number not in numbers
        ]
        return _unique(inputs)

    def _below(self, name: str) -> list[str]:
        """The groups before this one that its stage stands on, the nearest first."""
        found = []
        while (name := self.stands_on.get(name, "")) and name not in found:
            if name in self.done:
                found.append(name)
        return found

    def _is_unconstrained(self) -> bool:
        release = self.intent.release
        return release is not None and _numbers(release) >= _UNCONSTRAINED_FROM

    def _in_container(
        self, job: dict[str, Any], what: str, sessions: Iterable[Session]
    ) -> dict[str, Any]:
        work = self.folder / "work"
        write_json(self._given / "job.json", job)
        _let_read(self._given)
        (work / "result.json").unlink(missing_ok=True)
        lines: list[str] = []
        request = RunRequest(
            image=self.reference,
            argv=("python3", f"{_GIVEN}/pip_report.py", _GIVEN, _WORK),
            workdir="/",
            mounts=(
                Mount(self._given, _GIVEN),
                Mount(work, _WORK, writable=True),
                Mount(self.folder / "index", _INDEX),
            ),
        )
        try:
            code = self.engine.run(request, lines.append)
        except KitError as error:
            if "executable file not found" in str(error):
                raise self._no_python() from error
            raise
        if not (work / "result.json").exists():
            if code == 127:
                raise self._no_python()
            if any("exec format error" in line.lower() for line in lines):
                raise environment_error(
                    f"image {self.requirements.base} is for {self.platform}, whose programs do not "
                    "run on this host: lock on a host of that kind"
                )
        for session in sessions:
            if session.problem is not None:
                # Without it pip would have chosen otherwise, or tells what follows from it.
                raise session.problem
        for scratch in ("tmp", "home"):
            shutil.rmtree(work / scratch, ignore_errors=True)
        try:
            result = _answer(work / "result.json")
        except (OSError, ValueError, RecursionError):
            end = "\n".join(f"  | {line}" for line in lines[-15:])
            raise environment_error(
                f"requirements: {what}: image {self.requirements.base}: its Python ended with exit "
                f"code {code} and no answer\n{end}"
            ) from None
        if result["failed"]:
            for session in sessions:
                for offer in reversed(session.delivered.values()):
                    self._refuse_stub(what, offer, session.indexes)
            raise explained(
                lines, what, self.requirements.base, self.index.places, self.folder / "work"
            )
        return result

    def _no_python(self) -> KitError:
        return environment_error(f"image {self.requirements.base}: there is no python3 in it")

    def _refuse_stub(self, group: str, offer: Offer, asked: Sequence[str]) -> None:
        """Stop at what would download the true package while it is built."""
        if offer.link.filename.endswith(".whl"):
            return
        where = stub_index(self.index.bring(offer))
        if where is None:
            return
        problem = (
            f"requirements: {group}: {offer.link.filename} is a placeholder: built, it downloads "
            f"the true package from {where}, which no build here can"
        )
        if where in asked:
            raise usage_error(f"{problem}; that index was asked and has no wheel that fits")
        raise usage_error(
            problem, hint=f"add {where} to `indexes:` below `requirements:` of the intent"
        )

    def _input(self, group: str, offer: Offer, name: str, version: str) -> Input:
        from packaging.utils import canonicalize_name

        sha256, size = self.index.identity(offer)
        file = offer.link.filename
        return Input(
            kind="wheel" if file.endswith(".whl") else "sdist",
            group=group,
            name=canonicalize_name(name),
            version=version,
            file=file,
            location=offer.location,
            sha256=sha256,
            size=size,
        )

    def _build_input(self, group: str, offer: Offer) -> Input:
        from dataclasses import replace

        from packaging.utils import parse_sdist_filename, parse_wheel_filename

        file = offer.link.filename
        try:
            if file.endswith(".whl"):
                name, version = parse_wheel_filename(file)[:2]
            else:
                name, version = parse_sdist_filename(file)
        except ValueError as error:
            raise content_error(f"requirements: {group}: {file}: no name of a package") from error
        return replace(self._input(group, offer, name, str(version)), file=f"{BUILD_FOLDER}/{file}")


def _answer(path: Path) -> dict[str, Any]:
    """What the container has written.

    Raises:
        OSError: nothing.
        ValueError: something else than it should.
        KitError: no file of a size that such a file has (exit 4).
    """
    found = json.loads(content(path, _ANSWER_LIMIT))
    try:
        texts = [found["python"], found["pip"] or "", found["failed"] or ""]
        for item in found["install"]:
            texts += [item["name"], item["version"], item["url"]]
    except (KeyError, TypeError) as error:
        raise ValueError(str(error)) from error
    if not all(isinstance(text, str) and text.isprintable() for text in texts):
        raise ValueError
    answer: dict[str, Any] = found
    return answer


def _let_read(folder: Path) -> None:
    """Let the container's user, who is another one, read a folder, whatever the umask."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def _unique(inputs: Iterable[Input]) -> list[Input]:
    """Each file once, sorted.

    Raises:
        KitError: two of one name (exit 4).
    """
    found: dict[tuple[str, str], Input] = {}
    for item in inputs:
        known = found.setdefault((item.kind, item.file), item)
        if known.sha256 != item.sha256:
            raise content_error(
                f"requirements: {item.group}: two indexes have another {item.file}: "
                f"{known.sha256} and {item.sha256}"
            )
    return sorted(found.values())


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
