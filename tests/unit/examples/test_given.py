"""Models and data of the user's own: mounted, hashed, looked at before a container starts."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from typing import TYPE_CHECKING

import jsonschema
import pytest

from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.examples import recipe
from kit.examples.asked import select
from kit.examples.plan import plan
from kit.examples.recipe import with_dataset, with_model
from kit.examples.tasks import Evaluate, Summarize
from kit.manifests import record
from kit.manifests.diff import diff, show
from kit.manifests.verify import verify
from tests.unit.examples.local import MODEL, Site
from tests.unit.examples.toys import ARTICLES

if TYPE_CHECKING:
    from pathlib import Path

    from kit.examples.recipe import Recipe

EXAMPLE = recipe.find("gpt2-tiny")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return shutil.copytree(MODEL, tmp_path / "my model")


def evaluated(rouge1: float, folder: Path = ARTICLES) -> Recipe:
    """The tiny example, evaluated on its own book."""
    build = dataclasses.replace(EXAMPLE.build, max_input_len=240, max_output_len=12)
    evaluate = Evaluate(Summarize(rouge1=rouge1, output_len=12))
    run = dataclasses.replace(EXAMPLE.run, prompts=("Alice was",), max_output_len=4)
    return with_dataset(
        dataclasses.replace(EXAMPLE, build=build, run=run, evaluate=evaluate), folder
    )


def test_a_folder_of_the_users_own_is_mounted_and_recorded(site: Site, model: Path) -> None:
    manifest = record.read(site.run(with_model(EXAMPLE, model)))
    assert {file.path: file.sha256 for file in manifest.model.files} == {
        path.name: Digest.of_file(path).hex for path in model.iterdir()
    }
    assert {
        m.source for r in site.engine.requests for m in r.mounts if m.target == "/kit/model"
    } == {model}
    assert manifest.outputs[0].text


def test_its_files_are_hashed_once(
    site: Site, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in model.iterdir():
        os.utime(path, (1_600_000_000, 1_600_000_000))
    site.run(with_model(EXAMPLE, model))
    original = Digest.of_file

    def of_file(path: Path) -> Digest:
        assert model not in path.parents, f"{path} is hashed again"
        return original(path)

    monkeypatch.setattr(Digest, "of_file", of_file)
    site.run(with_model(EXAMPLE, model))


def test_a_bad_model_is_refused_before_a_container_starts(site: Site, model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(KitError, match="allow-pickle") as caught:
        site.run(with_model(EXAMPLE, model))
    assert caught.value.exit_code == ExitCode.USAGE
    assert site.engine.requests == []


@pytest.mark.parametrize("name", ["", "model.safetensors"])
def test_what_the_containers_user_may_not_read_is_said_before(
    site: Site, model: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kit.examples.given.user_arguments", lambda: ("1000:1000", True))
    (model / name).chmod(0o700 if not name else 0o600)
    with pytest.raises(KitError, match="keeps others from reading it") as caught:
        site.run(with_model(EXAMPLE, model))
    assert caught.value.exit_code == ExitCode.USAGE
    assert caught.value.hint == f"chmod -R a+rX '{model}'"
    # Whoever is not root is the container's user as well.
    monkeypatch.setattr("kit.examples.given.user_arguments", lambda: ("1:1", False))
    assert verify(site.project, site.run(with_model(EXAMPLE, model))).ok


def test_a_link_out_of_it_is_refused(site: Site, model: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("x")
    (model / "more.txt").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KitError, match="a link out of the folder") as caught:
        site.run(with_model(EXAMPLE, model))
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize("release", ["0.5.0", "0.16.0"])
def test_an_evaluation_is_recorded_with_its_figures(site: Site, release: str) -> None:
    path = site.run(evaluated(1), release=release)
    manifest = record.read(path)
    assert verify(site.project, path).ok
    jsonschema.validate(json.loads(path.read_bytes()), json.loads(record.PUBLISHED.read_bytes()))
    figures = {(item.subject, item.metric): item for item in manifest.evaluations}
    rouge1 = figures["TensorRT-LLM beam 0", "rouge1"]
    assert (rouge1.step, rouge1.least) == ("summarize", 1.0)
    assert 1 < rouge1.value < 100
    assert manifest.dataset is not None
    (data,) = (file for file in manifest.dataset.files if file.path.endswith("test.jsonl"))
    assert data.sha256 == Digest.of_file(ARTICLES / data.path).hex
    assert f"rouge1 of TensorRT-LLM beam 0 is {rouge1.value:g}".replace("rouge", "ROUGE-") in show(
        manifest
    )


def test_articles_have_to_be_given(site: Site) -> None:
    example = dataclasses.replace(EXAMPLE, evaluate=Evaluate(Summarize()))
    with pytest.raises(KitError, match="step summarize reads articles") as caught:
        site.run(example)
    assert str(caught.value.hint).endswith(" --dataset DIR")
    assert site.engine.requests == []
    # What does not read them does not want them.
    assert site.run(example, only=("convert",)).is_file()


def test_too_little_is_a_failure_with_both_numbers(site: Site, tmp_path: Path) -> None:
    with pytest.raises(
        KitError, match=r"ROUGE-1 of TensorRT-LLM beam 0 is .*, expected 99 or more"
    ) as caught:
        site.run(evaluated(99))
    assert caught.value.exit_code == ExitCode.CONTENT
    # Less is asked for: only the evaluation is done again, for its command has changed.
    site.engine.requests.clear()
    manifest = record.read(site.run(evaluated(2), resume="latest"))
    assert [command.name for command in manifest.commands if not command.reused_from] == [
        "summarize"
    ]
    first = diff(manifest, record.read(site.run(evaluated(2))))
    assert first.ok, first.text()


def test_other_articles_are_another_evaluation_of_the_same_engine(
    site: Site, tmp_path: Path
) -> None:
    path = site.run(evaluated(1))
    other = shutil.copytree(ARTICLES, tmp_path / "articles")
    (data,) = other.rglob("test.jsonl")
    data.write_text("".join(data.read_text().splitlines(keepends=True)[:4]))
    manifest = record.read(site.run(evaluated(1, other), resume=path.parent))
    assert [command.name for command in manifest.commands if not command.reused_from] == [
        "summarize"
    ]
    assert {item.part for item in diff(record.read(path), manifest).differences} == {
        "dataset", "evaluations"
    }  # fmt: skip


def test_a_script_that_a_step_needs_lies_there_and_is_recorded(site: Site) -> None:
    script = "import sys\nprint(sys.argv)\n"
    planned = plan(EXAMPLE, "0.16.0", "/opt/tensorrt_llm/0.16.0")
    place = "/kit/work/cache/build_engine.py"
    first = dataclasses.replace(planned.steps[0], writes=((place, script),))
    changed = dataclasses.replace(planned, steps=(first, *planned.steps[1:]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kit.examples.run.plan", lambda *_words: changed)
        path = site.run()
        manifest = record.read(path)
        assert [file.path for file in manifest.commands[0].given] == ["cache/build_engine.py"]
        assert (path.parent / "cache" / "build_engine.py").read_text() == script
        assert verify(site.project, path).ok
        # Another text is another step.
        site.engine.requests.clear()
        assert site.run(resume=path.parent) == path
        other = dataclasses.replace(first, writes=((place, script + "\n"),))
        changed = dataclasses.replace(planned, steps=(other, *planned.steps[1:]))
        again = record.read(site.run(resume=path.parent))
        assert not any(command.reused_from for command in again.commands)


def test_several_hosts_are_refused(site: Site) -> None:
    example = recipe.find("gpt-530b-dummy")
    with pytest.raises(KitError, match="wants 16 ranks on 2 hosts, 8 on each") as caught:
        site.run(example)
    assert caught.value.exit_code == ExitCode.USAGE
    assert caught.value.hint == (
        "kit slurm gpt-530b-dummy --stack rehearsal --release 0.16.0 --submit"
    )


def test_steps_of_a_server_are_like_any_others() -> None:
    planned = plan(recipe.find("llama-2-7b-chat-triton"), "0.16.0")
    plain = select(planned, (), "kit run x")
    assert [step.name for step in plain.steps][:4] == ["convert", "build", "run", "repository"]
    assert plain.steps[-1].name == "serve"
    named = select(planned, ("repository", "fill"), "kit run x")
    names = [step.name for step in named.steps]
    assert names[: named.first] == ["convert", "build", "run"]
    assert names[named.first] == "repository"
    assert all(name.startswith("fill-") for name in names[named.first + 1 :])
