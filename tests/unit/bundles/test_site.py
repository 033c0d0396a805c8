"""Where contents lie at a site: each in a folder of its own, whatever they are called."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.bundles import create, site
from kit.bundles.contents import Content, Entry
from kit.errors import ExitCode, KitError
from kit.project import Project
from tests.unit.bundles import making

NAMES = [".env", "env", "a/b", "a-b", ".", "..", "content", "%2E", "a%2Fb", "/", "-", "a\\b", "ä"]


def folder(name, kind="file"):
    """The folder of a content of that name."""
    content = SimpleNamespace(kind=kind, name=name, stack="")
    return site.folder(Project(Path("/root"), Path("/home")), "bundle", content)


@pytest.mark.parametrize("name", ["env", "Llama-2-7b", "gpt_345m.v2", "a+b", "x.", "0"])
def test_ordinary_names_stay_as_they_are(name):
    assert folder(name).name == name


@pytest.mark.parametrize(("one", "two"), list(itertools.combinations(NAMES, 2)))
def test_no_two_names_are_one_folder(one, two):
    assert folder(one) != folder(two)


PRINTABLE = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=300)


@given(st.sets(PRINTABLE | st.text("%2F./-a", min_size=1, max_size=300), min_size=2, max_size=4))
def test_every_name_has_a_folder_of_its_own(names):
    found = {folder(name) for name in names}
    assert len(found) == len(names)
    for path in found:
        assert path.parent == folder("x").parent
        assert not path.name.startswith(".")
        assert len(os.fsencode(f".{path.name}.new")) <= 255


def bundle(place, out, *names, name="test"):
    """A bundle of contents of these names, each with a file that says which."""
    contents = [
        Content("file", one, "", "asked for", (Entry("x", "file", one.encode()),)) for one in names
    ]
    create.create(place, contents, out, create.Settings(name))
    return out


def test_all_contents_arrive(place, tmp_path):
    names = [name for name in NAMES if name not in ("", "a\\b")]
    out = bundle(place, tmp_path / "out", *names)
    there = making.project(tmp_path / "site")
    loaded = making.take(there, out)
    assert len({path for _, path in loaded.places}) == len(names)
    for content, path in loaded.places:
        assert (path / "x").read_text() == content.name


@pytest.fixture
def fold(monkeypatch):
    """A disk that takes small and capital letters for the same."""
    mkdir, lexists = Path.mkdir, os.path.lexists

    def siblings(path):
        found = Path(path).parent
        return {one.name.lower() for one in found.iterdir()} if found.exists() else set()

    def make(self, *arguments, **options):
        if self.name.lower() in siblings(self) and not options.get("exist_ok"):
            raise FileExistsError(self)
        mkdir(self, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", make)
    monkeypatch.setattr(
        os.path, "lexists", lambda path: lexists(path) or Path(path).name.lower() in siblings(path)
    )


@pytest.mark.usefixtures("fold")
def test_contents_that_a_disk_mixes_up_are_refused_before_anything_is_written(place, tmp_path):
    out = bundle(place, tmp_path / "out", "Data", "data")
    there = making.project(tmp_path / "site")
    with pytest.raises(KitError, match="small and capital letters") as caught:
        making.take(there, out)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert not there.contents.exists()
    assert list((there.home / "bundles" / "loading").iterdir()) == []


@pytest.mark.usefixtures("fold")
def test_a_content_that_a_disk_takes_for_one_that_is_there_is_refused(place, tmp_path):
    there = making.project(tmp_path / "site")
    ((_, path),) = making.take(there, bundle(place, tmp_path / "one", "Data")).places
    with pytest.raises(KitError, match="file/data and another content"):
        making.take(there, bundle(place, tmp_path / "two", "data"))
    assert (path / "x").read_text() == "Data"
    making.take(there, tmp_path / "one")
