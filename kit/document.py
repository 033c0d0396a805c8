"""YAML and JSON that people write, read so that every complaint names file, line and column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from kit import files
from kit.errors import KitError, nearest, usage_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_KINDS = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}
_DEEPEST = 64
_LARGEST = 16 << 20
"""Bytes of a file that people and the kit write; the largest lock has some megabytes."""


@dataclass(frozen=True, slots=True)
class Section:
    """One mapping of a document; keys are taken by name, `close` refuses the rest."""

    file: str
    node: yaml.MappingNode
    taken: set[str]

    def where(self, key: str | None = None) -> str:
        """`file:line:column` of the mapping, or of the value under `key`."""
        node: yaml.Node = self.node
        if key is not None and (found := self._find(key)) is not None:
            node = found
        return _place(self.file, node)

    def error(self, message: str, key: str | None = None, hint: str | None = None) -> KitError:
        """An error about this mapping (exit 2)."""
        return usage_error(f"{self.where(key)}: {message}", hint=hint)

    def text(self, key: str, default: str | None = None) -> str:
        """The text under `key`; a missing key without a default is an error."""
        value = self._scalar(key, str, default)
        assert isinstance(value, str)
        return value

    def optional_text(self, key: str) -> str | None:
        """The text under `key`, or None."""
        return self.text(key) if self._is_given(key) else None

    def integer(self, key: str, default: int | None = None) -> int:
        """The whole number under `key`."""
        value = self._scalar(key, int, default)
        assert isinstance(value, int)
        return value

    def boolean(self, key: str, default: bool | None = None) -> bool:
        """True or false under `key`."""
        value = self._scalar(key, bool, default)
        assert isinstance(value, bool)
        return value

    def number(self, key: str, least: float, most: float) -> float:
        """The number under `key`, from `least` to `most`, whole or not."""
        value = self.plain(key)
        if type(value) not in (int, float) or not least <= value <= most:
            raise self.error(
                f"{key}: expected a number from {least:g} to {most:g}, found {value!r}", key
            )
        return float(value)

    def is_mapping(self, key: str) -> bool:
        """Whether a mapping stands under `key`."""
        return isinstance(self._take(key), yaml.MappingNode)

    def texts(self, key: str) -> tuple[str, ...]:
        """The list of texts under `key`; absent means empty."""
        found = self._take(key)
        if found is None:
            return ()
        if not isinstance(found, yaml.SequenceNode):
            raise usage_error(f"{_place(self.file, found)}: {key}: expected a list")
        return tuple(_scalar(self.file, key, item, str) for item in found.value)

    def section(self, key: str) -> Section:
        """The mapping under `key`; a missing key is an error."""
        found = self._take(key)
        if found is None:
            raise self.error(f"missing key {key!r}")
        return _section(self.file, key, found)

    def optional_section(self, key: str) -> Section | None:
        """The mapping under `key`, or None."""
        return self.section(key) if self._is_given(key) else None

    def sections(self, key: str) -> list[Section]:
        """The list of mappings under `key`; absent means empty."""
        found = self._take(key)
        if found is None:
            return []
        if not isinstance(found, yaml.SequenceNode):
            raise usage_error(f"{_place(self.file, found)}: {key}: expected a list")
        return [_section(self.file, key, item) for item in found.value]

    def plain(self, key: str) -> Any:
        """Whatever stands under `key` as plain Python data, or None."""
        found = self._take(key)
        return None if found is None else _plain(self.file, found)

    def keys(self) -> Iterator[str]:
        """The keys, in the order of the file."""
        return (str(name.value) for name, _ in self.node.value)

    def __contains__(self, key: str) -> bool:
        return self._find(key) is not None

    def close(self) -> None:
        """Refuse keys that nobody asked for, naming the nearest that exists."""
        for name, _ in self.node.value:
            if name.value not in self.taken:
                raise usage_error(
                    f"{_place(self.file, name)}: unknown key {name.value!r}; "
                    + nearest(str(name.value), self.taken)
                )

    def _is_given(self, key: str) -> bool:
        self.taken.add(key)
        found = self._find(key)
        return found is not None and found.tag != "tag:yaml.org,2002:null"

    def _find(self, key: str) -> yaml.Node | None:
        for name, value in self.node.value:
            if name.value == key:
                node: yaml.Node = value
                return node
        return None

    def _take(self, key: str) -> yaml.Node | None:
        self.taken.add(key)
        return self._find(key)

    def _scalar(self, key: str, kind: type, default: Any) -> Any:
        found = self._take(key)
        if found is None:
            if default is None:
                raise self.error(f"missing key {key!r}")
            return default
        return _scalar(self.file, key, found, kind)


def load(path: Path) -> Section:
    """Read the mapping that a YAML or JSON file holds.

    Raises:
        KitError: unreadable, malformed, a repeated key, no mapping; names the place (exit 2).
    """
    try:
        content = files.content(path, _LARGEST)
    except OSError as error:
        raise usage_error(f"{path}: cannot be read: {error.strerror}") from error
    return loads(content, str(path))


def loads(content: bytes | str, name: str) -> Section:
    """Read the mapping in `content`; `name` stands for the file in messages."""
    try:
        _refuse_deep(name, content)
        node = yaml.compose(content, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise usage_error(f"{place}: not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise usage_error(f"{name}:1:1: not valid YAML: {problem}") from error
    if node is None:
        raise usage_error(f"{name}:1:1: empty file, expected a mapping")
    _refuse_odd(name, node, set(), set())
    return _section(name, None, node)


def places(top: Section) -> dict[str, str]:
    """`file:line:column` of every value, by its keys joined with dots; lists are one value."""
    found: dict[str, str] = {}

    def walk(node: yaml.MappingNode, above: str) -> None:
        for name, value in node.value:
            key = f"{above}{name.value}"
            found[key] = _place(top.file, value)
            if isinstance(value, yaml.MappingNode):
                walk(value, f"{key}.")

    walk(top.node, "")
    return found


def _refuse_deep(file: str, content: bytes | str) -> None:
    """Refuse endless nesting before libyaml's composer recurses into it and the process dies."""
    depth = 0
    for event in yaml.parse(content, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEEPEST:
                mark = event.start_mark
                assert mark is not None
                raise usage_error(
                    f"{file}:{mark.line + 1}:{mark.column + 1}: "
                    f"nested deeper than {_DEEPEST} levels"
                )
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _refuse_odd(file: str, node: yaml.Node, above: set[int], seen: set[int]) -> None:
    """Refuse repeated keys, keys that are no plain text, a node inside itself."""
    if id(node) in above:
        raise usage_error(f"{_place(file, node)}: stands inside itself")
    if id(node) in seen:
        return
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        names: set[str] = set()
        for name, value in node.value:
            if not isinstance(name, yaml.ScalarNode):
                raise usage_error(f"{_place(file, name)}: a key must be a plain text")
            if name.value in names:
                raise usage_error(f"{_place(file, name)}: key {name.value!r} stands twice")
            names.add(name.value)
            children.append(value)
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    above.add(id(node))
    for child in children:
        _refuse_odd(file, child, above, seen)
    above.discard(id(node))
    seen.add(id(node))


def _place(file: str, node: yaml.Node) -> str:
    return f"{file}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"


def _section(file: str, key: str | None, node: yaml.Node) -> Section:
    if not isinstance(node, yaml.MappingNode):
        named = f"{key}: " if key else ""
        raise usage_error(f"{_place(file, node)}: {named}expected a mapping (key: value)")
    return Section(file, node, set())


def _scalar(file: str, key: str, node: yaml.Node, kind: type) -> Any:
    value = _plain(file, node)
    if type(value) is not kind:
        found = getattr(node, "value", "")
        shown = repr(found) if isinstance(found, str) else "a list or mapping"
        quote = "; put it in quotes" if kind is str and isinstance(node, yaml.ScalarNode) else ""
        raise usage_error(
            f"{_place(file, node)}: {key}: expected {_KINDS[kind]}, found {shown}{quote}"
        )
    return value


def _plain(file: str, node: yaml.Node) -> Any:
    constructor = yaml.constructor.SafeConstructor()
    try:
        return constructor.construct_document(node)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # An impossible date, a tag of another program, a number of thousands of digits.
        problem = getattr(error, "problem", None) or str(error)
        raise usage_error(
            f"{_place(file, node)}: cannot be read as plain data: {problem}; "
            "put it in quotes if it is a text"
        ) from error
