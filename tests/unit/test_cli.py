"""What a user types, and what comes back when it is wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from kit import __version__, arguments, cli
from kit.errors import ExitCode, KitError, nearest, usage_error
from tests.conftest import ROOT


def kit(*arguments, **env):
    return subprocess.run(
        [sys.executable, "-m", "kit", *arguments],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )


def test_version():
    assert kit("--version").stdout == f"kit {__version__}\n"


@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("example", "list")])
def test_answers_without_heavy_imports(arguments):
    """Start-up matters: what a command does not need is not imported."""
    program = (
        "import sys; sys.argv = ['kit', *sys.argv[1:]]\n"
        "from kit.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({m.split('.')[0] for m in sys.modules}), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    heavy = {"docker", "huggingface_hub", "requests", "urllib3", "tqdm", "numpy", "concurrent"}
    loaded = set(re.findall(r"'([^']+)'", done.stderr.splitlines()[-1]))
    assert "kit" in loaded
    assert not heavy & loaded


@pytest.mark.parametrize("command", ["lock", "fetch", "build"])
def test_unknown_stack_names_the_nearest(command):
    done = kit(command, "rehersal")
    assert done.returncode == ExitCode.USAGE
    assert (
        "unknown stack 'rehersal'; did you mean rehearsal or rehearsal-gpu or rehearsal-triton?"
        in done.stderr
    )


def test_unknown_example_names_the_nearest():
    done = kit("run", "gpt-tiny", "--stack", "rehearsal", "--release", "0.9.0")
    assert done.returncode == ExitCode.USAGE
    assert "did you mean gpt2-tiny" in done.stderr
    assert "try: kit example list" in done.stderr


def test_unknown_release_names_the_nearest():
    done = kit("plan", "gpt2-tiny", "--release", "0.9.1")
    assert done.returncode == ExitCode.USAGE
    assert "0.9.0" in done.stderr


def test_run_of_a_stack_that_is_not_built(tmp_path):
    done = kit("run", "gpt2-tiny", "--stack", "rehearsal", KIT_HOME=str(tmp_path))
    assert done.returncode == ExitCode.USAGE
    assert "not built yet" in done.stderr
    assert "try: kit build rehearsal" in done.stderr


def test_error_as_json_keeps_the_envelope(tmp_path):
    done = kit("build", "nothing", "--json", KIT_HOME=str(tmp_path))
    answer = json.loads(done.stdout)
    assert answer["schema"] == "kit.build/1"
    assert answer["ok"] is False
    assert answer["error"]["exit_code"] == done.returncode == 2


@pytest.mark.parametrize("arguments", [(), ("frobnicate",), ("run",), ("manifest", "chew", "x")])
def test_wrong_usage_is_two_and_says_where_help_is(arguments):
    done = kit(*arguments)
    assert done.returncode == ExitCode.USAGE
    assert "--help" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_command_has_an_example_in_its_help():
    commands = arguments.parser()._subparsers._group_actions[0].choices
    assert {"lock", "fetch", "build", "run", "plan", "manifest", "verify-compat"} <= set(commands)
    for command in commands.values():
        assert "example: kit " in command.filled().format_help()


def test_plan_as_json_and_as_script():
    answer = json.loads(kit("plan", "gpt2-tiny-tp2", "--release", "0.16.0", "--json").stdout)
    assert (answer["schema"], answer["ok"]) == ("kit.plan/1", True)
    assert [step["name"] for step in answer["steps"]] == ["convert", "build", "run"]
    script = kit("plan", "gpt2-tiny-tp2", "--release", "0.16.0", "--shell").stdout
    assert subprocess.run(["sh", "-n"], input=script, text=True, check=False).returncode == 0
    assert "mpirun -n 2" in script


def test_example_list_as_json():
    answer = json.loads(kit("example", "list", "--json").stdout)
    assert {"gpt2-tiny", "gpt2-tiny-tp2"} <= {row["name"] for row in answer["examples"]}


def test_manifest_that_is_not_there(tmp_path):
    done = kit("manifest", "show", str(tmp_path / "manifest.json"))
    assert done.returncode == ExitCode.USAGE
    assert str(tmp_path) in done.stderr


def test_diff_wants_two():
    done = kit("manifest", "diff", "one.json")
    assert done.returncode == ExitCode.USAGE
    assert "expected 2 manifest" in done.stderr


def test_unexpected_failure_is_one_and_shows_a_traceback_only_on_request(capsys):
    def broken():
        raise RuntimeError("surprise")

    assert cli.guarded(broken) == ExitCode.BUG
    assert "a bug in kit: RuntimeError: surprise" in capsys.readouterr().err
    options = arguments.parser().parse_args(["example", "list", "--debug"])
    with pytest.raises(RuntimeError):
        cli.guarded(broken, options)


def test_interrupt_and_error_codes(capsys):
    def interrupted():
        raise KeyboardInterrupt

    def wrong():
        raise usage_error("bad", hint="good")

    assert cli.guarded(interrupted) == 130
    assert cli.guarded(wrong) == ExitCode.USAGE
    assert capsys.readouterr().err.endswith("error: bad\n  try: good\n")


def test_closed_pipe_is_no_error():
    pipe = f"{sys.executable} -m kit --help | head -c 1 >/dev/null"
    done = subprocess.run(["sh", "-c", pipe], cwd=ROOT, capture_output=True, check=False)
    assert b"Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_not_success():
    program = "from kit import cli; import sys\ndef f(): raise BrokenPipeError\n"
    program += "sys.exit(cli.guarded(f))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False)
    assert done.returncode == 141


@pytest.mark.parametrize("home", ["/sys/kit", "/dev/null"])
def test_home_that_cannot_be_written_is_the_hosts_fault(home):
    done = kit("build", "rehearsal", KIT_HOME=home)
    assert done.returncode == ExitCode.ENVIRONMENT, done.stderr
    assert "a bug in kit" not in done.stderr


def test_any_locale_will_do():
    done = kit("example", "list", LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert "gpt2-tiny" in done.stdout


def test_nearest():
    assert nearest("gpt2tiny", ["gpt2-tiny", "llama"]) == "did you mean gpt2-tiny?"
    assert nearest("zzz", ["b", "a"]) == "known: a, b"
    assert nearest("zzz", []) == "known: none"


def test_error_keeps_code_and_hint():
    error = KitError("x", exit_code=ExitCode.CONTENT, hint="y")
    assert (str(error), error.exit_code, error.hint) == ("x", 4, "y")


def test_stack_that_suits_the_host_is_named_with_its_reason(monkeypatch, tmp_path, capsys):
    from kit.commands import stacks
    from kit.images import cdi
    from kit.project import Project

    (tmp_path / "lockfiles").mkdir()
    for name in ("rehearsal", "trtllm-0.9.0", "trtllm-0.16.0", "triton-24.12"):
        (tmp_path / "lockfiles" / f"{name}.yaml").write_text(
            f"schema: kit.intent/1\nstack: {name}\nfamily: trtllm\nplatform: linux/amd64\nepoch: 0\n"
        )
    place = Project(tmp_path, tmp_path)
    gpu = cdi.Gpu(0, "GPU-aa", 0, "H200")
    monkeypatch.setattr(cdi, "gpus", lambda: ("580.1", [gpu]))
    assert stacks.choose(place, None) == "trtllm-0.16.0"
    assert "newest TensorRT-LLM" in capsys.readouterr().err
    (tmp_path / "lockfiles" / "trtllm-main.yaml").touch()
    assert stacks.choose(place, None) == "trtllm-0.16.0"
    monkeypatch.setattr(cdi, "gpus", lambda: ("580.1", []))
    assert stacks.choose(place, None) == "rehearsal"
    assert "stack rehearsal: this host has an NVIDIA driver, but no GPU" in capsys.readouterr().err
    assert stacks.choose(place, "triton-24.12") == "triton-24.12"
