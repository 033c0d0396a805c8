"""Verify a bundle with Python's standard library alone: signature, index, parts, every object.

    python3 -I verify.py [FOLDER] [--key FILE.pub]... [--extract KIND/NAME FOLDER]

Every bundle carries this file as verify.py; `kit bundle` verifies and loads through the same code.
It runs on Python 3.8 and newer, writes nothing unless told to extract, and reads no file whose
size it has not limited. Exit codes: 0 verified, 2 wrong usage, 3 cannot be read, 4 not verified.
"""

from __future__ import annotations

import argparse
import base64
import bisect
import contextlib
import errno
import hashlib
import io
import itertools
import json
import os
import re
import stat
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

SCHEMA = "kit.bundle/1"
INDEX, SUMS, SIGNATURE, PROGRAM = "bundle.json", "SHA256SUMS", "SHA256SUMS.sig", "verify.py"
BESIDE = ("bootstrap", "transfer-sheet.html", "transfer-sheet.txt", PROGRAM)
"""What stands in every bundle beside the index and the parts."""
NAMESPACE = "kit-bundle"
KINDS = (
    *("image", "stack", "inputs", "model", "dataset", "run", "example", "kit", "file"),
    *("sbom", "provenance"),
)
HEAD = ("oci-layout", "index.json")
"""What the first two objects are called; every other one is blobs/sha256/<digest>."""
EMPTY = hashlib.sha256(b"{}").hexdigest()
"""The configuration of everything that is no image: it is there for all of them."""
MOST_OBJECTS = 200_000
MOST_PARTS = 9999
INDEX_LIMIT = 64 << 20
_SMALL_LIMIT = 8 << 20
"""Bytes of the index, and of any other file that is read whole."""
_KEYS_LIMIT = 1 << 16
MOST_VALUES = 2_000_000
"""Values of an index: each takes some hundred bytes of memory once it is read."""
_LARGEST = 1 << 53
_DEEPEST = 8
_CHUNK = 1 << 20
_KEPT = 8 << 20
"""Bytes that memory may keep of what is read once."""
_BLOCK = 512
_END = bytes(2 * _BLOCK)
_HEX = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9][a-z0-9._+-]{0,99}")
_OBJECT = re.compile(r"([0-9a-f]{64}) (0|[1-9][0-9]{0,15})")
_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9._-]{1,100})")
_PART_ROW = re.compile(rb'\["(part-[0-9]{4})", ?[0-9]{1,16}, ?"([0-9a-f]{64})"\]')
_NO_SIGN = bytes(set(range(256)) - set(b'"[{]},'))
_OTHER_KEY = re.compile(r"(ssh|ecdsa|sk)-[a-z0-9@.-]+")
_SHOWN = 3


class Refused(Exception):  # noqa: N818 (what a verifier does)
    """The bundle or the request cannot be used: exit code, and the reason without the folder."""

    def __init__(self, reason: str, code: int = 4, path: Path | None = None) -> None:
        super().__init__(reason if path is None else f"{path}: {reason}")
        self.reason = reason
        self.code = code


class Problem(NamedTuple):
    """One thing that is wrong: missing, extra, renamed, truncated, altered, unsigned or foreign."""

    kind: str
    what: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}" + (": " + self.detail if self.detail else "")


class Part(NamedTuple):
    """One file of the split stream."""

    name: str
    size: int
    sha256: str


class Item(NamedTuple):
    """One object by digest; `offset` is where its content begins in the stream."""

    sha256: str
    size: int
    path: str
    offset: int


class File(NamedTuple):
    """What one content calls an object, and what it is for."""

    title: str
    sha256: str
    role: str


class Content(NamedTuple):
    """One thing that the bundle is for, and why it is in it.

    `manifest` is its OCI manifest, which a delta carries of images only: of all else it follows
    from what is said here.
    """

    kind: str
    name: str
    stack: str
    why: str
    manifest: str
    files: tuple[File, ...]


class Index(NamedTuple):
    """What `bundle.json` says, checked; `identity` is its SHA-256.

    `starts` says where in the stream each part begins.
    """

    identity: str
    name: str
    sequence: int
    kit: str
    part_size: int
    parts: tuple[Part, ...]
    starts: tuple[int, ...]
    items: tuple[Item, ...]
    contents: tuple[Content, ...]
    requires: Mapping[str, int]
    base: str | None

    @property
    def size(self) -> int:
        """Bytes of the whole stream."""
        return sum(part.size for part in self.parts)

    def parts_at(self, offset: int, count: int) -> list[str]:
        """The names of the parts that hold these bytes."""
        first, _ = self.place(offset)
        last, _ = self.place(max(offset, offset + count - 1))
        return [part.name for part in self.parts[first : last + 1]]

    def place(self, offset: int) -> tuple[int, int]:
        """The part that holds a byte of the stream, counted from 0, and where in it."""
        number = bisect.bisect_right(self.starts, offset) - 1
        return number, offset - self.starts[number]

    def parts_of(self, item: Item) -> list[str]:
        """The names of the parts that hold an object and its header."""
        return self.parts_at(item.offset - _BLOCK, item.size + _BLOCK)

    def uses(self) -> dict[str, list[str]]:
        """Digest → what its contents call it."""
        found: dict[str, list[str]] = {}
        for content in self.contents:
            place = content.kind + "/" + content.name
            found.setdefault(content.manifest, []).append("manifest of " + place)
            for file in content.files:
                found.setdefault(file.sha256, []).append(place + ": " + file.title)
        return found


