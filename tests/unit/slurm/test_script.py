"""The batch script: what bash makes of it, whatever names the user's files have."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.errors import ExitCode, KitError
from kit.slurm import script
from kit.slurm.script import Job

# Anything that a file name, and so a word of the command line, may hold.
WORD = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=12)
PRINT = (
    "import json, os, sys; print(json.dumps([sys.argv[1:], os.getcwd(), os.environ['KIT_HOME']]))"
)


def job(**changes: Any) -> Job:
    content: dict[str, Any] = {
        "name": "gpt",
        "release": "0.16.0",
        "nodes": 2,
        "command": ("kit", "run", "gpt"),
        "folder": Path("/"),
        "environment": {},
        **changes,
    }
    return Job(**content)


@given(words=st.lists(WORD, max_size=4), home=WORD)
@settings(max_examples=40, deadline=None)
def test_bash_hands_on_every_word_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, words: list[str], home: str
) -> None:
    folder = tmp_path_factory.mktemp("a 'folder' $(false)\n#")
    text = job(
        command=(sys.executable, "-c", PRINT, *words),
        folder=folder,
        environment={"KIT_HOME": home},
        gpus_per_node=8,
    ).text()
    checked = subprocess.run(["bash", "-n"], input=text, text=True, check=False)
    assert checked.returncode == 0
    done = subprocess.run(["bash"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[*words, "--gpus", "all"], str(folder), home]
    # Slurm reads its lines until the first command; nothing of the user's may be one of them.
    head = text.partition("set -euo pipefail\n")[0].splitlines()
    assert head[0] == "#!/bin/bash"
    assert [line for line in head[2:] if not line.startswith("#SBATCH --")] == []


def test_options_of_several_nodes() -> None:
    asked = job(partition="gpu", account="p1", time="1:00:00", gpus_per_node=8, further=("--hold",))
    assert asked.options() == [
        "--job-name=kit-gpt",
        "--nodes=2",
        "--ntasks-per-node=1",
        "--exclusive",
        "--no-requeue",
        "--output=kit-gpt-%j.log",
        "--partition=gpu",
        "--account=p1",
        "--time=1:00:00",
        "--gpus-per-node=8",
        "--hold",
    ]


def test_one_node_shares_it_and_uses_its_own_gpus() -> None:
    one = job(nodes=1, gpus_per_node=2)
    assert "--exclusive" not in one.options()
    assert one.text().endswith('exec kit run gpt --gpus "${SLURM_JOB_GPUS:-all}"\n')
    assert job(nodes=1).text().endswith("exec kit run gpt\n")


def test_a_log_of_the_users_own() -> None:
    options = job(further=("--output=/logs/%j",)).options()
    assert [option for option in options if "output" in option] == ["--output=/logs/%j"]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with a Slurm client that answers, and whatever sbatch a test writes."""
    for name, text in (("srun", "echo slurm 22.05.8"), ("sinfo", "true")):
        write(tmp_path, name, text)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize("answer", ["17", "17;cluster"])
def test_submit_gives_the_number(programs: Path, answer: str) -> None:
    write(
        programs,
        "sbatch",
        f'cat > "{programs}/script"; echo "$@" > "{programs}/words"; echo "{answer}"',
    )
    assert script.submit("#!/bin/bash\n") == 17
    assert (programs / "script").read_text() == "#!/bin/bash\n"
    assert (programs / "words").read_text() == "--parsable\n"


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("sbatch", "echo 'Invalid account' >&2; exit 1", "sbatch refused the job: Invalid account"),
        ("sbatch", "echo what", "sbatch refused the job: what"),
        ("sinfo", "echo 'Unable to contact slurm controller' >&2; exit 1", "Slurm does not answer"),
    ],
)
def test_submit_that_fails(programs: Path, name: str, text: str, why: str) -> None:
    write(programs, "sbatch", "echo 1")
    write(programs, name, text)
    with pytest.raises(KitError, match=why) as caught:
        script.submit("")
    assert caught.value.exit_code is ExitCode.ENVIRONMENT


def test_submit_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KitError, match="no sbatch on PATH"):
        script.submit("")
