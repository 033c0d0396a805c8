"""The transfer sheet: one page for whoever carries, scans and admits a bundle, HTML and text."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from kit.bundles import active, licences
from kit.console import size, visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kit.bundles.plan import Plan
    from kit.bundles.verifier import Index

_SHOWN = 8
_LARGE = 2 << 30
"""Bytes of a file that many scanners leave out."""
_BLANKS = ("Carried by", "Medium", "Scanned with", "Definitions of", "Admitted by", "Date")


@dataclass(frozen=True, slots=True)
class Facts:
    """What stands on the sheet."""

    index: Index
    signer: str | None
    contents: tuple[tuple[str, str, str, str], ...]
    active: tuple[tuple[str, int, tuple[str, ...]], ...]
    large: tuple[str, ...]
    requires: int
    requires_bytes: int
    base: str | None


def facts(index: Index, made: Plan, signer: str | None) -> Facts:
    """Gather what the sheet says; reads the licences of packages and the heads of some files."""
    found: dict[str, list[str]] = {}
    large = []
    rows = []
    for known in made.known:
        content = known.content
        for entry, length in zip(content.entries, known.sizes, strict=True):
            name = visible(f"{content.label}: {entry.title}")
            if (kind := active.classify(content, entry)) is not None:
                found.setdefault(kind, []).append(name)
            if length > _LARGE:
                large.append(name)
        licence = licences.of(content) or "not stated"
        # What a package says of its licence may hold anything, a line that looks like ours too.
        label, why, licence = map(visible, (content.label, content.why, licence))
        rows.append((label, why, size(sum(known.sizes)), licence))
    return Facts(
        index=index,
        signer=signer,
        contents=tuple(rows),
        active=tuple(
            (active.CLASSES[kind], len(found[kind]), tuple(found[kind][:_SHOWN]))
            for kind in active.CLASSES
            if kind in found
        ),
        large=tuple(large),
        requires=len(index.requires),
        requires_bytes=sum(index.requires.values()),
        base=index.base,
    )


def text(found: Facts) -> str:
    """The sheet for a terminal or a printer."""
    index = found.index
    lines = ["TRANSFER SHEET", ""]
    lines += [f"{name + ':':12}{value}" for name, value in _head(found)]
    lines += ["", f"Parts, 1 to {len(index.parts)} of {len(index.parts)}"]
    lines += [f"  {part.name}  {part.size:>14}  {part.sha256}" for part in index.parts]
    lines += ["", "Contents"]
    for label, why, length, licence in found.contents:
        lines += [f"  {label} ({length}): {why}", f"      licence: {licence}"]
    lines += ["", "Active content: review before use"]
    for title, count, names in found.active:
        lines.append(f"  {count} {title}")
        lines += [f"      {name}" for name in names]
        lines += [f"      and {count - len(names)} more"] if count > len(names) else []
    lines += [] if found.active else ["  none"]
    lines += ["", f"Larger than {size(_LARGE)}, which scanners may leave out"]
    lines += [f"  {name}" for name in found.large] or ["  none"]
    lines += ["", "Check", *(f"  {line}" for line in _commands(found)), ""]
    lines += [f"{blank + ':':16}{'_' * 50}" for blank in _BLANKS]
    return "\n".join(lines) + "\n"


def html(found: Facts) -> str:
    """The same as one self-contained page."""
    return "\n".join(_page(found)) + "\n"


def _head(found: Facts) -> Iterator[tuple[str, str]]:
    index = found.index
    yield "Bundle", f"{index.name}, delivery {index.sequence}"
    yield "Id", index.identity
    total = f"{len(index.parts)} parts, {index.size} bytes ({size(index.size)})"
    yield "Size", f"{total}, {len(index.items)} objects"
    yield "Signer", found.signer or "NOT SIGNED"
    if found.base:
        length = size(found.requires_bytes)
        yield "Delta to", f"{found.base}: needs {found.requires} objects ({length}) from there"
    yield "Made with", f"kit {index.kit}"


def _commands(found: Facts) -> Iterator[str]:
    yield "sha256sum -c SHA256SUMS"
    if found.signer:
        yield (
            "ssh-keygen -Y verify -f ALLOWED -I SENDER -n kit-bundle -s SHA256SUMS.sig < SHA256SUMS"
        )
    yield f"python3 -I verify.py .{' --key SENDER.pub' if found.signer else ''}"


_STYLE = """
:root { color-scheme: light dark; --line: #8888; }
body { font: 13px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 60em; padding: 0 1em }
h1 { font-size: 1.5em; margin: 0 0 .5em } h2 { font-size: 1.1em; margin: 1.2em 0 .3em }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .15em .8em .15em 0;
  border-bottom: 1px solid var(--line); overflow-wrap: break-word }
.hex { overflow-wrap: anywhere }
th { white-space: nowrap } code, .hex { font: 11px/1.4 ui-monospace, monospace }
pre { margin: 0; white-space: pre-wrap; font: 11px/1.5 ui-monospace, monospace }
ul { margin: 0; padding-left: 1.2em } .blank td { height: 1.8em }
.warn { font-weight: bold }
@media print { body { margin: 0; max-width: none } @page { margin: 12mm } }
"""


def _page(found: Facts) -> Iterator[str]:
    index = found.index
    title = f"Transfer sheet: {index.name}, delivery {index.sequence}"
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield f"<title>{escape(title)}</title>"
    yield f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
    yield f"<h1>{escape(title)}</h1><table>"
    for name, value in _head(found):
        yield f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>"
    yield f"</table><h2>Parts, 1 to {len(index.parts)} of {len(index.parts)}</h2><table>"
    yield "<tr><th>Part</th><th>Bytes</th><th>SHA-256</th></tr>"
    for part in index.parts:
        row = f"<td>{part.name}</td><td>{part.size}</td><td class=hex>{part.sha256}</td>"
        yield f"<tr>{row}</tr>"
    yield "</table><h2>Contents</h2><table>"
    yield "<tr><th>What</th><th>Why</th><th>Size</th><th>Licence</th></tr>"
    for cells in found.contents:
        yield "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
    yield "</table><h2>Active content: review before use</h2><ul>"
    for kind, count, names in found.active or (("none", 0, ()),):
        more = f" and {count - len(names)} more" if count > len(names) else ""
        listed = f": <code>{escape(', '.join(names))}</code>{more}" if names else ""
        yield f"<li>{count or ''} {escape(kind)}{listed}</li>"
    yield f"</ul><h2>Larger than {size(_LARGE)}, which scanners may leave out</h2><ul>"
    for name in found.large or ("none",):
        yield f"<li>{escape(name)}</li>"
    commands = "\n".join(_commands(found))
    yield f"</ul><h2>Check</h2><pre>{escape(commands)}</pre><h2>Record</h2><table>"
    for blank in _BLANKS:
        yield f'<tr class="blank"><th>{blank}</th><td></td></tr>'
    yield "</table></body></html>"
