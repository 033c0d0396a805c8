"""`kit bundle`: make, check, import, list, push, export."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from kit import project as projects
from kit.console import Stopwatch, envelope, note, result, size
from kit.errors import ExitCode, KitError, usage_error

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from kit.bundles.verifier import Index
    from kit.project import Project

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)


def run(options: argparse.Namespace) -> int:
    """Dispatch to the action."""
    _refuse_misplaced(options)
    if options.action == "create":
        return _create(projects.find(), options)
    if options.action == "list" and options.bundle is not None:
        _index_file(options.bundle)
    from kit.bundles.verifier import Refused
    from kit.commands import bundle_received as received

    actions: dict[str, Callable[[Project, argparse.Namespace], int]] = {
        "verify": received.verify,
        "load": received.load,
        "list": received.list_,
        "push": received.push,
        "export": received.export,
    }
    try:
        return actions[options.action](projects.find(), options)
    except Refused as error:
        raise KitError(str(error), exit_code=ExitCode(error.code)) from error


_OPTIONS = {
    "create": (
        *("stack", "example", "model", "dataset", "manifest", "file", "name", "sequence"),
        *("without_inputs", "without_kit", "part_size", "since", "key", "jobs"),
    ),
    "verify": ("key", "jobs", "receipt", "sign_with"),
    "load": ("key", "jobs", "receipt", "sign_with", "allow_rollback"),
    "list": (),
    "push": ("key", "jobs", "target"),
    "export": ("to",),
}
"""Action → what may be said with it."""


def _refuse_misplaced(options: argparse.Namespace) -> None:
    """Refuse an option that the action would pass over, and an action without its bundle."""
    for name in sorted({name for names in _OPTIONS.values() for name in names}):
        if name not in _OPTIONS[options.action] and getattr(options, name) not in (None, [], False):
            shown = "a second place" if name == "target" else f"--{name.replace('_', '-')}"
            raise usage_error(
                f"kit bundle {options.action} takes no {shown}", hint="kit bundle --help"
            )
    if options.bundle is None and options.action != "list":
        raise usage_error(
            f"kit bundle {options.action}: which one? expected its folder",
            hint=f"kit bundle {options.action} FOLDER",
        )
    if options.sign_with and not options.receipt:
        raise usage_error("--sign-with signs a receipt", hint="--receipt FILE --sign-with KEY")


def bytes_of(text: str) -> int:
    """`4G` → 4000000000, `4GiB` → 4294967296.

    Raises:
        KitError: no size, not one byte, or more than an index can say (exit 2).
    """
    from decimal import Decimal  # a float ends, and rounds before it does

    from kit.bundles.create import LARGEST

    match = _SIZE.fullmatch(text.strip())
    found = Decimal(0)
    if match is not None:
        number, unit, binary = match.groups()
        power = " KMGT".index(unit.upper()) if unit else 0
        found = Decimal(number) * (1024 if binary else 1000) ** power
    hint = "--part-size 4G, 55MiB, 4.7G"
    if found < 1:
        raise usage_error(f"--part-size {text}: expected a size", hint=hint)
    if found > LARGEST:
        raise usage_error(f"--part-size {text}: expected {LARGEST} bytes at most", hint=hint)
    return int(found)


def jobs(given: int | None) -> int:
    """Threads: as many as cores, if nothing else is said."""
    if given is not None and given < 1:
        raise usage_error(f"--jobs {given}: expected one or more")
    return given or len(os.sched_getaffinity(0))


def _create(place: Project, options: argparse.Namespace) -> int:
    from kit.bundles import create, gather, media

    out = Path(options.bundle)
    request = gather.Request(
        stacks=tuple(options.stack),
        examples=tuple(options.example),
        models=tuple(options.model),
        datasets=tuple(map(Path, options.dataset)),
        manifests=tuple(map(Path, options.manifest)),
        files=tuple(map(Path, options.file)),
        inputs=not options.without_inputs,
        own=not options.without_kit,
    )
    name = options.name or request.name
    if not re.fullmatch(r"[a-z0-9][a-z0-9._+-]{0,99}", name):
        raise usage_error(f"--name {name}: expected small letters, digits, and . _ + - in between")
    if options.sequence is not None and not 1 <= options.sequence <= create.LARGEST:
        raise usage_error(f"--sequence {options.sequence}: expected 1 to {create.LARGEST}")
    if len(options.key) > 1:
        raise usage_error("--key stands twice: a bundle has one signer")
    part_size = bytes_of(options.part_size) if options.part_size else create.DEFAULT_PART_SIZE
    media.refuse_large_parts(out, part_size)
    settings = create.Settings(
        name=name,
        part_size=part_size,
        fill=options.part_size is not None,
        since=index_of(options.since) if options.since else None,
        sequence=options.sequence,
        key=Path(options.key[0]) if options.key else None,
        jobs=jobs(options.jobs),
    )
    watch = Stopwatch()
    made = create.create(place, gather.gather(place, request), out, settings)
    if options.json:
        envelope(
            "bundle",
            ok=True,
            name=made.name,
            sequence=made.sequence,
            identity=made.identity,
            bytes=made.size,
            objects=made.objects,
            parts=[
                {"name": name, "size": length, "sha256": sha256}
                for name, length, sha256 in made.parts
            ],
            requires=made.requires,
            base=made.base,
            folder=str(made.folder),
            signer=made.signer,
            was_there=made.was_there,
            seconds=round(watch.seconds, 3),
        )
        return ExitCode.OK
    if made.signer is None:
        note("not signed: a site that pins keys will refuse it (--key KEY)")
    state = "nothing has changed" if made.was_there else f"made in {watch.seconds:.1f} s"
    note(
        f"{made.folder}: {state}: {made.objects} objects, {size(made.size)} "
        f"in {len(made.parts)} parts"
    )
    if made.requires:
        note(f"a delta: the site needs {made.requires} objects of {made.base}")
    result(made.identity)
    return ExitCode.OK


def _index_file(given: str) -> Path:
    """The index of a bundle, given by its folder or itself.

    Raises:
        KitError: there is none (exit 2).
    """
    from kit.bundles import verifier

    path = Path(given)
    if not os.path.lexists(path):
        raise usage_error(f"{path}: cannot be read: there is no such bundle")
    if not path.is_dir():
        return path
    path /= verifier.INDEX
    if not os.path.lexists(path):
        raise usage_error(f"{given}: no bundle: no {verifier.INDEX} in it")
    return path


def index_of(given: str) -> Index:
    """The index of a bundle, given by its folder or itself; nothing is verified.

    Raises:
        KitError: there is none (exit 2), or it cannot be read (exit 3 or 4).
    """
    from kit.bundles import verifier

    path = _index_file(given)
    try:
        return verifier.parse(verifier.content(path, verifier.INDEX_LIMIT), str(path))
    except verifier.Refused as error:
        raise KitError(str(error), exit_code=ExitCode(error.code)) from error
