"""What a command starts, behind whatever starts it."""

from __future__ import annotations

import pytest

from kit.commandlines.launcher import Launch, Nested, launches
from kit.commandlines.shell import split


def found(text: str) -> list[tuple[str, list[str]]]:
    [command] = split(text)
    return [
        (launch.console or launch.program.text, [word.text for word in launch.arguments])
        for launch in launches(command.words)
        if isinstance(launch, Launch)
    ]


@pytest.mark.parametrize(
    "text",
    [
        "python3 a/run.py --x 1",
        "python a/run.py --x 1",
        "/usr/bin/python3.10 -u -X faulthandler a/run.py --x 1",
        "mpirun -n 2 --allow-run-as-root python3 a/run.py --x 1",
        "mpiexec -np 8 -x NCCL_DEBUG=INFO -hostfile h python3 a/run.py --x 1",
        "srun -N 2 --mpi=pmix --container-image img --container-mounts /a:/b python3 a/run.py --x 1",
        "env A=b CUDA_VISIBLE_DEVICES=0 python3 a/run.py --x 1",
        "CUDA_VISIBLE_DEVICES=0,1 nohup time -p python3 a/run.py --x 1",
        "sudo -E docker run --rm -it --gpus all -v /a:/b image python3 a/run.py --x 1",
        "torchrun --nproc_per_node 2 a/run.py --x 1",
        "python3 -m torch.distributed.run --nproc_per_node 2 a/run.py --x 1",
        "nsys profile -o out -f true python3 a/run.py --x 1",
        "timeout 600 numactl -N 0 python3 a/run.py --x 1",
        "$LAUNCHER python3 a/run.py --x 1",
        "trtllm-llmapi-launch python3 a/run.py --x 1",
        "$PYTHON a/run.py --x 1",
        "RUN python3 a/run.py --x 1",
    ],
)
def test_launchers(text: str) -> None:
    assert found(text) == [("a/run.py", ["--x", "1"])]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("trtllm-build --x 1", "trtllm-build"),
        ("mpirun -n 2 trtllm-bench --x 1", "trtllm-bench"),
        ("/usr/local/bin/trtllm-build --x 1", "trtllm-build"),
        ("trtllm-build.exe --x 1", "trtllm-build"),
        ("python3 -m tensorrt_llm.commands.build --x 1", "trtllm-build"),
        ("trtllm-llmapi-launch trtllm-serve --x 1", "trtllm-serve"),
        ("./run.py --x 1", "./run.py"),
    ],
)
def test_commands(text: str, name: str) -> None:
    assert found(text) == [(name, ["--x", "1"])]


@pytest.mark.parametrize(
    "text",
    ["pip install x", "git clone a/run.py", "ls", "python3 -c 'run.py'", "python3 -m pip install x",
     "pytest tests/run.py", "vim a/run.py", "cat trtllm-build", "python3", "docker build -f x .",
     "echo python3 a/run.py"],
)  # fmt: skip
def test_nothing_of_ours(text: str) -> None:
    assert found(text) == []


def test_several_programs_of_mpirun() -> None:
    text = "mpirun -n 1 python3 a.py --x 1 : -n 1 python3 b.py --y 2"
    assert found(text) == [("a.py", ["--x", "1"]), ("b.py", ["--y", "2"])]


def test_shells_hand_on_text() -> None:
    [command] = split("docker run img bash -lc 'cd x && trtllm-build --y'")
    assert launches(command.words) == [Nested("cd x && trtllm-build --y")]


def test_xargs_adds_words() -> None:
    [command] = split("cat list | xargs python3 a.py --x")[1:]
    [launch] = launches(command.words)
    assert isinstance(launch, Launch)
    assert launch.appended
