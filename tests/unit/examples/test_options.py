"""Options of a recipe: spelled as the release's own parser takes them, or refused with a reason."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from kit import document
from kit.commandlines.check import check
from kit.data import releases
from kit.errors import ExitCode, KitError
from kit.examples import dialect, options, plan, recipe, sense
from kit.examples.options import Lora, Options
from kit.examples.recipe import DTYPES, FAMILIES, VARIANTS, Build, Checkpoint, Recipe, Run
from kit.examples.source import ACTIVATIONS, Dummy, Source
from kit.examples.tasks import Evaluate, Summarize
from tests.unit.examples.test_dialect import parsed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kit.commandlines.check import Answers

SHAPES = "max_batch_size: 8\nmax_input_len: 1000\nmax_output_len: 24\n"
WORDS = st.text(min_size=1).filter(
    lambda t: t.strip() and t[0] != "-" and "\0" not in t and t != ":"
)


def read(text: str) -> Options:
    return Options(**options.read(document.loads(SHAPES + text, "x.yaml"), Path("/here")))


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
        model="of-no-known-shape",
        checkpoint=Checkpoint(dtype, tp, pp),  # type: ignore[arg-type]
        options=asked,
    )


def lines(example: Recipe, release: str) -> dict[str, str]:
    steps = plan.plan(example, release).steps
    for step in steps:
        holds(check(step.line(), release, explain=False))
        assert (step.doubt is None) == (check(step.line(), release).verdict == "accepted")
    return {step.name: step.line() for step in steps}


def holds(answers: Answers) -> None:
    """Accepted, or by all that is known of a script that nobody has read at the release."""
    for answer in answers.commands:
        unread = answer.verdict == "undecidable" and "was not read at" in answer.reasons[0]
        assert answer.verdict == "accepted" or (unread and not answer.problems), answers.to_dict()


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
        parallel_embedding=draw(maybe(*options.EMBEDDINGS)),
        share_embedding=draw(maybe(True)),
        lookup_plugin=draw(maybe(*options.PLUGINS)),
        in_flight_batching=draw(maybe(True)),
        tokens_per_block=draw(maybe(32, 96, 128)),
        max_num_tokens=draw(maybe(512)),
        prompt_table_size=draw(maybe(100)),
        lora=draw(st.none() | lora()),
        timing_cache=draw(maybe(Path("/x/model.cache"))),
        processes=draw(maybe(8)),
        log_level=draw(maybe(*options.LEVELS)),
    )


def lora() -> st.SearchStrategy[Lora]:
    modules = st.lists(st.sampled_from(options.LORA_MODULES), min_size=1, unique=True).map(tuple)
    return st.builds(Lora, st.just(Path("/x/lora")), st.none() | modules, maybe(8))


@st.composite
def some_source(draw: st.DrawFn) -> Source:
    if draw(st.booleans()):
        return Source()
    if draw(st.booleans()):
        return Source(nemo=Path("/x/model.nemo"))
    dummy = Dummy(
        51200,
        1024,
        24,
        16,
        num_key_value_heads=draw(maybe(1, 4, 16)),
        intermediate_size=draw(maybe(4096)),
        hidden_act=draw(maybe(*ACTIVATIONS)),
        max_position_embeddings=draw(maybe(8192)),
        rotary_pct=draw(maybe(0.5)),
        bias=draw(maybe(True, False)),
    )
    return Source(dummy=dummy, tokenizer="gpt2-tiny")


@st.composite
def some_run(draw: st.DrawFn, most: int) -> Run:
    prompts = tuple(draw(st.lists(WORDS, max_size=3, unique=True)))
    table = draw(maybe(Path("/x/table.npy"), Path("/x/table.nemo")))
    return Run(
        prompts,
        most,
        draw(maybe(2)),
        num_beams=draw(maybe(2)),
        temperature=draw(maybe(0.5)),
        top_k=draw(maybe(4)),
        top_p=draw(maybe(0.9)),
        random_seed=draw(maybe(7)),
        prompt_table=table,
        prompt_tasks=tuple(range(len(prompts))) or (0,) if table else None,
        input_file=None if prompts else draw(maybe(Path("/x/input.csv"))),
    )


@st.composite
def some_evaluation(draw: st.DrawFn) -> Evaluate:
    summarize = Summarize(
        rouge1=draw(maybe(14.0)),
        batch_size=draw(maybe(2)),
        max_articles=draw(maybe(3)),
        output_len=draw(maybe(20)),
        max_input_len=draw(maybe(100)),
        num_beams=draw(maybe(2)),
        top_k=draw(maybe(1)),
        hugging_face=draw(maybe(True)),
        rouge_dir=draw(maybe(Path("/x/rouge"))),
    )
    return Evaluate(summarize, draw(maybe(20.0)))


@st.composite
def some_recipe(draw: st.DrawFn) -> Recipe:
    """Anything but Triton, whose scripts are not of the release's parsers, for any release."""
    family = draw(st.sampled_from(FAMILIES))
    lengths = draw(st.tuples(st.integers(1, 4096), st.integers(1, 4096)))
    origin = draw(some_source())
    variant = "gpt2"
    if family == "gpt":
        variants = VARIANTS if origin.dummy else VARIANTS[:3]
        variant = "gpt-next" if origin.nemo else draw(st.sampled_from(variants))
    return dataclasses.replace(
        recipe.find("gpt2-tiny"),
        family=family,
        model="of-no-known-shape",
        variant=variant,  # type: ignore[arg-type]
        workflow=draw(st.sampled_from(("commands",) * 4 + ("python",))),
        source=origin if family == "gpt" or origin.nemo is None else Source(),
        checkpoint=Checkpoint(
            draw(st.sampled_from(DTYPES)), draw(st.sampled_from((1, 2, 4))), draw(st.integers(1, 2))
        ),
        build=Build(8, *lengths),
        run=draw(some_run(lengths[1])),
        options=draw(some_options()) if draw(st.booleans()) else Options(),
        evaluate=draw(st.none() | some_evaluation()),
    )


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(example=some_recipe(), release=st.sampled_from(releases.versions()))
def test_any_recipe_is_refused_with_a_reason_or_accepted(example: Recipe, release: str) -> None:
    try:
        sense.check(example)
    except KitError:
        reject()
    reason = dialect.refusal(example, release)
    if reason is None:
        accepted(example, release)
        return
    assert release in reason
    with pytest.raises(KitError) as caught:
        dialect.commands(example, release)
    assert caught.value.exit_code == ExitCode.USAGE
    said, _, near = str(caught.value).partition("; nearest release that can: ")
    assert said == reason
    if near == "none":
        assert all(dialect.refusal(example, name) for name in releases.versions())
    else:
        accepted(example, near)


