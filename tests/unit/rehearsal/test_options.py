"""Parsing as strict as the release's."""

from __future__ import annotations

import argparse

import pytest
from kit_rehearsal import options
from kit_rehearsal.errors import CheckFailedError
from kit_rehearsal.expressions import holds

BUILD, RUN = "trtllm-build", "examples/run.py"


@pytest.mark.parametrize(
    ("release", "script", "argv", "message"),
    [
        ("0.16.0", BUILD, ["--max_output_len", "10"], "unrecognized arguments: --max_output_len"),
        ("0.9.0", BUILD, ["--max_seq_len", "10"], "unrecognized arguments: --max_seq_len"),
        ("0.9.0", BUILD, ["--gemm_plugin", "auto"], "invalid choice: 'auto'"),
        ("0.9.0", BUILD, ["--paged_kv_cache"], "expected one argument"),
        ("0.16.0", BUILD, ["--multi_block_mode", "enable"], "unrecognized arguments"),
        ("0.16.0", BUILD, ["--kv_cache_type", "x"], "invalid KVCacheType value: 'x'"),
        ("0.9.0", "examples/gpt/convert_checkpoint.py", ["--dtype", "auto"], "invalid choice"),
        ("0.5.0", "examples/gpt/hf_gpt_convert.py", [], "arguments are required: --"),
        ("0.5.0", "examples/gpt/build.py", ["--tp_size", "2"], "unrecognized arguments: --tp_size"),
        ("0.5.0", "examples/gpt/run.py", ["--max_output_len", "1", "--input_text", "a", "b"], "b"),
        ("0.9.0", RUN, ["--input_text", "a"], "required: --max_output_len"),
        ("0.9.0", RUN, ["--max_output_len", "1", "--nothing"], "unrecognized arguments: --nothing"),
        ("0.9.0", RUN, ["--max_output_len", "x"], "invalid int value"),
        ("0.9.0", RUN, ["--max_output_len", "1", "--in", "x"], "ambiguous option"),
    ],
)
def test_refused_by_argparse(release, script, argv, message, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        options.parse(script, release, argv)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_values_and_defaults() -> None:
    args = options.parse(BUILD, "0.9.0", ["--max_batch", "8"])
    assert (args.max_batch_size, args.max_output_len, args.workers) == (8, 1024, 1)
    args = options.parse(BUILD, "0.16.0", [])
    assert (args.max_batch_size, args.max_seq_len, args.workers) == (2048, None, 1)
    assert not hasattr(args, "kv_cache_type")
    assert options.parse(BUILD, "0.16.0", ["--kv_cache_type", "Paged"]).kv_cache_type == "PAGED"
    args = options.parse("examples/gpt/build.py", "0.5.0", ["--use_gemm_plugin"])
    assert args.use_gemm_plugin is None
    assert args.use_gpt_attention_plugin is False
    assert args.output_dir.name == "gpt_outputs"
    args = options.parse(RUN, "0.16.0", ["--max_output_len", "3", "--multi_block_mode", "No"])
    assert args.multi_block_mode is False
    args = options.parse(RUN, "0.9.0", ["--max_output_len", "3", "--input_text", "a", "b"])
    assert args.input_text == ["a", "b"]
    assert args.add_special_tokens is True


@pytest.mark.parametrize(
    ("release", "script", "argv", "tainted"),
    [
        ("0.5.0", "examples/gpt/build.py", ["--max_num_tokens", "8"], False),
        ("0.5.0", "examples/gpt/build.py", ["--use_smooth_quant", "--use_weight_only"], False),
        ("0.9.0", BUILD, ["--multiple_profiles", "enable", "--opt_num_tokens", "8"], False),
        ("0.9.0", BUILD, ["--model_cls_file", "x"], False),
        ("0.9.0", RUN, ["--max_output_len", "1", "--medusa_choices", "[]"], True),
        ("0.16.0", "examples/gpt/convert_checkpoint.py", [], False),
    ],
)
def test_checks_after_parsing(release, script, argv, tainted) -> None:
    args = options.parse(script, release, argv)
    with pytest.raises(CheckFailedError, match=release):
        options.check(script, release, args, tainted=tainted)


def test_checks_that_pass() -> None:
    args = options.parse(
        "examples/gpt/build.py", "0.5.0", ["--max_num_tokens", "8", "--enable_context_fmha"]
    )
    options.check("examples/gpt/build.py", "0.5.0", args, tainted=False)


def test_expressions() -> None:
    args = argparse.Namespace(a=None, b=[1, 2, 3], c=128, d="x")
    assert holds("args.a is None and len(args.b) == 3", args)
    assert holds("math.log2(args.c).is_integer()", args)
    assert holds("not (args.a is not None or args.c > 128)", args)
    assert not holds("args.missing is not None", args)
    for text in (
        "__import__('os')",
        "args.b.pop()",
        "open('x')",
        "[args.a]",
        "args.c + 1",
        "print",
    ):
        with pytest.raises(ValueError, match="checks' language"):
            holds(text, args)


def test_every_check_of_the_table_is_in_the_language() -> None:
    # A length needs a value; everything else may be absent.
    args = argparse.Namespace(tokens_per_block=64, max_draft_len=0, lookahead_config=[1, 2, 3])
    table = options._read(options.table_path())
    checks = [row for script in table["scripts"].values() for row in script["post_checks"]]
    texts = {text for row in checks for text in [*row["when"], row["must"]]}
    assert len(texts) > 20
    for text in texts:
        assert holds(text, args) in {True, False}


def test_table_can_be_named(tmp_path, monkeypatch) -> None:
    copy = tmp_path / "cli.json"
    copy.write_bytes(options.table_path().read_bytes())
    monkeypatch.setenv("KIT_CLI_TABLE", str(copy))
    assert options.table_path() == copy
