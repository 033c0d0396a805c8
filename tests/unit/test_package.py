"""The kit as a wheel: everything that it reads is in it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

DATA = (".json", ".yaml", ".safetensors", ".txt", ".sh", ".css")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked wheel, built without a network from what is committed or about to be."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def kit(installed: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the installed kit, away from the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "KIT_HOME": str(installed / "home")}
    environment.pop("KIT_ROOT", None)
    command = [sys.executable, "-m", "kit", *words]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=installed, env=environment
    )


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("verify-compat", "--release", "0.16.0", "--triton", "24.12"), 0, "compatible"),
        (("verify-compat", "--explain", "tensorrt-plan"), 0, "Sources"),
        (("check-command", "--release", "0.16.0", "trtllm-build"), 0, "accepted"),
        (("check-command", "--release", "0.5.0", "trtllm-build"), 4, "rejected"),
        (("diagnose", "log"), 0, "oom-gpu"),
        (("inspect", "kit/bundled/lockfiles/rehearsal.lock.yaml"), 0, "numpy"),
        (("plan", "gpt2-tiny", "--release", "0.16.0"), 0, "trtllm-build"),
        (("doctor", "--json"), None, "kit.doctor/1"),
    ],
)
def test_an_installed_kit_answers(
    installed: Path, words: tuple[str, ...], code: int | None, says: str
) -> None:
    (installed / "log").write_text("[TRT] [E] 2: Error Code 2: OutOfMemory (no more information)\n")
    done = kit(installed, *words)
    assert code in (None, done.returncode), done.stderr
    assert says in done.stdout


def test_all_data_of_the_checkout_is_there(installed: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "kit"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    wanted = {Path(name) for name in listed.stdout.splitlines() if name.endswith(DATA)}
    present = {path.relative_to(installed) for path in installed.rglob("*") if path.is_file()}
    bundled = {path.relative_to("kit/bundled") for path in present if "bundled" in path.parts}
    assert wanted <= present | bundled
