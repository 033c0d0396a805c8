from __future__ import annotations

import copy
import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from kit.errors import ExitCode, KitError
from kit.images.engine import Gpus
from kit.manifests import record
from kit.manifests.diff import diff, show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.unit.manifests.conftest import Recorded

SHA = "a" * 64
PUBLISHED = json.loads(record.PUBLISHED.read_bytes())


@lru_cache(maxsize=1)
def validator() -> Any:
    jsonschema.Draft202012Validator.check_schema(PUBLISHED)
    return jsonschema.Draft202012Validator(PUBLISHED)


def small() -> dict[str, Any]:
    """A manifest with one of everything."""
    file = {"path": "logs/run.log", "size": 1, "sha256": SHA}
    return {
        "schema": "kit.manifest/1",
        "kind": "run",
        "created": "2026-01-02T03:04:05Z",
        "kit": {"version": "0.1.0"},
        "example": {"name": "e", "digest": f"sha256:{SHA}"},
        "release": "0.16.0",
        "stack": "rehearsal",
        "lock": f"sha256:{SHA}",
        "image": {"manifest_digest": f"sha256:{SHA}", "image_id": f"sha256:{SHA}"},
        "engine": {"name": "podman", "version": "5"},
        "versions": {
            "python": "3.11",
            "os": None,
            "openmpi": "4.1.4",
            "cuda": None,
            "tensorrt": None,
            "nccl": None,
            "distributions": {"numpy": "1.26.4"},
        },
        "host": {
            "os": "Debian",
            "kernel": "6",
            "architecture": "x86_64",
            "cpu": None,
            "cores": 2,
            "memory_bytes": 1,
            "gpus": [{"name": "H200", "compute_capability": "9.0", "memory_bytes": None}],
            "driver": "550",
        },
        "gpus": "none",
        "model": {"name": "m", "files": [{**file, "path": "config.json"}]},
        "commands": [
            {
                "name": "run",
                "argv": ["x"],
                "cwd": "/",
                "env": {"HOME": "/tmp"},
                "path": "/bin",
                "mpi_ranks": 1,
                "exit_code": 0,
                "seconds": 1.5,
                "peak_memory_bytes": 1,
                "log": file,
            }
        ],
        "artifacts": [{**file, "path": "engine/rank0.engine", "role": "engine"}],
        "outputs": [{"prompt": "p", "prompt_token_ids": [1], "token_ids": [2], "text": "t"}],
    }


def full() -> dict[str, Any]:
    """The same with every key that came later."""
    document = small()
    file = {"path": "output/tokens.csv", "size": 1, "sha256": SHA}
    document["commands"][0] |= {
        "given": [{**file, "path": "cache/script.py"}],
        "written": [file],
        "reused_from": "e/0.16.0/20260102T030405Z-1",
        "spread": {
            "nodes": 2,
            "ranks_per_node": 8,
            "network": "host",
            "options": ["--hostfile", "/kit/nodes/hosts"],
            "logs": [{**file, "path": "logs/run/rank-0.log"}],
        },
    }
    document["dataset"] = {"name": "news", "files": [{**file, "path": "test.jsonl"}]}
    figure = {"step": "summarize", "subject": "TensorRT-LLM beam 0", "metric": "rouge1"}
    document["evaluations"] = [{**figure, "value": 21.5, "least": 14.0, "most": None}]
    document["only"] = ["run"]
    document["cluster"] = {
        "scheduler": "slurm",
        "version": "22.05.8",
        "mpi_plugin": "none",
        "nodes": [document["host"]],
    }
    document["server"] = {
        "stack": "rehearsal-triton",
        "image": document["image"],
        "name": "triton",
        "version": "2.51.0",
        "models": [{"name": "ensemble", "version": "1", "state": "READY", "ready": True}],
        "answers": [{"prompt": "a", "text": "ab"}],
    }
    return document


