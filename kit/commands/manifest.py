"""`kit manifest`: read, check, compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit import project
from kit.bundles import receipt, sign
from kit.commands.bundle import index_of
from kit.console import envelope, result
from kit.errors import ExitCode, usage_error
from kit.manifests import diff, record, verify

if TYPE_CHECKING:
    import argparse

_COUNTS = {"show": 1, "verify": 1, "diff": 2, "sbom": 1, "provenance": 1}


def run(options: argparse.Namespace) -> int:
    """Show, verify (exit 4 when not verified), diff (exit 4 when they differ), sbom, provenance."""
    paths = [Path(path) for path in options.paths]
    expected = _COUNTS[options.action]
    if len(paths) != expected:
        raise usage_error(
            f"kit manifest {options.action}: expected {expected} manifest, found {len(paths)}",
            hint="kit manifest --help",
        )
    if options.action == "verify" and receipt.is_receipt(paths[0]):
        return _receipt(paths[0], options)
    if options.key or options.bundle:
        raise usage_error(
            f"--key and --bundle are for a receipt: {paths[0]} is none, or not to be verified",
            hint="kit manifest verify RECEIPT --key SITE.pub --bundle BUNDLE",
        )
    if options.action == "show":
        manifest = record.read(record.locate(paths[0]))
        if options.json:
            envelope("manifest", ok=True, manifest=manifest.to_dict())
        else:
            result(diff.show(manifest))
        return ExitCode.OK
    if options.action in ("sbom", "provenance"):
        document = _document(options.action, options.paths[0])
        if options.json:
            envelope("manifest", ok=True, document=document)
        else:
            result(json.dumps(document, indent=2, ensure_ascii=False))
        return ExitCode.OK
    if options.action == "verify":
        answer: verify.Verification | diff.Diff = verify.verify(project.find(), paths[0])
    else:
        first, second = (record.read(record.locate(path)) for path in paths)
        answer = diff.diff(first, second)
    if options.json:
        envelope("manifest", ok=answer.ok, **answer.to_dict())
    else:
        result(answer.text())
    return ExitCode.OK if answer.ok else ExitCode.CONTENT


def _receipt(path: Path, options: argparse.Namespace) -> int:
    """What a site sent back: good if it is whole and says that its bundle was verified."""
    keys = sign.pinned(project.find(), [Path(key) for key in options.key]) if options.key else []
    index = index_of(options.bundle) if options.bundle else None
    found = receipt.verify(path, keys, index)
    ok = bool(found["verified"])
    if options.json:
        envelope("manifest", ok=ok, receipt=found)
    else:
        result(receipt.text(path, found))
    return ExitCode.OK if ok else ExitCode.CONTENT


def _document(action: str, subject: str) -> dict[str, Any]:
    """The bill of materials or the provenance of a run, or of a stack's image as it was built."""
    from kit.images import build
    from kit.images.oci import Layout
    from kit.locks import lock as locks
    from kit.manifests import provenance, sbom

    if Path(subject).exists():
        manifest = record.read(record.locate(Path(subject)))
        return sbom.of_run(manifest) if action == "sbom" else provenance.of_run(manifest)
    place = project.find()
    image = build.built(place, subject)
    stored = Layout(place.images).image(image.manifest_digest, subject)
    lock = locks.load(place.lock_path(subject))
    return sbom.of_stack(lock, stored) if action == "sbom" else provenance.of_stack(lock, stored)
