"""What scripts check after parsing, also over values that are not known."""

from __future__ import annotations

import pytest

from kit import data
from kit.commandlines.conditions import holds, names
from kit.commandlines.values import UNKNOWN

VALUES = {"a": None, "b": 3, "c": "x", "d": [1, 2], "u": UNKNOWN, "t": True}


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("args.a is None", True),
        ("args.b is not None and args.c == 'x'", True),
        ("not args.t", False),
        ("len(args.d) == 3", False),
        ("math.log2(args.b).is_integer()", False),
        ("args.u == 3", None),
        ("args.u is None", False),
        ("args.u is not None", True),
        ("args.u and args.a is not None", False),
        ("args.u or args.t", True),
        ("args.u or args.a", None),
        ("not args.u", None),
        ("len(args.u) == 3", None),
        ("args.a > 0", None),
        ("False", False),
    ],
)
def test_three_values(expression: str, answer: bool | None) -> None:
    assert holds(expression, VALUES) is answer


@pytest.mark.parametrize(
    "expression", ["open('x')", "args.b + 1", "__import__('os')", "1 < args.b < 5"]
)
def test_nothing_else_is_evaluated(expression: str) -> None:
    with pytest.raises(ValueError):
        holds(expression, VALUES)


def test_every_check_of_the_table_is_in_the_language() -> None:
    seen = 0
    for name, script in data.cli_table()["scripts"].items():
        flags = {row["dest"] for row in script["options"]}
        for row in script["post_checks"]:
            for expression in [*row["when"], row["must"]]:
                assert names(expression) <= flags, (name, expression)
                assert holds(expression, dict.fromkeys(flags, UNKNOWN)) in {None, True, False}
                seen += 1
    assert seen > 100
