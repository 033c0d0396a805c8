"""Input for other tools: names that are of one bundle alone, YAML that every reader reads."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from kit.bundles import create, export
from kit.errors import ExitCode, KitError
from tests.unit.bundles import making


@pytest.fixture
def named(place, tmp_path):
    """Makes a bundle of that name and exports it."""
    (tmp_path / "file").write_text("x")

    def make(name, form):
        out = tmp_path / f"out-{name}"
        making.make(place, out, tmp_path / "file", settings=create.Settings(name))
        return json.loads(export.FORMATS[form](out, making.index_of(out)))

    return make


NAMES = ("x-0.16", "x-0-16", "x-0_16", "x-0+16", "x-0..16", "x-0.-16")


def test_no_two_bundles_have_one_name_in_zarf(named):
    found = [named(name, "zarf")["metadata"]["name"] for name in NAMES]
    assert len(set(found)) == len(NAMES)
    assert found[1] == "trtllm-kit-x-0-16"
    for name in found:
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_no_two_bundles_have_one_folder_in_hauler(named):
    found = []
    for name in NAMES:
        rows = named(name, "hauler")["spec"]["files"]
        (place,) = {row["name"].partition("/")[0] for row in rows}
        found.append(place)
    assert found[:3] == ["trtllm-kit-x-0.16-1", "trtllm-kit-x-0-16-1", "trtllm-kit-x-0_16-1"]
    assert len(set(found)) == len(NAMES)


@pytest.mark.parametrize("name", ["disk \U0001f4be", "Größe", 'a\x85b\u2028c\x7fd\ufeff\\"e'])
def test_a_folder_of_any_name_is_named(bundle, name):
    moved = bundle.rename(bundle.with_name(name))
    text = export.zarf(moved, making.index_of(moved))
    for read in (json.loads, yaml.safe_load):
        rows = read(text)["components"][0]["files"]
        assert {Path(row["source"]).parent for row in rows} == {moved}
    if "\\" not in name:
        assert name in text


def test_a_folder_whose_name_is_no_text(bundle):
    moved = bundle.rename(bundle.with_name(os.fsdecode(b"disk-\xff")))
    index = making.index_of(moved)
    with pytest.raises(KitError, match="YAML cannot name that folder") as caught:
        export.zarf(moved, index)
    assert caught.value.exit_code == ExitCode.USAGE
    rows = json.loads(export.hauler(moved, index))["spec"]["files"]
    for row in rows:
        assert Path(unquote(row["path"], errors="surrogateescape")).is_file()
