"""What the table of sources promises beyond its schema, and its loader."""

from __future__ import annotations

import copy
import json
import re
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from kit.data import ranges, releases, sources, triton

if TYPE_CHECKING:
    from collections.abc import Callable

FIELDS = sorted(sources.table()["fields"])
COVERED = [version for version in releases.order() if releases.kind(version) != "preview"]


def schema_problems(table: dict[str, Any]) -> list[str]:
    path = sources.TABLE.parent / "schema" / "sources.json"
    validator = jsonschema.Draft202012Validator(json.loads(path.read_bytes()))
    return [error.message for error in validator.iter_errors(table)]


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_says_one_thing_of_each_release(field: str) -> None:
    held = [
        version
        for row in sources.table()["fields"][field]
        for version in ranges.spread(row["releases"], releases.order())
    ]

    assert sorted(held, key=COVERED.index) == COVERED


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("version", COVERED)
def test_a_value_has_a_source_and_no_value_a_reason(field: str, version: str) -> None:
    fact = sources.fact(version, field)

    said = fact.hole if fact.value is None else fact.source
    assert said
    assert "{" not in said
    assert not said.endswith("@"), "the source speaks of a commit that the release does not have"


def test_no_release_and_no_field_of_another_name() -> None:
    with pytest.raises(KeyError):
        sources.fact("0.4.0", "system")
    with pytest.raises(KeyError):
        sources.fact("1.4.0rc1", "system")
    with pytest.raises(KeyError):
        sources.fact("0.16.0", "colour")


@pytest.mark.parametrize("version", COVERED)
def test_addresses_are_of_the_versions_in_the_table_of_releases(version: str) -> None:
    cmake = releases.value(version, "cmake")
    archive = sources.value(version, "cmake_archive")
    cuda = ".".join(releases.value(version, "cuda").split(".")[:2])

    assert (archive is None) == (cmake is None)
    assert archive is None or f"/v{cmake}/cmake-{cmake}-linux-x86_64" in archive
    for package, field in sources.value(version, "cuda_packages").items():
        assert field is None or releases.value(version, field), package
        if match := re.fullmatch(
            r"(?:libcublas|libcublas-dev|cuda-nvrtc-dev)-(\d+)-(\d+)", package
        ):
            assert f"{match[1]}.{match[2]}" == cuda


@pytest.mark.parametrize("version", COVERED)
def test_sources_that_cmake_fetches(version: str) -> None:
    rows = sources.value(version, "fetchcontent")

    assert len({row["name"] for row in rows}) == len(rows)
    for row in rows:
        if row["commit"] and re.fullmatch(r"[0-9a-f]{8}", row["ref"]):
            assert row["commit"].startswith(row["ref"])


def test_the_same_tag_is_the_same_commit_everywhere() -> None:
    named: dict[tuple[str, str], set[str]] = {}
    for version in COVERED:
        for row in sources.value(version, "fetchcontent"):
            if row["commit"]:
                named.setdefault((row["url"], row["ref"]), set()).add(row["commit"])

    assert named
    assert all(len(commits) == 1 for commits in named.values())
    # What 1.2.0 fetches as a tag was a submodule of the releases before.
    nvtx = next(row for row in releases.value("0.16.0", "submodules") if "NVTX" in row["path"])
    assert named["https://github.com/NVIDIA/NVTX.git", "v3.1.0-c-cpp"] == {nvtx["commit"]}


def test_objects_of_git_lfs() -> None:
    known = [version for version in COVERED if sources.value(version, "lfs")]
    sizes = {
        version: sum(row["size"] for row in sources.value(version, "lfs")) for version in known
    }

    assert known == COVERED[: COVERED.index("0.17.0")]
    assert (sizes["0.5.0"], sizes["0.9.0"], sizes["0.16.0"]) == (1489814, 3682948, 128885716)
    for version in known:
        for row in sources.value(version, "lfs"):
            assert "x86_64-linux-gnu" in row["path"]
            assert "pre_cxx11" not in row["path"]


def test_a_commit_that_is_not_settled_names_all_candidates() -> None:
    unsettled = {version for version in COVERED if sources.commits(version)}

    assert unsettled == {"0.17.0", "0.17.0.post1", "0.21.0", "1.2.0"}
    for version in unsettled:
        assert sources.commit(version) in [row["commit"] for row in sources.commits(version)]
    assert len(sources.commits("0.17.0")) == 3
    assert sources.commit("0.16.0") == releases.value("0.16.0", "commit")


def test_the_commit_of_1_2_0_is_its_only_candidate() -> None:
    assert releases.value("1.2.0", "commit") is None
    assert sources.commit("1.2.0") == "dbdb13bd06d2a5abf41c7e5c490c8be4b6b69ebe"


def test_gaps_and_remarks_are_of_the_releases_that_they_name() -> None:
    assert sources.gaps("0.16.0") == []
    assert [row["name"] for row in sources.gaps("0.20.0")] == ["conan-packages"]
    assert any("polygraphy" in row["text"] for row in sources.remarks("0.8.0"))
    assert not any("polygraphy" in row["text"] for row in sources.remarks("0.9.0"))


def test_the_server_of_every_container() -> None:
    versions = [sources.triton_server(month) for month in triton.containers()]

    assert None not in versions
    assert sources.triton_server("24.12") == "2.53.0"
    assert sources.triton_server("19.01") is None


def field(name: str) -> Callable[[dict[str, Any]], list[dict[str, Any]]]:
    return lambda table: table["fields"][name]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda table: table["fields"].pop("lfs"),
        lambda table: table["fields"].update(colour=[]),
        lambda table: field("lfs")(table)[0]["value"][0].update(oid="179091"),
        lambda table: field("lfs")(table)[0]["value"][0].update(size=0),
        lambda table: field("lfs")(table)[0].pop("source"),
        lambda table: field("lfs")(table)[-1].pop("hole"),
        lambda table: field("lfs")(table)[-1].update(source="somewhere"),
        lambda table: field("system")(table)[0]["value"].update(python=3.1),
        lambda table: field("ccache")(table)[0]["value"].update(install="archive"),
        lambda table: field("cuda_packages")(table)[0]["value"].update(libcudnn8="8.9"),
        lambda table: field("fetchcontent")(table)[-1]["value"][0].update(commit=None),
        lambda table: field("fetchcontent")(table)[-1]["value"][0].update(commit="v1"),
        lambda table: field("cuda_repository")(table)[0]["value"].update(url="http://x"),
        lambda table: table["commits"][0].update(agree=0),
        lambda table: table["gaps"][0].update(group="anywhere"),
        lambda table: table["remarks"][0].update(at="somewhere"),
        lambda table: table["triton_servers"][0].update(version="2.39"),
    ],
)
def test_the_schema_finds(spoil: Callable[[dict[str, Any]], object]) -> None:
    table = copy.deepcopy(sources.table())
    assert not schema_problems(table)

    spoil(table)

    assert schema_problems(table)
