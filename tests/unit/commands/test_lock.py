"""What `kit lock` asks before it asks anybody else."""

import pytest

from kit import cli
from kit.errors import ExitCode
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def place(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("KIT_HOME", str(tmp_path))
    monkeypatch.delenv("KIT_ACCEPT_LICENCES", raising=False)


def test_nothing_is_downloaded_under_terms_that_nobody_has_accepted(capsys, tmp_path):
    before = (ROOT / "lockfiles" / "trtllm-0.16.0.lock.yaml").read_bytes()
    assert cli.run(["lock", "trtllm-0.16.0"]) == ExitCode.ENVIRONMENT
    said = capsys.readouterr().err
    assert "nvidia-tensorrt: https://docs.nvidia.com/" in said
    assert 'export KIT_ACCEPT_LICENCES="' in said
    assert (ROOT / "lockfiles" / "trtllm-0.16.0.lock.yaml").read_bytes() == before
    assert not (tmp_path / "store").exists()
