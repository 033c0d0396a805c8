"""`kit build`: the image of a stack."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kit import images, preflight, project
from kit.commands import stacks as choice
from kit.console import Stopwatch, envelope, note, result, size
from kit.errors import KitError, content_error, usage_error
from kit.images import account, build, dockerfile, records, stages
from kit.images.build import Choices
from kit.locks import resolve

if TYPE_CHECKING:
    import argparse

    from kit.images.engine import Engine
    from kit.images.stages import Plan
    from kit.locks.intent import Intent
    from kit.locks.lock import Lock
    from kit.project import Project

_SHOWN = ("RUN", "COPY", "ENV", "LABEL", "SHELL", "USER", "WORKDIR", "ENTRYPOINT", "CMD")
"""Instructions that `--dry-run` prints."""


def run(options: argparse.Namespace) -> int:
    """Build, or say that the image is there; `--rebuild` proves that it comes out the same."""
    place = project.find()
    stack = choice.choose(place, options.stack)
    choices = Choices(options.target, _arguments(options.arg), _jobs(options.jobs))
    if options.dry_run:
        return _dry_run(place, stack, choices, options)
    engine = images.select(place.home)
    _preflight(place, stack, choices, engine, fresh=options.rebuild)
    watch = Stopwatch()

    def line(text: str) -> None:
        if not options.quiet:
            note(text)

    report = build.build(place, stack, engine, line, fresh=options.rebuild, choices=choices)
    image = report.image
    if report.before not in (None, image.manifest_digest):
        raise content_error(
            f"{stack} did not come out the same: expected {report.before}, "
            f"found {image.manifest_digest}",
        )
    same = report.before == image.manifest_digest and not report.was_current
    if options.json:
        envelope(
            "build",
            ok=True,
            stack=stack,
            engine={"name": engine.name, "version": engine.version()},
            lock=str(image.lock),
            manifest_digest=str(image.manifest_digest),
            image_id=str(image.image_id),
            reference=report.reference,
            was_current=report.was_current,
            identical=same,
            seconds=round(watch.seconds, 3),
            stages=[stage.to_dict() for stage in report.stages],
        )
        return 0
    if not report.was_current:
        note(account.shown(report.stages))
    state = "up to date" if report.was_current else f"built by {engine.name}"
    note(f"{stack}: {state}{', the same as before' if same else ''}, {watch.seconds:.1f} s")
    note(f"{engine.name} has it as {report.reference}")
    result(str(image.manifest_digest))
    return 0


def _preflight(
    place: Project, stack: str, choices: Choices, engine: Engine, *, fresh: bool
) -> None:
    """What would stop the build after an hour is said before anything is done."""
    wanted, lock, _ = build.opened(place, stack, choices)
    if lock is None:  # the build itself says how to make one
        return
    is_usable = _unusable(stack, wanted, lock) is None
    if is_usable and not fresh and build.is_current(place, stack, choices):
        return
    jobs = choices.jobs or stages.default_jobs()
    findings = preflight.check(
        place, wanted, lock, engine, arguments=choices.arguments, jobs=jobs, offline=True
    )
    preflight.require(findings)
    for finding in findings:
        if finding.state in ("warning", "unknown"):
            note(f"{finding.state}: {finding.name}: {finding.detail}")


def _arguments(given: list[str]) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise usage_error(f"--arg {text}: expected NAME=VALUE")
        if name in found:
            raise usage_error(f"--arg {name} stands twice")
        if name == "JOBS":
            raise usage_error(f"--arg {text}: say it by --jobs {value}")
        found[name] = value
    return tuple(sorted(found.items()))


def _jobs(given: int | None) -> int | None:
    if given is not None and given < 1:
        raise usage_error(f"--jobs {given}: expected one or more")
    return given


def _dry_run(place: Project, stack: str, choices: Choices, options: argparse.Namespace) -> int:
    """Every step, and what the preflight finds, without engine or network."""
    wanted, lock, recipe = build.opened(place, stack, choices)
    problem = _unusable(stack, wanted, lock)
    usable = lock if problem is None else None
    plans = recipe.plan(lock, choices.target or recipe.default_target)
    jobs = str(choices.jobs or stages.default_jobs())
    steps = [_step(place, plan, jobs, known=usable is not None) for plan in plans]
    checks: tuple[preflight.Finding, ...] = ()
    if lock is not None:
        checks = preflight.check(
            place, wanted, lock, None, arguments=choices.arguments, jobs=int(jobs)
        )
    if options.json:
        found = [asdict(check) for check in checks]
        envelope("build", ok=True, stack=stack, unresolved=problem, steps=steps, checks=found)
        return 0
    for step in steps:
        result(_text(step))
    if lock is None and problem is not None:
        note(problem)
    note(preflight.render(checks))
    return 0


def _unusable(stack: str, wanted: Intent, lock: Lock | None) -> str | None:
    """Why nothing can be built from this lock yet."""
    if lock is None:
        return f"{stack} is not locked yet: inputs are not known; kit lock {stack}"
    try:
        resolve.check_current(lock, wanted)
    except KitError as error:
        return str(error)
    return None


def _step(place: Project, plan: Plan, jobs: str, *, known: bool) -> dict[str, Any]:
    inputs = (*plan.inputs, *plan.tree_inputs)
    values = dict(plan.values)
    if stages.JOBS in plan.stage.arguments:
        values[stages.JOBS] = jobs
    return {
        "stage": plan.name,
        "stands_on": plan.stage.parent,
        "reads": sorted(plan.files),
        "sources": list(plan.sources),
        "inputs": len(inputs),
        "bytes": sum({item.sha256: item.size for item in inputs}.values()),
        "arguments": values,
        "key": str(plan.key) if known else None,
        "done": known and records.finished(place, plan) is not None,
        "instructions": [
            dockerfile.filled(step.text, values) for step in plan.stage.steps if step.name in _SHOWN
        ],
    }


def _text(step: dict[str, Any]) -> str:
    state = "done" if step["done"] else "to be built"
    lines = [
        f"stage {step['stage']} on {step['stands_on']}: {state}",
        f"  reads {step['inputs']} inputs ({size(step['bytes'])}), "
        f"{len(step['reads'])} files of the family"
        + (f", sources {', '.join(step['sources'])}" if step["sources"] else ""),
    ]
    if step["arguments"]:
        lines.append("  with " + " ".join(f"{k}={v!r}" for k, v in step["arguments"].items()))
    return "\n".join([*lines, *(f"  {line}" for line in step["instructions"]), ""])
