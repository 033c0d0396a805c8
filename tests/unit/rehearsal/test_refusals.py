"""What the backend does not compute, and what an engine was not built for."""

from __future__ import annotations

import csv
import json
import shutil

import pytest
from kit_rehearsal.commands import main
from kit_rehearsal.convert import infer_dtype

FT_CONVERT, FT_BUILD = "examples/gpt/hf_gpt_convert.py", "examples/gpt/build.py"
CONVERT, BUILD, RUN = "examples/gpt/convert_checkpoint.py", "trtllm-build", "examples/run.py"


@pytest.mark.parametrize(
    ("release", "script", "argv", "what"),
    [
        ("0.9.0", CONVERT, ["--model_dir", "x", "--gpt_variant", "starcoder2"], "variants"),
        ("0.9.0", BUILD, ["--lora_plugin", "float16"], "LoRA"),
        ("0.9.0", BUILD, ["--logits_dtype", "float16"], "float16 logits"),
        ("0.16.0", BUILD, ["--gemm_plugin", "fp8"], "FP8"),
        ("0.16.0", BUILD, ["--speculative_decoding_mode", "medusa"], "speculative"),
        ("0.16.0", BUILD, ["--dry_run"], "dry runs"),
        ("0.16.0", RUN, ["--max_output_len", "1", "--lookahead_config", "[1,2,3]"], "speculative"),
        ("0.16.0", RUN, ["--max_output_len", "1", "--repetition_penalty", "2"], "penalties"),
    ],
)  # fmt: skip
def test_not_computed(release, script, argv, what, capsys) -> None:
    assert main(release, script, argv) == 1
    error = capsys.readouterr().err
    assert "kit-rehearsal does not compute" in error
    assert what in error


def test_variant_comes_from_the_path(model, tmp_path, capsys) -> None:
    copy = tmp_path / "m"
    shutil.copytree(model, copy)
    argv = ["--model_dir", str(copy), "--output_dir", str(tmp_path / "c")]
    if "gpt2" not in str(copy):
        assert main("0.9.0", CONVERT, argv) == 1
        assert "give --gpt_variant gpt2" in capsys.readouterr().err
    assert main("0.9.0", CONVERT, [*argv, "--gpt_variant", "gpt2"]) == 0


def test_heads_that_cannot_be_shared(model, tmp_path, capsys) -> None:
    argv = ["--model_dir", str(model), "--output_dir", str(tmp_path), "--tp_size", "3"]
    assert main("0.9.0", CONVERT, argv) == 1
    assert "4 attention heads cannot be shared evenly by 3 ranks" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["activation_function", "tie_word_embeddings", "model_type"])
def test_other_models(key, model, tmp_path, capsys) -> None:
    copy = tmp_path / "gpt2"
    shutil.copytree(model, copy)
    config = json.loads((copy / "config.json").read_text())
    config[key] = False
    (copy / "config.json").write_text(json.dumps(config))
    assert (
        main("0.9.0", CONVERT, ["--model_dir", str(copy), "--output_dir", str(tmp_path / "c")]) == 1
    )
    assert "does not compute" in capsys.readouterr().err


def test_missing_things(tmp_path, capsys) -> None:
    assert main("0.9.0", CONVERT, ["--model_dir", str(tmp_path / "gpt2")]) == 1
    assert "no such file" in capsys.readouterr().err
    assert main("0.9.0", BUILD, ["--checkpoint_dir", str(tmp_path)]) == 1
    assert "config.json" in capsys.readouterr().err
    assert main("0.5.0", FT_BUILD, ["--model_dir", str(tmp_path)]) == 1
    assert "<tp>-gpu" in capsys.readouterr().err


def test_output_that_cannot_be_written(model, tmp_path, capsys) -> None:
    (tmp_path / "file").write_text("in the way")
    argv = ["--model_dir", str(model), "--output_dir", str(tmp_path / "file" / "c")]
    assert main("0.9.0", CONVERT, argv) == 1
    assert "Not a directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "dtype"),
    [(None, "float16"), ("float32", "float16"), ("float16", "float16"), ("bfloat16", "bfloat16")],
)
def test_dtype_auto(source, dtype) -> None:
    assert infer_dtype(source) == dtype


def test_checkpoint_of_another_world_size(pipeline, tmp_path, capsys) -> None:
    pipeline("0.5.0", tp=1)
    argv = ["--model_dir", str(tmp_path / "x-ckpt" / "1-gpu"), "--world_size", "2"]
    assert main("0.5.0", FT_BUILD, [*argv, "--output_dir", str(tmp_path / "e")]) == 1
    assert "query_key_value.weight.0.bin" in capsys.readouterr().err


@pytest.mark.parametrize("release", ["0.5.0", "0.9.0", "0.16.0"])
def test_limits(release, pipeline, tmp_path, capsys, run_arguments) -> None:
    engine = pipeline(release)
    tokens = tmp_path / "in.csv"
    flag = "--input_tokens" if release == "0.5.0" else "--input_file"

    def attempt(prompts: list[list[int]], length: int) -> str:
        with tokens.open("w", newline="") as file:
            csv.writer(file).writerows(prompts)
        script, argv = run_arguments(
            release, engine, flag, str(tokens), "--max_output_len", str(length)
        )
        assert main(release, script, argv) == 1
        return capsys.readouterr().err

    assert "5 prompts: the engine has max_batch_size 4" in attempt([[1]] * 5, 1)
    assert "101 tokens in the longest prompt: the engine has max_input_len 100" in attempt(
        [[1] * 101], 1
    )
    assert "expected 1 or more" in attempt([[1]], 0)
    if release == "0.16.0":
        assert "161 tokens with the output: the engine has max_seq_len 160" in attempt(
            [[1] * 100], 61
        )
    else:
        assert "61 tokens to generate: the engine has max_output_len 60" in attempt([[1]], 61)


def test_positions_are_a_limit(pipeline, capsys, run_arguments) -> None:
    engine = pipeline("0.16.0", build=["--max_seq_len", "400"])
    assert main("0.16.0", *run_arguments("0.16.0", engine, "--max_output_len", "300")) == 1
    assert "max_position_embeddings 256" in capsys.readouterr().err


@pytest.mark.parametrize("release", ["0.5.0", "0.9.0", "0.16.0"])
def test_world_size_must_fit(release, pipeline, capsys, run_arguments) -> None:
    engine = pipeline(release, tp=2)
    script, argv = run_arguments(release, engine, "--max_output_len", "2")
    assert main(release, script, argv) == 1
    assert "engine world size 2 != runtime world size 1" in capsys.readouterr().err


def test_engine_of_another_release(pipeline, capsys, run_arguments) -> None:
    engine = pipeline("0.9.0")
    assert main("0.16.0", *run_arguments("0.16.0", engine, "--max_output_len", "2")) == 1
    assert "found ('0.9.0', 0, 1)" in capsys.readouterr().err


def test_nothing_is_downloaded(pipeline, capsys) -> None:
    engine = pipeline("0.9.0")
    assert main("0.9.0", RUN, ["--engine_dir", str(engine), "--max_output_len", "2"]) == 1
    assert "no tokenizer.json in gpt2" in capsys.readouterr().err