def accepted(example: Recipe, release: str) -> None:
    """The kit's own check and an argparse made of the release's table take every line."""
    for command in dialect.commands(example, release):
        if command.writes or command.image:
            continue
        holds(check(shlex.join(command.argv), release, explain=False))
        parsed(command, release)


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
        ("gpt", "0.16.0", "kv_cache_dtype: fp8\nquantization: fp8", "quantize", "--qformat fp8 --kv_cache_dtype fp8"),
        ("gpt", "0.8.0", "quantization: fp8", "convert", None),
        ("llama", "0.17.0", "quantization: fp8", "quantize", "--qformat fp8"),
        ("llama", "0.8.0", "quantization: fp8", "quantize", "examples/quantization/quantize.py"),
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
        ("quantization: int4_awq", "float16", 1, "0.6.0", "makes int4_awq from scales.*0.8.0"),
        ("tokens_per_block: 96", "float16", 1, "0.7.0", "power of 2; nearest release that can: 0.6.1"),
        ("tokens_per_block: 64\ncontext_fmha: true", "float16", 1, "0.7.1", "128 or more with FMHA.*0.8.0"),
        ("max_num_tokens: 512", "float16", 1, "0.5.0", "together with context_fmha only.*0.8.0"),
        ("strongly_typed: true", "float16", 1, "1.2.1", "no option for strongly_typed: true.*0.10.0"),
    ],
)  # fmt: skip
def test_why_llama_is_refused(given: str, dtype: str, pp: int, release: str, message: str) -> None:
    with pytest.raises(KitError, match=message):
        plan.plan(recipe_of("llama", given, dtype, pp=pp), release)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": read("quantization: smoothquant\ngpt_attention_plugin: disable")}, "for SmoothQuant of GPT"),
        ({"options": read("gpt_attention_plugin: disable"), "variant": "gpt-next", "source": Source(nemo=Path("/x.nemo"))}, "rotary positions in the attention plugin only"),
        ({"options": read("kv_cache_dtype: int8"), "variant": "gpt-next", "source": Source(nemo=Path("/x.nemo"))}, "has no scales for kv_cache_dtype: int8|calibrates Hugging Face models only"),
        ({"source": Source(dummy=Dummy(64, 64, 2, 8, num_key_value_heads=4), tokenizer="x")}, r"or with one for all.*0\.9\.0"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("release", ["0.5.0", "0.8.0"])
def test_why_gpt_is_refused(change: dict[str, Any], message: str, release: str) -> None:
    with pytest.raises(KitError, match=message):
        plan.plan(dataclasses.replace(recipe_of("gpt"), **change), release)


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
    elsewhere = Source(repository="a/b", directory=Path("/x"))
    assert dataclasses.replace(plain, source=elsewhere, argument="x").digest == plain.digest


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
