"""The report of a reproduction as one HTML file: nothing of it comes from anywhere else.

It reads without the kit, in light and dark, on a screen and on paper.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING

from kit.console import size, visible
from kit.reproduce.ladder import LEVELS, WORDS
from kit.reproduce.text import headline

if TYPE_CHECKING:
    from kit.manifests.record import Manifest
    from kit.reproduce.again import Reproduction
    from kit.reproduce.ladder import Level, Rung

_STYLE = Path(__file__).with_name("page.css")
_SHOWN = 500
"""Differences of one level; what is left out is counted."""
_SIGNS = {"passed": "✓", "failed": "✗", "differs": "≠", "unchecked": "?", "absent": "·"}


def page(found: Reproduction, required: Level | None = None) -> str:
    """The report as text of an HTML file."""
    reached = found.ladder.reached
    is_good = not found.ladder.failed and found.problem is None
    if required is not None:
        is_good = found.ladder.holds(required.number)
    title = f"{found.recorded.example.name}, TensorRT-LLM {found.recorded.release}"
    asked = f"<p>Asked for: {required}, {_text(required.name)}.</p>" if required else ""
    problem = f"<pre>{_lines(found.problem)}</pre>" if found.problem else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Reproduction of {_text(title)}</title>
<style>
{_STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<header>
<p class="kind">Reproduction report</p>
<h1>{_text(title)}</h1>
<div class="verdict {"good" if is_good else "bad"}">
<p class="level">{reached or "none"}</p>
<div>
<p class="headline">{_text(headline(found))}.</p>
<p>{_text(reached.claim.capitalize() if reached else "No level holds")}.</p>
{asked}
</div>
</div>
{problem}
</header>
<main>
{_ladder(found)}
{_sides(found)}
<section>
<h2>Levels</h2>
{"".join(_level(found, rung) for rung in reversed(found.ladder.rungs))}
</section>
</main>
<footer>
{_footer(found)}
</footer>
</body>
</html>
"""


def _ladder(found: Reproduction) -> str:
    rows = "".join(
        f'<tr class="{rung.state}"><th scope="row"><a href="#{rung.level}">{rung.level}</a></th>'
        f"<td>{_text(rung.level.name)}</td>"
        f'<td class="state"><span aria-hidden="true">{_SIGNS[rung.state]}</span> '
        f"{_text(WORDS[rung.state])}</td>"
        f"<td>{'holds' if found.ladder.holds(rung.level.number) else ''}</td></tr>\n"
        for rung in reversed(found.ladder.rungs)
    )
    claimed = ", ".join(f"L{number}" for number in found.ladder.claimable)
    note = f"<p>On this platform can be claimed: {claimed}.</p>" if claimed else ""
    return (
        "<section>\n<h2>Ladder</h2>\n"
        '<table class="ladder"><thead><tr><th scope="col">Level</th><th scope="col">Claim</th>'
        '<th scope="col">Found</th><th scope="col">With all that it needs</th></tr></thead>\n'
        f"<tbody>{rows}</tbody></table>\n{note}\n</section>"
    )


def _sides(found: Reproduction) -> str:
    first, second = _facts(found.recorded), _facts(found.again) if found.again else {}
    rows = "".join(
        f'<tr><th scope="row">{_text(name)}</th><td>{_text(value)}</td>'
        f'<td class="{"" if second.get(name, value) == value else "other"}">'
        f"{_text(second.get(name, 'the run stopped'))}</td></tr>\n"
        for name, value in first.items()
    )
    return (
        "<section>\n<h2>Both runs</h2>\n"
        '<table class="sides"><thead><tr><th></th><th scope="col">Recorded</th>'
        f'<th scope="col">Again</th></tr></thead>\n<tbody>{rows}</tbody></table>\n</section>'
    )


def _facts(manifest: Manifest) -> dict[str, str]:
    host = manifest.host
    gpus = ", ".join(gpu.name for gpu in host.gpus) or "none"
    return {
        "run at": manifest.created,
        "kit": manifest.kit.version,
        "containers by": f"{manifest.engine.name} {manifest.engine.version}",
        "system": f"{host.os}, {host.kernel}, {host.architecture}",
        "processor": f"{host.cpu or 'unknown'}, {host.cores} cores, {size(host.memory_bytes)}",
        "GPUs": f"{gpus}; given to the containers: {manifest.gpus}",
        "driver": host.driver or "none",
        "CUDA": manifest.versions.cuda or "none",
        "TensorRT": manifest.versions.tensorrt or "none",
        "stack": manifest.stack,
        "lock": manifest.lock,
        "image": manifest.image.manifest_digest,
        "recipe": manifest.example.digest,
        "model": f"{manifest.model.name}, {len(manifest.model.files)} files",
        "seconds": f"{sum(command.seconds for command in manifest.commands):.1f}",
    }


def _level(found: Reproduction, rung: Rung) -> str:
    needs = ", ".join(f"L{number}" for number in rung.level.needs)
    evidence = "".join(f"<li>{_text(line)}</li>" for line in rung.evidence)
    holds = found.ladder.holds(rung.level.number)
    blocked = [
        f"L{number}"
        for number in rung.level.needs
        if found.ladder.rungs[number].state not in ("passed", "absent")
    ]
    stands = ""
    if rung.state == "passed" and not holds:
        stands = f"<p>It does not hold, as it needs {', '.join(blocked)}.</p>"
    return (
        f'<article id="{rung.level}" class="{rung.state}">\n'
        f"<h3><span>{rung.level}</span> {_text(rung.level.name)}: "
        f'<span class="state">{_SIGNS[rung.state]} {_text(WORDS[rung.state])}</span></h3>\n'
        f'<p class="claim">Claim: {_text(rung.level.claim)}.'
        f"{f' Needs {needs}.' if needs else ''}</p>\n"
        f"<p>{_lines(rung.reason[:1].upper() + rung.reason[1:])}</p>\n{stands}"
        f"{f'<ul>{evidence}</ul>' if evidence else ''}\n{_differences(rung)}</article>\n"
    )


def _differences(rung: Rung) -> str:
    if not rung.differences:
        return ""
    rows = "".join(
        f'<tr class="{"counts" if item.counts else "told"}"><th scope="row">{_text(item.what)}</th>'
        f"<td>{_text(item.recorded if item.recorded is not None else 'absent')}</td>"
        f"<td>{_text(item.found if item.found is not None else 'absent')}</td>"
        f"<td>{_text(item.note)}{'' if item.counts else ' (does not count)'}</td></tr>\n"
        for item in rung.differences[:_SHOWN]
    )
    more = len(rung.differences) - _SHOWN
    left_out = f"<p>{more} more differences are in the JSON form.</p>" if more > 0 else ""
    return (
        '<table class="differences"><thead><tr><th scope="col">What</th>'
        '<th scope="col">Recorded</th><th scope="col">Found</th><th scope="col">Note</th></tr>'
        f"</thead>\n<tbody>{rows}</tbody></table>\n{left_out}"
    )


def _footer(found: Reproduction) -> str:
    return (
        f"<p>Record: {_text(found.path.name)}, <code>sha256:{found.digest.hex}</code>. Whoever has "
        "it can check this report by running <code>kit reproduce</code> again.</p>\n"
        f"<p>There are {len(LEVELS)} levels; each says in its claim what has to be equal. "
        "“Differs, which is no failure” stands where nobody promises equality: TensorRT picks "
        "kernels by measuring, and another GPU computes with others.</p>"
    )


def _lines(text: str) -> str:
    return "\n".join(_text(line) for line in text.split("\n"))


def _text(text: str) -> str:
    return html.escape(visible(text))
