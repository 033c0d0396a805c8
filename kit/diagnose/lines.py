"""Lines of a log without what other programs put around them: colours, times, ranks, wrappers."""

from __future__ import annotations

import json
import re
from typing import Literal

Severity = Literal["error", "warning", "info"]

LONGEST = 2000
"""Characters of a line that are looked at; a longer one is looked at in pieces."""
_LARGEST_RECORD = 65536
"""Bytes of a JSON record that is still opened."""

_ANSI = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b\][^\x07\x1b\n]{0,500}(?:\x07|\x1b\\)"  # OSC: titles, links
    r"|\x1b[PX^_][^\x1b\n]{0,500}\x1b\\|\x1b[@-Z\\^_=>78()][0-9A-B]?"
)
ANSI_BYTES = re.compile(
    rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b\n]{0,500}(?:\x07|\x1b\\)"
    rb"|\\u001[bB]\[[0-9;]*[A-Za-z]"
)

_CLOCK = r"\d\d:\d\d:\d\d(?:[.,]\d+)?"
_PREFIX = re.compile(
    rf"""(?:
      [\[(]?\d{{4}}[-/]\d\d[-/]\d\d[T\ ]{_CLOCK}\s?(?:Z\b|UTC|GMT|[+-]\d\d:?\d\d)?[\])]?
    | \[?\d\d/\d\d/\d{{2,4}}[-\ ]{_CLOCK}\]?                    # [11/20/2026-13:06:14]
    | \[?{_CLOCK}\]?(?=[\s|])
    | \[\s*\d+\.\d{{4,6}}\]                                     # kernel ring buffer
    | [A-Z][a-z]{{2}}\s+\d+\s{_CLOCK}\s\S+\s[\w.@/-]+(?:\[\d+\])?:   # journald, syslog
    | [IWEF]\d{{4}}\s{_CLOCK}\s+\d+\s[\w./+-]+:\d+\]            # glog
    | \#\d+\s(?:\d+\.\d+\s)?(?:\[[^\]\n]{{1,80}}\]\s)?           # docker build
    | \d{{1,6}}\.\d{{1,3}}(?=\s\D)                              # its summary
    | (?:stdout|stderr)\s[FP](?=\s)                             # containerd
    | \[\d+,\d+\]<(?:stdout|stderr|stddiag)>:?                  # mpirun --tag-output
    | \[[A-Za-z][\w.-]*:\d+(?::\d+)?\](?:\s\[\d+\])?            # [host:4711]
    | \[(?:default|rank)\d+\]:?
    | \d{{1,5}}:(?=\s)                                          # srun --label
    | [\w.-]{{1,60}}\s+\|(?=\s)                                 # compose
    | \#\#\[(?:error|warning|group)\]
    | (?:E|>)\s{{2,}}(?=\S)                                     # pytest
    | \*\*\*(?=\s)
    )\s*""",
    re.VERBOSE,
)
_ROUNDS = 6
_RECORD_TEXTS = ("log", "message", "msg", "MESSAGE", "text", "event")

_ERROR = re.compile(
    r"\[(?:E|ERROR|FATAL|F)\]|^[EF]\d{4} |\b(?:ERROR|FATAL|CRITICAL)\b"
    r"|\b[Ee]rror:|NCCL WARN|Traceback|^\w*(?:Error|Exception)\b"
)
_WARNING = re.compile(r"\[W(?:ARN(?:ING)?)?\]|^W\d{4} |\bWARN(?:ING)?\b|\b[Ww]arning:|Warning:")
_INFO = re.compile(r"\[(?:I|INFO|V|VERBOSE|D|DEBUG)\]|^I\d{4} |(?<![=\w])(?:INFO|DEBUG)\b")

_SECRETS = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{8,}|nvapi-[\w-]{8,}|gh[pousr]_\w{8,}|github_pat_\w{8,}|glpat-[\w-]{8,}"
    r"|AKIA[0-9A-Z]{12,}|sk-[\w-]{16,}|eyJ[\w-]{8,}\.[\w-]{4,}\.[\w-]*)"
    r"|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"
    r"|(?i:(?<=authorization: )(?:basic|bearer|token)?\s*\S+"
    r"|(?<=bearer )\S{8,}"
    r"|(?<=token=)[^\s&\"']+|(?<=password=)[^\s&\"']+|(?<=passwd=)[^\s&\"']+"
    r"|(?<=api_key=)[^\s&\"']+|(?<=secret=)[^\s&\"']+"
    r"|(?<=hf_token=)[^\s&\"']+|(?<=ngc_api_key=)[^\s&\"']+)"
)


def bare(raw: bytes) -> str:
    """The text of a line: decoded, taken out of a JSON record, no colours; prefixes still there.

    What a carriage return overwrote on a terminal stands before a line end.
    """
    text = raw.replace(b"\0", b"").decode("utf-8", errors="replace").strip("\r\n\ufeff ")
    if text.endswith("}") and len(text) < _LARGEST_RECORD and '{"' in text[:80]:
        text = _record(text)
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    return text.replace("\r", "\n").replace("\t", " ")


def without_prefixes(text: str) -> str:
    """The text after times, ranks, hosts, services, build steps that stand before it."""
    start = len(text) - len(text.lstrip())
    for _ in range(_ROUNDS):
        match = _PREFIX.match(text, start)
        if match is None:
            break
        start = match.end()
    return text[start:].rstrip()


def severity(text: str) -> Severity | None:
    """What the line says of itself, prefixes included; None where it says nothing."""
    if _ERROR.search(text):
        return "error"
    if _WARNING.search(text):
        return "warning"
    return "info" if _INFO.search(text) else None


def pieces(text: str) -> list[str]:
    """A line that is too long, in pieces that overlap by a quarter."""
    if len(text) <= LONGEST:
        return [text]
    step = LONGEST * 3 // 4
    return [text[start : start + LONGEST] for start in range(0, len(text) - LONGEST // 4, step)]


def redacted(text: str) -> str:
    """The text without tokens, passwords in addresses, authorization headers."""
    return _SECRETS.sub("[redacted]", text)


def _record(text: str) -> str:
    start = text.index('{"')
    try:
        record = json.loads(text[start:])
    except (ValueError, RecursionError):
        return text
    for key in _RECORD_TEXTS:
        if isinstance(value := record.get(key) if isinstance(record, dict) else None, str):
            return value.strip("\r\n")
    return text
