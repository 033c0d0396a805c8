from __future__ import annotations

import copy
import json
from functools import lru_cache

import jsonschema
import pytest

from kit.errors import ExitCode, KitError
from kit.host import facts
from kit.host.facts import Unknown
from tests.unit.host.conftest import host

PUBLISHED = json.loads(facts.PUBLISHED.read_bytes())


@lru_cache(maxsize=1)
def validator():
    jsonschema.Draft202012Validator.check_schema(PUBLISHED)
    return jsonschema.Draft202012Validator(PUBLISHED)


def document():
    return json.loads(json.dumps(host().to_dict()))


def places(value, path=()):
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


def at(value, path):
    for key in path:
        value = value[key]
    return value


def agreed(content):
    """What the code and the published schema say, which must be the same."""
    try:
        facts.from_dict(content, "host.json")
    except KitError as error:
        caught = error
    else:
        caught = None
    by_code = caught is None or (caught.exit_code, str(caught)[:11]) != (4, "host.json: ")
    assert by_code == validator().is_valid(content), content
    return by_code


def test_round_trip(tmp_path):
    assert agreed(document())
    path = tmp_path / "host.json"
    path.write_text(json.dumps(document()))
    assert facts.read(path) == host()


@pytest.mark.parametrize("path", list(places(document())))
def test_code_and_schema_agree_on_any_replaced_value(path):
    for value in (None, "", "x\x1b[2J", 1.5, -1, True, [], {}, [1], {"a": 1}):
        content = {"whole": document()}
        at(content, ("whole", *path)[:-1])[("whole", *path)[-1]] = copy.deepcopy(value)
        agreed(content["whole"])


@pytest.mark.parametrize(
    "path", [path for path in places(document()) if path and isinstance(path[-1], str)]
)
def test_every_key_is_needed(path):
    content = document()
    del at(content, path[:-1])[path[-1]]
    assert not agreed(content)


@pytest.mark.parametrize(
    "path", [path for path in places(document()) if isinstance(at(document(), path), dict)]
)
def test_a_newer_kit_may_say_more(path):
    content = document()
    at(content, path)["newer"] = {"anything": [1]}
    assert agreed(content)
    assert facts.from_dict(content, "x") == host()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as JSON"),
        (b"\xff\xfe", "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b"[]", "schema: expected kit.host/1, found None"),
        (b'{"schema": "kit.host/2"}', "found 'kit.host/2'"),
        (b'{"schema": "kit.host/1"}', "missing key created"),
        (json.dumps({**document(), "pci_gpus": float("inf")}).encode(), "pci_gpus: expected int"),
        (json.dumps(document()).replace("32.5", "NaN").encode(), "processor.quota_cores: expected a number"),
        (b" " * (5 << 20), "larger than"),
    ],
)  # fmt: skip
def test_what_is_no_host(tmp_path, content, message):
    path = tmp_path / "host.json"
    path.write_bytes(content)
    with pytest.raises(KitError, match=message) as caught:
        facts.read(path)
    assert caught.value.exit_code == ExitCode.CONTENT


@pytest.mark.parametrize("name", ["absent.json", "."])
def test_a_file_that_cannot_be_read(tmp_path, name):
    with pytest.raises(KitError, match="cannot be read") as caught:
        facts.read(tmp_path / name)
    assert caught.value.exit_code == ExitCode.USAGE


def test_reasons():
    found = host(unknown=(Unknown("gpus", "no answer"), Unknown("driver.cuda", "too old")))
    assert found.reason("gpus") == found.reason("gpus[3].memory_bytes") == "no answer"
    assert found.reason("driver.cuda") == "too old"
    assert found.reason("driver") is None
    assert found.reason("gpusomething") is None


def test_what_rules_ask_for():
    found = host()
    assert found.engine is found.engines[0]
    assert host(engines=()).engine is None
    assert found.disk("shm").path == "/dev/shm"
    assert found.disk("none") is None
    assert found.limit("stack").soft == 8 << 20
    assert found.usable_memory_bytes == 512 << 30
