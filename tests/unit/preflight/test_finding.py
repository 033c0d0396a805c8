import pytest

from kit.errors import ExitCode, KitError
from kit.preflight import Finding, render, require

WELL = Finding("kit disk", "ok", "12 GB free")
HOST = Finding("host nvcr.io", "failed", "no answer", "set a proxy")
CONTENT = Finding("git lfs", "failed", "a pointer\nand another", "kit lock small")
UNKNOWN = Finding("submodules", "unknown", "no table")
BUSY = Finding("host index.example", "warning", "answers 429")


def test_nothing_failed():
    require([WELL, UNKNOWN, BUSY])


@pytest.mark.parametrize(
    ("found", "code"),
    [
        ([HOST], ExitCode.ENVIRONMENT),
        ([CONTENT], ExitCode.CONTENT),
        ([HOST, CONTENT], ExitCode.CONTENT),
        ([WELL, HOST, BUSY], ExitCode.ENVIRONMENT),
    ],
)
def test_everything_that_failed_is_said_at_once(found, code):
    with pytest.raises(KitError) as caught:
        require(found)
    assert caught.value.exit_code == code
    text = f"{caught.value}\n{caught.value.hint or ''}"
    for finding in found:
        told = finding.state == "failed"
        assert (finding.detail.split("\n")[0] in text) == told
        assert (finding.remedy is not None and finding.remedy in text) == told


def test_a_table_of_all(capsys):
    text = render([WELL, CONTENT, Finding("lock", "ok", "\x1b[31mred")])
    lines = text.splitlines()
    assert lines[0].split() == ["STATE", "CHECK", "FOUND"]
    assert [line.split()[0] for line in lines[2:]] == ["ok", "failed", "and", "try:", "ok"]
    assert "\x1b" not in text
