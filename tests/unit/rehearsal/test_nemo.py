"""NeMo archives: the same network whatever it was trained on and whichever release reads it."""

from __future__ import annotations

import io
import json
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit_rehearsal import nemo, torch_pickle
from kit_rehearsal.commands import SCRIPTS, main
from kit_rehearsal.communicator import SingleRank
from kit_rehearsal.decoder import Decoder
from kit_rehearsal.engine import Engine
from kit_rehearsal.errors import BackendError, NotComputedError
from kit_rehearsal.releases import RELEASES, Span
from kit_rehearsal.split import Placement, rank_weights
from kit_rehearsal.tokens import SentencePieceTokenizer

from tests.conftest import peer
from tests.unit.rehearsal.archives import (
    CONFIG,
    HIDDEN,
    GptNext,
    archived,
    sentencepiece_model,
    stored,
)
from tests.unit.rehearsal.conftest import ROOT
from tests.unit.rehearsal.test_run import on_ranks, rows_of

torch = peer("torch")
VOCABULARY = 160
TEXT = "Alice was beginning to"
LEARNED = {
    **CONFIG,
    "activation": "gelu",
    "normalization": "layernorm",
    "bias": True,
    "position_embedding_type": "learned_absolute",
    "share_embeddings_and_output_weights": True,
}


@pytest.fixture(scope="module")
def spm() -> bytes:
    text = (ROOT / "kit" / "examples" / "models" / "alice29.txt").read_text()
    return sentencepiece_model(text, VOCABULARY)


@pytest.fixture(scope="module")
def next_model() -> GptNext:
    return GptNext(VOCABULARY)


@pytest.fixture(scope="module")
def archive(next_model, spm, tmp_path_factory):
    return next_model.save(tmp_path_factory.mktemp("nemo") / "next.nemo", spm)


def decoder(network, rank=0, size=1, ranks=None) -> Decoder:
    weights = rank_weights(network, Placement(rank, size))
    engine = Engine("0.9.0", rank, size, 1, "float32", network.shape, weights)
    return Decoder(engine, ranks or SingleRank())


@pytest.mark.parametrize("config", [CONFIG, LEARNED], ids=["next", "learned"])
@pytest.mark.parametrize(
    ("tp", "pp", "mode"), [(1, 1, "w"), (2, 1, "w:gz"), (1, 2, "w"), (2, 2, "w")]
)
def test_any_training_gives_the_network(config, tp, pp, mode, spm, tmp_path) -> None:
    model = GptNext(VOCABULARY, dict(config))
    path = model.save(tmp_path / "m.nemo", spm, tp, pp, mode)
    network = nemo.read_model(nemo.Archive.open(path))
    ids = [5, 9, 100, 7, 150, 5]
    ours = decoder(network)
    found = ours.logits(ids, ours.cache(8), last_only=False)
    assert np.allclose(found, model.logits(ids).numpy(), atol=2e-5)


def convert(release: str, archive, tmp_path, tp: int) -> tuple[int, object, object]:
    """The release's own scripts from the archive to the engine; engine, checkpoint folder."""
    checkpoint, engine = tmp_path / f"c{tp}", tmp_path / f"e{tp}"
    sizes = ["--max_batch_size", "2", "--max_input_len", "40", "--output_dir", str(engine)]
    length = "--max_output_len" if Span(before="0.11.0").holds(release) else "--max_seq_len"
    sizes += [length, "30" if length == "--max_output_len" else "70"]
    table = ["--max_prompt_embedding_table_size", "12"]
    if Span(before="0.9.0").holds(release):
        argv = [
            "--in-file",
            str(archive),
            "--out-dir",
            str(checkpoint),
            "-tp",
            str(tp),
            "-t",
            "float32",
        ]
        assert main(release, "examples/gpt/nemo_ckpt_convert.py", argv) == 0
        checkpoint = checkpoint / f"{tp}-gpu"
        argv = ["--model_dir", str(checkpoint), "--world_size", str(tp), *sizes, *table]
        assert main(release, "examples/gpt/build.py", argv) == 0
    else:
        argv = ["--nemo_ckpt_path", str(archive), "--dtype", "float32", "--tp_size", str(tp)]
        assert main(release, SCRIPTS[release][0], [*argv, "--output_dir", str(checkpoint)]) == 0
        argv = ["--checkpoint_dir", str(checkpoint), *sizes, *table]
        assert main(release, "trtllm-build", argv) == 0
    return checkpoint, engine


