"""Every release of the table of options: its commands, its strictness, its files."""

from __future__ import annotations

import csv
import json
import re

import pytest
from kit_rehearsal import options
from kit_rehearsal.commands import SCRIPTS, main
from kit_rehearsal.releases import RELEASES, Field, Span, record
from kit_rehearsal.tokens import Tokenizer

from kit import data
from kit.examples import dialect, recipe
from tests.unit.rehearsal.conftest import MODEL, ROOT, ThreadWorld

END_ID = 383


def play(release: str, example: str, work) -> list[list[int]]:
    """The kit's own commands for an example, in this process; token ids of every prompt."""
    for folder in ("checkpoint", "engine", "output", "cache"):
        (work / folder).mkdir(parents=True)
    rows: list[list[int]] = []
    for command in dialect.commands(recipe.find(example), release):
        words = [
            word.replace(dialect.MODEL, str(MODEL)).replace(dialect.WORK, str(work))
            for word in command.argv
            if word != "python3"
        ]
        world = ThreadWorld(command.ranks or 1)
        ends = world.run(
            lambda rank, words=words: main(release, words[0], words[1:], ranks=lambda: rank)
        )
        assert ends == [0] * world.size, command
        for name in command.produces:
            path = work / name.removeprefix(f"{dialect.WORK}/")
            assert path.exists(), name
            if path.suffix == ".csv":
                with path.open(newline="") as file:
                    rows += [[int(cell) for cell in line] for line in csv.reader(file)]
    return [list(map(int, row[: len(row) - padding(row)])) for row in rows]


def padding(row: list[int]) -> int:
    return len(row) - len("".join("p" if token == END_ID else "t" for token in row).rstrip("p"))


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> list[list[int]]:
    return play("0.9.0", "gpt2-tiny", tmp_path_factory.mktemp("expected"))


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """The folder of each release's run on two ranks, made once."""
    made = {}

    def folder(release: str):
        if release not in made:
            work = tmp_path_factory.mktemp(f"tp2-{release}")
            made[release] = (work, play(release, "gpt2-tiny-tp2", work))
        return made[release]

    return folder


def test_the_releases_are_those_of_the_table_and_of_the_label() -> None:
    assert list(RELEASES) == data.cli_table()["releases"] == list(SCRIPTS)
    dockerfile = (ROOT / "dockerfiles" / "rehearsal" / "Dockerfile").read_text()
    label = re.search(r'org\.trtllm-kit\.releases="([^"]*)"', dockerfile)
    assert label is not None
    assert label[1].split() == list(RELEASES)


@pytest.mark.parametrize("release", RELEASES)
def test_scripts_stand_where_the_release_has_them(release) -> None:
    assert len(set(SCRIPTS[release])) == len(SCRIPTS[release])
    for place in SCRIPTS[release]:
        assert release in data.cli_table()["scripts"][place]["sources"]


@pytest.mark.parametrize("release", RELEASES)
def test_every_release_says_the_same_on_one_rank_and_two(
    release, expected, played, tmp_path
) -> None:
    tokenizer = Tokenizer(str(MODEL))
    prompts = [
        tokenizer.encode(text, special=False) for text in recipe.find("gpt2-tiny").run.prompts
    ]
    assert [row[: len(prompt)] for row, prompt in zip(expected, prompts, strict=True)] == prompts
    assert all(len(row) > len(prompt) for row, prompt in zip(expected, prompts, strict=True))
    assert play(release, "gpt2-tiny", tmp_path / "one") == expected
    assert played(release)[1] == expected


def test_a_place_of_another_release(capsys) -> None:
    for release, place in [
        ("0.7.1", "trtllm-build"),
        ("0.8.0", "examples/llama/build.py"),
        ("0.9.0", "examples/gpt/build.py"),
        ("0.18.2", "examples/models/core/gpt/convert_checkpoint.py"),
        ("0.19.0", "examples/gpt/convert_checkpoint.py"),
        ("0.9.1", "trtllm-build"),
    ]:
        assert main(release, place, []) == 1
        assert f"release {release} has no {place}" in capsys.readouterr().err


@pytest.mark.parametrize("release", RELEASES)
def test_options_of_other_releases_are_refused(release, capsys) -> None:
    """Each option that the script has in some release and not in this one."""
    refused = 0
    for place in SCRIPTS[release]:
        rows = options.rows(place, release)
        own = {flag for row in rows for flag in row["flags"]}
        needed = [word for row in rows if row.get("required") for word in (row["flags"][0], "1")]
        every = {
            flag for row in data.cli_table()["scripts"][place]["options"] for flag in row["flags"]
        }
        parser = options.parser(place, release)
        for flag in sorted(every - own):
            if any(one.startswith(flag) for one in own):
                continue  # argparse takes it for the beginning of another
            with pytest.raises(SystemExit) as caught:
                parser.parse_args([*needed, flag])
            assert caught.value.code == 2
            assert f"unrecognized arguments: {flag}" in capsys.readouterr().err
            refused += 1
    assert refused


