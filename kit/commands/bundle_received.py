"""`kit bundle` where a bundle arrives: verify, load, list, push, export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.bundles import sign, verifier
from kit.commands.bundle import jobs
from kit.console import Stopwatch, envelope, note, progress, result, size, table, visible
from kit.errors import ExitCode, usage_error

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from kit.bundles.verifier import Index, Report
    from kit.project import Project


def _checked(options: argparse.Namespace, place: Project) -> Report:
    keys = sign.pinned(place, [Path(key) for key in options.key])
    folder = Path(options.bundle)
    with progress(0, "verify") as bar:
        head = verifier.check_head(folder, keys)
        bar.total = head.bundle.size if head.bundle else 0
        return verifier.check(folder, keys, jobs(options.jobs), bar.update)


def verify(place: Project, options: argparse.Namespace) -> int:
    """What is wrong with a bundle, if anything."""
    private = _private(options)
    report = _checked(options, place)
    if options.receipt and report.bundle is None:
        note("note: no receipt: without an index that may be read nobody knows what it would be of")
    elif options.receipt:
        from kit.bundles import receipt

        receipt.write(Path(options.receipt), receipt.of(report), private)
    if options.json:
        envelope("bundle", ok=report.ok, **_outcome(report))
    else:
        for line in verifier.said(report):
            result(visible(line))
    return ExitCode.OK if report.ok else ExitCode.CONTENT


def load(place: Project, options: argparse.Namespace) -> int:
    """Verify, and import all of it."""
    from kit.bundles import load as loads

    keys = sign.pinned(place, [Path(key) for key in options.key])
    private = _private(options)
    watch = Stopwatch()
    loaded = loads.load(
        place,
        Path(options.bundle),
        keys,
        allow_rollback=options.allow_rollback,
        jobs=jobs(options.jobs),
    )
    index = loaded.index
    if options.receipt:
        from kit.bundles import receipt

        receipt.write(Path(options.receipt), receipt.of_load(loaded), private)
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
            contents=loads.receipt_places(loaded),
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


def list_(place: Project, options: argparse.Namespace) -> int:
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


def push(place: Project, options: argparse.Namespace) -> int:
    """Its images and artifacts into a registry of the site."""
    from kit.bundles import load as loads
    from kit.bundles import push as pushes

    if not options.target:
        raise usage_error(
            "kit bundle push BUNDLE REGISTRY/PREFIX: where to?",
            hint=f"kit bundle push {options.bundle} registry.site:5000/kit",
        )
    index = loads.refuse(_checked(options, place), Path(options.bundle))
    pushed = pushes.push(Path(options.bundle), index, options.target, jobs=jobs(options.jobs))
    if options.json:
        envelope("bundle", ok=True, **_described(index), pushed=pushed)
        return ExitCode.OK
    for row in pushed:
        result(row["reference"])
    return ExitCode.OK


def export(place: Project, options: argparse.Namespace) -> int:
    """What hauler or zarf take."""
    from kit.bundles import export as exports
    from kit.bundles import load as loads

    if options.to not in exports.FORMATS:
        raise usage_error("kit bundle export BUNDLE: expected --to hauler or --to zarf")
    report = verifier.check_head(Path(options.bundle), sign.pinned(place, []))
    index = loads.refuse(report, Path(options.bundle))
    print(exports.FORMATS[options.to](Path(options.bundle), index), end="")
    return ExitCode.OK


def _private(options: argparse.Namespace) -> Path | None:
    """The key for a receipt; tried before the work, at whose end it would be too late."""
    if not options.sign_with:
        return None
    sign.require_able(Path(options.sign_with))
    return Path(options.sign_with)


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