class Report(NamedTuple):
    """The outcome: the bundle where its index could be read, the signing key, and every problem."""

    bundle: Index | None
    signer: str | None
    pinned: bool
    problems: tuple[Problem, ...]
    objects: int

    @property
    def ok(self) -> bool:
        """Whether everything is as its maker left it."""
        return not self.problems


# -- the layout of the stream ----------------------------------------------------------------------


def header(path: str, size: int) -> bytes:
    """The tar header before an object: no time, no owner, so that equal content is equal bytes."""
    # Not by tarfile: what it writes is not the same in every version of Python.
    count = b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    zero = b"0000000\0"
    head = path.encode("ascii").ljust(100, b"\0") + b"0000644\0" + zero + zero + count
    head += b"00000000000\0"
    tail = b"0" + bytes(100) + b"ustar  \0" + bytes(_BLOCK - 265)
    summed = b"%06o\0 " % sum(head + b" " * 8 + tail)
    return head + summed + tail


def padding(size: int) -> int:
    """Zero bytes that follow an object of this size."""
    return -size % _BLOCK


def laid_out(objects: Iterable[tuple[str, int]]) -> list[Item]:
    """Digests and sizes with their places in the stream."""
    found, offset = [], 0
    for number, (sha256, size) in enumerate(objects):
        path = HEAD[number] if number < len(HEAD) else "blobs/sha256/" + sha256
        offset += _BLOCK
        found.append(Item(sha256, size, path, offset))
        offset += size + padding(size)
    return found


def stream_size(items: Sequence[Item]) -> int:
    """Bytes of the stream that holds these objects."""
    last = items[-1]
    return last.offset + last.size + padding(last.size) + len(_END)


def part_name(number: int) -> str:
    """`part-0001` for the first."""
    return f"part-{number:04d}"


# -- the index -------------------------------------------------------------------------------------


def parse(text: bytes, where: str) -> Index:
    """Read an index, strictly.

    Raises:
        Refused: no JSON, another schema, a key too many or too few, values that cannot be.
    """
    document = _loads(text, where)
    schema = document.get("schema")
    if schema != SCHEMA:
        raise Refused(f"{where}: schema: expected {SCHEMA}, found {schema!r}")
    keys = ("schema", "name", "sequence", "kit", "part_size", "parts", "objects", "contents")
    _keys(document, (*keys, "requires", "base"), where)
    name = document["name"]
    _need(isinstance(name, str) and _NAME.fullmatch(name), where, "name", name)
    _need(_is_text(document["kit"], 100), where, "kit", document["kit"])
    part_size = _count(document["part_size"], 1, where, "part_size")
    parts = _parts(document["parts"], part_size, where)
    objects = _objects(document["objects"], where, "objects")
    _need(len(objects) >= len(HEAD), where, "objects", len(objects))
    items = tuple(laid_out(objects))
    required = _objects(document["requires"], where, "requires")
    requires = dict(required)
    numbered = [item.sha256 for item in items] + list(requires)
    twice = len(numbered) - len(set(numbered)) + len(required) - len(requires)
    _need(not twice, where, "objects", "one twice")
    starts = tuple(itertools.accumulate((part.size for part in parts), initial=0))
    _need(starts[-1] == stream_size(items), where, "parts", "another length")
    base = document["base"]
    _need(base is None or _digest(base, where), where, "base", base)
    _need((base is None) == (not requires), where, "requires", "without a base")
    index = Index(
        identity=hashlib.sha256(text).hexdigest(),
        name=name,
        sequence=_count(document["sequence"], 1, where, "sequence"),
        kit=document["kit"],
        part_size=part_size,
        parts=parts,
        starts=starts[:-1],
        items=items,
        contents=_contents(document["contents"], numbered, where),
        requires=requires,
        base=base,
    )
    _check_references(index, where)
    return index


def _parts(found: Any, part_size: int, where: str) -> tuple[Part, ...]:
    rows = _rows(found, 3, MOST_PARTS, where, "parts")
    parts = []
    for number, (name, size, sha256) in enumerate(rows, 1):
        _need(name == part_name(number), where, "parts", name)
        _need(type(size) is int and 0 < size <= part_size, where, "size of " + name, size)
        parts.append(Part(name, size, _digest(sha256, where)))
    return tuple(parts)


def _objects(found: Any, where: str, key: str) -> list[tuple[str, int]]:
    """Digests and sizes of rows such as `"44136f… 2"`."""
    _need(isinstance(found, list) and len(found) <= MOST_OBJECTS, where, key, type(found).__name__)
    rows = []
    for row in found:
        match = _OBJECT.fullmatch(row) if isinstance(row, str) else None
        if match is None:
            raise Refused(f"{where}: {key}: expected digest and size, found {row!r:.200}")
        rows.append((match.group(1), int(match.group(2))))
    return rows


def _files(found: Any, numbered: Sequence[str], where: str) -> tuple[File, ...]:
    """Files of rows `[title, number, role]`; a bare title has the next number, the same role."""
    _need(isinstance(found, list) and len(found) <= MOST_OBJECTS, where, "files", type(found))
    files = []
    number, role = -1, ""
    for row in found:
        if isinstance(row, list) and len(row) == 3:
            title, number, role = row
            _need(type(number) is int and _is_text(role, 40), where, "files", row)
        else:
            title, number = row, number + 1
        _need(role and 0 <= number < len(numbered), where, "files", row)
        files.append(File(title, numbered[number], role))
    return tuple(files)


