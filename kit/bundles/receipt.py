"""The receipt: what a site verified, loaded and reproduced, to be sent back to the sender.

The published form is `schema/receipt-1.json`; the classes here are the same thing in Python. It
names no host, user, address or folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import kit
from kit.artifacts import bounded
from kit.bundles import sign, verifier
from kit.compat.host import host_facts
from kit.console import visible
from kit.digest import Digest
from kit.errors import content_error, usage_error
from kit.files import disk_errors, make_folder, sync_folder, write_bytes
from kit.manifests import record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kit.bundles.load import Loaded
    from kit.bundles.verifier import Index, Report

SCHEMA: Literal["kit.receipt/1"] = "kit.receipt/1"
PUBLISHED = Path(__file__).with_name("schema") / "receipt-1.json"
_LIMIT = 16 << 20
_PART = re.compile(r"part-[0-9]{4}")


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the bundle's stream."""

    name: str
    size: int
    sha256: str

    def __post_init__(self) -> None:
        if not _PART.fullmatch(self.name) or self.size < 0:
            raise ValueError(f"no part of a bundle: {self.name!r}, {self.size} bytes")
        Digest(self.sha256)


@dataclass(frozen=True, slots=True)
class Bundle:
    """Which bundle it is about; `signer` is the sender's key.

    `manifests` are the digests of the records of runs in it, None in a receipt of an older kit.
    """

    name: str
    sequence: int
    identity: str
    parts: tuple[Part, ...]
    objects: int
    signer: str | None
    pinned: bool
    manifests: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.sequence < 1 or self.objects < 0:
            raise ValueError("sequence or objects is out of range")
        Digest(self.identity)
        for digest in self.manifests or ():
            _check_digest(digest)


@dataclass(frozen=True, slots=True)
class Problem:
    """What was wrong with the bundle."""

    kind: str
    what: str
    detail: str


@dataclass(frozen=True, slots=True)
class Item:
    """One content that was imported; `manifest` is that of OCI."""

    kind: str
    name: str
    manifest: str

    def __post_init__(self) -> None:
        _check_digest(self.manifest)


@dataclass(frozen=True, slots=True)
class Result:
    """How far a run was reproduced; `manifest` is the digest of its record."""

    name: str
    level: Literal["L0", "L1", "L2", "L3", "L4", "L5", "L6", "L7", "L8"] | None
    manifest: str

    def __post_init__(self) -> None:
        _check_digest(self.manifest)


@dataclass(frozen=True, slots=True)
class Receipt:
    """The whole of it."""

    schema: Literal["kit.receipt/1"]
    kit: str
    bundle: Bundle
    verified: bool
    problems: tuple[Problem, ...]
    loaded: tuple[Item, ...]
    host: record.Host
    results: tuple[Result, ...]

    def __post_init__(self) -> None:
        if self.verified == bool(self.problems):
            raise ValueError(f"verified: {self.verified}, with {len(self.problems)} problems")


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
    """Write the receipt, and beside it the signature if there is a key to sign with.

    What was there stays until both are on the disk. Killed between the two renames, the signature
    is found under its temporary name: `verify` says so, `reopen` puts it right.
    """
    with _alone(path):
        _write(path, receipt, private)


def add(path: Path, result: Mapping[str, str | None], private: Path | None) -> dict[str, Any]:
    """Put a result into a receipt, in place of an earlier one of the same manifest.

    Returns:
        The receipt as it is then.

    Raises:
        KitError: as of `reopen`; it is signed and there is no key (exit 2).
    """
    with _alone(path):
        found, signer = reopen(path)
        refuse_unsigned(path, signer, private)
        kept = [row for row in found["results"] if row["manifest"] != result["manifest"]]
        found = {**found, "results": [*kept, dict(result)]}
        _write(path, found, private)
    return found


