"""What contents say of their own licences; None where nothing in them says anything."""

from __future__ import annotations

import lzma
import re
import zipfile
import zlib
from email.parser import HeaderParser
from pathlib import Path
from typing import TYPE_CHECKING

from kit.errors import content_error
from kit.files import disk_errors

if TYPE_CHECKING:
    from kit.bundles.contents import Content

_LIMIT = 1 << 20
_FILES = re.compile(r"(licen[cs]e|copying|notice|use_policy)\b.*", re.IGNORECASE)
_CARD = re.compile(rb"^licen[cs]e:\s*([\w.+-]+)\s*$", re.MULTILINE)
_SHOWN = 12


def of(content: Content) -> str | None:
    """One line for the transfer sheet."""
    found: list[str] = []
    named: list[str] = []
    for entry in content.entries:
        name = entry.title.rpartition("/")[2]
        if isinstance(entry.source, bytes):
            continue
        if name.endswith(".whl"):
            found.append(_of_wheel(Path(entry.source)) or "a package that names none")
        elif _FILES.fullmatch(name):
            named.append(entry.title)
        elif name == "README.md" and content.kind in ("model", "dataset"):
            found += _of_card(Path(entry.source))
    unique = sorted(set(found))
    more = [f"and {len(unique) - _SHOWN} more"] if len(unique) > _SHOWN else []
    files = [f"see {title}" for title in named[:3]]
    return "; ".join([*unique[:_SHOWN], *more, *files]) or None


def _of_card(path: Path) -> list[str]:
    with disk_errors(path), path.open("rb") as stream:
        match = _CARD.search(stream.read(1 << 14))
    return [match.group(1).decode()] if match else []


def _of_wheel(path: Path) -> str | None:
    try:
        with disk_errors(path), zipfile.ZipFile(path) as archive:
            name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
            if archive.getinfo(name).file_size > _LIMIT:
                return None
            text = _member(archive, name, path)
    except (zipfile.BadZipFile, StopIteration, RuntimeError, ValueError):  # no wheel, or encrypted
        return None
    metadata = HeaderParser().parsestr(text)
    said = metadata.get("License-Expression") or metadata.get("License")
    if said and "\n" not in said and len(said) <= 60:
        return said
    classes = [one for one in metadata.get_all("Classifier", []) if one.startswith("License ::")]
    return classes[0].rpartition(" :: ")[2] if classes else None


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> str:
    """A text in a wheel.

    Raises:
        KitError: the wheel is damaged there (exit 4).
    """
    try:
        return archive.read(name).decode("utf-8", "replace")
    except (zlib.error, lzma.LZMAError, EOFError, zipfile.BadZipFile) as error:
        problem: Exception = error
    except OSError as error:
        if error.errno is not None:  # the disk's; that of bzip2 has none
            raise
        problem = error
    raise content_error(f"{path}: a damaged wheel: {name}: {problem}") from problem