@pytest.mark.parametrize("release", RELEASES)
def test_options_that_may_not_exist_are_refused(release, capsys) -> None:
    for place in SCRIPTS[release]:
        for row in options.rows(place, release):
            if not row.get("uncertain"):
                continue
            value = [] if row["action"] == "store_true" else ["1"]
            needed = ["--max_output_len", "1"] if place.endswith("run.py") else []
            with pytest.raises(SystemExit) as caught:
                options.parse(place, release, [*needed, row["flags"][0], *value])
            assert caught.value.code == 2
            assert f"not known whether {release} has it: " in capsys.readouterr().err


@pytest.mark.parametrize("release", RELEASES)
def test_every_option_alone_is_parsed_by_its_release(release) -> None:
    """The table's own defaults pass its own parser."""
    for place in SCRIPTS[release]:
        needed = [
            word
            for row in options.rows(place, release)
            if row.get("required")
            for word in (row["flags"][0], "1")
        ]
        args = vars(options.parse(place, release, needed))
        for row in options.rows(place, release):
            if row.get("default") != "==SUPPRESS==":
                assert row["dest"] in args


# Keys of a file, dots between levels, and the releases that write them: facts of the releases' own
# sources up to 0.16.0, from then on what trtllm-build's options say.
ENGINE_KEYS = [
    ("backend", Span(before="0.9.0")),
    ("version", Span("0.9.0")),
    ("builder_config.fp8", Span(before="0.6.0")),
    ("builder_config.use_prompt_tuning", Span(before="0.6.0")),
    ("builder_config.max_beam_width", Span("0.6.0", "0.9.0")),
    ("builder_config.quant_mode", Span("0.6.0", "0.9.0")),
    ("builder_config.lora_target_modules", Span("0.7.0", "0.9.0")),
    ("builder_config.gather_all_token_logits", Span(before="0.8.0")),
    ("builder_config.gather_context_logits", Span("0.8.0", "0.9.0")),
    ("plugin_config.lora_plugin", Span("0.6.0", "0.9.0")),
    ("plugin_config.use_paged_context_fmha", Span("0.7.0", "0.9.0")),
    ("plugin_config.context_fmha_type", Span(before="0.8.0")),
    ("plugin_config.layernorm_plugin", Span(before="0.8.0")),
    ("plugin_config.context_fmha", Span("0.8.0", "0.9.0")),
    ("build_config.lora_config", Span("0.9.0")),
    ("build_config.auto_parallel_config", Span("0.9.0", "1.2.0")),
    ("build_config.max_output_len", Span("0.9.0", "0.11.0")),
    ("build_config.max_seq_len", Span("0.11.0")),
    ("build_config.opt_batch_size", Span("0.10.0")),
    ("build_config.weight_streaming", Span("0.10.0")),
    ("build_config.force_num_profiles", Span("0.12.0")),
    ("build_config.kv_cache_type", Span("0.13.0")),
    ("build_config.builder_opt", Span("0.9.0", "0.14.0")),
    ("build_config.monitor_memory", Span("0.15.0")),
    ("build_config.use_mrope", Span("0.16.0")),
    ("build_config.plugin_config.dtype", Span("0.11.0")),
    ("build_config.plugin_config.use_custom_all_reduce", Span("0.9.0", "0.12.0")),
    ("build_config.plugin_config.lookup_plugin", Span("0.9.0", "0.15.0")),
    ("build_config.plugin_config.enable_xqa", Span("0.9.0", "0.16.0")),
    ("build_config.plugin_config.user_buffer", Span("0.16.0")),
    ("build_config.plugin_config.norm_quant_fusion", Span("0.19.0")),
    ("pretrained_config.moe_num_experts", Span("0.9.0", "0.11.0")),
    ("pretrained_config.moe", Span("0.11.0")),
    ("pretrained_config.gpt_variant", Span("0.12.0")),
    ("pretrained_config.share_embedding_table", Span("0.9.0", "0.16.0")),
    ("pretrained_config.rotary_embedding_dim", Span("0.16.0")),
    ("pretrained_config.mapping.gpus_per_node", Span("0.10.0")),
    ("pretrained_config.mapping.cp_size", Span("0.12.0")),
    ("pretrained_config.quantization.use_meta_recipe", Span("0.15.0")),
]
CHECKPOINT_KEYS = [
    ("architecture", Span("0.9.0")),
    ("bias", Span("0.9.0")),
    ("scale_embedding", Span("0.10.0", "0.11.0")),
    ("q_scaling", Span("0.11.0")),
    ("logits_dtype", Span("0.12.0")),
    ("moe", Span("0.12.0")),
    ("runtime_defaults", Span("0.15.0")),
    ("share_embedding_table", Span("0.9.0", "0.16.0")),
    ("quantization.clamp_val", Span("0.12.0")),
    ("mapping.moe_tp_size", Span("0.12.0")),
]


