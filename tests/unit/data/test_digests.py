"""Known digests: no two of a name, none that stands for two files, and the loader."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from kit.data import digests, releases, sources
from kit.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable

TABLE = digests.table()


def schema_problems(table: dict[str, Any]) -> list[str]:
    path = digests.TABLE.parent / "schema" / "digests.json"
    validator = jsonschema.Draft202012Validator(json.loads(path.read_bytes()))
    return [error.message for error in validator.iter_errors(table)]


def test_one_row_for_each_thing() -> None:
    keys = [
        *((row["name"], row["tag"], row["of"]) for row in TABLE["images"]),
        *((row["url"],) for row in TABLE["files"]),
        *((row["kind"], row["name"], row["version"]) for row in TABLE["packages"]),
        *((row["name"], row["version"]) for row in TABLE["debs"]),
    ]

    assert len(set(keys)) == len(keys)


def test_no_digest_stands_for_two_things() -> None:
    rows = [row for kind in ("images", "files", "packages", "debs") for row in TABLE[kind]]
    found = [row.get("digest") or row["sha256"] for row in rows]

    assert len(set(found)) == len(found)


def test_nothing_is_here_that_no_stack_is_made_of() -> None:
    stable = releases.versions()
    wanted = {releases.value(version, "tensorrt_tarball")["x86_64"] for version in stable}
    wanted |= {sources.value(version, "cmake_archive") for version in stable}

    assert {row["url"] for row in TABLE["files"]} <= wanted
    for row in TABLE["packages"]:
        assert row["file"].startswith(f"{row['name']}-{row['version']}")
    for row in TABLE["debs"]:
        assert row["url"].endswith(f"/{row['name']}_{row['version']}_amd64.deb")


def test_of_an_index_and_a_platform_the_index() -> None:
    known = digests.image("nvcr.io/nvidia/pytorch", "25.06-py3")

    assert known is not None
    assert known.digest.hex.startswith("025d9b102b54")
    assert known.agree == 2
    assert known.source.endswith("(independent: 2)")


def test_files_packages_and_debs() -> None:
    archive = digests.file(releases.value("0.16.0", "tensorrt_tarball")["x86_64"])
    cmake = digests.file(sources.value("0.16.0", "cmake_archive"))
    wheel = digests.package("polygraphy", "0.49.9")
    deb = digests.deb("libcublas-12-6", "12.6.1.4-1")

    assert archive is not None
    assert archive.size == 4446480887
    assert cmake is not None
    assert cmake.size is None
    assert wheel is not None
    assert wheel.file == "polygraphy-0.49.9-py2.py3-none-any.whl"
    assert deb is not None
    assert deb.digest == Digest("d635f608b882f188983960a2207dbc87afe1047aaa9c32ac8be9b6ceb19e6459")


def test_what_was_never_seen_is_none() -> None:
    assert digests.image("nvcr.io/nvidia/pytorch", "24.11-py3") is None
    assert digests.file("https://example.org/a.tar.gz") is None
    assert digests.package("polygraphy", "0.49") is None
    assert digests.deb("libcublas-12-6", "12.6.1.4") is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda table: table["images"][0].update(digest=table["images"][0]["digest"][:-1]),
        lambda table: table["images"][0].update(agree=0),
        lambda table: table["images"][0].update(sources=[]),
        lambda table: table["files"][0].update(size=None),
        lambda table: table["files"][0].update(url="http://example.org/a.tar.gz"),
        lambda table: table["packages"][0].pop("size"),
        lambda table: table["debs"][0].pop("hole"),
        lambda table: table.update(colour=1),
    ],
)
def test_the_schema_finds(spoil: Callable[[dict[str, Any]], object]) -> None:
    table = copy.deepcopy(TABLE)
    assert not schema_problems(table)

    spoil(table)

    assert schema_problems(table)
