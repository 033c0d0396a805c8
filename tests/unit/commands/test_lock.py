"""`kit lock` where it must not write."""

from argparse import Namespace

import pytest

from kit import project
from kit.commands import lock
from kit.errors import ExitCode, KitError


def test_the_project_that_came_with_the_kit_is_left_as_it_is(tmp_path, monkeypatch):
    root = tmp_path / "site packages" / "bundled"
    for name in ("lockfiles", "dockerfiles"):
        (root / name).mkdir(parents=True)
    (root / "lockfiles" / "rehearsal.yaml").touch()
    monkeypatch.setattr(project, "_BUNDLED", root)
    monkeypatch.setenv("KIT_ROOT", str(root))
    with pytest.raises(KitError, match="came with the kit and is not to be changed") as caught:
        lock.run(Namespace(stack="rehearsal", json=False))
    assert caught.value.exit_code == ExitCode.USAGE
    assert caught.value.hint == f"cp -r '{root}' trtllm-kit && cd trtllm-kit"
    assert not (root / "lockfiles" / "rehearsal.lock.yaml").exists()
