"""`kit reproduce`: run what a manifest records again, and say how far the two agree."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from kit import images, project
from kit.console import envelope, note, result
from kit.errors import ExitCode, content_error, usage_error
from kit.files import disk_errors, make_folder, write_bytes
from kit.images.engine import Gpus
from kit.manifests import record
from kit.reproduce import again, ladder, page, text

if TYPE_CHECKING:
    import argparse


def run(options: argparse.Namespace) -> int:
    """Reproduce, report; exit 4 below the level asked for, or without one if any has failed."""
    if options.sign_with and not options.receipt:
        raise usage_error("--sign-with signs a receipt", hint="--receipt FILE --sign-with KEY")
    required = ladder.parse(options.require) if options.require else None
    tolerance = _tolerance(options.tolerance)
    path = record.locate(Path(options.manifest))
    manifest = record.read(path)
    config = Path(options.config) if options.config else None
    example = again.example_of(manifest, config, options.model, options.dataset)
    if options.receipt:
        _require_receipt(Path(options.receipt), options.sign_with)
    for option in ("report", "receipt"):
        if given := getattr(options, option):
            _require_writable(Path(given), f"--{option}")
    place = project.find()
    image = again.image_of(place, manifest)
    engine = images.select(place.home)
    found = again.reproduce(
        place,
        engine,
        image,
        path,
        example,
        Gpus.parse(options.gpus) if options.gpus is not None else None,
        Path(options.output).absolute() if options.output else None,
        allow_pickle=options.allow_pickle,
        tolerance=tolerance,
    )
    if options.report:
        write_bytes(Path(options.report), page.page(found, required).encode())
        note(f"report: {options.report}")
    if not options.json:
        result(text.text(found))  # whatever becomes of the receipt
    if options.receipt:
        _add(Path(options.receipt), found, options.sign_with)
    is_good = found.ladder.holds(required.number) if required else not _has_failed(found)
    if options.json:
        content = found.to_dict()
        asked = str(required) if required else None
        envelope("reproduce", ok=is_good, required=asked, tolerance=tolerance, **content)
        return ExitCode.OK if is_good else ExitCode.CONTENT
    if not is_good and required is not None:
        rung = found.ladder.rungs[required.number]
        raise content_error(
            f"{required} was asked for ({required.claim}): {ladder.WORDS[rung.state]}; "
            f"{found.ladder.reached or 'no level'} was reached",
            hint=f"kit manifest diff {path} {found.again_path}" if found.again_path else None,
        )
    return ExitCode.OK if is_good else ExitCode.CONTENT


def _tolerance(given: float | None) -> float | None:
    """The share of the largest logit that is asked for (exit 2 if it is none)."""
    if given is not None and not 0 <= given <= 1:
        raise usage_error(
            f"--tolerance {given:g}: expected a share of the largest logit, 0 to 1",
            hint="kit reproduce MANIFEST --tolerance 0.01",
        )
    return given


def _require_receipt(path: Path, key: str | None) -> None:
    """Look at the receipt that the result is added to, before the work begins.

    Raises:
        KitError: it is signed, and what is written would not be (exit 2); the key cannot sign (exit
            2 or 3); it is no receipt (exit 4).
    """
    from kit.bundles import receipt, sign

    _, signer = receipt.reopen(path)
    receipt.refuse_unsigned(path, signer, Path(key) if key else None)
    if key is not None:
        sign.require_able(Path(key))


def _require_writable(path: Path, option: str) -> None:
    """Refuse what no file can be written to (exit 2 or 3)."""
    if path.is_dir():
        raise usage_error(f"{option} {path}: a folder; expected the name of a file")
    with disk_errors(path):
        make_folder(path.parent)
        tempfile.TemporaryFile(dir=path.parent).close()


def _add(path: Path, found: again.Reproduction, key: str | None) -> None:
    """Put the result into a receipt; others may have added theirs while this one was made."""
    from kit.bundles import receipt

    manifest = found.result["manifest"]
    assert manifest is not None
    content = receipt.add(path, found.result, Path(key) if key else None)
    if receipt.is_carried(content, manifest) is False:
        note(f"note: {found.path} did not come with bundle {content['bundle']['name']}")
    note(f"receipt: {path}")


def _has_failed(found: again.Reproduction) -> bool:
    return bool(found.ladder.failed) or found.problem is not None