@pytest.mark.parametrize("release", RELEASES)
def test_every_release_says_what_the_network_says(
    release, archive, next_model, spm, tmp_path, world
) -> None:
    old = Span(before="0.7.0").holds(release)
    for tp in (1, 2):
        checkpoint, engine = convert(release, archive, tmp_path, tp)
        assert (checkpoint / "tokenizer.model").read_bytes() == spm
        output = tmp_path / f"{tp}.csv"
        argv = ["--engine_dir", str(engine), "--vocab_file", str(checkpoint / "tokenizer.model")]
        argv += ["--input_text", TEXT, "--max_output_len", "12", "--output_csv", str(output)]
        script = "examples/gpt/run.py" if old else "examples/run.py"
        argv += [] if old else ["--no_add_special_tokens"]
        on_ranks(world(tp), release, script, argv)
    ids = SentencePieceTokenizer(str(checkpoint / "tokenizer.model")).encode(TEXT, special=False)
    expected = next_model.greedy(ids, 12)
    end = 50256 if old else 2
    expected = expected[: expected.index(end)] if end in expected else expected
    for tp in (1, 2):
        assert rows_of(tmp_path / f"{tp}.csv")[0][: len(ids) + len(expected)] == [*ids, *expected]


@pytest.mark.parametrize("release", ["0.9.0", "0.11.0", "0.16.0"])
def test_what_the_checkpoint_says(release, archive, tmp_path) -> None:
    checkpoint, engine = convert(release, archive, tmp_path, 2)
    config = json.loads((checkpoint / "config.json").read_text())
    assert config["hidden_act"] == "fast-swiglu"
    assert config["position_embedding_type"] == "rope_gpt_neox"
    assert config["rotary_pct"] == 0.5
    assert config["bias"] is False
    assert (config["use_parallel_embedding"], config["embedding_sharding_dim"]) == (True, 0)
    assert config["vocab_size"] == VOCABULARY
    built = json.loads((engine / "config.json").read_text())["pretrained_config"]
    assert built["rotary_pct"] == 0.5
    assert built["bias"] is False


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--pp_size", "2"], "--pp_size 1, found 2"),
        (["--use_weight_only"], "does not go with --use_weight_only"),
        (["--smoothquant", "0.5"], "does not go with --smoothquant"),
    ],
)
def test_what_goes_with_no_archive(more, text, archive, tmp_path, capsys) -> None:
    argv = ["--nemo_ckpt_path", str(archive), "--output_dir", str(tmp_path), *more]
    assert main("0.16.0", "examples/gpt/convert_checkpoint.py", argv) == 1
    assert text in capsys.readouterr().err


def test_renamed_tensors(next_model, spm, tmp_path) -> None:
    part = {
        f"model.language_model.{name}".replace("self_attention", "attn"): value
        for name, value in next_model.weights.items()
    }
    files = {"model_config.yaml": json.dumps(CONFIG).encode(), "model_weights.ckpt": stored(part)}
    path = archived(tmp_path / "m.nemo", files)
    with pytest.raises(BackendError, match=r"attention.qkv.weight: expected shape .*, found None"):
        nemo.read_model(nemo.Archive.open(path))
    network = nemo.read_model(nemo.Archive.open(path), ["attn:self_attention"])
    assert network.shape.vocab_size == VOCABULARY


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"num_query_groups": 2}, "num_query_groups = 2"),
        ({"seq_len_interpolation_factor": 2}, "seq_len_interpolation_factor = 2"),
        ({"normalization": "rmsnorm"}, "normalization = rmsnorm"),
        ({"position_embedding_type": "alibi"}, "position_embedding_type = alibi"),
        ({"bias": True}, "biases of a gated MLP"),
    ],
)
def test_networks_that_are_not_computed(change, text, next_model, tmp_path) -> None:
    config = json.dumps({**CONFIG, **change}).encode()
    path = archived(tmp_path / "m.nemo", {"model_config.yaml": config})
    with pytest.raises(NotComputedError, match=text):
        nemo.read_model(nemo.Archive.open(path))


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({}, "expected one model_config.yaml, found"),
        ({"model_config.yaml": b"["}, "not YAML"),
        ({"model_config.yaml": b"- 1"}, "expected a mapping"),
        ({"model_config.yaml": b"num_layers: 1"}, "num_attention_heads"),
        ({"model_config.yaml": json.dumps(CONFIG).encode()}, "no model_weights.ckpt in it"),
        (
            {"model_config.yaml": json.dumps(CONFIG).encode(), "model_weights.ckpt": b"\x80\x02}."},
            "not a file of PyTorch 1.6",
        ),
    ],
)
def test_archives_that_are_none(files, text, tmp_path) -> None:
    with pytest.raises(BackendError, match=text):
        nemo.read_model(nemo.Archive.open(archived(tmp_path / "m.nemo", files)))


