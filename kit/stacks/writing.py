"""An intent as text: the order of its parts, their comments, quoting. The same bytes each time."""

from __future__ import annotations

import json
import re
import textwrap
from typing import TYPE_CHECKING

from kit.locks.intent import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kit.locks.intent import Apt, Intent, Requirements
    from kit.stacks.stack import Stack

_HEAD = (
    "Written by `python -m kit.stacks` from the tables in kit/data; do not edit: change the tables "
    "and write it again, or copy it under another name."
)
_WIDTH = 100
_BARE = re.compile(r"[A-Za-z/][A-Za-z0-9 ._+/=<>~-]*")
_HASH = re.compile(r"[0-9a-f]{40,64}")
_NOT_TEXTS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


def text(stack: Stack) -> str:
    """The intent's file; what is absent is left out."""
    intent = stack.intent
    page = _Page(stack.remarks.lines)
    page.remark(_HEAD)
    page.comment("")
    page.entry(0, "schema", SCHEMA)
    page.entry(0, "stack", intent.stack)
    page.entry(0, "family", intent.family)
    page.entry(0, "platform", intent.platform)
    page.comment("epoch")
    page.lines.append(f"epoch: {intent.epoch}")
    if intent.release is not None:
        page.entry(0, "release", intent.release)
    if intent.licences:
        page.head("licences")
        for licence in intent.licences:
            page.item({"name": licence.name, "url": licence.url})
    if intent.arguments:
        page.head("arguments")
        for name, value in intent.arguments:
            page.comment(f"arguments.{name}", 2)
            page.entry(2, name, value)
    if intent.images:
        page.head("images")
        for image in intent.images:
            page.comment(f"images.{image.name}", 2)
            page.item({"name": image.name, "reference": image.reference})
    _sources(page, intent)
    if intent.files:
        page.head("files")
        for file in intent.files:
            page.comment(f"files.{file.name}", 2)
            digest = {"sha256": file.sha256.hex} if file.sha256 else {}
            page.item({"name": file.name, "group": file.group, "url": file.url, **digest})
    if intent.models:
        page.head("models")
        for model in intent.models:
            assert model.directory is not None
            page.item({"name": model.name, "directory": model.directory})
    if intent.apt is not None:
        _apt(page, intent.apt)
    if intent.requirements is not None:
        _requirements(page, intent.requirements)
    if intent.gaps:
        page.head("gaps")
        for gap in intent.gaps:
            page.item({"name": gap.name, "group": gap.group, "reason": gap.reason})
    return "\n".join(page.lines) + "\n"


class _Page:
    def __init__(self, remarks: dict[str, list[str]]) -> None:
        self.lines: list[str] = []
        self._remarks = remarks

    def remark(self, words: str, margin: int = 0) -> None:
        lead = " " * margin + "# "
        self.lines += textwrap.wrap(
            words,
            _WIDTH,
            initial_indent=lead,
            subsequent_indent=lead,
            break_long_words=False,
            break_on_hyphens=False,
        )

    def comment(self, at: str, margin: int = 0) -> None:
        for words in self._remarks.get(at, []):
            self.remark(words, margin)

    def head(self, key: str) -> None:
        self.lines.append("")
        self.comment(key)
        self.lines.append(f"{key}:")

    def entry(self, margin: int, key: str, value: str) -> None:
        self.lines.append(f"{' ' * margin}{key}: {_word(value)}")

    def item(self, fields: dict[str, str], margin: int = 2) -> None:
        """A mapping in a list, one key a line."""
        for place, (key, value) in enumerate(fields.items()):
            mark = "- " if place == 0 else "  "
            self.lines.append(f"{' ' * margin}{mark}{key}: {_word(value)}")

    def list(self, margin: int, key: str, values: Iterable[str]) -> None:
        """A list of texts, one a line."""
        self.lines.append(f"{' ' * margin}{key}:")
        self.lines += [f"{' ' * margin}  - {_word(value)}" for value in values]


def _sources(page: _Page, intent: Intent) -> None:
    if intent.sources:
        page.head("sources")
    for source in intent.sources:
        page.comment(f"sources.{source.name}", 2)
        page.item({"name": source.name, "url": source.url, "commit": source.commit})
        if not source.submodules:
            page.lines.append("    submodules: false")
        if source.lfs:
            page.list(4, "lfs", source.lfs)


def _apt(page: _Page, apt: Apt) -> None:
    page.head("apt")
    page.entry(2, "base", apt.base)
    page.lines.append("  repositories:")
    for repository in apt.repositories:
        page.comment(f"apt.{repository.name}", 4)
        page.item({"name": repository.name, "url": repository.url}, 4)
        page.lines.append(f"      suites: {_row(repository.suites)}")
        page.lines.append(f"      components: {_row(repository.components)}")
        page.entry(6, "keyring", repository.keyring)
    page.lines.append("  groups:")
    for group in apt.groups:
        page.comment(f"apt.{group.name}", 4)
        page.list(4, group.name, group.packages)


def _requirements(page: _Page, requirements: Requirements) -> None:
    page.head("requirements")
    page.entry(2, "base", requirements.base)
    if requirements.indexes:
        page.list(2, "indexes", requirements.indexes)
    page.lines.append("  groups:")
    for group in requirements.groups:
        page.comment(f"requirements.{group.name}", 4)
        page.lines.append(f"    {group.name}:")
        parts = {"packages": group.packages, "files": group.files, "archives": group.archives}
        for key, values in parts.items():
            if values:
                page.list(6, key, values)


def _row(values: Iterable[str]) -> str:
    return f"[{', '.join(_word(value) for value in values)}]"


def _word(value: str) -> str:
    """A bare word where YAML reads it as the same text, else quoted as JSON does."""
    bare = _BARE.fullmatch(value) and not _HASH.fullmatch(value)
    if bare and value.lower() not in _NOT_TEXTS and value == value.strip():
        return value
    return json.dumps(value, ensure_ascii=False)