def has(config: dict, path: str) -> bool:
    found = config
    for key in path.split("."):
        if key not in found:
            return False
        found = found[key]
    return True


@pytest.mark.parametrize("release", RELEASES)
def test_files_and_keys_of_every_release(release, played) -> None:
    work, _ = played(release)
    config = json.loads((work / "engine" / "config.json").read_text())
    names = {path.name for path in (work / "engine").iterdir()}
    for path, span in ENGINE_KEYS:
        assert has(config, path) is span.holds(release), path
    if Span(before="0.9.0").holds(release):
        engines = {f"gpt_float32_tp2_rank{rank}.engine" for rank in range(2)}
        assert names == {"config.json", "model.cache", *engines}
        assert (work / "checkpoint" / "2-gpu" / "config.ini").is_file()
        assert config["builder_config"]["tensor_parallel"] == 2
        assert config["plugin_config"]["nccl_plugin"] == "float32"
        return
    assert names == {"config.json", "rank0.engine", "rank1.engine"}
    assert config["version"] == f"{release}+rehearsal"
    checkpoint = json.loads((work / "checkpoint" / "config.json").read_text())
    for path, span in CHECKPOINT_KEYS:
        assert has(checkpoint, path) is span.holds(release), path
    assert checkpoint["producer"]["name"] == "kit-rehearsal"
    assert config["pretrained_config"]["producer"] == checkpoint["producer"]
    plugins = config["build_config"]["plugin_config"]
    assert plugins["nccl_plugin"] == plugins["gpt_attention_plugin"] == "float32"
    assert plugins["tokens_per_block"] == {
        "0.9.0": 128,
        **{name: 32 for name in RELEASES if Span("0.19.0").holds(name)},
    }.get(release, 64)


@pytest.mark.parametrize("release", RELEASES)
def test_every_option_of_a_plugin_is_recorded(release, played) -> None:
    """What trtllm-build takes as enable, disable or a type stands in its plugin_config."""
    if SCRIPTS[release][1] != "trtllm-build":
        return
    work, _ = played(release)
    plugins = json.loads((work / "engine" / "config.json").read_text())["build_config"][
        "plugin_config"
    ]
    for row in options.rows("trtllm-build", release):
        if "disable" in (row.get("choices") or ()):
            assert row["dest"] in plugins, row["dest"]


def test_what_only_some_releases_record(pipeline) -> None:
    def build_config(release: str, *more: str) -> dict:
        engine = pipeline(release, name=f"{release}{len(more)}", build=more)
        return json.loads((engine / "config.json").read_text())["build_config"]

    assert build_config("0.10.0")["use_fused_mlp"] is False
    assert build_config("0.13.0")["use_fused_mlp"] == "enable"
    assert build_config("0.10.0", "--strongly_typed")["strongly_typed"] is True
    assert build_config("0.10.0")["strongly_typed"] is False
    assert build_config("0.12.0")["strongly_typed"] is True
    assert build_config("0.12.0", "--builder_force_num_profiles", "2")["force_num_profiles"] == 2
    assert build_config("0.12.0")["plugin_config"]["paged_state"] is True
    assert build_config("0.13.0")["plugin_config"]["paged_state"] is False
    assert build_config("0.9.0")["plugin_config"]["use_custom_all_reduce"] is True
    one = build_config("0.12.0", "--reduce_fusion", "enable")
    assert one["plugin_config"]["reduce_fusion"] is False


def test_0_11_0_takes_both_lengths(pipeline, capsys) -> None:
    engine = pipeline("0.11.0", build=["--max_output_len", "20"])
    build = json.loads((engine / "config.json").read_text())["build_config"]
    assert (build["max_input_len"], build["max_seq_len"]) == (100, 120)
    assert "old way of saying --max_seq_len" in capsys.readouterr().err


def test_0_8_0_deduces_tokens_and_logits(pipeline) -> None:
    engine = pipeline("0.8.0", build=["--remove_input_padding", "--gather_all_token_logits"])
    config = json.loads((engine / "config.json").read_text())
    assert config["builder_config"]["max_num_tokens"] == 400
    assert config["builder_config"]["gather_generation_logits"] is True
    assert config["plugin_config"]["gemm_plugin"] is None
    assert config["plugin_config"]["tokens_per_block"] == 128
    assert config["plugin_config"]["context_fmha"] is False


