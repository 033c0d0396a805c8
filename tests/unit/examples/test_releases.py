from __future__ import annotations

import pytest
from packaging.version import Version

from kit import data
from kit.data import releases
from kit.errors import ExitCode, KitError


def test_table_is_in_order_and_agrees_with_the_table_of_options() -> None:
    names = releases.versions()
    assert names == sorted(names, key=Version)
    assert names == data.cli_table()["releases"]
    dates = [releases.value(name, "released") for name in names]
    assert dates == sorted(dates)


def test_names_are_read_with_and_without_v() -> None:
    assert releases.known("v0.9.0") == releases.known("0.9.0") == "0.9.0"
    with pytest.raises(KitError, match="unknown release") as caught:
        releases.known("0.9")
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("ranges", "first", "last"),
    [
        (">=0.9.0,<0.12.0", "0.9.0", "0.11.0"),
        (">0.21.0", "1.0.0", "1.2.1"),
        ("==0.18.*", "0.18.0", "0.18.2"),
    ],
)
def test_ranges(ranges: str, first: str, last: str) -> None:
    found = releases.select(ranges)
    assert (found[0], found[-1]) == (first, last)
    names = releases.versions()
    assert found == names[names.index(first) : names.index(last) + 1]


def test_bounds_and_neighbours() -> None:
    assert releases.between("0.9.0", "0.9.0", "0.10.0")
    assert not releases.between("0.10.0", "0.9.0", "0.10.0")
    assert releases.closest("0.13.0", ["0.5.0", "0.12.0", "1.0.0"]) == "0.12.0"
    assert releases.closest("0.13.0", []) is None
