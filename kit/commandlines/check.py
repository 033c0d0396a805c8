"""Would a release accept this text: every TensorRT-LLM command in it, one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from kit import data
from kit.commandlines import history, script, shell
from kit.commandlines.evaluate import Evaluation, evaluate
from kit.commandlines.explain import moved_defaults, problems
from kit.commandlines.launcher import Launch, launches
from kit.commandlines.verdict import Answer, Problem, worst

if TYPE_CHECKING:
    from kit.commandlines.shell import Command
    from kit.commandlines.verdict import Verdict

_DEPTH = 4
"""How deep `bash -c '…'` is followed."""
NOTHING = "no TensorRT-LLM script in this line"


class Answers(NamedTuple):
    """What a release says to a text; the worst of its commands decides."""

    release: str
    verdict: Verdict
    commands: tuple[Answer, ...]

    def to_dict(self) -> dict[str, Any]:
        """The keys of the envelope."""
        commands = [answer.to_dict() for answer in self.commands]
        return {"verdict": self.verdict, "release": self.release, "commands": commands}


def check(text: str, release: str, *, named: str | None = None, explain: bool = True) -> Answers:
    """Hold a text of shell commands against a release of the table.

    `named`: the script that a bare file name means, such as `examples/llama/build.py`. Without
    `explain` the verdict comes without since when and what it became, which takes looking at all
    releases.
    """
    found = _Walk(release, named, explain=explain).text(text, None, _DEPTH)
    if not found:
        line = " ".join(text.split())
        found = [Answer(line, None, "undecidable", reasons=(NOTHING,))]
    return Answers(release, worst([answer.verdict for answer in found]), tuple(found))


class _Walk:
    """The commands of a text in order; `cd` moves those that follow it in the same subshell."""

    def __init__(self, release: str, named: str | None, *, explain: bool) -> None:
        self._release = release
        self._explain = explain
        self._named = named

    def text(self, text: str, folder: str | None, depth: int) -> list[Answer]:
        folders: dict[tuple[int, ...], str | None] = {(): folder}
        found: list[Answer] = []
        for command in shell.split(text):
            here = _folder(folders, command.scope)
            name = command.words[0].text
            if name in {"cd", "pushd", "popd"}:
                folders[command.scope] = _changed(here, command)
                continue
            for launch in launches(command.words):
                if isinstance(launch, Launch):
                    found.append(self._answer(command, launch, here))
                elif depth:
                    found.extend(self.text(launch.text, here, depth - 1))
        return found

    def _answer(self, command: Command, launch: Launch, folder: str | None) -> Answer:
        line = " ".join(word.raw for word in command.words)
        meant = self._meant(launch, folder)
        if not meant.scripts:
            return self._no_script(line, launch, meant)
        release = self._release
        known = [name for name in meant.scripts if data.source(name, release) is not None]
        others = [name for name in meant.scripts if name not in known]
        found: list[Evaluation] = []
        for name in known:
            found.append(evaluate(name, release, launch))
            if found[-1].verdict == "accepted":
                break
        chosen = _chosen(found)
        if chosen is None:
            reason = f"the options of {_listed(others)} in {release} are not recorded"
            return Answer(line, _only(meant.scripts), "undecidable", reasons=(reason,))
        notes = [*command.notes, *chosen.notes]
        if chosen.verdict == "accepted":
            if meant.cut:
                reason = f"if {launch.program.text} is {chosen.script}, it is accepted"
                return Answer(line, chosen.script, "undecidable", (), (reason,), tuple(notes))
            if not meant.exact and len(meant.scripts) > 1:
                notes.insert(0, f"taken for {chosen.script}")
            if self._explain:
                notes += moved_defaults(chosen)
            return Answer(line, chosen.script, "accepted", notes=tuple(notes))
        whole = meant.exact or (meant.own and data.files(release) is not None)
        if chosen.verdict == "rejected" and not others and whole and not meant.cut:
            return self._rejected(command, launch, chosen, line)
        reasons = list(chosen.reasons)
        if chosen.verdict == "rejected" and self._explain:
            said = problems(chosen, launch)
            reasons = [f"if it is {chosen.script}: {problem.message}" for problem in said]
            reasons.append(_unsure(launch, others, whole=whole and not meant.cut))
        only = _only(meant.scripts)
        return Answer(line, only, "undecidable", (), tuple(reasons), tuple(notes))

    def _meant(self, launch: Launch, folder: str | None) -> script.Meant:
        if launch.console is not None:
            return script.command(launch.console, self._release)
        meant = script.python(launch.program, folder, self._release)
        named = self._named
        if named is not None and not meant.exact and named.endswith(_base(launch.program.text)):
            word = shell.Word(named, named, named)
            return script.python(word, None, self._release)
        return meant

    def _rejected(self, command: Command, launch: Launch, found: Evaluation, line: str) -> Answer:
        if not self._explain:
            return Answer(line, found.script, "rejected")
        from kit.commandlines import rewrite

        suggestion = rewrite.rewritten(command.words, launch, found)
        if suggestion is not None and not self._accepts(suggestion, found.script):
            suggestion = None
        said = problems(found, launch)
        notes = command.notes
        return Answer(line, found.script, "rejected", said, (), notes, suggestion)

    def _accepts(self, suggestion: str, name: str) -> bool:
        for command in shell.split(suggestion):
            for launch in launches(command.words):
                if isinstance(launch, Launch):
                    base = name.partition(" ")[0]
                    return evaluate(base, self._release, launch).verdict == "accepted"
        return False

    def _no_script(self, line: str, launch: Launch, meant: script.Meant) -> Answer:
        release = self._release
        if not meant.absent:
            reason = f"{launch.program.text} is no script of TensorRT-LLM that is known here"
            return Answer(line, None, "undecidable", reasons=(reason,))
        path = meant.absent[0]
        past = history.successor(path, release)
        several = len(meant.absent) > 1
        name = _base(path) if several else path
        message = f"{release} has no {name}"
        if past.since is not None and not several:
            message = f"{path} is gone since {past.since}"
        elif past.until is not None:
            message = f"{release} has no {name} yet: it comes with {past.until}"
        became = " and ".join(past.names) or None
        if became is not None:
            message += f": use {became}" + (f" ({past.note})" if past.note else "")
        if not meant.proven:
            reason = f"{message}; but the files of {release} are not known as a whole"
            return Answer(line, _only(meant.absent), "undecidable", reasons=(reason,))
        problem = Problem(name, "missing-script", message, past.since, became, past.source)
        return Answer(line, _only(meant.absent), "rejected", (problem,), (), ())


def _folder(folders: dict[tuple[int, ...], str | None], scope: tuple[int, ...]) -> str | None:
    while scope not in folders:
        scope = scope[:-1]
    return folders[scope]


def _changed(here: str | None, command: Command) -> str | None:
    """The folder after `cd`; None where that is not known."""
    words = [word for word in command.words[1:] if not word.text.startswith("-")]
    if len(words) != 1 or command.words[0].text == "popd":
        return None
    there = words[0].text
    if there.startswith(("/", "~", "$")) or here is None:
        return there
    return f"{here}/{there}"


def _chosen(found: list[Evaluation]) -> Evaluation | None:
    """The evaluation that speaks for all candidates: one that accepts, else the fewest faults.

    Of those the one whose options the script once had.
    """
    order = {"accepted": 0, "undecidable": 1, "rejected": 2}
    if len(found) == 1:
        return found[0]

    def rank(one: Evaluation) -> tuple[int, int, int]:
        strange = sum(
            not history.had(one.script, fault.option, one.release) for fault in one.faults
        )
        return order[one.verdict], len(one.faults), strange

    return min(found, key=rank, default=None)


def _unsure(launch: Launch, others: list[str], *, whole: bool) -> str:
    file = launch.program.text
    if others and whole:
        which = f"{file} may be {_listed(others)}, whose options are not recorded"
    else:
        which = f"which file {file} is cannot be told"
    return f"{which}: give its path from the top of the tree, or --script"


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _only(names: tuple[str, ...]) -> str | None:
    return names[0] if len(names) == 1 else None


def _base(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]
