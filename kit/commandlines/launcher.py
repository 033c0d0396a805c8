"""What a command starts: the program behind `mpirun`, `srun`, `docker run`, `python3` and more."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from kit.commandlines.shell import Word

_PYTHON = re.compile(r"python(?:\d+(?:\.\d+)*)?(?:\.exe)?|py")
_SHELLS = frozenset({"bash", "sh", "zsh", "dash"})
_MPI = frozenset({"mpirun", "mpiexec", "mpiexec.hydra", "orterun"})
_APPENDING = frozenset({"xargs", "parallel"})
_LAUNCHERS = frozenset(
    {*_SHELLS, *_MPI, *_APPENDING}
    | {"accelerate", "apptainer", "chrt", "CMD", "command", "conda", "coverage", "deepspeed"}
    | {"docker", "enroot", "env", "exec", "flock", "gdb", "horovodrun", "ionice", "kernprof"}
    | {"kubectl", "mamba", "ncu", "nice", "nohup", "nsys", "numactl", "nvprof", "pdsh", "pipenv"}
    | {"podman", "poetry", "ray", "run", "RUN", "salloc", "sbatch", "screen", "script", "setsid"}
    | {"singularity", "srun", "ssh", "stdbuf", "strace", "sudo", "taskset", "time", "timeout"}
    | {"tmux", "torchrun", "unbuffer", "uv", "valgrind", "viztracer", "watch"}
)
_WITH_VALUE = frozenset({"-W", "-X", "--check-hash-based-pycs"})
_MODULES = re.compile(r"tensorrt_llm\.commands\.(\w+)")
WRAPPERS = frozenset({"trtllm-llmapi-launch", "trtllm-hlapi-launch"})
"""Console commands of the releases that start another command."""


class Launch(NamedTuple):
    """A program that a command starts.

    `first` is the place of the program among the command's words; its arguments follow, up to
    `last`. `appended`: the launcher adds words that are not known here.
    """

    first: int
    last: int
    program: Word
    arguments: tuple[Word, ...]
    console: str | None = None
    appended: bool = False


class Nested(NamedTuple):
    """Shell text that a command hands to another shell (`bash -c '…'`)."""

    text: str


def launches(words: tuple[Word, ...]) -> list[Launch | Nested]:
    """The Python scripts and `trtllm-…` commands that a simple command starts; mostly one."""
    found: list[Launch | Nested] = []
    start = 0
    ends = [place for place, word in enumerate(words) if word.raw == ":"]
    parts = ends if words and _name(words[0]) in _MPI else []
    for end in [*parts, len(words)]:
        part = _launch(words, start, end, is_first=start == 0)
        if part is not None:
            found.append(part)
        start = end + 1
    return found


def _launch(
    words: tuple[Word, ...], start: int, end: int, *, is_first: bool
) -> Launch | Nested | None:
    appended = False
    for place in range(start, end):
        word = words[place]
        name = _name(word)
        if _PYTHON.fullmatch(name):
            return _python(words, place + 1, end, appended=appended)
        if name in WRAPPERS:
            continue
        if name.startswith("trtllm-") and name.removesuffix(".exe").count(".") == 0:
            rest = tuple(words[place + 1 : end])
            console = name.removesuffix(".exe")
            return Launch(place, end, word, rest, console=console, appended=appended)
        if name.endswith(".py") and not word.known.startswith("-") and _runs(words, place, start):
            return Launch(place, end, word, tuple(words[place + 1 : end]), appended=appended)
        if name in _SHELLS:
            nested = _shell(words, place + 1, end)
            if nested is not None:
                return nested
        appended |= name in _APPENDING
        if is_first and place == start and name not in _LAUNCHERS and not word.opaque:
            return None
    return None


def _runs(words: tuple[Word, ...], place: int, start: int) -> bool:
    """Whether a file of Python is what is started: `./run.py`, `torchrun run.py`."""
    if place == start:
        return True
    first = words[start]
    starters = {"torchrun", "deepspeed", "accelerate", "kernprof", "coverage", "viztracer"}
    return (
        first.opaque or _name(first) in starters or words[place].text.startswith(("./", "/", "../"))
    )


def _python(words: tuple[Word, ...], start: int, end: int, *, appended: bool) -> Launch | None:
    place = start
    while place < end:
        word = words[place]
        if word.text == "-m":
            return _module(words, place + 1, end, appended=appended)
        if word.text in {"-c", "-"}:
            return None
        if word.text in _WITH_VALUE:
            place += 1
        elif not word.known.startswith("-") or (word.opaque and not word.known):
            return Launch(place, end, word, tuple(words[place + 1 : end]), appended=appended)
        place += 1
    return None


def _module(words: tuple[Word, ...], place: int, end: int, *, appended: bool) -> Launch | None:
    if place >= end:
        return None
    module = words[place]
    if (match := _MODULES.fullmatch(module.text)) is not None:
        rest = tuple(words[place + 1 : end])
        console = f"trtllm-{match.group(1)}"
        return Launch(place, end, module, rest, console=console, appended=appended)
    for later in range(place + 1, end):  # torch.distributed.run, cProfile: they start a script
        if words[later].text.endswith(".py"):
            rest = tuple(words[later + 1 : end])
            return Launch(later, end, words[later], rest, appended=appended)
    return None


def _shell(words: tuple[Word, ...], start: int, end: int) -> Nested | None:
    for place in range(start, end - 1):
        option = words[place].text
        if not option.startswith("-"):
            return None
        if not option.startswith("--") and option.endswith("c"):
            return Nested(words[place + 1].text)
    return None


def _name(word: Word) -> str:
    return word.text.replace("\\", "/").rpartition("/")[2]
