"""`make setup` installs an engine only where that is one safe command, and else names it."""

from __future__ import annotations

import subprocess

import pytest

from kit import images
from kit.commands import install_engine
from kit.errors import ExitCode, KitError, environment_error


@pytest.fixture
def no_engine(monkeypatch):
    def select(_home):
        raise environment_error("no container engine")

    monkeypatch.setattr(images, "select", select)
    monkeypatch.delenv("KIT_ENGINE", raising=False)
    ran = []

    def run(command, **_options):
        ran.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(install_engine.subprocess, "run", run)
    return ran


def test_nothing_is_done_where_an_engine_is(monkeypatch, no_engine):
    monkeypatch.setattr(images, "select", lambda _home: object())
    assert install_engine.main() == ExitCode.OK
    assert no_engine == []


def test_user_is_told_the_one_line(monkeypatch, no_engine):
    monkeypatch.setattr(install_engine, "_is_debian", lambda: True)
    monkeypatch.setattr(install_engine.os, "geteuid", lambda: 1000)
    with pytest.raises(KitError) as caught:
        install_engine.main()
    assert caught.value.hint.startswith("sudo apt-get install --yes --no-install-recommends podman")
    assert caught.value.exit_code is ExitCode.ENVIRONMENT
    assert no_engine == []


def test_other_systems_are_left_alone(monkeypatch, no_engine):
    monkeypatch.setattr(install_engine, "_is_debian", lambda: False)
    monkeypatch.setattr(install_engine.os, "geteuid", lambda: 0)
    with pytest.raises(KitError, match="no container engine"):
        install_engine.main()
    assert no_engine == []


def test_root_on_debian_gets_podman(monkeypatch, no_engine):
    monkeypatch.setattr(install_engine, "_is_debian", lambda: True)
    monkeypatch.setattr(install_engine.os, "geteuid", lambda: 0)
    monkeypatch.setattr(install_engine.shutil, "which", lambda _name: "/usr/bin/podman")
    assert install_engine.main() == ExitCode.OK
    assert [command[1] for command in no_engine] == ["update", "install"]
    assert "podman" in no_engine[1]


def test_named_engine_is_never_replaced(monkeypatch, no_engine):
    monkeypatch.setenv("KIT_ENGINE", "docker")
    with pytest.raises(KitError):
        install_engine.main()
    assert no_engine == []
