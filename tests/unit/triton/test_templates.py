"""The repository, the tools and their options of every version of the backend, as the tables have them."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import pytest

from kit.artifacts import pbtxt, repository
from kit.data import repository as shared
from tests.conftest import ROOT

from kit_rehearsal_triton import fill_template, install, launch, table, templates  # isort: skip

FAMILY = table.FAMILY
VERSIONS = shared.versions()
VALUES = {
    "int": "2",
    "float": "0.5",
    "bool": "false",
    "int list": "8",
    "list": "0",
    "path": "/kit/model",
    "string": "some",
    "tensor type": "TYPE_FP32",
}
COMMAND = (
    "mpirun --allow-run-as-root -n 1 /opt/tritonserver/bin/tritonserver --model-repository=/M{ports}"
    " --disable-auto-complete-config --backend-config=python,shm-region-prefix-name=prefix0_ :"
)
PORTS = " --grpc-port=8001 --http-port=8000 --metrics-port=8002"


def models(version):
    return [row["name"] for row in shared.models(version) if row["family"] == FAMILY]


def written(folder, version):
    install.tree(folder, version)
    return folder / "all_models" / FAMILY


def given(model, version):
    """A value for every placeholder that the kit's table has of a model."""
    found = {}
    for row in shared.placeholders(FAMILY, model, version):
        found[row["name"]] = row["values"][0] if row.get("values") else VALUES[row["kind"]]
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_every_placeholder_of_the_table_is_filled_in(tmp_path, version) -> None:
    place = written(tmp_path, version)
    for model in models(version):
        path = place / model / "config.pbtxt"
        pairs = ",".join(f"{name}:{value}" for name, value in given(model, version).items())
        if pairs:
            assert fill_template.main(version, ["-i", str(path), pairs]) == 0
        config = pbtxt.parse(path.read_text(), str(path))
        tensors = {
            f"{way}:{item.text('name')}"
            for way in ("input", "output")
            for item in config.messages(way)
        }
        assert tensors == shared.tensors(FAMILY, model, version)
    found = repository.look(place)
    assert version in found.match.versions
    assert not found.match.unknown
    assert not found.blanks
    assert {model.name for model in found.models} == set(models(version))


@pytest.mark.parametrize("version", VERSIONS)
def test_what_a_file_does_not_have(tmp_path, version, capsys) -> None:
    path = written(tmp_path, version) / "tensorrt_llm" / "config.pbtxt"
    before = path.read_text()
    code = fill_template.main(version, ["-i", str(path), "decoupled_mode:true,bogus:1"])
    if table.since(version, "0.19.0"):
        assert code == 1
        assert "'bogus': no such placeholder" in capsys.readouterr().err
        assert path.read_text() == before
    else:
        assert code == 0
        assert "decoupled: true" in path.read_text()
        assert "${engine_dir}" in path.read_text()


@pytest.mark.parametrize(
    ("version", "value", "expected"),
    [("0.15.0", "a\\:b", None), ("0.16.0", "a\\:b\\,c", "a:b,c"), ("1.2.1", "a:b", None)],
)
def test_a_comma_or_colon_in_a_value(tmp_path, version, value, expected, capsys) -> None:
    path = written(tmp_path, version) / "tensorrt_llm" / "config.pbtxt"
    code = fill_template.main(version, [str(path), f"gpu_device_ids:{value}"])
    told = capsys.readouterr()
    if expected is None:
        assert code == 1
        assert "expected name:value" in told.err
    else:
        assert code == 0
        assert f'string_value: "{expected}"' in told.out


@pytest.mark.parametrize("version", VERSIONS)
def test_max_queue_size_is_supplied_where_the_tool_does_so(tmp_path, version, capsys) -> None:
    path = written(tmp_path, version) / "tensorrt_llm" / "config.pbtxt"
    assert fill_template.main(version, [str(path), "decoupled_mode:false"]) == 0
    supplied = "default_queue_policy { max_queue_size: 0 }" in capsys.readouterr().out
    assert supplied == table.since(version, "0.12.0")


def arguments(version, *words):
    parser = launch._parser(version, ROOT)
    return launch.planned(version, parser.parse_args(["--model_repo", "/M", *words]))


@pytest.mark.parametrize("version", VERSIONS)
def test_one_rank_is_started_as_the_script_does(version) -> None:
    command, variables = arguments(version)
    ports = PORTS if table.since(version, "0.7.0") else ""
    expected = set(COMMAND.format(ports=ports).split())
    assert set(command) == expected
    assert variables == {launch.VERSION_VARIABLE: version}


@pytest.mark.parametrize("version", VERSIONS)
def test_ranks_after_the_first_load_the_engine_alone_since_0_8(version) -> None:
    command, _ = arguments(version, "--world_size", "3")
    assert command.count(":") == command.count("1") == 3
    alone = command.count("--load-model=tensorrt_llm")
    assert alone == (2 if table.since(version, "0.8.0") else 0)
    assert "--backend-config=python,shm-region-prefix-name=prefix2_" in command


@pytest.mark.parametrize("version", VERSIONS)
def test_options_are_those_of_the_version(version, capsys) -> None:
    known = {flag for row in table.rows("launch", version) for flag in row["flags"]}
    every = {flag for row in table.own()["launch"] for flag in row["flags"]}
    for flag in every - known:
        with pytest.raises(SystemExit) as caught:
            launch._parser(version, ROOT).parse_args([flag])
        assert caught.value.code == 2
    capsys.readouterr()
    for row in table.rows("launch", version):
        words = [row["flags"][0], *([] if row["type"] == "bool" else ["2"])]
        assert isinstance(launch._parser(version, ROOT).parse_args(words), argparse.Namespace)


def test_what_is_not_computed_or_contradicts_is_refused() -> None:
    with pytest.raises(Exception, match="does not compute serving through the LLM API"):
        arguments("1.2.1", "--trtllm_llmapi_launch")
    with pytest.raises(Exception, match="--multi-model wants --world_size 1, not 2"):
        arguments("0.9.0", "--multi-model", "--world_size", "2")
    with pytest.raises(Exception, match="--world_size 0: expected 1 or more"):
        arguments("0.9.0", "--world_size", "0")
    command, variables = arguments("0.13.0", "--multi-model", "--disable-spawn-processes")
    assert command[0] == "mpirun"
    assert variables["TRTLLM_ORCHESTRATOR_SPAWN_PROCESSES"] == "0"
    assert arguments("0.19.0", "--no-mpi")[0][0] == "/opt/tritonserver/bin/tritonserver"


def test_the_two_tables_are_of_one_mind() -> None:
    for version in VERSIONS:
        for model in models(version):
            ours = {f"{r['direction']}:{r['name']}" for r in table.rows("tensors", version, model)}
            assert ours == shared.tensors(FAMILY, model, version), (version, model)
            fields = {f for r in table.rows("placeholders", version, model) for f in r["fields"]}
            text = templates.config(model, version)
            assert ("dynamic_batching" in text) == any("dynamic_batching" in f for f in fields)
    assert json.loads(json.dumps(table.own()))["schema"] == "kit.rehearsal-triton/1"


def test_a_script_that_is_installed_runs_by_itself(tmp_path) -> None:
    place = written(tmp_path, "0.16.0")
    paths = ":".join(path for path in sys.path if "dockerfiles" in path)
    done = subprocess.run(
        [sys.executable, tmp_path / "tools/fill_template.py", place / "ensemble/config.pbtxt", "x"],
        env={"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "'x': expected name:value" in done.stderr
