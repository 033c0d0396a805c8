import subprocess
import sys

import pytest

from kit.errors import ExitCode, KitError
from kit.locks import pip_settings


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """pip with this configuration file and no other."""
    for name in list(__import__("os").environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    file = tmp_path / "pip.conf"

    def write(text):
        file.write_text(text)
        monkeypatch.setenv("PIP_CONFIG_FILE", str(file))

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path))
    write("")
    return write


def test_files_and_environment(configured, monkeypatch, tmp_path):
    (tmp_path / "wheels").mkdir()
    configured(
        "[global]\nindex-url = http://127.0.0.1:1/global/\ncert = /ca.pem\n"
        f"find-links = {tmp_path}/wheels\n  {tmp_path}/absent\n"
        "[install]\nindex-url = http://127.0.0.1:1/install/\n"
        "extra-index-url =\n  http://127.0.0.1:1/a\n  file:///b/\n"
    )
    settings = pip_settings.load()
    assert settings.indexes[0] == "http://127.0.0.1:1/install"
    assert "http://127.0.0.1:1/a" in settings.indexes
    assert "file:///b" in settings.indexes
    assert settings.folders == (tmp_path / "wheels",)
    assert settings.certificates == "/ca.pem"
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/environment")
    assert pip_settings.load().indexes[0] == "http://127.0.0.1:1/environment"
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert pip_settings.load().indexes == ()


def test_pips_own_default(configured):
    """Whatever pip says is its default, the kit uses; it knows no name itself."""
    code = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
    default = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert default.stdout.strip() in pip_settings._default_index()


def test_without_pip_and_without_index(configured, monkeypatch):
    monkeypatch.setattr(pip_settings, "_pip", lambda: None)
    with pytest.raises(KitError, match="no Python package index is known") as caught:
        pip_settings.load()
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/x")
    assert pip_settings.load().indexes == ("http://127.0.0.1:1/x",)
