"""Model repositories: which backend they are for, what is left open, what does not fit."""

import pytest

from kit.artifacts import pbtxt, repository
from kit.data import layout
from kit.data import repository as table
from kit.errors import ExitCode, KitError
from tests.unit.artifacts import folders


def names(found):
    return {problem.name for problem in found.problems}


def messages(found, name):
    return [problem.message for problem in found.problems if problem.name == name]


def test_the_table_is_laid_out_and_complete():
    assert table.TABLE.read_text(encoding="utf-8") == layout.text(table.table())
    assert table.versions()[0] == "0.5.0"
    for kind in ("models", "placeholders", "parameters", "tensors"):
        for row in table.table()[kind]:
            for bounds in row["releases"]:
                first, _, last = bounds.partition("..")
                assert {first, last or first} <= set(table.versions())
    assert all(row["sources"] for row in table.table()["versions"])


@pytest.mark.parametrize("version", table.versions())
def test_the_backends_own_repository_is_recognised(tmp_path, version):
    found = repository.look(folders.repository(tmp_path, version))
    assert found.match.is_exact
    assert version in found.match.versions
    wanted = {
        (row["name"], blank["name"])
        for row in table.models(version)
        if row["family"] == "inflight_batcher_llm"
        for blank in table.placeholders(row["family"], row["name"], version)
        if any(
            table.parameter(field) or field.split(".")[0].split("[")[0] in _WRITTEN
            for field in blank["fields"][:1]
        )
    }
    assert wanted <= {(blank.model, blank.name) for blank in found.blanks} | {
        ("tensorrt_llm", "triton_backend")
    }
    left = {name for _, name in wanted}
    assert all(
        any(f"${{{name}}}" in text for text in messages(found, "placeholder-left")) for name in left
    )


_WRITTEN = {"max_batch_size", "model_transaction_policy", "instance_group"}


def test_versions_that_differ_are_told_apart(tmp_path):
    matches = {
        version: repository.look(folders.repository(tmp_path / version, version)).match.versions
        for version in table.versions()
    }
    assert matches["0.16.0"] == ("0.16.0",)
    assert matches["0.9.0"] == ("0.9.0",)
    for version, found in matches.items():
        assert all(matches[other] == found for other in found), version


def test_a_repository_that_is_filled_in(tmp_path):
    folders.new_engine(tmp_path / "engines" / "llama" / "2-gpu")
    folders.write(tmp_path / "models" / "llama", {"tokenizer.json": {}})
    fill = folders.filled(
        engine_dir="/engines/llama/2-gpu", tokenizer_dir="/data/models/llama",
        tensorrt_llm_model_name="tensorrt_llm", triton_max_batch_size="8",
    )  # fmt: skip
    for name in ("encoder_engine_dir", "visual_model_path", "multimodal_model_path"):
        fill[name] = ""
    found = repository.look(folders.repository(tmp_path / "repository", "0.16.0", fill))
    assert (found.blanks, found.problems) == ((), ())
    (first, _) = [item for item in found.engines if item.parameter == "gpt_model_path"]
    assert first.value == "/engines/llama/2-gpu"
    assert first.resolved == tmp_path / "engines" / "llama" / "2-gpu"
    assert {item.resolved for item in found.tokenizers} == {tmp_path / "models" / "llama"}
    engine = next(model for model in found.models if model.name == "tensorrt_llm")
    assert (engine.backend, engine.max_batch_size, engine.decoupled) == ("tensorrtllm", 8, False)
    assert engine.instances == (None,) or engine.instances == ()
    assert found.observations[0].version == "0.16.0"


def edited(tmp_path, model, change, version="0.16.0", fill=None):
    folder = folders.repository(tmp_path / "repository", version, fill or folders.filled())
    path = folder / model / "config.pbtxt"
    path.write_text(change(path.read_text()))
    return repository.look(folder)


def test_a_parameter_that_is_misspelt(tmp_path):
    found = edited(
        tmp_path, "tensorrt_llm", lambda text: text.replace("gpt_model_path", "gpt_model_paht")
    )
    (message,) = messages(found, "parameter-unknown")
    assert "has no parameter 'gpt_model_paht': did you mean gpt_model_path?" in message
    assert "no parameter 'gpt_model_path'" in messages(found, "parameter-missing")[0]
    assert (found.match.is_exact, found.match.versions) == (False, ("0.16.0",))


def test_a_parameter_that_was_renamed_or_came_later(tmp_path):
    def old(text):
        return text + 'parameters: { key: "max_kv_cache_length" value: { string_value: "1" } }\n'

    found = edited(tmp_path, "tensorrt_llm", old)
    (message,) = messages(found, "parameter-unknown")
    assert "since 0.7.0 max_kv_cache_length is called max_attention_window_size" in message

    def later(text):
        return text + 'parameters: { key: "participant_ids" value: { string_value: "1" } }\n'

    found = edited(tmp_path, "tensorrt_llm", later, "0.9.0")
    assert "it belongs to 0.13.0 to 1.2.1" in messages(found, "parameter-unknown")[0]


