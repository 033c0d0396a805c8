"""Options of a recipe: spelled as the release's own parser takes them, or refused with a reason."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit import document
from kit.commandlines.check import check
from kit.data import releases
from kit.errors import ExitCode, KitError
from kit.examples import dialect, options, plan, recipe
from kit.examples.options import Options
from kit.examples.recipe import DTYPES, FAMILIES, Build, Checkpoint, Recipe, Run

if TYPE_CHECKING:
    from collections.abc import Mapping

SHAPES = "max_batch_size: 8\nmax_input_len: 1000\nmax_output_len: 24\n"
WORDS = st.text(min_size=1).filter(
    lambda t: t.strip() and t[0] != "-" and "\0" not in t and t != ":"
)


def read(text: str) -> Options:
    return options.read(document.loads(SHAPES + text, "x.yaml"))


def recipe_of(
    family: Any,
    given: Mapping[str, Any] | str = "",
    dtype: str = "float16",
    tp: int = 1,
    pp: int = 1,
) -> Recipe:
    """A recipe for every release that asks for nothing else."""
    asked = read(given) if isinstance(given, str) else Options(**given)
    return dataclasses.replace(
        recipe.find("gpt2-tiny"),
        family=family,
        checkpoint=Checkpoint(dtype, tp, pp),  # type: ignore[arg-type]
        options=asked,
    )


def lines(example: Recipe, release: str) -> dict[str, str]:
    steps = plan.plan(example, release).steps
    for step in steps:
        answers = check(step.line(), release, explain=False)
        assert answers.verdict == "accepted", (release, answers.to_dict())
    return {step.name: step.line() for step in steps}


def maybe(*values: Any) -> st.SearchStrategy[Any]:
    return st.none() | st.sampled_from(values)  # half of them: few are refused for one option


@st.composite
def some_options(draw: st.DrawFn) -> Options:
    quantization = draw(maybe(*options.QUANTIZATIONS))
    smooth = quantization == "smoothquant"
    return Options(
        max_beam_width=draw(maybe(1, 4)),
        quantization=quantization,
        smoothquant_alpha=draw(st.floats(0, 1)) if smooth else None,
        per_token=draw(maybe(True)) if smooth else None,
        per_channel=draw(maybe(True)) if smooth else None,
        kv_cache_dtype=draw(maybe(*options.CACHE_TYPES)),
        paged_kv_cache=draw(maybe(True, False)),
        packed_input=draw(maybe(True, False)),
        context_fmha=draw(maybe(True, False)),
        gpt_attention_plugin=draw(maybe(*options.PLUGINS)),
        gemm_plugin=draw(maybe(*options.PLUGINS)),
        workers=draw(maybe(1, 2)),
        strongly_typed=draw(maybe(True, False)),
        gather_logits=draw(maybe(*options.LOGITS)),
    )


@settings(max_examples=400, deadline=None)
@given(
    family=st.sampled_from(FAMILIES),
    release=st.sampled_from(releases.versions()),
    dtype=st.sampled_from(DTYPES),
    ranks=st.tuples(st.integers(1, 8), st.integers(1, 4)),
    lengths=st.tuples(st.integers(1, 4096), st.integers(1, 4096)),
    prompts=st.lists(WORDS, max_size=3, unique=True),
    end_id=maybe(2),
    asked=some_options(),
)
def test_any_recipe_is_refused_with_a_reason_or_accepted(
    family: Any,
    release: str,
    dtype: Any,
    ranks: tuple[int, int],
    lengths: tuple[int, int],
    prompts: list[str],
    end_id: int | None,
    asked: Options,
) -> None:
    example = dataclasses.replace(
        recipe.find("gpt2-tiny"),
        family=family,
        checkpoint=Checkpoint(dtype, *ranks),
        build=Build(8, *lengths),
        run=Run(tuple(prompts), lengths[1], end_id),
        options=asked,
    )
    reason = dialect.refusal(example, release)
    if reason is None:
        lines(example, release)
        return
    assert release in reason
    with pytest.raises(KitError) as caught:
        plan.plan(example, release)
    assert caught.value.exit_code == ExitCode.USAGE
    said, _, near = str(caught.value).partition("; nearest release that can: ")
    assert said == reason
    if near == "none":
        assert all(dialect.refusal(example, name) for name in releases.versions())
    else:
        lines(example, near)


# What a release must say for one option, as its own documents do; None where it must refuse.
@pytest.mark.parametrize(
    ("family", "release", "given", "step", "words"),
    [
        ("gpt", "0.5.0", "quantization: int8", "build", "--use_weight_only --weight_only_precision int8"),
        ("gpt", "0.9.0", "quantization: int4", "convert", "--use_weight_only --weight_only_precision int4"),
        ("llama", "0.7.1", "quantization: int4", "build", "--use_weight_only --weight_only_precision int4"),
        ("llama", "0.8.0", "quantization: int8", "convert", "--use_weight_only --weight_only_precision int8"),
        ("gpt", "0.8.0", "quantization: smoothquant", "convert", "--smoothquant 0.5"),
        ("gpt", "0.8.0", "quantization: smoothquant\nper_token: true", "build", "--use_smooth_quant --per_token"),
        ("gpt", "0.16.0", "quantization: smoothquant\nper_channel: true", "convert", "--smoothquant 0.5 --per_channel"),
        ("llama", "0.5.0", "quantization: smoothquant\nsmoothquant_alpha: 0.8", "convert", "--storage-type fp16 --smoothquant 0.8"),
        ("llama", "0.5.0", "quantization: smoothquant", "build", "--ft_model_dir /kit/work/checkpoint/1-gpu"),
        ("llama", "0.7.0", "kv_cache_dtype: int8", "convert", "--calibrate-kv-cache"),
        ("llama", "0.7.0", "kv_cache_dtype: int8", "build", "--int8_kv_cache"),
        ("llama", "1.2.1", "kv_cache_dtype: int8", "convert", "--int8_kv_cache"),
        ("gpt", "0.6.0", "kv_cache_dtype: int8", "convert", "--calibrate-kv-cache"),
        ("llama", "0.9.0", "kv_cache_dtype: fp8", "convert", None),
        ("llama", "0.12.0", "kv_cache_dtype: fp8", "convert", "--fp8_kv_cache"),
        ("gpt", "0.16.0", "kv_cache_dtype: fp8", "convert", None),
        ("gpt", "0.16.0", "kv_cache_dtype: fp8\nquantization: fp8", "convert", "--qformat fp8 --kv_cache_dtype fp8"),
        ("gpt", "0.8.0", "quantization: fp8", "convert", None),
        ("llama", "0.17.0", "quantization: fp8", "convert", None),
        ("llama", "0.8.0", "quantization: fp8", "convert", "examples/quantization/quantize.py"),
        ("gpt", "0.8.0", "paged_kv_cache: true", "build", "--paged_kv_cache"),
        ("gpt", "0.12.0", "paged_kv_cache: false", "build", "--paged_kv_cache disable"),
        ("gpt", "0.13.0", "paged_kv_cache: false", "build", "--kv_cache_type continuous"),
        ("llama", "1.2.1", "paged_kv_cache: true", "build", "--kv_cache_type paged"),
        ("llama", "0.8.0", "packed_input: false", "build", "--remove_input_padding disable"),
        ("gpt", "0.8.0", "context_fmha: true", "build", "--enable_context_fmha"),
        ("gpt", "0.9.0", "context_fmha: false", "build", "--context_fmha disable"),
        ("gpt", "0.10.0", "gpt_attention_plugin: auto", "build", None),
        ("gpt", "0.11.0", "gpt_attention_plugin: auto", "build", "--gpt_attention_plugin auto"),
        ("llama", "0.5.0", "gpt_attention_plugin: disable", "build", None),
        ("gpt", "0.9.0", "gemm_plugin: float16", "build", "--gemm_plugin float16"),
        ("gpt", "0.5.0", "gemm_plugin: float16", "build", "--use_gemm_plugin float16"),
        ("llama", "0.7.0", "workers: 2", "build", "--parallel_build"),
        ("llama", "0.8.0", "workers: 2", "build", "--workers 2"),
        ("gpt", "0.10.0", "strongly_typed: true", "build", "--strongly_typed"),
        ("gpt", "0.11.0", "strongly_typed: true", "build", None),
        ("llama", "0.5.0", "gather_logits: all", "build", None),
        ("llama", "0.6.0", "gather_logits: all", "build", "--gather_all_token_logits"),
        ("llama", "0.7.1", "gather_logits: context", "build", None),
        ("gpt", "0.8.0", "gather_logits: context", "build", "--gather_context_logits"),
        ("gpt", "1.0.0", "gather_logits: generation", "build", "--gather_generation_logits"),
        ("gpt", "0.5.0", "max_beam_width: 4", "build", "--max_beam_width 4"),
    ],
)  # fmt: skip
def test_one_option(family: str, release: str, given: str, step: str, words: str | None) -> None:
    example = recipe_of(family, given)
    if words is None:
        with pytest.raises(KitError, match="nearest release that can: "):
            plan.plan(example, release)
    else:
        assert f" {words} " in f"{lines(example, release)[step]} "


@pytest.mark.parametrize(
    ("given", "without"),
    [
        ("packed_input: false", "--remove_input_padding"),
        ("gpt_attention_plugin: disable", "--use_gpt_attention_plugin"),
    ],
)
def test_what_was_on_is_left_out(given: str, without: str) -> None:
    assert without in lines(recipe_of("gpt"), "0.8.0")["build"]
    assert without not in lines(recipe_of("gpt", given), "0.8.0")["build"]


@pytest.mark.parametrize(
    ("given", "dtype", "pp", "release", "message"),
    [
        ("quantization: smoothquant", "bfloat16", 1, "0.7.1", "writes float16 and float32 only.*0.8.0"),
        ("kv_cache_dtype: int8", "float16", 2, "0.6.1", "tensor parallel ranks only.*0.8.0"),
        ("gemm_plugin: disable", "bfloat16", 1, "0.5.0", "bfloat16 without the GEMM plugin.*0.6.0"),
        ("kv_cache_dtype: fp8", "float16", 1, "0.10.0", "together with quantization: fp8 only"),
        ("quantization: fp8", "float16", 1, "0.7.1", "no step to measure.*0.8.0"),
        ("quantization: fp8", "float16", 1, "1.2.1", "was not read at release 1.2.1.*0.16.0"),
        ("strongly_typed: true", "float16", 1, "1.2.1", "no option for strongly_typed: true.*0.10.0"),
    ],
)  # fmt: skip
def test_why_llama_is_refused(given: str, dtype: str, pp: int, release: str, message: str) -> None:
    with pytest.raises(KitError, match=message):
        plan.plan(recipe_of("llama", given, dtype, pp=pp), release)


def test_llama_has_pipelines_in_every_release() -> None:
    for release in releases.versions():
        found = lines(recipe_of("llama", tp=2, pp=3), release)
        assert "--pp_size 3" in " ".join(found.values())
        assert all(line.startswith("mpirun -n 6 ") for name, line in found.items() if "run" in name)
        assert ("convert" in found) == releases.between(release, "0.8.0", None)


def test_what_is_not_said_is_not_of_the_digest() -> None:
    plain = recipe.find("gpt2-tiny")
    said = dataclasses.replace(plain, options=Options(paged_kv_cache=False))
    assert dataclasses.replace(plain, options=Options()).digest == plain.digest
    assert said.digest != plain.digest
    assert dataclasses.replace(plain, repository="a/b", argument="x").digest == plain.digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("quantization: int9", "quantization: unknown 'int9'; did you mean int8"),
        ("paged_kv_cache: enable", "expected true or false, found 'enable'"),
        ("max_beam_width: 0", "expected 1 or more"),
        ("per_token: true", "per_token: is of quantization: smoothquant"),
        ("quantization: smoothquant\nsmoothquant_alpha: 2", "a number from 0 to 1, found 2"),
        ("quantization: smoothquant\nsmoothquant_alpha: .nan", "a number from 0 to 1, found nan"),
        ("quantization: smoothquant\nsmoothquant_alpha: 1" + "0" * 400, "a number from 0 to 1"),
        ("quantization: smoothquant\nsmoothquant_alpha: true", "a number from 0 to 1, found True"),
        ("gemm_plugin: fp16", "unknown 'fp16'"),
    ],
)
def test_values_that_no_release_takes(text: str, message: str) -> None:
    with pytest.raises(KitError, match=message) as caught:
        read(text)
    assert caught.value.exit_code == ExitCode.USAGE
    assert str(caught.value).startswith("x.yaml:")


def test_flags_that_are_false_are_not_said() -> None:
    found = read("quantization: smoothquant\nper_token: false")
    assert found.said() == {"quantization": "smoothquant", "smoothquant_alpha": 0.5}
