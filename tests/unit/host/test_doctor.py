from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import pytest

from kit.commands import doctor
from kit.errors import ExitCode, KitError
from kit.host import facts
from tests.unit.host import recordings as said

pytestmark = pytest.mark.skipif(
    Path("/dev/nvidiactl").exists(), reason="this host has a GPU, and the tests are of none"
)


def options(**given):
    return argparse.Namespace(**{"export": None, "json": False, "gpu": False, **given})


@pytest.fixture
def able(machine, tmp_path):
    store = {**said.PODMAN["store"], "graphRoot": str(tmp_path / "storage")}
    machine.says("podman", json.dumps({**said.PODMAN, "store": store}))
    return machine


def test_a_host_that_is_able(able, capsys):
    assert doctor.run(options()) == ExitCode.OK
    out = capsys.readouterr().out
    assert "able, without a GPU: the rehearsal only" in out
    assert "warning: gpus" in out
    assert "\x1b" not in out


def test_gpus_can_be_asked_for(able, capsys):
    assert doctor.run(options(gpu=True)) == ExitCode.ENVIRONMENT
    assert "not able: driver, gpus" in capsys.readouterr().out


def test_a_host_without_an_engine(machine, capsys):
    assert doctor.run(options()) == ExitCode.ENVIRONMENT
    assert "not able: engine" in capsys.readouterr().out


def test_json_and_export_hold_the_same_facts(able, capsys, tmp_path):
    path = tmp_path / "new" / "host.json"
    before = os.umask(0o077)
    try:
        assert doctor.run(options(json=True, export=str(path))) == ExitCode.OK
    finally:
        os.umask(before)
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema"] == "kit.doctor/1"
    assert answer["ok"] is True
    assert {"name", "status", "found", "expected", "advice"} == set(answer["checks"][0])
    assert answer["host"] == json.loads(path.read_bytes())
    assert path.stat().st_mode & 0o777 == 0o644
    assert facts.read(path).to_dict() == facts.from_dict(answer["host"], "x").to_dict()


def test_a_host_that_is_not_able_is_exported_too(machine, capsys, tmp_path):
    path = tmp_path / "host.json"
    path.write_text("old")
    assert doctor.run(options(export=str(path), json=True)) == ExitCode.ENVIRONMENT
    assert json.loads(capsys.readouterr().out)["ok"] is False
    assert facts.read(path).engines == ()


def test_nothing_but_a_file_is_replaced_by_an_export(able, tmp_path):
    """Written and renamed as root, the facts would stand where /dev/null stood."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "circle").symlink_to("circle")
    for name in ("pipe", "null", "circle", ".", "n" * 300, ""):
        with pytest.raises(KitError, match="the name of a file") as caught:
            doctor.run(options(export=str(tmp_path / name) if name else ""))
        assert caught.value.exit_code == ExitCode.USAGE
    assert (tmp_path / "pipe").is_fifo()