def check_names(
    kind: str, name: str, stack: str, why: str, titles: Sequence[str], where: str = INDEX
) -> None:
    """What a content and its files may be called.

    Raises:
        Refused: not that.
    """
    _need(kind in KINDS, where, "kind", kind)
    for key, value in (("name", name), ("stack", stack), ("why", why)):
        _need(_is_text(value, 300) or (key == "stack" and value == ""), where, key, value)
    for title in titles:
        _title(title, where)
    _refuse_clash(titles, where)


def _contents(found: Any, numbered: Sequence[str], where: str) -> tuple[Content, ...]:
    _need(isinstance(found, list) and len(found) <= MOST_OBJECTS, where, "contents", type(found))
    contents, named = [], set()
    for entry in found:
        _need(isinstance(entry, dict), where, "contents", entry)
        _keys(entry, ("kind", "name", "stack", "why", "manifest", "files"), where)
        files = _files(entry["files"], numbered, where)
        kind, name, stack, why = (entry[key] for key in ("kind", "name", "stack", "why"))
        check_names(kind, name, stack, why, [file.title for file in files], where)
        _need((kind, name) not in named, where, "contents", name)
        named.add((kind, name))
        manifest = _digest(entry["manifest"], where)
        contents.append(Content(kind, name, stack, why, manifest, files))
    return tuple(contents)


def _check_references(index: Index, where: str) -> None:
    """Every object is there for something, and everything has its objects."""
    present = {item.sha256 for item in index.items} | index.requires.keys()
    used = set(index.uses())
    if index.base is not None:
        # What a delta says of its contents is all that is in their manifests, but for images.
        derived = {content.manifest for content in index.contents if content.kind != "image"}
        present |= derived
    lost = used - present
    _need(not lost, where, "contents", "neither carried nor required: " + " ".join(sorted(lost)))
    spare = {item.sha256 for item in index.items[len(HEAD) :]} | index.requires.keys()
    spare -= used | {EMPTY}
    _need(not spare, where, "objects", "for nothing: " + " ".join(sorted(spare)[:_SHOWN]))


def _refuse_clash(titles: Sequence[str], where: str) -> None:
    """No title twice, and none that is a folder of another one."""
    # Zero is in no title and before every other sign: what is in a folder comes right after it.
    last = None
    for title in sorted(title.replace("/", "\0") for title in titles):
        if last is not None:
            _need(title != last, where, "files", "a title twice")
            _need(not title.startswith(last + "\0"), where, "files", title.replace("\0", "/"))
        last = title


def _title(found: Any, where: str) -> str:
    """A relative path that stays in its folder, on every file system."""
    plain = _is_text(found, 4000) and "\\" not in found and not found.startswith("/")
    parts = found.split("/") if plain else [".."]
    safe = all(part not in ("", ".", "..") and len(part.encode()) <= 255 for part in parts)
    _need(safe, where, "title", found)
    return str(found)


def _is_text(found: Any, longest: int) -> bool:
    return isinstance(found, str) and 0 < len(found) <= longest and found.isprintable()


def _digest(found: Any, where: str) -> str:
    _need(isinstance(found, str) and _HEX.fullmatch(found), where, "digest", found)
    return str(found)


def _count(found: Any, least: int, where: str, key: str) -> int:
    _need(type(found) is int and least <= found <= _LARGEST, where, key, found)
    return int(found)


def _rows(found: Any, width: int, most: int, where: str, key: str) -> list[Any]:
    _need(isinstance(found, list) and len(found) <= most, where, key, type(found).__name__)
    for row in found:
        _need(isinstance(row, list) and len(row) == width, where, key, row)
    return list(found)


def _keys(found: Mapping[str, Any], wanted: Sequence[str], where: str) -> None:
    for key in wanted:
        _need(key in found, where, key, "nothing")
    for key in found:
        _need(key in wanted, where, "keys", key)


def _need(good: Any, where: str, key: str, found: Any) -> None:
    if not good:
        shown = repr(found)
        shown = shown if len(shown) <= 200 else shown[:200] + "…"
        raise Refused(f"{where}: {key}: cannot be: {shown}")


