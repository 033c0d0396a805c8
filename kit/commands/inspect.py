"""`kit inspect`: what is this, and which versions are inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kit import project
from kit.artifacts import report
from kit.console import envelope, result, table, visible
from kit.errors import ExitCode

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from kit.artifacts.report import Report

_NAMES = {
    "plan": "engine file",
    "engine": "engine directory",
    "checkpoint": "TensorRT-LLM checkpoint",
    "safetensors": "safetensors file",
    "timing-cache": "timing cache",
    "sdist": "source distribution",
    "source": "source tree",
    "lfs-pointer": "Git LFS pointer",
    "model-repository": "Triton model repository",
    "snapshot": "Hugging Face model",
    "oci-layout": "OCI image layout",
    "image-archive": "image archive",
    "manifest": "manifest of a run",
    "host-facts": "facts of a host",
    "elf": "program or library",
    "unknown": "nothing that kit knows",
}
_SHOWN = 12


def run(options: argparse.Namespace) -> int:
    """Print kind, versions, details and problems; exit 4 for what is damaged or unknown."""
    found = report.of(options.path, project.find, options.more)
    if options.json:
        envelope(
            "inspect",
            ok=found.is_sound,
            kind=found.kind,
            path=found.path,
            versions=[
                {
                    "name": item.component,
                    "version": item.version,
                    "where": item.where,
                    "how": item.how,
                }
                for item in found.versions
            ],
            details=found.details or {},
            needs=report.plain(found.needs),
            problems=report.plain(found.problems),
        )
    else:
        for line in _lines(found):
            result(visible(line))
    return ExitCode.OK if found.is_sound else ExitCode.CONTENT


def _lines(found: Report) -> Iterator[str]:
    yield f"{found.path}: {_NAMES.get(found.kind, found.kind)}"
    rows = [
        [item.component, item.version or "unknown", item.how, item.where] for item in found.versions
    ]
    if rows:
        yield ""
        yield from table(rows, ["COMPONENT", "VERSION", "HOW", "WHERE"]).splitlines()
    facts = list(_facts(found.details or {}))
    if facts:
        yield ""
        width = max(len(name) for name, _ in facts)
        yield from (f"{name.ljust(width)}  {value}" for name, value in facts)
    for title, messages in (
        ("needs", [item.message for item in found.needs]),
        ("problems", [item.message for item in found.problems]),
    ):
        if messages:
            yield ""
            yield f"{title}:"
            yield from (f"  {message}" for message in messages)


def _facts(details: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The details that fit in a line each; the rest is for `--json`."""
    for name, value in details.items():
        label = name.replace("_", " ")
        if isinstance(value, dict) and name in _OPENED:
            yield from _facts(value)
        elif value in (None, "", [], {}) or isinstance(value, dict) or name in _HIDDEN:
            continue
        elif isinstance(value, list):
            yield label, _listed(value)
        else:
            yield label, str(value)


_OPENED = frozenset({"config", "parallelism", "limits", "rehearsal", "match"})
_HIDDEN = frozenset(
    {"path", "folder", "reference", "schema", "stem", "expected", "families", "contents", "parts"}
)


def _listed(values: list[Any]) -> str:
    names = [_name(value) for value in values[:_SHOWN]]
    more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return ", ".join(names) + more


def _name(value: Any) -> str:
    """What an entry of a list is called."""
    if not isinstance(value, dict):
        return str(value)
    found = (value[key] for key in ("file", "name", "path", "folder", "value") if key in value)
    return str(next(found, "…"))
