"""The receipt: what a site verified, loaded and reproduced, to be sent back to the sender.

The published form is `schema/receipt-1.json`. It names no host, user, address or folder.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kit
from kit.artifacts import bounded
from kit.bundles import sign, verifier
from kit.compat.host import host_facts
from kit.errors import content_error, usage_error
from kit.files import write_bytes
from kit.manifests import record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kit.bundles.load import Loaded
    from kit.bundles.verifier import Index, Report

SCHEMA = "kit.receipt/1"
PUBLISHED = Path(__file__).with_name("schema") / "receipt-1.json"
_KEYS = {"schema", "kit", "bundle", "verified", "problems", "loaded", "host", "results"}
_LIMIT = 16 << 20


def of(report: Report, results: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """The receipt of a verification."""
    problems = [problem._asdict() for problem in report.problems]
    return _receipt(report.bundle, report.signer, report.pinned, problems, [], results)


def of_load(loaded: Loaded, results: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """The receipt of a bundle that was imported."""
    names = [
        {"kind": content.kind, "name": content.name, "manifest": f"sha256:{content.manifest}"}
        for content, _ in loaded.places
    ]
    return _receipt(loaded.index, loaded.signer, loaded.pinned, [], names, results)


def write(path: Path, receipt: dict[str, Any], private: Path | None = None) -> None:
    """Write the receipt, and beside it the signature if there is a key to sign with."""
    text = json.dumps(receipt, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"
    write_bytes(path, text)
    beside = signature_path(path)
    if private is None:
        beside.unlink(missing_ok=True)
    else:
        write_bytes(beside, sign.sign(private, sign.public_key(private), text))


def signature_path(path: Path) -> Path:
    """Where the signature of a receipt lies."""
    return path.with_name(f"{path.name}.sig")


def is_receipt(path: Path) -> bool:
    """Whether a file says of itself that it is one."""
    if not path.is_file():
        return False
    head = bounded.head(path, 1 << 16)[0]
    return b'"kit.receipt/' in head or b'"verified":' in head


def verify(path: Path, keys: Sequence[bytes]) -> dict[str, Any]:
    """Read a receipt and check its signature, if it has one.

    Args:
        path: of the receipt.
        keys: of sites that may have signed it; without one, the signer is only named.

    Returns:
        What it says, with `signer` added: a fingerprint or None.

    Raises:
        KitError: no receipt, signed by another key or altered since (exit 4).
    """
    text = bounded.content(path, _LIMIT)
    found = bounded.loads(text, str(path))
    if found.get("schema") != SCHEMA:
        raise content_error(f"{path}: schema: expected {SCHEMA}, found {found.get('schema')!r}")
    if found.keys() != _KEYS:
        odd = ", ".join(sorted(found.keys() ^ _KEYS))
        raise content_error(f"{path}: a key too many or too few: {odd}")
    _check(found, path)
    beside = signature_path(path)
    if not beside.exists():
        if keys:
            raise content_error(f"{path}: not signed: there is no {beside.name}")
        return {**found, "signer": None}
    try:
        blob = verifier.signed_by(verifier.content(beside), text)
    except (ValueError, UnicodeError, verifier.Refused) as error:
        raise content_error(f"{path}: the signature does not fit: {error}") from error
    if keys and blob not in keys:
        raise content_error(
            f"{path}: signed by {verifier.fingerprint(blob)}, which is none of the given keys"
        )
    return {**found, "signer": verifier.fingerprint(blob)}


def text(path: Path, found: dict[str, Any]) -> str:
    """For people: the verdict first."""
    bundle = found["bundle"]
    verdict = "verified" if found["verified"] else "NOT verified"
    lines = [
        f"{path}: receipt of bundle {bundle['name']} {bundle['sequence']}: {verdict}",
        f"  id: {bundle['identity']}",
        f"  signed by the sender: {bundle['signer'] or 'no'}",
        f"  signed by the site: {found['signer'] or 'no'}",
    ]
    lines += [f"  {p['kind']}: {p['what']}: {p['detail']}" for p in found["problems"]]
    lines += [f"  loaded: {item['kind']}/{item['name']}" for item in found["loaded"]]
    for item in found["results"]:
        lines.append(f"  result: {item['name']}: {item['level'] or 'no level'}")
    return "\n".join(lines)


def _receipt(
    index: Index | None,
    signer: str | None,
    pinned: bool,
    problems: list[dict[str, Any]],
    loaded: list[dict[str, Any]],
    results: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    if index is None:
        raise usage_error("no receipt without an index: nobody knows what it would be of")
    return {
        "schema": SCHEMA,
        "kit": kit.__version__,
        "bundle": {
            "name": index.name,
            "sequence": index.sequence,
            "identity": index.identity,
            "parts": [part._asdict() for part in index.parts],
            "objects": len(index.items),
            "signer": signer,
            "pinned": pinned,
        },
        "verified": not problems,
        "problems": problems,
        "loaded": loaded,
        "host": host_facts(),
        "results": list(results),
    }


def _check(found: dict[str, Any], path: Path) -> None:
    """Whether the values are of the kinds that the schema says."""
    try:
        bundle = found["bundle"]
        good = (
            all(isinstance(bundle[key], str) for key in ("name", "identity"))
            and type(bundle["sequence"]) is int
            and isinstance(bundle["signer"], (str, type(None)))
            and isinstance(found["verified"], bool)
            and found["verified"] == (not found["problems"])
            and all({*row} == {"kind", "what", "detail"} for row in found["problems"])
            and all({*row} == {"kind", "name", "manifest"} for row in found["loaded"])
            and all({*row} == {"name", "level", "manifest"} for row in found["results"])
            and len(bytes.fromhex(bundle["identity"])) == hashlib.sha256().digest_size
        )
        record.decode(record.Host, found["host"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise content_error(f"{path}: not as a receipt is: {error}") from error
    if not good:
        raise content_error(f"{path}: not as a receipt is")