def refuse_unsigned(path: Path, signer: str | None, private: Path | None) -> None:
    """Refuse to write a receipt that is signed without signing it again (exit 2)."""
    if signer is not None and private is None:
        raise usage_error(
            f"{path}: it is signed; with another result in it, it has to be signed again",
            hint="kit reproduce MANIFEST --receipt FILE --sign-with KEY",
        )


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Others that write into the folder of a receipt wait, where its disk knows locks."""
    make_folder(path.parent)
    with disk_errors(path):
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, receipt: dict[str, Any], private: Path | None) -> None:
    text = json.dumps(receipt, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"
    beside = signature_path(path)
    fresh = {path: text}
    if private is not None:
        fresh[beside] = sign.sign(private, sign.public_key(private), text)
    with disk_errors(path):
        if path.is_dir():
            raise usage_error(f"{path}: a folder; expected the name of a file")
        try:
            for target, content in fresh.items():
                write_bytes(_fresh(target), content)
        except BaseException:
            for target in fresh:
                with contextlib.suppress(OSError):
                    _fresh(target).unlink()
            raise
        if private is None:
            beside.unlink(missing_ok=True)
            _fresh(beside).unlink(missing_ok=True)
        for target in fresh:
            _fresh(target).replace(target)
        sync_folder(path.parent)


def signature_path(path: Path) -> Path:
    """Where the signature of a receipt lies."""
    return path.with_name(f"{path.name}.sig")


def is_receipt(path: Path) -> bool:
    """Whether a file says of itself that it is one, of whatever version."""
    if not bounded.is_file(path):
        return False
    with bounded.reading(path), bounded.opened(path) as stream:
        text = stream.read(_LIMIT + 1) or b""
    try:
        found = json.loads(text) if len(text) <= _LIMIT else None
    except (ValueError, RecursionError):
        return False
    schema = found.get("schema") if isinstance(found, dict) else None
    return isinstance(schema, str) and schema.startswith("kit.receipt/")


def verify(path: Path, keys: Sequence[bytes], index: Index | None = None) -> dict[str, Any]:
    """Read a receipt, check its signature if it has one, and hold it against the bundle.

    Args:
        path: of the receipt.
        keys: of sites that may have signed it; without one, the signer is only named.
        index: of the bundle that it has to be of.

    Returns:
        What it says, with `signer` added (a fingerprint or None), `pinned` (whether that is one of
        the keys) and in each of the results `carried`: whether the bundle has its manifest, None
        where nothing tells.

    Raises:
        KitError: no receipt, not signed by one of the keys, altered since, of another bundle
            (exit 4).
    """
    found, blob = _read(path)
    if keys and blob is None:
        raise content_error(f"{path}: not signed: there is no {signature_path(path).name}")
    if keys and blob not in keys:
        assert blob is not None
        raise content_error(
            f"{path}: signed by {verifier.fingerprint(blob)}, which is none of the given keys"
        )
    if index is not None:
        _bind(path, found, index)
    return {
        **found,
        "results": [
            {**row, "carried": is_carried(found, row["manifest"], index)}
            for row in found["results"]
        ],
        "signer": None if blob is None else verifier.fingerprint(blob),
        "pinned": bool(keys),
    }


def reopen(path: Path) -> tuple[dict[str, Any], str | None]:
    """A receipt that a result is to be added to, and who signed it.

    Where `write` was killed between its two renames, the second one is done first.

    Raises:
        KitError: no receipt, or altered since it was signed (exit 4).
    """
    beside = signature_path(path)
    with disk_errors(path):
        if _is_cut_off(path):
            _fresh(beside).replace(beside)
            sync_folder(path.parent)
    found, blob = _read(path)
    return found, None if blob is None else verifier.fingerprint(blob)


def is_carried(found: dict[str, Any], manifest: str, index: Index | None = None) -> bool | None:
    """Whether the bundle of a receipt has the manifest of that digest; None if it does not say.

    Args:
        found: the receipt.
        manifest: `sha256:…` of the file.
        index: of that bundle, which knows better than the receipt.
    """
    if index is not None:
        digests = (file.sha256 for content in index.contents for file in content.files)
        return Digest.parse(manifest).hex in digests
    said = found["bundle"].get("manifests")
    return None if said is None else manifest in said


def text(path: Path, found: dict[str, Any]) -> str:
    """For people: the verdict first; each value on its line, whatever is in it."""
    bundle = found["bundle"]
    verdict = "verified" if found["verified"] else "NOT verified"
    named = f"{visible(bundle['name'])} {bundle['sequence']}"
    if found["signer"] is None:
        state, site = "not signed", "not signed by the site: anybody may have written or altered it"
    else:
        unasked = "" if found["pinned"] else ", whoever that is: no --key was given"
        state, site = "signed", f"signed by the site: {found['signer']}{unasked}"
    lines = [
        f"{visible(str(path))}: receipt of bundle {named}: {verdict}, {state}",
        f"  id: {bundle['identity']}",
        f"  signed by the sender: {visible(bundle['signer'] or 'no')}",
        f"  {site}",
    ]
    for problem in found["problems"]:
        kind, what, detail = (visible(problem[key]) for key in ("kind", "what", "detail"))
        lines.append(f"  {kind}: {what}: {detail}")
    lines += [f"  loaded: {visible(one['kind'])}/{visible(one['name'])}" for one in found["loaded"]]
    for row in found["results"]:
        other = " (its manifest is not of this bundle)" if row["carried"] is False else ""
        lines.append(f"  result: {visible(row['name'])}: {row['level'] or 'no level'}{other}")
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
        "bundle": {**_facts(index), "signer": signer, "pinned": pinned},
        "verified": not problems,
        "problems": problems,
        "loaded": loaded,
        "host": host_facts(),
        "results": list(results),
    }


def _facts(index: Index) -> dict[str, Any]:
    """What a receipt says of a bundle that follows from its index."""
    manifests = {
        f"sha256:{file.sha256}"
        for content in index.contents
        for file in content.files
        if content.kind != "image" and file.title.rpartition("/")[2] == record.FILE
    }
    return {
        "name": index.name,
        "sequence": index.sequence,
        "identity": index.identity,
        "parts": [part._asdict() for part in index.parts],
        "objects": len(index.items),
        "manifests": sorted(manifests),
    }


def _read(path: Path) -> tuple[dict[str, Any], bytes | None]:
    """What a receipt says, strictly read, and the key that signed it."""
    text = bounded.content(path, _LIMIT)
    found = bounded.loads(text, str(path))
    if found.get("schema") != SCHEMA:
        raise content_error(f"{path}: schema: expected {SCHEMA}, found {found.get('schema')!r}")
    try:
        record.decode(Receipt, found)
        json.dumps(found, ensure_ascii=False).encode()  # half a character cannot be written again
    except ValueError as error:
        raise content_error(f"{path}: not as a receipt is: {visible(str(error))}") from error
    beside = signature_path(path)
    if _is_cut_off(path):
        left = _fresh(beside)
        raise content_error(
            f"{path}: the writing of it was cut off: its signature is still called {left.name}",
            hint=shlex.join(["mv", str(left), str(beside)]),
        )
    try:
        return found, _signed_by(beside, text) if beside.exists() else None
    except (ValueError, verifier.Refused) as error:
        raise content_error(f"{path}: the signature does not fit: {error}") from error


def _signed_by(signature: Path, text: bytes) -> bytes:
    return verifier.signed_by(verifier.content(signature), text)


def _is_cut_off(path: Path) -> bool:
    """Whether `write` was killed after it had renamed the receipt and before its signature."""
    beside = signature_path(path)
    if not _fresh(beside).exists():
        return False
    text = bounded.content(path, _LIMIT)
    return _fits(_fresh(beside), text) and not _fits(beside, text)


def _fits(signature: Path, text: bytes) -> bool:
    try:
        _signed_by(signature, text)
    except (ValueError, verifier.Refused):
        return False
    return True


def _fresh(path: Path) -> Path:
    """What a file is called until all of it is on the disk."""
    return path.with_name(f".{path.name}.new")


def _bind(path: Path, found: dict[str, Any], index: Index) -> None:
    """Hold a receipt against the index of the bundle that it has to be of."""
    bundle = found["bundle"]
    if bundle["identity"] != index.identity:
        raise content_error(
            f"{path}: of another bundle: expected id {index.identity} ({index.name} "
            f"{index.sequence}), found {bundle['identity']} ({visible(bundle['name'])} "
            f"{bundle['sequence']})"
        )
    for key, value in _facts(index).items():
        if bundle.get(key) not in (None, value):
            raise content_error(f"{path}: bundle.{key}: not what that bundle has")
    known = {(one.kind, one.name, f"sha256:{one.manifest}") for one in index.contents}
    for row in found["loaded"]:
        if (row["kind"], row["name"], row["manifest"]) not in known:
            named = visible(f"{row['kind']}/{row['name']}")
            raise content_error(f"{path}: loaded: {named} is not in that bundle")


def _check_digest(text: str) -> None:
    if not text.startswith("sha256:"):
        raise ValueError(f"expected sha256:…, found {text!r}")
    Digest.parse(text)
