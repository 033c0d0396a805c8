"""`kit bundle`: make, check, import, list, push, export."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit import project as projects
from kit.bundles import sign, verifier
from kit.console import Stopwatch, envelope, note, progress, result, size, table, visible
from kit.errors import ExitCode, KitError, usage_error

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from kit.bundles.verifier import Index, Report
    from kit.project import Project

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)


def run(options: argparse.Namespace) -> int:
    """Dispatch to the action."""
    actions: dict[str, Callable[[Project, argparse.Namespace], int]] = {
        "create": _create,
        "verify": _verify,
        "load": _load,
        "list": _list,
        "push": _push,
        "export": _export,
    }
    _refuse_misplaced(options)
    try:
        return actions[options.action](projects.find(), options)
    except verifier.Refused as error:
        raise KitError(str(error), exit_code=ExitCode(error.code)) from error


_OPTIONS = {
    "create": (
        *("stack", "example", "model", "dataset", "manifest", "file", "name", "sequence"),
        *("without_inputs", "without_kit", "part_size", "since", "key", "jobs", "sync"),
    ),
    "verify": ("key", "jobs", "receipt", "sign_with"),
    "load": ("key", "jobs", "receipt", "sign_with", "allow_rollback", "sync"),
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
        KitError: no size, or not one byte (exit 2).
    """
    match = _SIZE.fullmatch(text.strip())
    found = 0
    if match is not None:
        number, unit, binary = match.groups()
        base = 1024 if binary else 1000
        found = int(
            float(number) * base ** "KMGT".find(unit.upper()) * base if unit else float(number)
        )
    if found < 1:
        raise usage_error(
            f"--part-size {text}: expected a size", hint="--part-size 4G, 55MiB, 4.7G"
        )
    return found


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
    if options.sequence is not None and options.sequence < 1:
        raise usage_error(f"--sequence {options.sequence}: expected one or more")
    if len(options.key) > 1:
        raise usage_error("--key stands twice: a bundle has one signer")
    part_size = bytes_of(options.part_size) if options.part_size else create.DEFAULT_PART_SIZE
    media.refuse_large_parts(out, part_size)
    settings = create.Settings(
        name=name,
        part_size=part_size,
        fill=options.part_size is not None,
        since=_since(options.since),
        sequence=options.sequence,
        key=Path(options.key[0]) if options.key else None,
        jobs=jobs(options.jobs),
        sync=options.sync,
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
            parts=[part._asdict() for part in made.parts],
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


def _since(given: str | None) -> Index | None:
    if given is None:
        return None
    path = Path(given)
    path = path / verifier.INDEX if path.is_dir() else path
    return verifier.parse(verifier.content(path, verifier.INDEX_LIMIT), str(path))


def _checked(options: argparse.Namespace, place: Project) -> Report:
    keys = sign.pinned(place, [Path(key) for key in options.key])
    folder = Path(options.bundle)
    with progress(0, "verify") as bar:
        head = verifier.check_head(folder, keys)
        bar.total = head.bundle.size if head.bundle else 0
        return verifier.check(folder, keys, jobs(options.jobs), bar.update)


def _verify(place: Project, options: argparse.Namespace) -> int:
    report = _checked(options, place)
    if options.receipt:
        from kit.bundles import receipt

        receipt.write(Path(options.receipt), receipt.of(report), _private(options))
    if options.json:
        envelope("bundle", ok=report.ok, **_outcome(report))
    else:
        for line in verifier.said(report):
            result(visible(line))
    return ExitCode.OK if report.ok else ExitCode.CONTENT


def _load(place: Project, options: argparse.Namespace) -> int:
    from kit.bundles import load

    keys = sign.pinned(place, [Path(key) for key in options.key])
    watch = Stopwatch()
    loaded = load.load(
        place,
        Path(options.bundle),
        keys,
        allow_rollback=options.allow_rollback,
        jobs=jobs(options.jobs),
        sync=options.sync,
    )
    index = loaded.index
    if options.receipt:
        from kit.bundles import receipt

        receipt.write(Path(options.receipt), receipt.of_load(loaded), _private(options))
    for said in loaded.notes:
        note(f"note: {said}")
    if loaded.signer is None:
        note("note: the bundle is not signed")
    elif not loaded.pinned:
        note(
            f"note: signed by {loaded.signer}, which is not pinned here: "
            f"put the sender's .pub into {place.home / sign.TRUSTED}"
        )
    if options.json:
        envelope(
            "bundle",
            ok=True,
            **_described(index),
            signer=loaded.signer,
            pinned=loaded.pinned,
            contents=load.receipt_places(loaded),
            seconds=round(watch.seconds, 3),
        )
        return ExitCode.OK
    note(
        f"{index.name}, delivery {index.sequence}: {len(index.items)} objects, "
        f"{size(index.size)} in {watch.seconds:.1f} s"
    )
    rows = [[content.kind, content.name, str(where)] for content, where in loaded.places]
    result(table(rows, ["KIND", "NAME", "WHERE"]))
    return ExitCode.OK


def _list(place: Project, options: argparse.Namespace) -> int:
    """What is in a bundle, or what has been loaded here."""
    if options.bundle is None:
        from kit.bundles import site

        found = list(site.every(place))
        if options.json:
            keys = ("name", "sequence", "identity", "signer", "contents")
            envelope("bundle", ok=True, bundles=[{key: one[key] for key in keys} for one in found])
            return ExitCode.OK
        rows = [
            [
                f"{one['name']} {one['sequence']}",
                item["kind"],
                item["name"],
                item["manifest"][:12],
                item["path"],
            ]
            for one in found
            for item in one["contents"]
        ]
        result(table(rows, ["BUNDLE", "KIND", "NAME", "DIGEST", "WHERE"]))
        return ExitCode.OK
    path = Path(options.bundle)
    path = path / verifier.INDEX if path.is_dir() else path
    index = verifier.parse(verifier.content(path, verifier.INDEX_LIMIT), str(path))
    if options.json:
        envelope("bundle", ok=True, **_described(index), contents=list(_contents(index)))
        return ExitCode.OK
    result(f"{index.name}, delivery {index.sequence}, id {index.identity} (nothing is verified)")
    if index.base:
        result(f"a delta to {index.base}: needs {len(index.requires)} objects")
    rows = [
        [
            row["kind"],
            visible(row["name"]),
            str(row["files"]),
            size(row["bytes"]),
            visible(row["why"]),
        ]
        for row in _contents(index)
    ]
    result(table(rows, ["KIND", "NAME", "FILES", "SIZE", "WHY"]))
    return ExitCode.OK


def _push(place: Project, options: argparse.Namespace) -> int:
    from kit.bundles import load, push

    if not options.target:
        raise usage_error(
            "kit bundle push BUNDLE REGISTRY/PREFIX: where to?",
            hint=f"kit bundle push {options.bundle} registry.site:5000/kit",
        )
    index = load.refuse(_checked(options, place), Path(options.bundle))
    pushed = push.push(Path(options.bundle), index, options.target, jobs=jobs(options.jobs))
    if options.json:
        envelope("bundle", ok=True, **_described(index), pushed=pushed)
        return ExitCode.OK
    for row in pushed:
        result(row["reference"])
    return ExitCode.OK


def _export(place: Project, options: argparse.Namespace) -> int:
    from kit.bundles import export, load

    if options.to not in export.FORMATS:
        raise usage_error("kit bundle export BUNDLE: expected --to hauler or --to zarf")
    report = verifier.check_head(Path(options.bundle), sign.pinned(place, []))
    index = load.refuse(report, Path(options.bundle))
    print(export.FORMATS[options.to](Path(options.bundle), index), end="")
    return ExitCode.OK


def _private(options: argparse.Namespace) -> Path | None:
    return Path(options.sign_with) if options.sign_with else None


def _described(index: Index) -> dict[str, Any]:
    return {
        "name": index.name,
        "sequence": index.sequence,
        "identity": index.identity,
        "bytes": index.size,
        "objects": len(index.items),
        "parts": [part._asdict() for part in index.parts],
        "requires": len(index.requires),
        "base": index.base,
    }


def _outcome(report: Report) -> dict[str, Any]:
    described = _described(report.bundle) if report.bundle else {}
    return {
        **described,
        "signer": report.signer,
        "pinned": report.pinned,
        "checked": report.objects,
        "problems": [
            {"name": problem.what, "kind": problem.kind, "detail": problem.detail}
            for problem in report.problems
        ],
    }


def _contents(index: Index) -> Iterator[dict[str, Any]]:
    sizes = {**index.requires, **{item.sha256: item.size for item in index.items}}
    for content in index.contents:
        yield {
            "name": content.name,
            "kind": content.kind,
            "stack": content.stack or None,
            "why": content.why,
            "manifest": f"sha256:{content.manifest}",
            "files": len(content.files),
            "bytes": sum(sizes[file.sha256] for file in content.files),
        }