LATER = {("dataset",), ("evaluations",), ("only",), ("cluster",)}
LATER |= {("server",), *(("server", key) for key in ("name", "version", "models", "answers"))}
LATER |= {("commands", 0, key) for key in ("given", "written", "reused_from", "spread")}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every object and value in a document."""
    yield path
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, item in items:
        yield from places(item, (*path, key))


def at(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


def accepted(document: Any) -> bool:
    try:
        record.parse(document, "manifest.json")
    except KitError as error:
        caught = error
    else:
        return True
    assert caught.exit_code == ExitCode.CONTENT
    assert str(caught).startswith("manifest.json: ")
    return False


def agreed(document: Any) -> bool:
    """What the code and the published schema say, which must be the same."""
    by_code, by_schema = accepted(document), validator().is_valid(document)
    assert by_code == by_schema, document
    return by_code


@pytest.mark.parametrize("made", [small, full])
def test_round_trip(made: Callable[[], dict[str, Any]]) -> None:
    assert agreed(made())
    manifest = record.parse(made(), "x")
    assert json.loads(json.dumps(manifest.to_dict())) == made()


def test_what_came_later_may_be_left_out_and_is_shown_and_compared() -> None:
    text = show(record.parse(full(), "x"))
    assert "taken    run from e/0.16.0/20260102T030405Z-1" in text
    assert "ROUGE-1 of TensorRT-LLM beam 0 is 21.5, expected 14 or more" in text
    found = diff(record.parse(small(), "x"), record.parse(full(), "x"))
    assert "triton 2.51.0 of rehearsal-triton, ready: ensemble" in text
    assert {item.part for item in found.differences} == {"dataset", "server", "evaluations"}


# Free objects, whose keys are not the schema's.
OPEN = {("versions", "distributions"), ("commands", 0, "env")}


@pytest.mark.parametrize(
    "path", [p for p in places(full()) if isinstance(at(full(), p), dict)], ids=str
)
def test_objects_are_closed(path: tuple[Any, ...]) -> None:
    more = full()
    at(more, path)["surprise"] = "x"
    assert agreed(more) == (path == ("versions", "distributions"))
    for key in at(full(), path):
        less = full()
        del at(less, path)[key]
        assert agreed(less) == (path in OPEN or (*path, key) in LATER)


VALUES = [None, True, -1, 1.5, "", "x", "../x", "/x", "a//b", "./a", "sha256:zz", SHA, f"sha256:{SHA}",
          [], [None], [-1], ["x"], {}, {"a": 1}, "2026-01-02 03:04:05"]  # fmt: skip


@pytest.mark.parametrize("path", list(places(full())), ids=str)
def test_code_and_schema_agree_on_any_replaced_value(path: tuple[Any, ...]) -> None:
    verdicts = []
    for value in VALUES:
        document = copy.deepcopy(full())
        if path:
            at(document, path[:-1])[path[-1]] = value
        else:
            document = value
        verdicts.append(agreed(document))
    assert False in verdicts


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "USER", "HOSTNAME", "PATH", "homes"]
)
def test_secrets_have_no_place(name: str) -> None:
    document = small()
    document["commands"][0]["env"] = {name: "x"}
    assert not agreed(document)


@pytest.mark.parametrize(
    "name", ["HOME", "OMPI_MCA_btl", "NCCL_ALGO", "CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE"]
)
def test_what_steers_a_command_has(name: str) -> None:
    document = small()
    document["commands"][0]["env"] = {name: "x"}
    assert agreed(document)


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("none", True),
        ("all", True),
        ("0", True),
        ("0,1", True),
        ("GPU-12345678-9abc,3", True),
        ("MIG-12345678-9abc", True),
        ("0,", False),
        ("0 1", False),
        ("some", False),
        ("all,0", False),
    ],
)
def test_gpus_are_what_can_be_asked_for(text: str, good: bool) -> None:
    document = small()
    document["gpus"] = text
    assert agreed(document) == good
    if good:
        assert f"gpus     {text}\n" in show(record.parse(document, "x"))
        assert str(Gpus.parse(text)) == text


def test_a_path_stands_once() -> None:
    document = small()
    document["artifacts"] *= 2
    with pytest.raises(KitError, match="stands twice"):
        record.parse(document, "manifest.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as JSON"),
        (b"[]", "expected kit.manifest/1, found None"),
        (b'{"schema": "kit.manifest/2"}', "found 'kit.manifest/2'"),
        (b'{"schema": "kit.manifest/1"}', "missing key kind"),
        (b"\xff\xfe", "cannot be read as JSON"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(content)
    with pytest.raises(KitError) as caught:
        record.read(tmp_path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == ExitCode.CONTENT


def test_an_absent_manifest_is_a_wrong_request(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "manifest.json"):
        with pytest.raises(KitError) as caught:
            record.read(path)
        assert caught.value.exit_code == ExitCode.USAGE


def test_a_real_one_reads_shows_and_writes_again(recorded: Recorded, tmp_path: Path) -> None:
    assert agreed(json.loads(recorded.path.read_bytes()))
    manifest = record.read(recorded.path.parent)
    copied = manifest.write(tmp_path)
    assert copied.read_bytes() == recorded.path.read_bytes()
    text = show(manifest)
    for part in ("gpt2-tiny", "0.16.0", "trtllm-build", "engine/rank0.engine", "'Alice was' →"):
        assert part in text


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    content = small()
    content["versions"]["distributions"] = {"numpy": None}
    manifest = record.parse(small(), "x")
    manifest.versions.distributions["numpy"] = None  # type: ignore[assignment]
    with pytest.raises(KitError, match=r"versions\.distributions"):
        manifest.write(tmp_path)
    assert not list(tmp_path.iterdir())
