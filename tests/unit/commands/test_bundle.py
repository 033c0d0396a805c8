"""`kit bundle`: every action once through the command line, and requests that make no sense."""

from __future__ import annotations

import json

import pytest

from kit.cli import run
from tests.unit.bundles import making


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    project = making.project(tmp_path)
    monkeypatch.setenv("KIT_ROOT", str(project.root))
    monkeypatch.setenv("KIT_HOME", str(project.home))
    return project


@pytest.fixture
def words(tmp_path):
    making.noise(tmp_path / "data", [10, 30_000])
    return ["create", str(tmp_path / "out"), "--file", str(tmp_path / "data"), "--without-kit"]


def bundle(*words):
    return run(["bundle", *map(str, words)])


def said(capsys):
    return json.loads(capsys.readouterr().out)


def test_from_create_to_list(words, tmp_path, capsys):
    assert bundle(*words, "--part-size", "10K", "--name", "x", "--json") == 0
    made = said(capsys)
    assert (made["schema"], made["name"], made["sequence"]) == ("kit.bundle/1", "x", 1)
    assert [part["name"] for part in made["parts"]] == [f"part-000{n}" for n in (1, 2, 3, 4)]
    assert bundle("verify", tmp_path / "out", "--json") == 0
    assert said(capsys)["checked"] == made["objects"]
    assert bundle("list", tmp_path / "out") == 0
    assert "asked for" in capsys.readouterr().out
    assert bundle("load", tmp_path / "out", "--json") == 0
    ((row,),) = [said(capsys)["contents"]]
    assert bundle("list", "--json") == 0
    (known,) = said(capsys)["bundles"]
    assert known["identity"] == made["identity"]
    assert known["contents"][0]["path"] == row["path"]
    assert bundle("list") == 0
    assert row["path"] in capsys.readouterr().out
    for name in ("hauler", "zarf"):
        assert bundle("export", tmp_path / "out", "--to", name) == 0
        assert said(capsys)


def test_what_is_not_verified_ends_with_4(words, tmp_path, capsys):
    assert bundle(*words) == 0
    (tmp_path / "out" / "part-0001").write_bytes(b"")
    capsys.readouterr()
    assert bundle("verify", tmp_path / "out", "--json") == 4
    found = said(capsys)
    assert not found["ok"]
    assert found["problems"][0]["name"] == "part-0001"
    assert bundle("load", tmp_path / "out") == 4
    assert "part-0001" in capsys.readouterr().err


@pytest.mark.parametrize("action", ["verify", "load"])
def test_a_key_for_the_receipt_is_tried_first(action, words, place, tmp_path, capsys):
    assert bundle(*words) == 0
    receipt = tmp_path / "receipt.json"
    more = ["--receipt", receipt, "--sign-with", tmp_path / "typo"]
    assert bundle(action, tmp_path / "out", *more) == 2
    assert "typo: no key to sign with" in capsys.readouterr().err
    assert not receipt.exists()
    assert not place.contents.exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["create"], "expected its folder"),
        (["create", "OUT"], "nothing to carry"),
        (["create", "OUT", "--file", "x", "--receipt", "y"], "takes no --receipt"),
        (["verify", "OUT", "--stack", "s"], "takes no --stack"),
        (["verify", "OUT", "more"], "takes no a second place"),
        (["verify", "OUT"], "cannot be read"),
        (["load", "OUT", "--sign-with", "k"], "--sign-with signs a receipt"),
        (["list", "OUT"], "cannot be read"),
        (["push", "OUT"], "where to?"),
        (["export", "OUT"], "expected --to hauler or --to zarf"),
        (["create", "OUT", "--file", "x", "--name", "Ä"], "--name"),
        (["create", "OUT", "--file", "x", "--sequence", "0"], "--sequence"),
        (["create", "OUT", "--file", "x", "--jobs", "0"], "--jobs"),
        (["create", "OUT", "--file", "/nowhere", "--without-kit"], "no such file"),
        (["create", "OUT", "--file", "x", "--key", "/nowhere"], "there is no such file"),
    ],
)
def test_requests_that_make_no_sense(words, told, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").write_bytes(b"x")
    extra = ["--without-kit"] if words[0] == "create" and "--without-kit" not in words else []
    assert bundle(*words, *extra) in (2, 4)
    error = capsys.readouterr().err
    assert told in error
    assert "a bug in kit" not in error
