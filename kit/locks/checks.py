"""Checks that every part of an intent shares: names, addresses, nothing twice."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kit.errors import KitError, usage_error
from kit.files import safe_member

if TYPE_CHECKING:
    from collections.abc import Iterable
    from urllib.parse import SplitResult

    from kit.document import Section

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def matched(section: Section, key: str, pattern: re.Pattern[str]) -> str:
    """The text under `key`, which must fit `pattern` as a whole (else exit 2)."""
    text = section.text(key)
    if not pattern.fullmatch(text):
        raise section.error(f"{key}: not a valid {key}: {text!r}", key)
    return text


def name(section: Section, text: str, key: str | None = None) -> str:
    """`text`, which must be usable as the name of a group or a folder (else exit 2)."""
    if not NAME.fullmatch(text):
        raise section.error(f"not a valid name: {text!r}", key or text)
    return text


def stays_inside(section: Section, key: str, text: str) -> None:
    """Refuse a path that leads out of the folder it is relative to (exit 2)."""
    try:
        safe_member(text, section.where(key))
    except KitError as error:
        raise usage_error(str(error)) from error


def refuse_repeated(section: Section, key: str, names: Iterable[str]) -> None:
    """Refuse a name that stands twice (exit 2)."""
    seen: set[str] = set()
    for text in names:
        if text in seen:
            raise section.error(f"{key}: {text!r} stands twice", key)
        seen.add(text)


def address(section: Section, key: str = "url") -> str:
    """The http(s) URL under `key`; no login or query, where secrets stand (else exit 2)."""
    url = section.text(key)
    parts = _parts(url)
    if parts is None:
        # What may be a secret is not told.
        found = "" if "@" in url or "?" in url else f", found {url!r}"
        raise section.error(f"{key}: expected http(s)://…{found}", key)
    if "@" in parts.netloc:
        raise section.error(
            f"{key}: holds a login; a lock is no place for secrets, ~/.netrc is (host "
            f"{parts.hostname})",
            key,
        )
    if "?" in url or "#" in url:
        bare = f"{parts.scheme}://{parts.netloc}{parts.path}"
        raise section.error(
            f"{key}: holds a query or fragment, where servers take secrets and which a lock does "
            f"not record: write {bare} here, and in KIT_MIRRORS what is asked for it: "
            f"'{bare}={bare}?…'",
            key,
        )
    return url


def is_address(text: str) -> bool:
    """Whether a text is an http(s) URL without a login, a query or a fragment."""
    parts = _parts(text)
    return parts is not None and "@" not in parts.netloc and not {"?", "#"} & set(text)


def _parts(url: str) -> SplitResult | None:
    """An http(s) URL taken apart; None for what is none, or has blanks or control characters."""
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        return None
    return parts if is_url and url.isprintable() and " " not in url else None
