"""`bootstrap`: resumed after any end, and refused where no wheel would fit."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import pytest

from kit.bundles.writing import BOOTSTRAP

VERIFY = """import pathlib, shutil, sys
for path in pathlib.Path(__file__).with_name("wheels").iterdir():
    shutil.copy(path, sys.argv[-1])
"""
PIP = """import os, pathlib, sys
place = pathlib.Path(sys.prefix)
(place / "lib" / "half").write_text("")
if os.environ.get("FAIL"):
    sys.exit(1)
(place / "bin" / "kit").write_text("#!/bin/sh\\necho kit 1\\n")
(place / "bin" / "kit").chmod(0o755)
"""
"""What stands for pip: it fails on demand, with a file half installed."""


@pytest.fixture
def bundle(tmp_path):
    """What `bootstrap` needs of a bundle, whose verifier and pip do as they are told."""
    folder = tmp_path / "bundle"
    (folder / "wheels").mkdir(parents=True)
    (folder / "verify.py").write_text(VERIFY)
    (folder / "bootstrap").write_bytes(BOOTSTRAP.read_bytes())
    with zipfile.ZipFile(folder / "wheels" / "pip-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("pip/__main__.py", PIP)
    (folder / "wheels" / "requirements.txt").write_text("")
    return folder


def bootstrap(bundle, target, **environment):
    words = ["sh", str(bundle / "bootstrap"), str(target)]
    env = {"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, **environment}
    return subprocess.run(words, env=env, capture_output=True, text=True, check=False)


def test_a_failed_one_is_made_anew(bundle, tmp_path):
    target = tmp_path / "kit"
    assert bootstrap(bundle, target, FAIL="1").returncode == 1
    (target / "lib" / "left").write_text("by what was killed")
    done = bootstrap(bundle, target)
    assert (done.returncode, done.stdout) == (0, "kit 1\n"), done.stderr
    assert not (target / "lib" / "left").exists()
    done = bootstrap(bundle, target)
    assert (done.returncode, "is there already" in done.stderr) == (2, True)
    assert (target / "bin" / "kit").exists()


def test_what_others_have_there_stays(bundle, tmp_path):
    target = tmp_path / "kit"
    target.mkdir()
    (target / "mine").write_text("x")
    assert bootstrap(bundle, target).returncode == 2
    (target / "mine").unlink()
    assert bootstrap(bundle, target).returncode == 0  # killed between folder and mark


def test_a_python_without_wheels_is_told_which_there_are(bundle, tmp_path):
    target = tmp_path / "kit"
    for tag in ("cp38-abi3", "cp36-cp36", "cp37-cp37"):
        (bundle / "wheels" / f"yaml-1-{tag}-manylinux_2_28_x86_64.whl").write_text("")
    done = bootstrap(bundle, target)
    assert done.returncode == 3
    assert f"this is Python 3.{sys.version_info[1]}, the bundle has wheels for 3.6, 3.7:" in (
        done.stderr
    )
    assert "set PYTHON=python3.7" in done.stderr
    assert not target.exists()
    own = f"cp3{sys.version_info[1]}"
    (bundle / "wheels" / f"yaml-1-{own}-{own}-manylinux_2_28_x86_64.whl").write_text("")
    assert bootstrap(bundle, target).returncode == 0
