from __future__ import annotations

import pytest

from kit.errors import ExitCode, KitError
from kit.reproduce.ladder import LEVELS, Ladder, Rung, State, parse


def ladder(*states: State) -> Ladder:
    rungs = tuple(Rung(level, state, "") for level, state in zip(LEVELS, states, strict=True))
    return Ladder(rungs, ())


P, F, D, U, A = "passed", "failed", "differs", "unchecked", "absent"


@pytest.mark.parametrize(
    ("states", "reached"),
    [
        ((P, P, P, P, P, P, P, P, P), 8),
        ((F, P, P, P, P, P, P, P, P), None),
        ((P, F, P, P, P, P, P, P, P), 0),
        ((P, P, F, P, P, P, P, P, P), 1),
        ((P, P, P, U, P, P, P, P, P), 2),  # what nobody looked at is no ground to stand on
        ((P, P, A, P, P, P, P, P, P), 8),  # an engine without a checkpoint in between
        ((P, P, P, P, D, D, D, P, D), 7),  # another GPU: the request, and behaviour within bounds
        ((P, P, P, P, D, D, D, U, D), 3),
        ((P, P, P, P, P, D, P, P, D), 7),  # TensorRT on the same GPU
        ((P, P, P, P, P, P, F, P, P), 7),  # the same bytes that say something else are no L8
        ((P, P, P, P, P, P, A, U, P), 8),  # an engine that is asked nothing
    ],
)
def test_the_highest_level_that_stands_on_others(
    states: tuple[State, ...], reached: int | None
) -> None:
    found = ladder(*states).reached
    assert (None if found is None else found.number) == reached


def test_a_level_that_passes_on_a_failed_one_does_not_hold() -> None:
    found = ladder(P, P, F, P, P, P, P, P, P)
    assert [number for number in range(9) if found.holds(number)] == [0, 1]
    assert [str(rung.level) for rung in found.failed] == ["L2"]


@pytest.mark.parametrize("text", ["L6", "l6", "6", " L6 "])
def test_levels_as_people_write_them(text: str) -> None:
    assert parse(text).number == 6


@pytest.mark.parametrize("text", ["L9", "", "six", "L66", "-1"])
def test_no_level(text: str) -> None:
    with pytest.raises(KitError, match="L0 to L8") as caught:
        parse(text)
    assert caught.value.exit_code is ExitCode.USAGE