def test_context_fmha_of_the_first_releases(pipeline) -> None:
    for release, key, value in [("0.7.1", "context_fmha_type", 2), ("0.8.0", "context_fmha", True)]:
        engine = pipeline(release, name=release, build=["--enable_context_fmha_fp32_acc"])
        assert json.loads((engine / "config.json").read_text())["plugin_config"][key] == value


def test_logits_of_releases_before_trtllm_build(pipeline, tmp_path, capsys, run_arguments) -> None:
    more = ["--max_output_len", "3", "--output_logits_npy", str(tmp_path / "l.npy")]
    for release, end in [("0.7.1", 1), ("0.8.0", 0)]:
        engine = pipeline(release, name=release, build=["--gather_all_token_logits"])
        assert main(release, *run_arguments(release, engine, *more)) == end
    assert "the one file of logits of release 0.7.1" in capsys.readouterr().err
    assert (tmp_path / "l_context.npy").is_file()
    assert (tmp_path / "l_generation.npy").is_file()


def test_a_text_file_is_one_prompt_until_0_8_0(pipeline, tmp_path, capsys, run_arguments) -> None:
    (tmp_path / "in.txt").write_text("Alice was\nThe Queen\n")
    more = ["--input_file", str(tmp_path / "in.txt"), "--max_output_len", "2"]
    found = []
    for release in ("0.8.0", "0.9.0"):
        engine = pipeline(release, name=release)
        assert main(release, *run_arguments(release, engine, *more)) == 0
        found.append(capsys.readouterr().out.count("Input [Text"))
    assert found == [1, 2]


@pytest.mark.parametrize(
    ("release", "place", "argv", "what"),
    [
        ("0.6.0", "examples/gpt/run.py", ["--max_output_len", "1", "--max_kv_cache_len", "8"], "attention windows"),
        ("0.7.0", "examples/gpt/build.py", ["--moe_num_experts", "4"], "mixtures of experts"),
        ("0.8.0", "examples/gpt/build.py", ["--rotary_scaling", "linear", "2", "--use_gpt_attention_plugin"], "rotary"),
        ("0.8.0", "examples/gpt/build.py", ["--model_dir", "{checkpoint}", "--use_lora_plugin"], "LoRA"),
        ("0.12.0", "trtllm-build", ["--fast_build"], "weights in a file"),
        ("0.18.2", "trtllm-build", ["--gemm_plugin", "nvfp4"], "FP4"),
        ("0.19.0", "trtllm-build", ["--dora_plugin", "enable"], "LoRA"),
        ("1.2.1", "trtllm-build", ["--fuse_fp4_quant", "enable"], "FP4"),
        ("1.2.1", "examples/run.py", ["--max_output_len", "1", "--eagle_choices", "x"], "speculative"),
    ],
)  # fmt: skip
def test_not_computed(release, place, argv, what, tmp_path, capsys) -> None:
    assert main("0.8.0", SCRIPTS["0.8.0"][0], ["-i", str(MODEL), "-o", str(tmp_path)]) == 0
    argv = [word.format(checkpoint=tmp_path / "1-gpu") for word in argv]
    assert main(release, place, argv) == 1
    error = capsys.readouterr().err
    assert "kit-rehearsal does not compute" in error
    assert what in error


def test_fp8_attention_may_be_turned_off_where_it_is_on(pipeline) -> None:
    engine = pipeline("1.0.0", build=["--use_fp8_context_fmha", "disable"])
    plugins = json.loads((engine / "config.json").read_text())["build_config"]["plugin_config"]
    assert plugins["use_fp8_context_fmha"] is False


def test_the_variant_comes_from_the_type_since_0_15_0(tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "m").symlink_to(MODEL)
    monkeypatch.chdir(tmp_path)
    for release, end in [("0.14.0", 1), ("0.15.0", 0), ("1.2.1", 0)]:
        argv = ["--model_dir", "m", "--output_dir", f"c-{release}"]
        assert main(release, SCRIPTS[release][0], argv) == end
    assert "release 0.14.0 infers it" in capsys.readouterr().err


def test_spans_and_rows() -> None:
    assert [release for release in RELEASES if Span("0.6.0", "0.7.0").holds(release)] == [
        "0.6.0",
        "0.6.1",
    ]
    assert Span().holds("1.2.1")
    rows = (Field("b", 1), Field("a", 2, before="0.9.0"), Field("a", 3, since="0.9.0"))
    assert list(record(rows, "0.9.0", {"b": 5}).items()) == [("b", 5), ("a", 3)]
    assert record(rows, "0.8.0", {}) == {"b": 1, "a": 2}
    with pytest.raises(KeyError):
        Span().holds("0.9.1")
