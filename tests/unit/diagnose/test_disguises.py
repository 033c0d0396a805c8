"""The same message as other programs print it: coloured, dated, ranked, packed, wrapped."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.unit.diagnose.conftest import answered, first

if TYPE_CHECKING:
    from collections.abc import Callable


def _before(prefix: str) -> Callable[[str], str]:
    return lambda text: "\n".join(prefix + line for line in text.split("\n")) + "\n"


def _json(key: str, **more: str) -> Callable[[str], str]:
    return lambda text: "".join(
        json.dumps({**more, key: line + "\n"}) + "\n" for line in text.split("\n")
    )


def _coloured(text: str) -> str:
    return "\n".join(f"\x1b[1m\x1b[31m{line}\x1b[0m\x1b[K" for line in text.split("\n"))


def _carriage_returns(text: str) -> str:
    return f" 10%|#    | 1/10\r 20%|##   | 2/10\r{text}".replace("\n", "\r\n")


def _table(width: int) -> Callable[[str], str]:
    """Triton's table of models: the status is cut at the width of its column."""

    def draw(text: str) -> str:
        text = text.replace("\n", " ")
        pieces = [text[start : start + width] for start in range(0, len(text), width)]
        rule = f"+--------------+---------+{'-' * (width + 2)}+"
        rows = [
            f"| {'tensorrt_llm' if not place else '':12} | {'1' if not place else '':7} | {piece:{width}} |"
            for place, piece in enumerate(pieces)
        ]
        return "\n".join([rule, *rows, rule, ""])

    return draw


def _terminal(text: str) -> str:
    text = text.replace("\n", " ")
    return "".join(text[start : start + 100] + "\n" for start in range(0, len(text), 100))


DISGUISES: dict[str, Callable[[str], str | bytes]] = {
    "colours": _coloured,
    "iso time": _before("2026-11-20T13:06:14.123456Z "),
    "TensorRT's time": _before("[11/20/2026-13:06:14] "),
    "glog": _before("E1120 07:31:13.009883 4933 model_lifecycle.cc:630] "),
    "mpirun": _before("[1,0]<stderr>:"),
    "srun": _before("3: "),
    "torchrun": _before("[rank1]: "),
    "docker build": _before("#22 3747.1 "),
    "compose": _before("triton-1  | "),
    "containerd": _before("2026-11-20T13:06:14.123456789Z stderr F "),
    "journald": _before("Nov 20 13:06:14 node7 docker[4933]: "),
    "several": _before(
        "2026-11-20T13:06:14Z stderr F triton-1  | [1,0]<stderr>:[11/20/2026-13:06:14] "
    ),
    "json-file": _json("log", stream="stderr", time="2026-11-20T13:06:14Z"),
    "json message": _json("message", level="error"),
    "carriage returns": _carriage_returns,
    "utf-16": lambda text: f"start\n{text}\n".encode("utf-16"),
    "damaged": lambda text: b"\xc3\x28 \x00\x00\n" + text.encode() + b"\x00\n\xff\n",
    "long log": lambda text: "all is well\n" * 2000 + text + "\n" + "all is well\n" * 2000,
    "long line": lambda text: f"{'lorem ipsum ' * 3000} {text} {'dolor sit ' * 3000}",
    "table of 60": _table(60),
    "table of 80": _table(80),
    "terminal": _terminal,
}

# Messages that are a line of their own, or a table's row already.
WHOLE_LINES = {"oom-host-killed-build", "assertion-bare", "triton-backend-missing"}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_examples_are_found_in_disguise(disguise: str) -> None:
    inside = disguise in {"long line", "table of 60", "table of 80", "terminal"}
    missed = {
        (symptom, found)
        for symptom, text in answered()
        if not (inside and symptom in WHOLE_LINES)
        and (found := first(DISGUISES[disguise](text))) != symptom
    }
    # In the middle of one long line stand no line starts and no neighbours.
    allowed = {"long line": 8}.get(disguise, 0)
    assert len(missed) <= allowed, missed
