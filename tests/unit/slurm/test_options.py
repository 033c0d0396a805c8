from __future__ import annotations

import pytest

from kit.errors import ExitCode, KitError
from kit.slurm import options


@pytest.mark.parametrize("text", ["batch", "batch,debug", "a100-80.x", "proj_1", None])
def test_names(text: str | None) -> None:
    assert options.name("--partition", text) == text


@pytest.mark.parametrize("text", ["", "a b", "a\nb", "-x", "a;b", "$(id)", "gpu,", "a#b", "ä"])
def test_names_that_are_none(text: str) -> None:
    with pytest.raises(KitError, match=r"--account .*: expected a name") as caught:
        options.name("--account", text)
    assert caught.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize(
    "text", ["90", "90:00", "1:30:00", "2-12", "2-12:00", "2-12:00:00", "UNLIMITED", None]
)
def test_times(text: str | None) -> None:
    assert options.time(text) == text


@pytest.mark.parametrize("text", ["", "1h", "1:2:3:4", "-5", "1-", "90\n", "90 ", "unlimited"])
def test_times_that_are_none(text: str) -> None:
    with pytest.raises(KitError, match=r"--time .*: expected minutes"):
        options.time(text)


def test_gpus() -> None:
    assert options.gpus(None, 8) is None
    assert options.gpus(8, 8) == 8
    with pytest.raises(KitError, match="every node has 8 ranks"):
        options.gpus(4, 8)


def test_further_options_are_quoted_as_sbatch_reads_them() -> None:
    words = ["--constraint=a100&nvlink", "--mem=0", "--comment=two words # all", "--hold"]
    assert options.further(words) == [
        '--constraint="a100&nvlink"',
        "--mem=0",
        '--comment="two words # all"',
        "--hold",
    ]


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("-N2", "expected an option of sbatch in one word"),
        ("hold", "expected an option of sbatch in one word"),
        ("--Nodes=3", "expected an option of sbatch in one word"),
        ("--nodes=3", "the recipe says how many"),
        ("--wrap=id", "the script is the kit's"),
        ("--array=1-9", "one job makes one run"),
        ('--comment=a"b', "expected no line ends, quotes or backslashes"),
        ("--comment=a\\b", "expected no line ends, quotes or backslashes"),
        ("--comment=a\n#SBATCH --uid=0", "expected no line ends, quotes or backslashes"),
        ("--comment=a\u2028b", "expected no line ends, quotes or backslashes"),
    ],
)
def test_further_options_that_are_refused(word: str, why: str) -> None:
    with pytest.raises(KitError, match=why) as caught:
        options.further([word])
    assert caught.value.exit_code is ExitCode.USAGE
