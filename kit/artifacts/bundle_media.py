"""The files of a bundle on one or several media: index, list, signature, and what parts are here.

No content is verified; small documents are read out of the parts, each hashed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kit.artifacts import bounded
from kit.artifacts.problem import Problem
from kit.bundles import verifier
from kit.console import size as shown_size
from kit.errors import ExitCode, KitError, content_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from kit.bundles.verifier import Index, Item, Part
    from kit.manifests.record import Manifest

SHEET = "transfer-sheet.txt"
_DOCUMENT_LIMIT = 8 << 20
_READ_LIMIT = 64 << 20
"""Bytes of one document in a bundle, and of all that are read to tell versions."""


@contextlib.contextmanager
def refused() -> Iterator[None]:
    """What the reader of the index refuses, as an error of the kit's."""
    try:
        yield
    except verifier.Refused as error:
        raise KitError(
            str(error),
            exit_code=ExitCode(error.code),
            hint="kit bundle verify FOLDER names all that is wrong",
        ) from error


@dataclass
class Media:
    """A bundle's folders, its index, and where its parts are.

    Attributes:
        path: as it was asked for.
        folders: where its files may be.
        problems: what was found wrong, more with each document that is read.
        signature: kind and state of it.
        signer: fingerprint of the key that made it; None where it is not signed, or wrongly.
        left: bytes that may still be read.

    Raises:
        verifier.Refused: the index is damaged or hostile.
        KitError: there is none, or there are two (exit 4).
    """

    path: str
    folders: Sequence[Path]
    problems: list[Problem] = field(default_factory=list)
    signature: str = "none"
    signer: str | None = None
    left: int = _READ_LIMIT

    def __post_init__(self) -> None:
        self.names = [(folder, frozenset(bounded.names(folder))) for folder in self.folders]
        self.head = self.find_head()
        self.present = dict(self.names)[self.head]
        self.index = self.read_index()
        self.items = {item.sha256: item for item in self.index.items}
        self.places = {part.name: self.place(part) for part in self.index.parts}

    def find_head(self) -> Path:
        """The folder with the index; several may have it, if it is the same one.

        Raises:
            KitError: none has it, or they are of two bundles (exit 4).
        """
        found = [folder for folder, names in self.names if verifier.INDEX in names]
        if not found:
            raise content_error(
                f"{self.path}: parts of a bundle without its {verifier.INDEX}",
                hint="kit inspect FOLDER-WITH-bundle.json FOLDER-WITH-PARTS…",
            )
        digests = {folder: verifier.sha256_of(folder / verifier.INDEX) for folder in found}
        if len(set(digests.values())) > 1:
            told = ", ".join(f"{folder} {digest}" for folder, digest in digests.items())
            raise content_error(f"these are of two bundles: {told}")
        return found[0]

    def read_index(self) -> Index:
        """The index, and what the list of files and its signature say of it."""
        where = self.head / verifier.INDEX
        index = verifier.parse(verifier.content(where, verifier.INDEX_LIMIT), str(where))
        if verifier.SUMS not in self.present:
            self.wrong("sums-missing", f"no {verifier.SUMS}", is_corrupt=False)
            return index
        text = verifier.content(self.head / verifier.SUMS)
        listed = _listed(text)
        for name, found in ((verifier.INDEX, index.identity), *self.beside()):
            if listed.get(name) != found:
                self.wrong("listed-otherwise", f"{name} is not what {verifier.SUMS} says")
        if verifier.SIGNATURE in self.present:
            self.read_signature(text)
        return index

    def beside(self) -> Iterator[tuple[str, str]]:
        """Names and digests of what is read besides the index."""
        if SHEET in self.present:
            yield SHEET, hashlib.sha256(verifier.content(self.head / SHEET)).hexdigest()

    def read_signature(self, text: bytes) -> None:
        """Who signed the list. Whether that is to be trusted is for keys to say, not for this."""
        self.signature = f"OpenSSH, Ed25519, of {verifier.SUMS}"
        try:
            armoured = verifier.content(self.head / verifier.SIGNATURE)
            self.signer = verifier.fingerprint(verifier.signed_by(armoured, text))
        except (ValueError, UnicodeError, verifier.Refused) as error:
            self.signature += ": does not fit"
            self.wrong("signature-wrong", f"{verifier.SIGNATURE}: {error}")
            return
        self.signature += ": fits the list; whether its key is trusted is not looked at"

    def wrong(self, name: str, message: str, *, is_corrupt: bool = True) -> None:
        """Note a problem of the folder with the index."""
        self.problems.append(Problem(name, f"{self.head}: {message}", is_corrupt))

    def place(self, part: Part) -> Path | None:
        """Where a part lies with all its bytes; a file of another length is told."""
        odd = []
        for folder, names in self.names:
            if part.name not in names:
                continue
            found = folder / part.name
            try:
                descriptor = verifier.opened(found)
            except verifier.Refused as error:
                odd.append(str(error))
                continue
            length = os.fstat(descriptor).st_size
            os.close(descriptor)
            if length == part.size:
                return found
            odd.append(f"{found}: expected {part.size} bytes, found {length}")
        self.problems += [Problem("part-odd", message, is_corrupt=True) for message in odd]
        return None

    def manifests(self) -> Iterator[tuple[str, Manifest]]:
        """The records of runs that are here, each with its place."""
        from kit.manifests import record

        for where, text in self.documents("run", "manifest"):
            with self.noted():
                yield where, record.parse(bounded.loads(text, where), where)

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Tell what is wrong with one document, and go on with the next."""
        try:
            yield
        except KitError as error:
            self.problems.append(Problem("document-damaged", str(error), is_corrupt=True))

    def documents(self, kind: str, role: str) -> Iterator[tuple[str, bytes]]:
        """The files of one role that are here, whole and not too large, with their places."""
        for content in self.index.contents:
            for file in content.files if content.kind == kind else ():
                item = self.items.get(file.sha256)
                if file.role != role or item is None:
                    continue
                where = f"{kind}/{content.name}: {file.title}"
                if item.size > min(_DOCUMENT_LIMIT, self.left):
                    message = f"{where}: not read, {shown_size(item.size)}: too much for a look"
                    self.problems.append(Problem("document-large", message))
                    continue
                self.left -= item.size
                text = b"".join(self.pieces(item, item.size))
                if len(text) < item.size:
                    continue  # in a part that is not here, which is told
                if hashlib.sha256(text).hexdigest() == item.sha256:
                    yield where, text
                else:
                    message = f"{where}: altered: its digest is another one"
                    self.problems.append(Problem("object-altered", message, is_corrupt=True))

    def pieces(self, item: Item, count: int) -> Iterator[bytes]:
        """The first bytes of an object; fewer where a part of it is not here."""
        offset = item.offset
        while count:
            number, inside = self.index.place(offset)
            place = self.places[self.index.parts[number].name]
            if place is None:
                return
            with os.fdopen(verifier.opened(place), "rb") as stream:
                stream.seek(inside)
                piece = stream.read(min(count, self.index.parts[number].size - inside))
            if not piece:
                return
            yield piece
            offset += len(piece)
            count -= len(piece)


def _listed(text: bytes) -> dict[str, str]:
    """Name → digest of a list; what is no list is told by what it does not have."""
    lines = text.decode("ascii", "replace").split("\n")
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
