"""run.py: what it prints and writes, and that several ranks agree with one."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from kit_rehearsal.commands import main
from kit_rehearsal.tokens import Tokenizer

from tests.unit.rehearsal.conftest import MODEL

RELEASES = ["0.5.0", "0.9.0", "0.16.0"]


def rows_of(path) -> list[list[int]]:
    with path.open(newline="") as file:
        return [[int(cell) for cell in line] for line in csv.reader(file)]


def on_ranks(world, release, script, argv) -> None:
    assert (
        world.run(lambda rank: main(release, script, argv, ranks=lambda: rank)) == [0] * world.size
    )


@pytest.mark.parametrize("release", RELEASES)
def test_printed(release, pipeline, capsys, run_arguments) -> None:
    engine = pipeline(release)
    more = ["--input_text", "Alice was", "--max_output_len", "12"]
    assert main(release, *run_arguments(release, engine, *more)) == 0
    out = capsys.readouterr().out
    if release == "0.5.0":
        assert out.startswith('Input: "Alice was"\nOutput: "')
    else:
        assert out.startswith('Input [Text 0]: "Alice was"\nOutput [Text 0 Beam 0]: "')


@pytest.mark.parametrize("release", ["0.9.0", "0.16.0"])
def test_several_prompts(release, pipeline, capsys, tmp_path, model, run_arguments) -> None:
    engine = pipeline(release)
    more = ["--input_text", "Alice was", "The Queen of Hearts", "--max_output_len", "8"]
    assert main(release, *run_arguments(release, engine, *more)) == 0
    out = capsys.readouterr().out
    assert 'Input [Text 1]: "The Queen of Hearts"\n' in out
    files = [
        *more,
        "--output_csv",
        str(tmp_path / "d" / "o.csv"),
        "--output_npy",
        str(tmp_path / "o.npy"),
    ]
    assert main(release, *run_arguments(release, engine, *files)) == 0
    assert capsys.readouterr().out == ""
    table = rows_of(tmp_path / "d" / "o.csv")
    array = np.load(tmp_path / "o.npy")
    assert array.dtype == np.int32
    assert array.tolist() == table
    tokenizer = Tokenizer(str(model))
    first = tokenizer.encode("Alice was", special=True)
    second = tokenizer.encode("The Queen of Hearts", special=True)
    assert len(table[0]) == len(table[1]) == len(second) + 8
    assert table[0][: len(first)] == first
    assert table[1][: len(second)] == second
    assert table[0][len(first) + 8 :] == [tokenizer.end_id] * (len(second) - len(first))


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_two_ranks_and_one_say_the_same(
    release, dtype, pipeline, world, tmp_path, run_arguments
) -> None:
    found = []
    for size in (1, 2):
        engine = pipeline(release, tp=size, dtype=dtype, name=f"tp{size}")
        output = tmp_path / f"{size}.csv"
        more = ["--input_text", "Alice was", "--max_output_len", "40", "--output_csv", str(output)]
        on_ranks(world(size), release, *run_arguments(release, engine, *more))
        found.append(rows_of(output))
    assert found[0] == found[1]


def test_four_ranks(pipeline, world, tmp_path, run_arguments) -> None:
    engine = pipeline("0.9.0", tp=4)
    output = tmp_path / "o.csv"
    more = ["--max_output_len", "20", "--output_csv", str(output)]
    on_ranks(world(4), "0.9.0", *run_arguments("0.9.0", engine, *more))
    alone = pipeline("0.9.0", name="alone")
    more[-1] = str(tmp_path / "alone.csv")
    assert main("0.9.0", *run_arguments("0.9.0", alone, *more)) == 0
    assert rows_of(output) == rows_of(tmp_path / "alone.csv")


@pytest.mark.parametrize("release", RELEASES)
def test_input_files(release, pipeline, tmp_path, model, run_arguments) -> None:
    engine = pipeline(release)
    tokenizer = Tokenizer(str(model))
    flag = "--input_tokens" if release == "0.5.0" else "--input_file"
    prompts = [tokenizer.encode(text, special=False) for text in ("Alice was", "The Hatter said")]
    width = max(map(len, prompts))
    padded = [p + [tokenizer.end_id] * (width - len(p)) for p in prompts]
    np.save(tmp_path / "in.npy", np.array(padded, dtype=np.int32))
    with (tmp_path / "in.csv").open("w", newline="") as file:
        csv.writer(file).writerows(prompts)
    found = []
    for name in ("in.npy", "in.csv"):
        output = tmp_path / f"{name}.out.csv"
        more = [flag, str(tmp_path / name), "--max_output_len", "6", "--output_csv", str(output)]
        assert main(release, *run_arguments(release, engine, *more)) == 0
        found.append(rows_of(output))
    assert found[0] == found[1]
    assert [len(row) for row in found[0]] == [width + 6] * 2


def test_text_file(pipeline, tmp_path, capsys, run_arguments) -> None:
    (tmp_path / "in.txt").write_text("Alice was\n")
    engine = pipeline("0.9.0")
    more = ["--input_file", str(tmp_path / "in.txt"), "--max_output_len", "2"]
    assert main("0.9.0", *run_arguments("0.9.0", engine, *more)) == 0
    assert capsys.readouterr().out.startswith('Input [Text 0]: "Alice was\n"\n')


@pytest.mark.parametrize("release", ["0.9.0", "0.16.0"])
def test_logits_and_probabilities(release, pipeline, tmp_path, run_arguments) -> None:
    engine = pipeline(release, build=["--gather_all_token_logits"])
    more = ["--input_text", "Alice was", "--max_output_len", "5"]
    for name in ("logits", "log_probs", "cum_log_probs"):
        more += [f"--output_{name}_npy", str(tmp_path / f"{name}.npy")]
    more += ["--output_npy", str(tmp_path / "ids.npy")]
    assert main(release, *run_arguments(release, engine, *more)) == 0
    context = np.load(tmp_path / "logits_context.npy")
    generation = np.load(tmp_path / "logits_generation.npy")
    ids = np.load(tmp_path / "ids.npy")
    assert context.shape == (ids.shape[1] - 5, 384)
    assert generation.shape == (1, 5, 384)
    assert generation[0].argmax(axis=-1).tolist() == ids[0, -5:].tolist()
    assert np.array_equal(context[-1], generation[0, 0])
    log_probs = np.load(tmp_path / "log_probs.npy")
    assert log_probs.shape == (1, 1, 5)
    assert np.allclose(np.load(tmp_path / "cum_log_probs.npy"), log_probs.sum(axis=-1))


def test_end_token_stops(pipeline, tmp_path, run_arguments) -> None:
    engine = pipeline("0.16.0")
    output = tmp_path / "o.csv"
    more = ["--input_text", "Alice was", "--max_output_len", "10", "--output_csv", str(output)]
    assert main("0.16.0", *run_arguments("0.16.0", engine, *more)) == 0
    free = rows_of(output)[0]
    prompt = len(free) - 10
    end = free[prompt + 4]
    assert main("0.16.0", *run_arguments("0.16.0", engine, *more, "--end_id", str(end))) == 0
    stopped = rows_of(output)[0]
    place = prompt + free[prompt:].index(end)
    assert stopped == free[:place] + [end] * (len(free) - place)


@pytest.mark.parametrize("release", ["0.5.0", "0.8.0", "0.16.0", "1.2.1"])
def test_beams_on_one_rank_and_two(
    release, pipeline, world, tmp_path, capsys, run_arguments
) -> None:
    tables = []
    for size in (1, 2):
        build = ["--max_beam_width", "3"]
        engine = pipeline(release, tp=size, dtype="float32", name=f"tp{size}", build=build)
        more = ["--input_text", "Alice was", "--max_output_len", "10", "--num_beams", "3"]
        capsys.readouterr()
        on_ranks(world(size), release, *run_arguments(release, engine, *more))
        printed = capsys.readouterr().out.splitlines()
        assert sum(line.startswith("Output") for line in printed) == 3
        output = tmp_path / f"{size}.csv"
        on_ranks(
            world(size),
            release,
            *run_arguments(release, engine, *more, "--output_csv", str(output)),
        )
        tables.append(rows_of(output))
    assert tables[0] == tables[1]
    assert len({tuple(row) for row in tables[0]}) == 3


def test_more_beams_than_the_engine_has(pipeline, capsys, run_arguments) -> None:
    engine = pipeline("0.16.0", build=["--max_beam_width", "2"])
    more = ["--max_output_len", "4", "--num_beams", "3"]
    assert main("0.16.0", *run_arguments("0.16.0", engine, *more)) == 1
    assert "3 beams: the engine has max_beam_width 2" in capsys.readouterr().err


@pytest.mark.parametrize("release", ["0.8.0", "0.16.0"])
def test_drawn_tokens_on_one_rank_and_two(
    release, pipeline, world, tmp_path, run_arguments
) -> None:
    def tokens(size: int, *more: str) -> list[list[int]]:
        engine = pipeline(release, tp=size, dtype="float32", name=f"tp{size}")
        output = tmp_path / "o.csv"
        asked = ["--input_text", "Alice was", "--max_output_len", "20", *more]
        arguments = run_arguments(release, engine, *asked, "--output_csv", str(output))
        on_ranks(world(size), release, *arguments)
        return rows_of(output)

    drawn = ["--top_k", "20", "--top_p", "0.95", "--temperature", "1.2"]
    assert tokens(1, *drawn) == tokens(2, *drawn)
    assert tokens(1, *drawn) != tokens(1)
    if release == "0.16.0":
        assert tokens(1, *drawn, "--random_seed", "5") != tokens(1, *drawn)


def test_words_that_stop_and_words_that_are_banned(pipeline, tmp_path, run_arguments) -> None:
    engine = pipeline("0.16.0")
    tokenizer = Tokenizer(str(MODEL))

    def said(*more: str) -> str:
        output = tmp_path / "o.csv"
        asked = ["--input_text", "Alice was", "--max_output_len", "30", *more]
        arguments = run_arguments("0.16.0", engine, *asked, "--output_csv", str(output))
        assert main("0.16.0", *arguments) == 0
        prompt = tokenizer.encode("Alice was", special=True)
        return tokenizer.decode(rows_of(output)[0][len(prompt) :], special=False)

    free = said()
    word = free.split()[3]
    stopped = said("--stop_words", f" {word}")
    assert stopped == free[: free.index(f" {word}") + len(word) + 1]
    assert f" {word}" not in said("--bad_words", f" {word}")


def test_words_need_one_option_a_prompt(pipeline, capsys, run_arguments) -> None:
    engine = pipeline("0.16.0")
    more = ["--input_text", "a", "b", "--max_output_len", "2", "--stop_words", "x"]
    assert main("0.16.0", *run_arguments("0.16.0", engine, *more)) == 1
    assert "--stop_words is given 1 times for 2 prompts" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--temperature", "--top_k", "--length_penalty"])
def test_values_that_are_no_choice(flag, pipeline, capsys, run_arguments) -> None:
    engine = pipeline("0.16.0")
    value = "-1" if flag == "--top_k" else "0"
    done = main("0.16.0", *run_arguments("0.16.0", engine, "--max_output_len", "2", flag, value))
    if flag == "--length_penalty":  # no length is favoured
        assert done == 0
    else:
        assert done == 1
        assert f"{flag} " in capsys.readouterr().err
