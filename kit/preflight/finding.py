"""One thing that was looked at before the work: how it is, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kit.console import table, visible
from kit.errors import ExitCode, KitError

if TYPE_CHECKING:
    from collections.abc import Iterable

State = Literal["ok", "warning", "failed", "unknown"]
_WRONG_CONTENT = frozenset(
    {"lock", "base image", "sources", "submodules", "git lfs", "cuda architectures"}
)
"""Findings about what files say; the others are about this host, its network and its user."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One look.

    Attributes:
        name: what was looked at; a host of the network goes by its name.
        state: `failed` stops the work, `unknown` means that nobody can tell and why.
        detail: what was found, and what was expected where that differs.
        remedy: what to type or change; None where nothing needs to be done.
    """

    name: str
    state: State
    detail: str
    remedy: str | None = None


def render(findings: Iterable[Finding]) -> str:
    """A table, one line a finding, remedies below those that have one."""
    rows: list[tuple[str, str, str]] = []
    for finding in findings:
        lines = finding.detail.split("\n")
        rows.append((finding.state, finding.name, visible(lines[0])))
        rows += [("", "", visible(line)) for line in lines[1:]]
        if finding.remedy:
            rows.append(("", "", f"try: {visible(finding.remedy)}"))
    return table(rows, ("STATE", "CHECK", "FOUND"))


def require(findings: Iterable[Finding]) -> None:
    """Stop here if anything failed, and say all of it at once.

    Raises:
        KitError: something failed: the host, a licence, the network (exit 3); a lock, a source or
            an architecture that does not fit (exit 4, also where both failed).
    """
    failed = [finding for finding in findings if finding.state == "failed"]
    if not failed:
        return
    is_content = any(finding.name in _WRONG_CONTENT for finding in failed)
    code = ExitCode.CONTENT if is_content else ExitCode.ENVIRONMENT
    if len(failed) == 1:
        only = failed[0]
        raise KitError(f"{only.name}: {only.detail}", exit_code=code, hint=only.remedy)
    lines = [f"{len(failed)} things stand in the way:"]
    for finding in failed:
        lines.append(f"  - {finding.name}: {finding.detail.replace(chr(10), chr(10) + '    ')}")
        if finding.remedy:
            lines.append(f"    try: {finding.remedy}")
    raise KitError("\n".join(lines), exit_code=code)