def test_an_ensemble_without_its_steps(tmp_path):
    folder = folders.repository(tmp_path, "0.16.0", folders.filled())
    (folder / "preprocessing" / "config.pbtxt").unlink()
    found = repository.look(folder)
    assert {"step-missing", "config-missing"} <= names(found)
    assert "'preprocessing'" in messages(found, "step-missing")[0]


def test_version_folders_and_model_files(tmp_path):
    folder = folders.repository(tmp_path, "0.16.0", folders.filled())
    (folder / "ensemble" / "1").rmdir()
    (folder / "postprocessing" / "1" / "model.py").unlink()
    found = repository.look(folder)
    assert "mkdir" in messages(found, "version-missing")[0]
    assert "postprocessing/1/model.py" in messages(found, "file-missing")[0]


def test_decoupled_has_to_be_the_same(tmp_path):
    found = edited(
        tmp_path, "tensorrt_llm", lambda text: text.replace("decoupled: false", "decoupled: true")
    )
    (message,) = messages(found, "decoupled-differs")
    assert "tensorrt_llm true, tensorrt_llm_bls false" in message


def test_placeholders_of_both_spellings_and_their_places(tmp_path):
    fill = folders.filled(
        tokenizer_dir="{tokenizer_dir}", triton_max_batch_size="${triton_max_batch_size}"
    )
    found = repository.look(folders.repository(tmp_path, "0.16.0", fill))
    left = {(blank.model, blank.name) for blank in found.blanks}
    assert ("preprocessing", "tokenizer_dir") in left
    assert ("tensorrt_llm", "triton_max_batch_size") in left
    assert all(blank.where.rsplit(":", 2)[1].isdecimal() for blank in found.blanks)
    texts = messages(found, "placeholder-left")
    assert any("the file no longer parses: model does not load" in text for text in texts)
    assert not found.tokenizers


def test_paths_that_are_not_reachable(tmp_path):
    fill = folders.filled(engine_dir="/engines/../../etc", tokenizer_dir="/no/such/place")
    found = repository.look(folders.repository(tmp_path, "0.16.0", fill))
    assert {item.resolved for item in (*found.engines, *found.tokenizers)} >= {None}
    assert "path-unreachable" in names(found)
    folders.write(tmp_path, {"place/x.bin": "x"})
    found = repository.look(
        folders.repository(tmp_path, "0.16.0", folders.filled(tokenizer_dir="place"))
    )
    assert "tokenizer-missing" in names(found)


def test_a_damaged_configuration_spares_the_others(tmp_path):
    found = edited(tmp_path, "tensorrt_llm_bls", lambda text: text + "parameters: {")
    (problem,) = [item for item in found.problems if item.name == "config-damaged"]
    assert problem.is_corrupt
    assert "config.pbtxt:" in problem.message
    assert len(found.models) == 4


def test_models_with_names_of_their_own(tmp_path):
    folder = folders.repository(tmp_path, "0.16.0", folders.filled())
    (folder / "tensorrt_llm").rename(folder / "mistral_tensorrt_llm")
    (folder / "preprocessing").rename(folder / "preprocessing_mistral")
    roles = {model.name: model.role for model in repository.look(folder).models}
    assert roles["mistral_tensorrt_llm"] == "tensorrt_llm"
    assert roles["preprocessing_mistral"] == "preprocessing"
    folders.write(
        folder, {"other/config.pbtxt": 'backend: "onnxruntime"', "other/1/model.onnx": b""}
    )
    roles = {model.name: model.role for model in repository.look(folder).models}
    assert roles["other"] is None


def test_models_of_other_backends_alone(tmp_path):
    folders.write(
        tmp_path, {"resnet/config.pbtxt": 'backend: "onnxruntime"', "resnet/1/m.onnx": b""}
    )
    found = repository.look(tmp_path)
    assert (found.match.versions, names(found)) == ((), {"models-unknown"})


def test_odd_values_are_no_traceback(tmp_path):
    config = (
        'name: 5 backend { } max_batch_size: "x" parameters: 7 parameters { key { } value: 3 }\n'
        'parameters { key: "gpt_model_path" value { string_value: "\\000\\xff" } }\n'
        'parameters { key: "tokenizer_dir" value { string_value: "' + "a/" * 3000 + '" } }\n'
        "instance_group: 1 instance_group { count: -1 } input: 3 input { name: 4 }\n"
        "ensemble_scheduling { step: 1 step { model_name { } } } model_transaction_policy: 5\n"
    )
    folders.write(tmp_path, {"tensorrt_llm/config.pbtxt": config})
    found = repository.look(tmp_path)
    assert found.models[0].backend is None


def test_no_repository(tmp_path):
    def refused(folder):
        with pytest.raises(KitError) as error:
            repository.look(folder)
        return error.value

    assert refused(tmp_path).exit_code == ExitCode.CONTENT
    assert refused(tmp_path / "no").exit_code == ExitCode.USAGE
    folder = folders.repository(tmp_path / "inflight_batcher_llm")
    assert refused(tmp_path).hint == f"kit inspect {folder}"
    assert refused(folder / "ensemble").hint == f"kit inspect {folder}"
    (folder / "ensemble" / "config.pbtxt").write_bytes(b"#" * (pbtxt.SIZE_LIMIT + 1))
    found = repository.look(folder)
    assert "at most 1.0 MB" in messages(found, "config-damaged")[0]
