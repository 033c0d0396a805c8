"""All rules, in the order in which they decide: what is of another release or kind comes first.

A module of rules is imported only if something that it compares is there.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kit.compat.facts import Facts
    from kit.compat.rule import Rule


def _anything(_facts: Facts) -> bool:
    return True


_MODULES: tuple[tuple[str, Callable[[Facts], bool]], ...] = (
    ("release", _anything),
    ("engine", lambda facts: facts.engine is not None or facts.checkpoint is not None),
    ("rehearsal", lambda facts: facts.engine is not None and facts.engine.backend == "rehearsal"),
    ("tensorrt", _anything),
    ("gpu", lambda facts: any((facts.gpu, facts.host, facts.manifest))),
    ("driver", lambda facts: facts.host is not None),
    ("image", lambda facts: facts.image is not None),
    ("wheel", lambda facts: facts.wheel is not None),
    ("source", lambda facts: facts.source is not None),
    ("repository", lambda facts: facts.repository is not None),
    ("host", lambda facts: facts.host is not None),
    ("records", lambda facts: any((facts.manifest, facts.lock))),
)


def concerned(facts: Facts) -> Iterator[Rule]:
    """The rules that have something to compare in these facts."""
    for name, is_concerned in _MODULES:
        if is_concerned(facts):
            yield from _of(name)


def every() -> list[Rule]:
    """All of them."""
    return [rule for name, _ in _MODULES for rule in _of(name)]


def _of(module: str) -> tuple[Rule, ...]:
    rules: tuple[Rule, ...] = import_module(f"{__name__}.{module}").RULES
    return rules