def _loads(text: bytes, where: str) -> dict[str, Any]:
    """The JSON object in `text`; bombs, repeated keys and odd numbers are refused."""
    refuse_bomb(text, where)

    def whole(digits: str) -> int:
        if len(digits) > 20:
            raise ValueError(f"a number of {len(digits)} digits")
        return int(digits)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key stands twice")
        return found

    try:
        found = json.loads(text.decode("utf-8"), parse_int=whole, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise Refused(f"{where}: not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise Refused(f"{where}: expected a JSON object")
    return found


def refuse_bomb(text: bytes, where: str) -> None:
    """Refuse what would be too deep or too much, in time and memory that its length bounds."""
    # Step by step, as an expression that knows escapes goes back over a string without an end,
    # again from every quote in it. Without escapes a string ends at the next quote.
    plain = text.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _NO_SIGN)
    strings = plain.count(b'"') // 2
    bare = re.sub(rb'"[^"]*"?', b"", plain) if strings <= MOST_VALUES else b""
    if max(strings, sum(map(bare.count, (b",", b"[", b"{")))) > MOST_VALUES:
        raise Refused(f"{where}: more than {MOST_VALUES} values")
    depth = 0
    for sign in bare.replace(b",", b""):
        depth += 1 if sign in b"[{" else -1
        if depth > _DEEPEST:
            raise Refused(f"{where}: nested deeper than {_DEEPEST} levels")
        if depth < 0:
            raise Refused(f"{where}: not valid JSON: a bracket closes nothing")


# -- signatures of OpenSSH (PROTOCOL.sshsig) with Ed25519 (RFC 8032) -------------------------------

_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, _P - 2, _P) % _P
_ROOT = pow(2, (_P - 1) // 4, _P)
_Point = Any


def _add(one: _Point, two: _Point) -> _Point:
    a = (one[1] - one[0]) * (two[1] - two[0]) % _P
    b = (one[1] + one[0]) * (two[1] + two[0]) % _P
    c = 2 * one[3] * two[3] * _D % _P
    d = 2 * one[2] * two[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % _P, g * h % _P, f * g % _P, e * h % _P)


def _times(factor: int, point: _Point) -> _Point:
    found = (0, 1, 1, 0)
    while factor:
        if factor & 1:
            found = _add(found, point)
        point = _add(point, point)
        factor >>= 1
    return found


def _point(encoded: bytes) -> _Point:
    """A point of the curve; raises ValueError if there is none."""
    y = int.from_bytes(encoded, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    if y >= _P:
        raise ValueError("not canonical")
    square = (y * y - 1) * pow(_D * y * y + 1, _P - 2, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _ROOT % _P
    if (x * x - square) % _P or (x == 0 and sign):
        raise ValueError("not on the curve")
    x = _P - x if x & 1 != sign else x
    return (x, y, 1, x * y % _P)


_BASE = _point((4 * pow(5, _P - 2, _P) % _P).to_bytes(32, "little"))


def is_signed(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether an Ed25519 signature is of this key and message."""
    if len(key) != 32 or len(signature) != 64:
        return False
    factor = int.from_bytes(signature[32:], "little")
    try:
        public, nonce = _point(key), _point(signature[:32])
    except ValueError:
        return False
    challenge = hashlib.sha512(signature[:32] + key + message).digest()
    left = _times(factor, _BASE)
    right = _add(nonce, _times(int.from_bytes(challenge, "little") % _L, public))
    same = (left[0] * right[2] - right[0] * left[2]) % _P == 0
    return factor < _L and same and (left[1] * right[2] - right[1] * left[2]) % _P == 0


def _fields(blob: bytes, count: int) -> list[bytes]:
    """The strings of an SSH message, all of it."""
    found = []
    for _ in range(count):
        size = int.from_bytes(blob[:4], "big")
        if len(blob) < 4 + size:
            raise ValueError("cut short")
        found.append(blob[4 : 4 + size])
        blob = blob[4 + size :]
    if blob:
        raise ValueError("something follows")
    return found


def _string(content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + content


def fingerprint(blob: bytes) -> str:
    """What OpenSSH calls a public key: `SHA256:…`."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def public_keys(text: str, where: str) -> list[bytes]:
    """The Ed25519 keys in a file of OpenSSH, one a line, as blobs; other kinds are left out.

    Raises:
        Refused: there is none, one is damaged, or something stands before a key (2): an option
            that restricts it would be passed over.
    """
    found = []
    # At newlines alone: a comment must not end where another program reads on.
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] != "ssh-ed25519" and _OTHER_KEY.fullmatch(words[0]):
            continue
        place = f"{where}:{number}: expected a public key: ssh-ed25519 AAAA…"
        if words[0] != "ssh-ed25519":
            raise Refused(f"{place}, with no name and no option before it", 2)
        try:
            blob = base64.b64decode(words[1], validate=True)
            kind, key = _fields(blob, 2)
        except (ValueError, IndexError) as error:
            raise Refused(f"{place}: {error}", 2) from error
        if kind != b"ssh-ed25519" or len(key) != 32:
            raise Refused(place, 2)
        found.append(blob)
    if not found:
        raise Refused(f"{where}: expected a public key: ssh-ed25519 AAAA…", 2)
    return found


def public_key(text: str, where: str) -> bytes:
    """The only Ed25519 key in a .pub file of OpenSSH, as its blob.

    Raises:
        Refused: another kind of key, none, or several (2).
    """
    found = public_keys(text, where)
    if len(found) > 1:
        raise Refused(f"{where}: expected one public key, found {len(found)}", 2)
    return found[0]


def keys_in(path: Path) -> list[bytes]:
    """The Ed25519 keys of a file, as `public_keys` reads them.

    Raises:
        Refused: no such file, or no keys in it (2); it cannot be read (3).
    """
    try:
        text = content(path, _KEYS_LIMIT)
    except Refused as error:
        raise Refused(error.reason, 2 if error.code == 4 else error.code, path) from error
    return public_keys(text.decode("utf-8", "replace"), str(path))


def signed_by(armoured: bytes, message: bytes) -> bytes:
    """The blob of the key that made a signature of `ssh-keygen -Y sign -n kit-bundle`.

    Raises:
        ValueError: no such signature, of something else, or for another purpose.
    """
    lines = armoured.decode("ascii").strip().split("\n")
    if lines[0] != "-----BEGIN SSH SIGNATURE-----" or lines[-1] != "-----END SSH SIGNATURE-----":
        raise ValueError("no SSH signature")
    blob = base64.b64decode("".join(lines[1:-1]), validate=True)
    again = base64.b64encode(blob).decode()
    if "".join(lines[1:-1]) != again or blob[:10] != b"SSHSIG\0\0\0\1":
        raise ValueError("no SSH signature of version 1")
    public, namespace, reserved, algorithm, packed = _fields(blob[10:], 5)
    if namespace != NAMESPACE.encode():
        raise ValueError(f"made for another purpose: {namespace!r}")
    if algorithm not in (b"sha512", b"sha256") or reserved:
        raise ValueError(f"unknown algorithm {algorithm!r}")
    kind, key = _fields(public, 2)
    same, signature = _fields(packed, 2)
    if kind != b"ssh-ed25519" or same != kind:
        raise ValueError(f"no Ed25519: {kind!r}")
    digest = hashlib.new(algorithm.decode(), message).digest()
    parts = (namespace, reserved, algorithm, digest)
    if not is_signed(key, b"SSHSIG" + b"".join(map(_string, parts)), signature):
        raise ValueError("of other content")
    return public


# -- files -----------------------------------------------------------------------------------------


def opened(path: Path) -> int:
    """A descriptor of a regular file; follows no link, waits for no pipe.

    Raises:
        Refused: it is something else (4) or cannot be read (3).
    """
    try:
        descriptor = os.open(str(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        code = 4 if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO) else 3
        raise Refused(f"cannot be read: {error.strerror}", code, path) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Refused("expected a regular file", path=path)
    return descriptor


def content(path: Path, limit: int = _SMALL_LIMIT) -> bytes:
    """A whole file of at most `limit` bytes.

    Raises:
        Refused: larger, no regular file (4), or cannot be read (3).
    """
    with os.fdopen(opened(path), "rb") as stream:
        try:
            found = stream.read(limit + 1)
        except OSError as error:
            raise Refused(f"cannot be read: {error.strerror}", 3, path) from error
    if len(found) > limit:
        raise Refused(f"larger than {limit} bytes", path=path)
    return found


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file of any size."""
    hasher = hashlib.sha256()
    descriptor = opened(path)
    try:
        buffer = memoryview(bytearray(_CHUNK))
        while True:
            count = os.readv(descriptor, [buffer])
            if not count:
                return hasher.hexdigest()
            hasher.update(buffer[:count])
    except OSError as error:
        raise Refused(f"cannot be read: {error.strerror}", 3, path) from error
    finally:
        os.close(descriptor)


class Gap(Exception):  # noqa: N818 (no error of its own)
    """The bytes that are wanted are in a part that is not there, or ends before them."""

    def __init__(self, part: Part) -> None:
        super().__init__(part.name)
        self.part = part


class Stream:
    """The parts of a bundle as one stream, for any number of threads.

    With `once`, memory gives up what has been read; nobody will read it again soon.
    """

    def __init__(
        self, folder: Path, index: Index, absent: Iterable[str] = (), *, once: bool = False
    ) -> None:
        self._folder = folder
        self._index = index
        self._absent = frozenset(absent)
        self._once = once
        # One a thread: of small parts there are more than a process may have open.
        self._open: dict[int, tuple[str, int]] = {}

    def __enter__(self) -> Stream:  # noqa: PYI034 (Self is newer than Python 3.8)
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            os.close(self._open.popitem()[1][1])

    def read(self, offset: int, count: int) -> bytes:
        """Exactly these bytes.

        Raises:
            Gap: a part of them is not there.
        """
        return b"".join(bytes(piece) for piece in self.pieces(offset, count))

    def pieces(self, offset: int, count: int) -> Iterator[memoryview]:
        """The same piece by piece; each is overwritten by the next."""
        buffer = memoryview(bytearray(min(_CHUNK, max(count, 1))))
        while count:
            number, inside = self._index.place(offset)
            part = self._index.parts[number]
            want = min(count, part.size - inside)
            yield from self._part(part, inside, want, buffer)
            offset += want
            count -= want

    def _part(
        self, part: Part, offset: int, count: int, buffer: memoryview
    ) -> Iterator[memoryview]:
        if part.name in self._absent:
            raise Gap(part)
        while count:
            descriptor = self._descriptor(part.name)
            try:
                found = os.preadv(descriptor, [buffer[:count]], offset)
            except OSError as error:
                raise Refused(f"{part.name}: cannot be read: {error.strerror}", 3) from error
            if not found:
                raise Gap(part)
            if self._once and found == _CHUNK:
                start = max(0, offset + found - _KEPT)  # what is not whole in it stays
                with contextlib.suppress(OSError):
                    os.posix_fadvise(descriptor, start, _KEPT, os.POSIX_FADV_DONTNEED)
            yield buffer[:found]
            offset += found
            count -= found

    def _descriptor(self, name: str) -> int:
        """Of a part, for this thread, until it wants another one."""
        thread = threading.get_ident()
        last, descriptor = self._open.get(thread, ("", -1))
        if last != name:
            if last:
                del self._open[thread]
                os.close(descriptor)
            descriptor = opened(self._folder / name)
            self._open[thread] = name, descriptor
        return descriptor

    def frame(self, number: int) -> tuple[int, int, bytes]:
        """Offset, length and expected bytes of what stands between an object and the one before.

        `number` may be that of no object any more: the end of the stream.
        """
        items = self._index.items
        start = 0
        zeros = b""
        if number:
            last = items[number - 1]
            start = last.offset + last.size
            zeros = bytes(padding(last.size))
        if number == len(items):
            expected = zeros + _END
        else:
            expected = zeros + header(items[number].path, items[number].size)
        return start, len(expected), expected


# -- verification ----------------------------------------------------------------------------------


class _Check:
    """One verification: collects every problem instead of stopping at the first."""

    def __init__(
        self, folder: Path, keys: Sequence[bytes], jobs: int, only: str | None = None
    ) -> None:
        self.folder = folder
        self.keys = keys
        self.jobs = jobs
        self.only = only
        self.problems: list[Problem] = []
        self.signer: str | None = None
        self.index: Index | None = None
        self.objects = 0
        self.sums: dict[str, str] = {}
        self.extras: list[str] = []
        # Of one content, only the parts are needed that hold it: the others may be on other media.
        self.needed: set[str] | None = None

    def run(self, on_bytes: Callable[[int], object]) -> Report:
        present = self.head()
        if self.index is not None:
            self.check_parts(present, on_bytes)
        elif self.sums:
            self.check_by_sums(present)
        return self.report()

    def head(self) -> set[str]:
        """All but the content of the parts; returns the names in the folder."""
        present = self.names()
        self.read_sums(present)
        self.check_small(present)
        return present

    def report(self) -> Report:
        pinned = bool(self.keys) and self.is_trusted()
        return Report(self.index, self.signer, pinned, tuple(self.problems), self.objects)

    def is_trusted(self) -> bool:
        """Whether no key is pinned, or one of them has signed the list."""
        return not self.keys or (self.signer is not None and not self.has("foreign"))

    def has(self, kind: str) -> bool:
        return any(problem.kind == kind for problem in self.problems)

    def add(self, kind: str, what: str, detail: str = "") -> None:
        # A name that is no UTF-8 could be written into no report.
        self.problems.append(Problem(kind, _encodable(what), _encodable(detail)))

    def names(self) -> set[str]:
        try:
            return {path.name for path in self.folder.iterdir()}
        except OSError as error:
            code = 2 if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP) else 3
            raise Refused(f"cannot be read: {error.strerror}", code, self.folder) from error

    def read_sums(self, present: set[str]) -> None:
        """The list of files, and who signed it."""
        if SUMS not in present:
            if INDEX not in present:
                raise Refused(f"no bundle: no {INDEX} in it", 2, self.folder)
            self.add("missing", SUMS, self.unread())
            self.read_index()
            return
        text = self.small(SUMS)
        if text is None:
            return
        self.sums = _sums(text)
        self.check_signature(text, present)
        if not self.sums:
            self.add("altered", SUMS, "no list of digests and names in order")
            self.read_index()

    def check_signature(self, text: bytes, present: set[str]) -> None:
        if SIGNATURE not in present:
            if self.keys:
                self.add("unsigned", SUMS, f"no {SIGNATURE}, and {self.unread()}")
            return
        armoured = self.small(SIGNATURE)
        if armoured is None:
            return
        try:
            blob = signed_by(armoured, text)
        except (ValueError, UnicodeError) as error:
            # Of the two, the one that is not as the files are has been altered.
            name = SIGNATURE if self.sums_fit() else SUMS
            more = f"; {self.unread()}" if self.keys else ""
            self.add("altered", name, f"the signature is wrong: {error}{more}")
            return
        self.signer = fingerprint(blob)
        if self.keys and blob not in self.keys:
            pinned = ", ".join(fingerprint(key) for key in self.keys)
            detail = f"signed by {self.signer}, pinned: {pinned}; {INDEX} was not read"
            self.add("foreign", SIGNATURE, detail)

    def unread(self) -> str:
        """What becomes of the index, for a problem of who signed it."""
        return f"keys are pinned: {INDEX} was not read" if self.keys else ""

    def sums_fit(self) -> bool:
        """Whether the list says of every file what is there, the parts by the rows of the index."""
        try:
            text = content(self.folder / INDEX, INDEX_LIMIT)
            wanted = {name: sha256_of(self.folder / name) for name in BESIDE}
        except Refused:
            return False
        # Not parsed: nobody vouches for it.
        for row in _PART_ROW.finditer(text):
            wanted[row.group(1).decode()] = row.group(2).decode()
        wanted[INDEX] = hashlib.sha256(text).hexdigest()
        return self.sums == wanted

    def check_small(self, present: set[str]) -> None:
        """Everything but the parts, by the list."""
        for name in sorted(self.sums):
            if name not in present:
                if self.is_needed(name):
                    self.add("missing", name)
            elif name == INDEX:
                self.read_index()
            elif name in BESIDE:
                self.compare(name)
        for name in sorted(present - set(self.sums) - {SUMS, SIGNATURE}):
            if not self.sums and (name == INDEX or name in BESIDE or name.startswith("part-")):
                continue
            self.extras.append(name)
            self.add("extra", name)
        if self.sums and self.index is not None:
            wanted = {part.name: part.sha256 for part in self.index.parts}
            listed = {name: self.sums[name] for name in self.sums if name not in (INDEX, *BESIDE)}
            if listed != wanted or not set(BESIDE) <= set(self.sums):
                self.add("altered", SUMS, "it names other parts than " + INDEX)

    def is_needed(self, name: str) -> bool:
        return self.needed is None or not name.startswith("part-") or name in self.needed

    def compare(self, name: str) -> None:
        try:
            found = sha256_of(self.folder / name)
        except Refused as error:
            if error.code != 4:
                raise
            self.add("altered", name, error.reason)
            return
        if found != self.sums[name]:
            self.add("altered", name, f"expected {self.sums[name]}, found {found}")

    def small(self, name: str) -> bytes | None:
        try:
            return content(self.folder / name)
        except Refused as error:
            if error.code != 4:
                raise
            self.add("altered", name, error.reason)
            return None

    def read_index(self) -> None:
        if not self.is_trusted():  # what a stranger wrote is hashed, and not parsed
            if INDEX in self.sums:
                self.compare(INDEX)
            return
        try:
            text = content(self.folder / INDEX, INDEX_LIMIT)
            expected = self.sums.get(INDEX)
            found = hashlib.sha256(text).hexdigest()
            if expected not in (None, found):
                self.add("altered", INDEX, f"expected {expected}, found {found}")
                return
            self.index = parse(text, INDEX)
            if self.only is not None:
                items = [self.index.items[number] for number in _wanted(self.index, self.only)]
                self.needed = {name for item in items for name in self.index.parts_of(item)}
        except Refused as error:
            if error.code != 4:
                raise
            self.add("altered", INDEX, error.reason)

    def check_by_sums(self, present: set[str]) -> None:
        """Without an index, parts are only known by the digests of the whole files."""
        for name in sorted(present & self.sums.keys() - {INDEX, *BESIDE}):
            self.compare(name)

    def check_parts(self, present: set[str], on_bytes: Callable[[int], object]) -> None:
        index = self.index
        assert index is not None
        wanted = _wanted(index, self.only)
        absent, short = set(), set()
        for part in index.parts:
            if part.name not in present:
                absent.add(part.name)
                if not self.sums and self.is_needed(part.name):
                    self.add("missing", part.name)
                continue
            try:
                descriptor = opened(self.folder / part.name)
            except Refused as error:
                if error.code != 4:
                    raise
                self.add("altered", part.name, error.reason)
                absent.add(part.name)
                continue
            size = os.fstat(descriptor).st_size
            os.close(descriptor)
            if size != part.size:
                kind = "truncated" if size < part.size else "altered"
                self.add(kind, part.name, f"expected {part.size} bytes, found {size}")
                short.add(part.name)
        with Stream(self.folder, index, absent) as stream:
            bad = self.hash_all(stream, wanted, on_bytes)
        self.tell(index, bad, absent, short)

    def hash_all(
        self, stream: Stream, wanted: Sequence[int], on_bytes: Callable[[int], object]
    ) -> list[tuple[int | None, set[str], str]]:
        """Hash objects on all cores and hold what stands between them against what must."""
        from concurrent.futures import ThreadPoolExecutor

        index = self.index
        assert index is not None
        bad: list[tuple[int | None, set[str], str]] = []
        lock = threading.Lock()

        def one(number: int) -> None:
            item = index.items[number]
            try:
                hasher = hashlib.sha256()
                for piece in stream.pieces(item.offset, item.size):
                    hasher.update(piece)
                found = hasher.hexdigest()
            except Gap as gap:
                with lock:
                    bad.append((number, {gap.part.name}, "gone"))
                return
            with lock:
                self.objects += found == item.sha256
                on_bytes(item.size)
                if found != item.sha256:
                    bad.append((number, set(index.parts_of(item)), found))

        def frames(numbers: Sequence[int]) -> None:
            for number in numbers:
                start, count, expected = stream.frame(number)
                try:
                    if stream.read(start, count) == expected:
                        continue
                    found = "frame"
                except Gap as gap:
                    with lock:
                        bad.append((None, {gap.part.name}, "gone"))
                    continue
                with lock:
                    bad.append((None, set(index.parts_at(start, count)), found))

        # The largest first, so that no long one is left to a single core at the end.
        ordered = sorted(wanted, key=lambda number: -index.items[number].size)
        borders = [*wanted, *([len(index.items)] if len(wanted) == len(index.items) else [])]
        with ThreadPoolExecutor(max(1, self.jobs)) as pool:
            tasks = [pool.submit(_each, one, batch) for batch in batches(ordered, index)]
            tasks.append(pool.submit(frames, borders))
            for task in tasks:
                task.result()
        return bad

    def tell(
        self,
        index: Index,
        bad: Sequence[tuple[int | None, set[str], str]],
        absent: set[str],
        short: set[str],
    ) -> None:
        """Name what is wrong, the part and the object; and whose content stands there instead."""
        uses = index.uses()
        by_digest = {part.sha256: part.name for part in index.parts}
        suspects = short.union(*(names for _, names, found in bad if found != "gone"))
        swapped = set()
        for name in sorted(suspects - absent):
            with contextlib.suppress(Refused):
                other = by_digest.get(sha256_of(self.folder / name), name)
                if other != name:
                    self.add("renamed", name, "holds what belongs in " + other)
                    swapped.add(name)
        for name in sorted(absent):
            self.seek(index, name)
        for number, names, found in sorted(bad, key=lambda row: (row[0] is None, row[0] or 0)):
            if names & (swapped | absent):
                continue
            place = "in " + ", ".join(sorted(names))
            if number is None:
                if found != "gone":
                    self.add("altered", ", ".join(sorted(names)), "between two objects")
            elif found == "gone":
                self.add("truncated", _called(index, number, uses), place)
            else:
                expected = index.items[number].sha256
                detail = f"{place}: expected {expected}, found {found}"
                self.add("altered", _called(index, number, uses), detail)

    def seek(self, index: Index, name: str) -> None:
        """Whether a part that is missing is there under another name."""
        part = next(part for part in index.parts if part.name == name)
        for extra in self.extras:
            with contextlib.suppress(Refused, OSError):
                path = self.folder / extra
                if path.lstat().st_size == part.size and sha256_of(path) == part.sha256:
                    self.add("renamed", extra, "holds what belongs in " + name)


def _sums(text: bytes) -> dict[str, str]:
    """Name → digest of a list as `sha256sum` writes it, in order; empty if it is none."""
    try:
        lines = text.decode("ascii").split("\n")
    except UnicodeDecodeError:
        return {}
    found: dict[str, str] = {}
    last = ""
    for line in lines[:-1]:
        match = _LINE.fullmatch(line)
        if match is None or match.group(2) <= last:
            return {}
        last = match.group(2)
        found[last] = match.group(1)
    return found if lines[-1] == "" and INDEX in found else {}


def _each(one: Callable[[int], None], numbers: Sequence[int]) -> None:
    for number in numbers:
        one(number)


def batches(numbers: Sequence[int], index: Index) -> Iterator[list[int]]:
    """Small objects together, so that handing them out costs nothing."""
    batch: list[int] = []
    size = 0
    for number in numbers:
        batch.append(number)
        size += index.items[number].size + 4096
        if size >= 4 * _CHUNK:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _wanted(index: Index, only: str | None) -> list[int]:
    """Numbers of all objects, or of those of one content."""
    if only is None:
        return list(range(len(index.items)))
    chosen = content_named(index, only)
    digests = {chosen.manifest, *(file.sha256 for file in chosen.files)}
    return [at for at, item in enumerate(index.items) if item.sha256 in digests]


def content_named(index: Index, name: str) -> Content:
    """The content that `kind/name` means.

    Raises:
        Refused: there is none (2).
    """
    for entry in index.contents:
        if name == entry.kind + "/" + entry.name:
            return entry
    known = ", ".join(sorted(entry.kind + "/" + entry.name for entry in index.contents))
    raise Refused(f"no content {name!r}; there are: {known}", 2)


def _called(index: Index, number: int, uses: Mapping[str, Sequence[str]]) -> str:
    """An object as people know it."""
    item = index.items[number]
    if number < len(HEAD) or item.sha256 == EMPTY:
        return item.path
    names = uses[item.sha256]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return "object {} ({})".format(item.sha256[:12], "; ".join(names[:_SHOWN]) + more)


def check(
    folder: Path,
    keys: Sequence[bytes] = (),
    jobs: int = 0,
    on_bytes: Callable[[int], object] = lambda _: None,
    only: str | None = None,
) -> Report:
    """Verify a bundle; reads everything once, writes nothing.

    Args:
        folder: of the bundle.
        keys: blobs of the keys that may have signed it; without one, a signature is only named.
        jobs: objects that are hashed at a time; 0: as many as cores.
        on_bytes: told how many bytes have been checked.
        only: `kind/name` of the content whose objects are checked, instead of all; parts that hold
            none of them need not be there.

    Raises:
        Refused: there is no bundle, or no such content (2), or it cannot be read (3).
    """
    cores = jobs or len(os.sched_getaffinity(0))
    return _Check(folder, keys, cores, only).run(on_bytes)


def check_head(folder: Path, keys: Sequence[bytes] = ()) -> Report:
    """The same without the parts: signature, list, index and what stands beside them."""
    work = _Check(folder, keys, 1)
    work.head()
    return work.report()


def extract(folder: Path, index: Index, name: str, target: Path) -> list[Path]:
    """Write the files of one content below `target`, hashed again on the way.

    Raises:
        Refused: no such content, a file is not carried or not as it should be.
    """
    chosen = content_named(index, name)
    items = {item.sha256: item for item in index.items}
    written = []
    with Stream(folder, index) as stream:
        for file in chosen.files:
            if file.sha256 not in items:
                raise Refused(f"{name}: {file.title} is not carried by this delta")
            path = target / file.title
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(stream, items[file.sha256], path)
            written.append(path)
    return written


def _write(stream: Stream, item: Item, path: Path) -> None:
    """One object as a new file, which is whole or not there."""
    try:
        output = path.open("xb")
    except FileExistsError as error:
        raise Refused("is there already", 2, path) from error
    good = False
    try:
        with output, contextlib.suppress(Gap):
            hasher = hashlib.sha256()
            for piece in stream.pieces(item.offset, item.size):
                hasher.update(piece)
                output.write(piece)
            good = hasher.hexdigest() == item.sha256
    finally:
        if not good:
            path.unlink()
    if not good:
        raise Refused("what belongs there has changed since it was verified", path=path)


def _encodable(text: str) -> str:
    """The text with escapes for what UTF-8 has no bytes for, as in names that are no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _visible(text: str) -> str:
    """The text with escapes for what a terminal would obey rather than show."""
    signs = (one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    return "".join(signs)


def said(report: Report) -> list[str]:
    """The outcome in lines, for people."""
    lines = [str(problem) for problem in report.problems]
    if report.bundle is not None:
        index = report.bundle
        lines.append(f"bundle {index.name} {index.sequence}, id {index.identity}")
        text = "{} of {} objects in {} parts as they should be"
        lines.append(text.format(report.objects, len(index.items), len(index.parts)))
    else:
        lines.append("its index was not read: nobody knows what is in it")
    if report.signer is None:
        lines.append("not signed")
    else:
        trust = "pinned" if report.pinned else "NOT pinned here: compare it with the sender's"
        lines.append(f"signed by {report.signer} ({trust})")
    lines.append("verified" if report.ok else "NOT verified")
    return lines


def main(arguments: Sequence[str]) -> int:
    """The command line of verify.py."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", nargs="?", default=str(Path(__file__).parent))
    parser.add_argument("--key", action="append", default=[], help="public key, OpenSSH's .pub")
    parser.add_argument("--jobs", type=int, default=0, help="by default as many as cores")
    parser.add_argument("--extract", nargs=2, metavar=("KIND/NAME", "FOLDER"))
    options = parser.parse_args(arguments)
    for output in (sys.stdout, sys.stderr):  # a terminal of another encoding than UTF-8
        if isinstance(output, io.TextIOWrapper):
            output.reconfigure(errors="backslashreplace")
    only = options.extract[0] if options.extract else None
    try:
        keys = [key for path in options.key for key in keys_in(Path(path))]
        folder = Path(options.folder)
        report = check(folder, keys, options.jobs, only=only)
        for line in said(report):
            print(_visible(line))
        if not report.ok or report.bundle is None:
            return 4
        if only is not None:
            for path in extract(folder, report.bundle, only, Path(options.extract[1])):
                print(_visible(str(path)))
    except (Refused, OSError) as error:
        print(_visible(f"error: {error}"), file=sys.stderr)
        return error.code if isinstance(error, Refused) else 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
