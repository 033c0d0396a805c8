"""`kit triton` where it refuses before it needs an engine."""

from __future__ import annotations

import json

import pytest

from kit import cli


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("repository", "--engine", "x", "--tokenizer", "y"), "missing --output DIR"),
        (("repository", "--output", "x", "--tokenizer", "y"), "missing --engine DIR"),
        (("serve",), "missing REPOSITORY"),
        (("check",), "missing REPOSITORY"),
        (("serve", "/nowhere"), "no such model repository"),
        (("check", "ftp://host"), "expected http://HOST:PORT"),
        (("check", "http://host/v2"), "expected http://HOST:PORT"),
        (
            ("repository", "--engine", "/nowhere", "--tokenizer", "y", "--output", "z"),
            "no such folder",
        ),
    ],
)
def test_a_wrong_request(words, message, capsys) -> None:
    assert cli.run(["triton", *words, "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "kit.triton/1"
    assert not found["ok"]
    assert message in found["error"]["message"]


def test_the_help_has_an_example(capsys) -> None:
    with pytest.raises(SystemExit):
        cli.run(["triton", "--help"])
    assert "example: kit triton repository" in " ".join(capsys.readouterr().out.split())