def test_no_archive_at_all(tmp_path) -> None:
    (tmp_path / "m.nemo").write_bytes(b"no tar" * 200)
    with pytest.raises(BackendError, match=r"not a \.nemo archive"):
        nemo.Archive.open(tmp_path / "m.nemo")
    with pytest.raises(BackendError, match="no such file"):
        nemo.Archive.open(tmp_path / "none.nemo")


def prompt_archive(path, kind: str):
    torch.manual_seed(2)
    tables = [torch.randn(4, HIDDEN) * 0.3, torch.randn(6, HIDDEN) * 0.3]
    if kind == "peft":
        config = {"peft": {"peft_scheme": "ptuning"}, "hidden_size": HIDDEN}
        name = "model.embedding.adapter_layer.ptuning_adapter.inference_table"
        weights: dict = {name: tables[0]}
    else:
        config = {"task_templates": [{"taskname": n} for n in ("a", "missing", "b")]}
        weights = {
            "prompt_table": {
                f"prompt_table.{n}.prompt_embeddings.weight": table
                for n, table in zip("ab", tables, strict=True)
            }
        }
    files = {"model_config.yaml": json.dumps(config).encode()}
    archived(path, {**files, "mp_rank_00/model_weights.ckpt": stored(weights)})
    return tables


@pytest.mark.parametrize("kind", ["peft", "learned"])
@pytest.mark.parametrize("release", ["0.5.0", "0.18.2", "1.2.1"])
def test_prompt_tables(kind, release, tmp_path) -> None:
    tables = prompt_archive(tmp_path / "p.nemo", kind)
    place = "examples/gpt/nemo_prompt_convert.py"
    place = (
        place if place in SCRIPTS[release] else "examples/models/core/gpt/nemo_prompt_convert.py"
    )
    argv = ["-i", str(tmp_path / "p.nemo"), "-o", str(tmp_path / "table.npy")]
    assert main(release, place, argv) == 0
    found = np.load(tmp_path / "table.npy")
    if kind == "peft":
        assert np.array_equal(found, tables[0][None].numpy())
        return
    assert found.shape == (2, 6, HIDDEN)
    assert np.array_equal(found[0, :4], tables[0].numpy())
    assert not found[0, 4:].any()
    assert np.array_equal(found[1], tables[1].numpy())


@pytest.mark.parametrize("release", ["0.5.0", "0.8.0", "0.9.0", "0.16.0", "1.2.1"])
@pytest.mark.parametrize("tp", [1, 2])
def test_virtual_tokens_are_the_tables_vectors(
    release, tp, archive, next_model, spm, tmp_path, world
) -> None:
    tables = prompt_archive(tmp_path / "p.nemo", "learned")
    table = tmp_path / "table.npy"
    script = next(s for s in SCRIPTS[release] if s.endswith("nemo_prompt_convert.py"))
    assert main(release, script, ["-i", str(tmp_path / "p.nemo"), "-o", str(table)]) == 0
    checkpoint, engine = convert(release, archive, tmp_path, tp)
    vocab = str(checkpoint / "tokenizer.model")
    words = SentencePieceTokenizer(vocab).encode(TEXT, special=False)
    virtual = list(range(VOCABULARY, VOCABULARY + 4))
    (tmp_path / "in.csv").write_text(
        "\n".join(",".join(map(str, [*virtual, *words])) for _ in "ab")
    )
    old = Span(before="0.7.0").holds(release)
    names = ("--prompt_table", "--tasks") if old else ("--prompt_table_path", "--prompt_tasks")
    flag = "--input_tokens" if old else "--input_file"
    argv = ["--engine_dir", str(engine), "--vocab_file", vocab, "--max_output_len", "6"]
    argv += [names[0], str(table), names[1], "1,0", "--output_csv", str(tmp_path / "o.csv")]
    run = "examples/gpt/run.py" if old else "examples/run.py"
    on_ranks(world(tp), release, run, [*argv, flag, str(tmp_path / "in.csv")])
    found = rows_of(tmp_path / "o.csv")
    # The same network whose vocabulary is longer by a task's vectors.
    for row, vectors in zip(found, (tables[1], tables[0]), strict=True):
        longer = GptNext(VOCABULARY)
        longer.weights = {**next_model.weights}
        name = "embedding.word_embeddings.weight"
        longer.weights[name] = torch.cat([next_model.weights[name], vectors[:4]])
        expected = longer.greedy([*virtual, *words], 6)
        end = 50256 if old else 2
        expected = expected[: expected.index(end)] if end in expected else expected
        start = len(virtual) + len(words)
        assert row[: start + len(expected)] == [*virtual, *words, *expected]
    if not old:
        argv[argv.index("1,0")] = "1"
        more = ["--num_prepend_vtokens", "4", "--input_text", TEXT, "--no_add_special_tokens"]
        on_ranks(world(tp), release, run, [*argv, *more])
        assert rows_of(tmp_path / "o.csv") == found[:1]


