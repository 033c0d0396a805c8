"""`make rehearsal`: the whole pipeline on this host, then the same again offline, compared."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kit import cli, images, project
from kit.compat.gather import Request
from kit.compat.verdict import verify
from kit.console import Stopwatch, note, result, size, table
from kit.errors import ExitCode, KitError, content_error
from kit.examples import recipe
from kit.examples import run as runner
from kit.images import build
from kit.images.engine import Gpus
from kit.locks import fetch, intent, resolve
from kit.locks import lock as locks
from kit.manifests import diff, record

if TYPE_CHECKING:
    from collections.abc import Callable

    from kit.images.build import BuiltImage
    from kit.images.engine import Engine
    from kit.project import Project

STACK = "rehearsal"
EXAMPLES = ("gpt2-tiny", "gpt2-tiny-tp2")
REHEARSED = ("0.5.0", "0.9.0", "0.16.0", "1.2.1")
"""One release for each way to spell convert, build and run; tests run all the others."""


@dataclass
class _Report:
    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def step(self, name: str, action: Callable[[], str]) -> None:
        """Do one step, say so, keep its result and time."""
        note(f"── {name}")
        watch = Stopwatch()
        outcome = action()
        self.rows.append((name, outcome, f"{watch.seconds:.1f} s"))

    def show(self) -> str:
        """The table at the end."""
        return table(self.rows, ["STEP", "RESULT", "TIME"])


class Rehearsal:
    """Lock, fetch, build, check, run, record; `repeat` runs everything again and compares."""

    def __init__(self, place: Project, engine: Engine) -> None:
        self.place = place
        self.engine = engine
        self.report = _Report()
        self.manifests: list[Path] = []

    def prepare(self) -> None:
        """Everything up to the image; the only part that may use the network is `fetch`."""
        self.report.step("lock", self._lock)
        self.report.step("fetch", self._fetch)
        self.report.step("build", self._build)

    def run_all(self) -> None:
        """Every example for every release that the stack holds, checked before and after."""
        image = build.built(self.place, STACK)
        for release in _releases(image):
            self.report.step(f"verify-compat {release}", partial(self._fits, release, None))
            for name in EXAMPLES:
                self.report.step(f"run {name} {release}", partial(self._run, image, name, release))

    def repeat(self, before: list[Path]) -> None:
        """Run what the manifests record once more; any difference that counts is an error."""
        image = build.built(self.place, STACK)
        for path in before:
            first = record.read(path)
            self.report.step(
                f"again {first.example.name} {first.release}",
                partial(self._again, image, first),
            )

    def _lock(self) -> str:
        """Resolve the intent anew and hold it against the lock that everything else goes by."""
        lock = locks.load(self.place.lock_path(STACK))
        resolve.check_current(lock, intent.load(self.place.intent_path(STACK)))
        pinned = f"{len(lock.inputs)} inputs, {lock.digest.short}"
        try:
            moved = set(resolve.resolve(self.place, STACK).inputs) ^ set(lock.inputs)
        except KitError as error:
            if error.exit_code is not ExitCode.ENVIRONMENT:
                raise
            note(f"the lock is used as it is: {error}")
            return f"{pinned}; not resolved again on this host"
        state = f"{len(moved)} pins would move" if moved else "the same"
        return f"{pinned}; resolved again: {state}"

    def _fetch(self) -> str:
        done = fetch.fetch(self.place, locks.load(self.place.lock_path(STACK)))
        return f"{done.fetched} of {done.inputs} fetched, {size(done.bytes)}"

    def _build(self) -> str:
        done = build.build(self.place, STACK, self.engine, lambda _line: None)
        how = "up to date" if done.was_current else f"built by {self.engine.name}"
        return f"{how}, {done.image.manifest_digest}"

    def _run(self, image: BuiltImage, name: str, release: str) -> str:
        path = runner.run(self.place, self.engine, image, recipe.find(name), release, None, Gpus())
        self.manifests.append(path)
        self._fits(release, path)
        said = record.read(path).outputs[0]
        return f"{said.prompt!r} → {said.text!r}"

    def _fits(self, release: str, manifest: Path | None) -> str:
        engine = manifest.parent / "engine" if manifest else None
        request = Request(release=release, stack=STACK, engine=engine, manifest=manifest)
        verdict = verify(self.place, request)
        if verdict.exit_code(strict=True) != ExitCode.OK:
            raise content_error(verdict.sentence())
        return verdict.sentence()

    def _again(self, image: BuiltImage, first: record.Manifest) -> str:
        example = recipe.find(first.example.name)
        path = runner.run(self.place, self.engine, image, example, first.release, None, Gpus())
        second = record.read(path)
        found = diff.diff(first, second)
        if not found.ok:
            raise content_error(f"{path}: not the same again\n{found.text()}")
        files = len(second.artifacts)
        tokens = sum(len(said.token_ids) for said in second.outputs)
        return f"identical: {files} files of checkpoint and engine, {tokens} tokens"


def main() -> int:
    """Run the rehearsal; `--repeat MANIFEST…` is its second half, for a process without network."""
    parser = argparse.ArgumentParser(prog="python -m kit.rehearsal")
    parser.add_argument("--repeat", nargs="+", type=Path)
    options = parser.parse_args()
    place = project.find()
    rehearsal = Rehearsal(place, images.select(place.home))
    if options.repeat:
        rehearsal.repeat(options.repeat)
        result(rehearsal.report.show())
        return ExitCode.OK
    rehearsal.prepare()
    rehearsal.run_all()
    result("")
    result(rehearsal.report.show())
    result(f"\nmanifest: {rehearsal.manifests[-1]}\n")
    return _offline(rehearsal.manifests, rehearsal.engine.name)


def _offline(manifests: list[Path], engine: str) -> int:
    """The second half: in a network namespace without a route where the host lets us make one."""
    argv = [sys.executable, "-m", "kit.rehearsal", "--repeat", *map(str, manifests)]
    unshare = shutil.which("unshare")
    if unshare and _works([unshare, "--net", "true"]):
        result("once more, the kit itself in a network namespace without any interface:")
        argv = [unshare, "--net", *argv]
    else:
        result("once more, containers without network (no right to take it from the kit itself):")
    environment = {**os.environ, "KIT_ENGINE": engine}
    return subprocess.run(argv, check=False, env=environment).returncode


def _works(argv: list[str]) -> bool:
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def _releases(image: BuiltImage) -> list[str]:
    """Those that are rehearsed, of those that the image speaks."""
    held = image.labels[runner.RELEASES_LABEL].split()
    return [release for release in REHEARSED if release in held]


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
