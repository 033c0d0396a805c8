"""summarize.py: the toy dataset, ROUGE, perplexity, thresholds, ranks."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from kit_rehearsal import datasets, rouge
from kit_rehearsal.commands import SCRIPTS, main
from kit_rehearsal.errors import BackendError
from kit_rehearsal.releases import RELEASES, Span
from kit_rehearsal.tokens import Tokenizer

from tests.conftest import peer
from tests.unit.rehearsal.conftest import MODEL, ROOT
from tests.unit.rehearsal.test_llama import write_model

peer("rouge_score")
DATASETS = ROOT / "kit" / "examples" / "datasets" / "alice"
PLACE = DATASETS / "ccdv" / "cnn_dailymail"
SCORE = re.compile(r"beam (\d) result|(rouge\w+) : ([0-9.]+)|(Per-token perplexity): ([0-9.]+)")


def arguments(release: str, engine, *more: str, dataset=DATASETS, script="gpt") -> tuple:
    old = Span(before="0.6.0").holds(release)
    place = f"examples/{script}/summarize.py" if old else "examples/summarize.py"
    option = "--dataset_dir" if Span("0.10.0").holds(release) else "--dataset_path"
    model = "--hf_model_location" if old else "--hf_model_dir"
    argv = ["--engine_dir", str(engine), model, str(MODEL), option, str(dataset), *more]
    return release, place, argv


def scores(text: str) -> list[dict[str, float]]:
    """One dictionary a beam, in the order of the log."""
    found: list[dict[str, float]] = []
    for beam, key, value, word, number in SCORE.findall(text):
        if beam:
            found.append({})
        else:
            found[-1][key or word] = float(value or number)
    return found


def prompts(count: int) -> list[tuple[str, str]]:
    lines = (PLACE / "test.jsonl").read_text().splitlines()[:count]
    entries = [json.loads(line) for line in lines]
    return [(f"{entry['article']} TL;DR:", entry["highlights"]) for entry in entries]


def test_the_dataset_is_what_its_readme_says() -> None:
    text = (ROOT / "kit" / "examples" / "models" / "alice29.txt").read_text()
    chapters = re.split(r"\n +CHAPTER [IVX]+\n", text)[1:]
    records = [json.loads(line) for line in (PLACE / "test.jsonl").read_text().splitlines()]
    assert len(chapters) == len(records) == 12
    tokenizer = Tokenizer(str(MODEL))
    for number, (chapter, record) in enumerate(zip(chapters, records, strict=True), start=1):
        assert sorted(record) == ["article", "highlights", "id"]
        assert record["id"] == f"alice-{number:02d}"
        _, body = re.split(r"\n\s*\n", chapter.strip(), maxsplit=1)
        body = body.lstrip()
        assert body.startswith(record["article"])
        rest = body.removeprefix(record["article"])
        assert rest.lstrip().startswith(record["highlights"])
        assert rest[0].isspace()
        assert len(record["article"]) <= 160
        assert len(record["highlights"]) <= 240
        asked = tokenizer.encode(record["article"] + " TL;DR:", special=False)
        assert 78 <= len(asked) <= 96


@pytest.mark.parametrize("release", RELEASES)
def test_every_release_gives_the_scores_of_its_greedy_tokens(release, pipeline, capsys) -> None:
    engine = pipeline(release)
    capsys.readouterr()
    more = ["--test_trt_llm", "--test_hf", "--max_ite", "1", "--batch_size", "2"]
    assert main(*arguments(release, engine, *more, "--output_len", "12")) == 0
    log = capsys.readouterr().err
    assert "computed by kit-rehearsal and not by transformers" in log
    ours, theirs = scores(log)
    assert sorted(ours) == sorted(rouge.TYPES)
    assert ours["rouge1"] > 0
    # The committed weights are float16, so an engine in it and the model itself say the same.
    assert ours == theirs


def test_scores_are_those_of_transformers_and_rouge_score(pipeline, model, capsys) -> None:
    torch, transformers = peer("torch"), peer("transformers")
    engine = pipeline("0.16.0", dtype="float32")
    more = ["--test_trt_llm", "--max_ite", "4", "--output_len", "40"]
    assert main(*arguments("0.16.0", engine, *more)) == 0
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model).float().eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    said = []
    for text, _ in prompts(4):
        ids = torch.tensor([tokenizer.encode(text)])
        with torch.no_grad():
            made = loaded.generate(ids, max_new_tokens=40, do_sample=False, pad_token_id=383)
        said.append(tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True))
    expected = rouge.score(said, [highlights for _, highlights in prompts(4)])
    (found,) = scores(capsys.readouterr().err)
    assert found == pytest.approx(expected)


def test_perplexity_is_that_of_transformers(pipeline, model, capsys) -> None:
    torch, transformers = peer("torch"), peer("transformers")
    engine = pipeline("0.16.0", dtype="float32", build=["--gather_all_token_logits"])
    more = ["--test_trt_llm", "--eval_ppl", "--max_ite", "2", "--output_len", "20"]
    assert main(*arguments("0.16.0", engine, *more)) == 0
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model).float().eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    expected = []
    for text, _ in prompts(2):
        ids = torch.tensor([tokenizer.encode(text)])
        with torch.no_grad():
            whole = loaded.generate(ids, max_new_tokens=20, do_sample=False, pad_token_id=383)
            expected.append(float(torch.exp(loaded(whole, labels=whole).loss)))
    (found,) = scores(capsys.readouterr().err)
    assert found["Per-token perplexity"] == pytest.approx(np.mean(expected), rel=1e-4)


def test_perplexity_needs_logits(pipeline, capsys) -> None:
    engine = pipeline("0.16.0")
    assert main(*arguments("0.16.0", engine, "--test_trt_llm", "--eval_ppl")) == 1
    assert "--gather_all_token_logits" in capsys.readouterr().err


@pytest.mark.parametrize("release", ["0.5.0", "0.8.0", "1.2.1"])
def test_thresholds(release, pipeline, capsys) -> None:
    build = ["--gather_all_token_logits"]
    engine = pipeline(release, build=build)
    more = ["--test_trt_llm", "--check_accuracy", "--max_ite", "2", "--output_len", "50"]
    assert main(*arguments(release, engine, *more, "--tensorrt_llm_rouge1_threshold", "5")) == 0
    (found,) = scores(capsys.readouterr().err)
    high = [*more, "--tensorrt_llm_rouge1_threshold", str(found["rouge1"])]
    assert main(*arguments(release, engine, *high)) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"rouge1 is {found['rouge1']}, expected more than {found['rouge1']}" in error
    if release != "0.5.0":
        least = ["--tensorrt_llm_rouge1_threshold", "5", "--eval_ppl"]
        low = [*more, *least, "--tensorrt_llm_ppl_threshold", "1.5"]
        assert main(*arguments(release, engine, *low)) == 1
        assert "expected less than 1.5" in capsys.readouterr().err


def test_beams_have_scores_of_their_own(pipeline, capsys, tmp_path) -> None:
    engine = pipeline("0.16.0", build=["--max_beam_width", "2"])
    more = ["--test_trt_llm", "--num_beams", "2", "--max_ite", "2", "--output_len", "30"]
    output = ["--output_dir", str(tmp_path / "texts")]
    assert main(*arguments("0.16.0", engine, *more, *output)) == 0
    first, second = scores(capsys.readouterr().err)
    assert first != second
    lines = (tmp_path / "texts" / "trtllm.out").read_text()
    assert lines.startswith(f"Engine path: {engine}\nTokenizer path: {MODEL}\n[0] [Beam 0] ")
    assert "\n[1] [Beam 1] " in lines


def test_ranks_say_the_same(pipeline, world, capsys) -> None:
    found = []
    for size in (1, 2):
        engine = pipeline("0.9.0", tp=size, name=f"tp{size}")
        capsys.readouterr()
        more = ["--test_trt_llm", "--test_hf", "--max_ite", "1", "--output_len", "20"]
        line = arguments("0.9.0", engine, *more)
        done = world(size).run(lambda rank, line=line: main(*line, ranks=lambda: rank))
        assert done == [0] * size
        found.append(scores(capsys.readouterr().err))
    assert found[0] == found[1]
    assert len(found[0]) == 2


def test_short_articles_are_left_out(pipeline, capsys) -> None:
    engine = pipeline("0.16.0")
    more = ["--test_trt_llm", "--output_len", "4", "--batch_size", "2"]
    assert main(*arguments("0.16.0", engine, *more, "--min_input_length", "95")) == 0
    assert "(total output tokens: 4)" in capsys.readouterr().err  # one article has 96 tokens
    assert main(*arguments("0.16.0", engine, *more, "--min_input_length", "200")) == 1
    assert "no article was long enough" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("{", "test.jsonl:2: not JSON"),
        ('{"article": "a"}', "test.jsonl:2: expected the texts article and highlights"),
        ("[]", "test.jsonl:2: expected"),
    ],
)
def test_lines_that_are_no_records(line, text, tmp_path) -> None:
    good = '{"article": "a", "highlights": "b"}'
    (tmp_path / "test.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(BackendError, match=text):
        datasets.read(tmp_path)
    (tmp_path / "test.jsonl").write_text("")
    with pytest.raises(BackendError, match="no records"):
        datasets.read(tmp_path)


def test_the_dataset_is_found_below_the_folder_or_is_it() -> None:
    assert datasets.find("--dataset_dir", f"{DATASETS}/") == PLACE
    assert datasets.find("--dataset_dir", str(PLACE)) == PLACE
    with pytest.raises(BackendError, match=r"no such file: .*alice/ccdv/ccdv/cnn_dailymail"):
        datasets.find("--dataset_dir", str(PLACE.parent))


@pytest.mark.parametrize("release", ["0.5.0", "0.9.0", "0.10.0"])
def test_nothing_is_downloaded(release, pipeline, capsys) -> None:
    engine = pipeline(release)
    _, script, argv = arguments(release, engine, "--test_trt_llm")
    place = argv.index("--dataset_dir" if release == "0.10.0" else "--dataset_path")
    assert main(release, script, argv[:place] + argv[place + 2 :]) == 1
    assert "is not given, and nothing is downloaded" in capsys.readouterr().err


def test_the_metric_is_said_to_come_from_the_hub(pipeline, capsys, tmp_path) -> None:
    engine = pipeline("0.11.0")
    more = ["--test_trt_llm", "--max_ite", "1", "--output_len", "2"]
    assert main(*arguments("0.11.0", engine, *more)) == 0
    assert "would read the metric from the Hub" in capsys.readouterr().err
    assert main(*arguments("0.11.0", engine, *more, "--rouge_dir", str(tmp_path))) == 0
    assert "Hub" not in capsys.readouterr().err
    assert main(*arguments("0.11.0", engine, *more, "--rouge_dir", str(tmp_path / "no"))) == 1
    assert "would ask the Hub instead" in capsys.readouterr().err


def test_other_tasks_are_not_computed(pipeline, capsys) -> None:
    engine = pipeline("0.9.0")
    assert main(*arguments("0.9.0", engine, "--eval_task", "code_completion")) == 1
    assert "does not compute other tasks than summaries" in capsys.readouterr().err


def test_both_families_of_the_first_release_have_the_script() -> None:
    assert {"examples/gpt/summarize.py", "examples/llama/summarize.py"} <= set(SCRIPTS["0.5.0"])


@pytest.mark.parametrize("release", ["0.5.0", "0.16.0"])
def test_llama_is_summarized_as_well(release, tmp_path, capsys) -> None:
    # What build.py of 0.5.0 takes for granted, whatever the model says.
    model = write_model(tmp_path / "llama", rope_theta=10000.0, rms_norm_eps=1e-06)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (model / name).write_bytes((MODEL / name).read_bytes())
    engine, sizes = tmp_path / "e", ["--max_batch_size", "2", "--max_input_len", "100"]
    if release == "0.5.0":
        argv = ["--model_dir", str(model), "--dtype", "float16", "--output_dir", str(engine)]
        argv += ["--max_output_len", "100", *sizes, "--use_gpt_attention_plugin", "float16"]
        assert main(release, "examples/llama/build.py", argv) == 0
        place, named = "examples/llama/summarize.py", "--hf_model_location"
    else:
        argv = ["--model_dir", str(model), "--output_dir", str(tmp_path / "c")]
        script = "examples/llama/convert_checkpoint.py"
        assert main(release, script, [*argv, "--dtype", "float16"]) == 0
        argv = ["--checkpoint_dir", str(tmp_path / "c"), "--output_dir", str(engine)]
        assert main(release, "trtllm-build", [*argv, "--max_seq_len", "200", *sizes]) == 0
        place, named = "examples/summarize.py", "--hf_model_dir"
    option = "--dataset_path" if release == "0.5.0" else "--dataset_dir"
    argv = ["--engine_dir", str(engine), named, str(model), option, str(DATASETS)]
    more = ["--test_trt_llm", "--test_hf", "--max_ite", "1", "--data_type", "fp16"]
    assert main(release, place, [*argv, *more]) == 0
    ours, theirs = scores(capsys.readouterr().err)
    assert ours == theirs