@pytest.mark.parametrize(
    ("tasks", "ids", "rows", "text"),
    [
        ("2", [1], (2, 4), "task 2: the prompt table has 2 tasks"),
        ("0,1", [1], (2, 4), "2 tasks for 1 prompts"),
        ("x", [1], (2, 4), "expected numbers such as 0,1,0"),
        ("0", [VOCABULARY + 4], (2, 4), "token 164: there are 164 tokens with its prompt table"),
        ("0", [1], (2, 7), "14 rows: the engine has max_prompt_embedding_table_size 12"),
        (None, [VOCABULARY], None, "token 160: there are 160 tokens without a prompt table"),
    ],
)
def test_tables_that_do_not_fit(tasks, ids, rows, text, archive, tmp_path, capsys) -> None:
    checkpoint, engine = convert("0.16.0", archive, tmp_path, 1)
    (tmp_path / "in.csv").write_text(",".join(map(str, ids)))
    argv = ["--engine_dir", str(engine), "--vocab_file", str(checkpoint / "tokenizer.model")]
    argv += ["--max_output_len", "2", "--input_file", str(tmp_path / "in.csv")]
    if rows is not None:
        np.save(tmp_path / "t.npy", np.zeros((*rows, HIDDEN), dtype=np.float32))
        argv += ["--prompt_table_path", str(tmp_path / "t.npy"), "--prompt_tasks", tasks]
    assert main("0.16.0", "examples/run.py", argv) == 1
    assert text in capsys.readouterr().err


# The reader of PyTorch's files.


class Harm:
    def __reduce__(self):
        return print, ("harm",)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16], ids=["f32", "f16", "bf16"]
)
def test_tensors_are_those_of_torch(dtype) -> None:
    torch.manual_seed(0)
    whole = torch.randn(6, 8).to(dtype)
    saved = {
        "whole": whole,
        "turned": whole.T,
        "part": whole[1:5:2, 3:],
        "parameter": torch.nn.Parameter(whole[0]),
        "nothing": whole[:0],
        "one": whole[2, 3],
        "deep": {"a": [whole[0], "text", 3, None, True]},
    }
    found = torch_pickle.load(io.BytesIO(stored(saved)), "x")
    for name in ("whole", "turned", "part", "parameter", "nothing", "one"):
        assert np.array_equal(found[name], saved[name].detach().float().numpy()), name
    assert found["deep"]["a"][1:] == ["text", 3, None, True]


def test_state_dictionaries_of_modules() -> None:
    module = torch.nn.Linear(3, 2)
    found = torch_pickle.load(io.BytesIO(stored(module.state_dict())), "x")
    assert np.array_equal(found["weight"], module.weight.detach().numpy())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": Harm()}, "refused: its pickle asks for (__builtin__|builtins).print"),
        ({"a": torch.nn.Linear(1, 1)}, "refused: its pickle asks for torch.nn"),
        ({"a": np.zeros(2)}, "refused: its pickle asks for numpy"),
        ({"a": torch.zeros(2, dtype=torch.int64)}, "a tensor in LongStorage"),
        ({"a": torch.zeros(1).expand(9)}, r"a tensor \[9\] does not lie in its storage"),
        ([1], "expected a dictionary, found list"),
    ],
)
def test_anything_but_tensors_is_refused_by_name(value, text, capsys) -> None:
    with pytest.raises(BackendError, match=text):
        torch_pickle.load(io.BytesIO(stored(value)), "x")
    assert capsys.readouterr().out == ""


def test_storages_that_are_too_short() -> None:
    data = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(stored({"a": torch.ones(8)}))) as old,
        zipfile.ZipFile(data, "w") as new,
    ):
        for entry in old.infolist():
            content = old.read(entry)
            new.writestr(entry.filename, content[:-4] if "/data/" in entry.filename else content)
    with pytest.raises(BackendError, match="expected 32 bytes, found 28"):
        torch_pickle.load(data, "x")


def test_compressed_files_are_refused() -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as new:
        new.writestr("x/data.pkl", pickle.dumps({}) + bytes(1000))
    with pytest.raises(BackendError, match="that are not compressed"):
        torch_pickle.load(data, "x")


@given(st.integers(0, 10**6), st.integers(0, 255))
def test_a_changed_byte_never_does_more_than_fail(place, value) -> None:
    content = bytearray(SMALL)
    content[place % len(content)] = value
    try:
        found = torch_pickle.load(io.BytesIO(bytes(content)), "x")
    except BackendError:
        return
    assert isinstance(found, dict)


SMALL = stored({"a": torch.ones(3), "b": {"c": torch.zeros(2, 2)}})
