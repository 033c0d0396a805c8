"""Every command line of every release against the table of that release's own options."""

from __future__ import annotations

import argparse
import dataclasses
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit import data
from kit.data import releases
from kit.errors import ExitCode, KitError
from kit.examples import dialect, recipe
from kit.examples.recipe import Build, Checkpoint, Recipe, Run

TYPES: dict[str, Any] = {"int": int, "float": float, "str": str, "Path": str}
EXAMPLES = recipe.catalog()
TINY = recipe.find("gpt2-tiny")


class StrictParser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise AssertionError(message)


@cache
def parser_of(script: str, release: str) -> argparse.ArgumentParser:
    """The release's parser, rebuilt from the table; abbreviations are not for a generator."""
    parser = StrictParser(prog=script, allow_abbrev=False)
    rows = data.options(script, release)
    assert rows, f"release {release} has no {script}"
    for row in rows:
        if row["action"] == "help" or row.get("uncertain"):
            continue
        settings: dict[str, Any] = {"dest": row["dest"], "action": row["action"]}
        if row["action"] == "store":
            settings |= {"nargs": row["nargs"], "choices": row["choices"], "const": row["const"]}
            settings["default"] = row["default"]
            settings |= {"type": TYPES.get(row["type"] or "str", str)}
        parser.add_argument(*row["flags"], required=row["required"], **settings)
    return parser


def parsed(command: dialect.Command, release: str) -> argparse.Namespace:
    words = list(command.argv)
    script = words.pop(0)
    if script == "python3":
        script = words.pop(0)
    return parser_of(script, release).parse_args(words)


@pytest.mark.parametrize("release", releases.versions())
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_the_release_accepts_every_line(example: Recipe, release: str) -> None:
    if dialect.refusal(example, release) is not None:
        return  # test_catalogue.py has the table of them
    for command in dialect.commands(example, release):
        if command.image or command.writes:
            continue  # test_triton.py, test_python_workflow.py
        found = parsed(command, release)
        if command.name.startswith("run"):
            assert found.max_output_len == example.run.max_output_len
            assert str(found.output_csv) in command.produces


@pytest.mark.parametrize("release", releases.versions())
def test_checks_after_parsing_hold(release: str) -> None:
    """The asserts of the scripts themselves, evaluated on the parsed line."""
    for command in dialect.commands(recipe.find("gpt2-tiny-tp2"), release):
        script = command.argv[1] if command.argv[0] == "python3" else command.argv[0]
        arguments = parsed(command, release)
        for check in data.post_checks(script, release):
            try:
                applies = all(eval(text, {"args": arguments}) for text in check["when"])
                good = not applies or eval(check["must"], {"args": arguments})
            except (NameError, AttributeError, TypeError):
                continue  # speaks of more than the arguments
            assert good, (release, script, check)


@settings(max_examples=60, deadline=None)
@given(
    release=st.sampled_from(releases.versions()),
    dtype=st.sampled_from(recipe.DTYPES),
    tp=st.integers(1, 8),
    lengths=st.tuples(st.integers(1, 4096), st.integers(1, 4096)),
    prompts=st.lists(
        st.text(min_size=1).filter(lambda t: t.strip() and t[0] != "-" and "\0" not in t),
        min_size=1,
        max_size=8,
    ),
)
def test_any_recipe_survives_the_parser(
    release: str, dtype: Any, tp: int, lengths: tuple[int, int], prompts: list[str]
) -> None:
    example = dataclasses.replace(
        TINY,
        checkpoint=Checkpoint(dtype, tp, 1),
        build=Build(8, *lengths),
        run=Run(tuple(prompts), min(8, lengths[1]), None),
    )
    asked: list[str] = []
    for command in dialect.commands(example, release):
        found = parsed(command, release)
        assert command.ranks == (tp if tp > 1 and command.name.startswith("run") else 0)
        if command.name == "build":
            total = getattr(found, "max_seq_len", None)
            new = getattr(found, "max_output_len", None)
            assert (total, new) in ((sum(lengths), None), (None, lengths[1]))
        if command.name.startswith("run"):
            text = found.input_text
            asked += [text] if isinstance(text, str) else text
    assert asked == prompts


def test_one_step_a_prompt_where_a_release_takes_one() -> None:
    example = recipe.find("gpt2-tiny")
    names = [command.name for command in dialect.commands(example, "0.5.0")]
    assert names == ["convert", "build", "run-1", "run-2", "run-3"]
    assert [command.name for command in dialect.commands(example, "0.7.0")][2:] == ["run"]


@pytest.mark.parametrize(
    ("change", "release", "message"),
    [
        ({"checkpoint": Checkpoint("float32", 1, 2)}, "0.8.0", "tensor parallel only.*0.9.0"),
        ({"run": Run(("a",), 4, 7)}, "0.10.0", "no --end_id.*0.11.0"),
        ({"releases": ("0.9.0", "0.16.0")}, "0.15.0", "not meant for release 0.15.0.*0.16.0"),
        ({}, "0.9.1", "unknown release '0.9.1'; did you mean"),
        ({}, "banana", "unknown release 'banana'; known"),
    ],
)
def test_what_a_release_cannot_do_is_refused_with_the_nearest(
    change: dict[str, Any], release: str, message: str
) -> None:
    with pytest.raises(KitError, match=message) as caught:
        dialect.commands(dataclasses.replace(TINY, **change), release)
    assert caught.value.exit_code == ExitCode.USAGE


def test_end_id_is_passed_where_it_exists() -> None:
    example = dataclasses.replace(TINY, run=Run(("a",), 4, 7))
    run = dialect.commands(example, "0.11.0")[-1]
    assert parsed(run, "0.11.0").end_id == 7


def test_the_release_of_the_old_places_and_the_new() -> None:
    def script(release: str) -> str:
        return dialect.commands(TINY, release)[0].argv[1]

    assert script("0.8.0") == "examples/gpt/hf_gpt_convert.py"
    assert script("0.18.2") == "examples/gpt/convert_checkpoint.py"
    assert script("0.19.0") == "examples/models/core/gpt/convert_checkpoint.py"


@pytest.mark.parametrize(
    ("gathered", "release", "files"),
    [
        ("all", "0.7.1", []),
        ("all", "0.8.0", ["context", "generation"]),
        ("context", "0.9.0", ["context"]),
        ("generation", "0.16.0", ["generation"]),
        ("all", "1.2.1", ["context"]),
        (None, "0.16.0", []),
    ],
)
def test_logits_that_are_gathered_are_written(
    gathered: Any, release: str, files: list[str]
) -> None:
    asked = dataclasses.replace(
        TINY, options=dataclasses.replace(TINY.options, gather_logits=gathered)
    )
    command = dialect.commands(asked, release)[-1]
    written = [f"/kit/work/output/logits_{kind}.npy" for kind in files]
    assert command.produces == ("/kit/work/output/tokens.csv", *written)
    assert ("--output_logits_npy" in command.argv) == bool(files)
    parsed(command, release)


def test_logits_of_several_beams_are_not_written() -> None:
    beams = dataclasses.replace(TINY.run, num_beams=2)
    options = dataclasses.replace(TINY.options, gather_logits="all", max_beam_width=2)
    command = dialect.commands(dataclasses.replace(TINY, options=options, run=beams), "0.16.0")[-1]
    assert "--output_logits_npy" not in command.argv
