"""What the tables promise: their schemas, and the rules that a schema cannot say."""

from __future__ import annotations

import copy
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from packaging.version import Version

from kit import data
from kit.data import drivers, gpus, layout, models, ranges, releases, tensorrt, triton

if TYPE_CHECKING:
    from collections.abc import Callable

Table = dict[str, Any]
FOLDER = Path(data.__file__).parent
EVERY = sorted(path.stem for path in FOLDER.glob("*.json"))
WITH_SCHEMA = sorted(path.stem for path in (FOLDER / "schema").glob("*.json"))
READ = {name: json.loads((FOLDER / f"{name}.json").read_bytes()) for name in EVERY}
DISAGREEMENTS: dict[tuple[str, str], str] = {}
"""(release, container) that only one of the two tables has → why."""


def schema_problems(name: str, table: Table) -> list[str]:
    schema = json.loads((FOLDER / "schema" / f"{name}.json").read_bytes())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    return [
        f"{error.json_path}: {error.message[:200]}"
        for error in sorted(validator.iter_errors(table), key=lambda error: error.json_path)
    ]


def releases_problems(table: Table) -> list[str]:
    order = [row["version"] for row in table["releases"]]
    found = []
    if order != sorted(set(order), key=Version):
        found.append("releases: not in order, or twice")
    for row in table["releases"]:
        version = Version(row["version"])
        kind = (
            "preview" if version.is_prerelease else "post" if version.is_postrelease else "stable"
        )
        if row["kind"] != kind:
            found.append(f"{version}: kind {row['kind']}, expected {kind}")
    if both := set(order) & set(table.get("left_out", {})):
        found.append(f"left out and not left out: {both}")
    for name, rows in table["fields"].items():
        found += [f"{name}: {problem}" for problem in field_problems(rows, order)]
    if found:  # what follows wants to look into whole fields
        return found
    commits = [ranges.find(table["fields"]["commit"], version, order)["value"] for version in order]
    named = dict(zip(order, commits, strict=True))
    if len(set(filter(None, commits))) != len(list(filter(None, commits))):
        found.append("commit: two releases have the same")
    for name, rows in table["fields"].items():
        for row in rows:
            for version in ranges.spread(row["releases"], order):
                if "{commit}" in json.dumps(row) and not named[version]:
                    found.append(f"{name}: the source of {version} speaks of its commit: none")
    dates = [
        ranges.find(table["fields"]["released"], version, order)["value"]
        for version in order
        if not Version(version).is_prerelease
    ]
    if dates != sorted(dates):
        found.append("released: a later release is older")
    return found


def field_problems(rows: list[dict[str, Any]], order: list[str]) -> list[str]:
    found = []
    held: list[str] = []
    starts = []
    for row in rows:
        try:
            versions = ranges.spread(row["releases"], order)
        except ValueError as error:
            found.append(f"{row['releases']}: {error}")
            continue
        if not versions or ranges.gather(versions, order) != row["releases"]:
            found.append(f"{row['releases']}: backwards, out of order, or not the shortest ranges")
            continue
        held += versions
        starts.append(order.index(versions[0]))
        found += [f"{row['releases']}: {problem}" for problem in part_problems(row)]
    if starts != sorted(starts):
        found.append("rows are not in the order of releases")
    for version in order:
        if held.count(version) != 1:
            found.append(f"{version} is told {held.count(version)} times, expected once")
    return found


def part_problems(row: dict[str, Any]) -> list[str]:
    """A part of a value is null, and only then there is a reason under `partly`."""
    partly = set(row.get("partly", {}))
    if not isinstance(row["value"], dict):
        return []
    empty = {key for key, part in row["value"].items() if part is None}
    return [f"null parts {sorted(empty)}, reasons for {sorted(partly)}"] if empty != partly else []


def triton_problems(table: Table, of_releases: Table) -> list[str]:
    order = [row["version"] for row in of_releases["releases"]]
    months = [row["container"] for row in table["containers"]]
    found = []
    if months != sorted(set(months)):
        found.append("containers: not in order, or twice")
    fields = of_releases["fields"]
    ships: set[tuple[str, str]] = set()
    for row in table["containers"]:
        month = row["container"]
        explained = " ".join(row.get("holes", {})).split()
        empty = [name for name, value in row.items() if value is None]
        if sorted(explained) != sorted(empty):
            found.append(f"{month}: null {sorted(empty)}, reasons for {sorted(explained)}")
        if row.get("backend_branch", {}).get("name", f"r{month}") != f"r{month}":
            found.append(f"{month}: backend branch {row['backend_branch']['name']}")
        release = row["tensorrt_llm"]
        if release in order:
            ships.add((release, month))
            wanted = ranges.find(fields["tensorrt"], release, order)["value"]
            held = row["tensorrt"]
            if held and wanted and tensorrt.same(held, wanted) is False and "note" not in row:
                found.append(f"{month}: TensorRT {held}, {release} wants {wanted}, and no note")
        elif release and release not in row.get("note", ""):
            found.append(f"{month}: {release} is no known release, and no note speaks of it")
    named: set[tuple[str, str]] = set()
    for version in order:
        tags = ranges.find(fields["triton_container"], version, order)["value"] or []
        of_version = [tag.partition("-")[0] for tag in tags]
        named |= {(version, month) for month in of_version}
        if of_version != sorted(of_version):
            found.append(f"triton_container of {version}: not in order")
    for release, month in sorted((ships ^ named) - set(DISAGREEMENTS)):
        where = "triton.json" if (release, month) in ships else "releases.json"
        found.append(f"{month} ships {release}: only {where} says so")
    return found


def tensorrt_problems(table: Table, of_releases: Table) -> list[str]:
    versions = [row["version"] for row in table["pypi"]]
    tags = [row["tag"] for row in table["tags"]]
    found = []
    if versions != sorted(set(versions), key=Version):
        found.append("pypi: not in order, or twice")
    if len(tags) != len(set(tags)):
        found.append("tags: one is there twice")
    order = [row["version"] for row in of_releases["releases"]]
    with_backend = [
        version
        for version in order
        if ranges.find(of_releases["fields"]["engine_backend"], version, order)["value"]
    ]
    removal = table["engine_backend_removal"]
    stable = [version for version in with_backend if not Version(version).is_prerelease]
    if removal["last_stable_with_engine_backend"] != stable[-1]:
        found.append(f"engine_backend_removal: releases.json says {stable[-1]}")
    if Version(with_backend[-1]) >= Version(removal["first_preview_without"]):
        found.append(f"engine_backend_removal: {with_backend[-1]} still has the backend")
    return found


def drivers_problems(table: Table) -> list[str]:
    found = []
    for name in ("toolkit", "minor_version_compatibility", "forward_compatibility"):
        cuda = [drivers.numbers(row["cuda"]) for row in table[name]]
        if cuda != sorted(set(cuda)):
            found.append(f"{name}: CUDA not in order, or twice")
    for name in ("toolkit", "minor_version_compatibility"):
        for one, other in pairwise(table[name]):
            if drivers.numbers(other["driver"]) < drivers.numbers(one["driver"]):
                found.append(f"{name}: CUDA {other['cuda']} has an older driver than {one['cuda']}")
    for row in table["forward_compatibility"]:
        branches = [drivers.numbers(text) for text in row["branches"] or []]
        refused = [int(text[1:]) for text in row.get("refused", [])]
        if branches != sorted(branches) or refused != sorted(refused):
            found.append(f"forward_compatibility of {row['cuda']}: not in order")
        if {branch[0] for branch in branches} & set(refused):
            found.append(f"forward_compatibility of {row['cuda']}: usable and refused")
    return found


def gpus_problems(table: Table, of_releases: Table) -> list[str]:
    found = []
    names = [row["name"] for row in table["gpus"]]
    if len(names) != len(set(names)):
        found.append("gpus: a name is there twice")
    capabilities = [gpus.rank(row["compute_capability"]) for row in table["gpus"]]
    if capabilities != sorted(capabilities):
        found.append("gpus: not in the order of their compute capability")
    if len({(row["compute_capability"], row["architecture"]) for row in table["gpus"]}) != len(
        set(capabilities)
    ):
        found.append("gpus: one compute capability, two architectures")
    order = [row["version"] for row in of_releases["releases"]]
    stable = [row["version"] for row in of_releases["releases"] if row["kind"] == "stable"]
    for precision in sorted({row["precision"] for row in table["precisions"]}):
        rows = [row for row in table["precisions"] if row["precision"] == precision]
        held = [version for row in rows for version in ranges.spread(row["releases"], order)]
        if len(held) != len(set(held)):
            found.append(f"{precision}: a release is told twice")
        places = sorted(stable.index(version) for version in held if version in stable)
        if places != list(range(places[0], places[0] + len(places))):
            found.append(f"{precision}: a release between others is not told")
        for row in rows:
            listed = [gpus.rank(text) for text in row["listed"]]
            if listed != sorted(listed) or not set(listed) <= set(capabilities):
                found.append(f"{precision} {row['releases']}: listed {row['listed']}")
            if row["minimum"] and gpus.rank(row["minimum"]) > listed[-1]:
                found.append(f"{precision} {row['releases']}: minimum above all that are listed")
    return found


def models_problems(table: Table) -> list[str]:
    found = []
    names = [name for row in table["models"] for name in row["names"]]
    repositories = [row["repository"] for row in table["models"] if row["repository"]]
    for what, known in (("name", names), ("repository", repositories)):
        if len(known) != len(set(known)):
            found.append(f"models: a {what} is there twice")
    found += [
        f"{row['names']}: vocabulary is of NeMo models, and all of them"
        for row in table["models"]
        if ("vocabulary" in row) != (row["format"] == "nemo" and row["config"] is not None)
    ]
    return found


RULES: dict[str, Callable[[Table], list[str]]] = {
    "releases": releases_problems,
    "triton": lambda table: triton_problems(table, READ["releases"]),
    "tensorrt": lambda table: tensorrt_problems(table, READ["releases"]),
    "drivers": drivers_problems,
    "gpus": lambda table: gpus_problems(table, READ["releases"]),
    "models": models_problems,
}


@pytest.mark.parametrize("name", EVERY)
def test_every_table_says_what_it_is_and_when_it_was_read(name: str) -> None:
    table = READ[name]
    assert re.fullmatch(rf"kit\.data\.{name}/[1-9][0-9]*", table["schema"])
    assert table["about"].strip()
    assert re.fullmatch(r"20[0-9]{2}-(0[1-9]|1[0-2])", table["read"])


@pytest.mark.parametrize("name", EVERY)
def test_no_table_speaks_of_a_place_on_one_machine(name: str) -> None:
    text = (FOLDER / f"{name}.json").read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w./-])/(?:work|home|root|Users)/|file://", text)


def test_the_tables_of_this_module_have_their_rules() -> None:
    assert set(RULES) <= set(WITH_SCHEMA) <= set(EVERY)


@pytest.mark.parametrize("name", WITH_SCHEMA)
def test_schema(name: str) -> None:
    assert not schema_problems(name, READ[name])


@pytest.mark.parametrize("name", RULES)
def test_rules(name: str) -> None:
    assert not RULES[name](READ[name])


@pytest.mark.parametrize("name", RULES)
def test_written_again_a_table_is_the_same_file(name: str) -> None:
    assert layout.text(READ[name]).encode() == (FOLDER / f"{name}.json").read_bytes()


def test_one_row_per_line() -> None:
    table = {
        "schema": "x",
        "notes": ["a", "b"],
        "none": [],
        "rows": [{"a": {"b": [1]}}, {"ä": None}],
        "fields": {"f": [{"v": {}}], "g": [{"v": 1}]},
        "mixed": {"a": 1, "rows": [{"b": 2}]},
    }
    assert layout.text(table) == (
        "{\n"
        ' "schema": "x",\n'
        ' "notes": ["a", "b"],\n'
        ' "none": [],\n'
        ' "rows": [\n'
        '  {"a": {"b": [1]}},\n'
        '  {"ä": null}\n'
        " ],\n"
        ' "fields": {\n'
        '  "f": [\n'
        '   {"v": {}}\n'
        "  ],\n"
        '  "g": [\n'
        '   {"v": 1}\n'
        "  ]\n"
        " },\n"
        ' "mixed": {"a": 1, "rows": [{"b": 2}]}\n'
        "}\n"
    )
    assert json.loads(layout.text(table)) == table


def field(name: str, place: int = 0) -> Callable[[Table], dict[str, Any]]:
    return lambda table: table["fields"][name][place]


# Each is an error that someone could make while editing a table: the table, and what is done to it.
WRONG_BY_SCHEMA: list[tuple[str, Callable[[Table], object]]] = [
    ("releases", lambda t: t.pop("read")),
    ("releases", lambda t: t.update(read="2026-13")),
    ("releases", lambda t: t.update(about=" ")),
    ("releases", lambda t: t["fields"].pop("cuda")),
    ("releases", lambda t: t["fields"].update(colour=[])),
    ("releases", lambda t: t["releases"][0].update(kind="old")),
    ("releases", lambda t: field("commit")(t).update(value="ffd5af34")),
    ("releases", lambda t: field("commit")(t).update(value="F" * 40)),
    ("releases", lambda t: field("commit")(t).update(value=None)),
    ("releases", lambda t: field("commit")(t).update(value=None, hole="x")),
    ("releases", lambda t: field("commit")(t).update(hole="x")),
    ("releases", lambda t: field("commit")(t).pop("source")),
    ("releases", lambda t: field("commit")(t).update(inferred="")),
    ("releases", lambda t: field("openmpi")(t).pop("hole")),
    ("releases", lambda t: field("openmpi")(t).update(hole="\t")),
    ("releases", lambda t: field("cuda")(t).update(partly={"patch": ""})),
    ("releases", lambda t: field("cuda")(t).update(partly={})),
    ("releases", lambda t: field("tensorrt")(t).update(value="9.1.0")),
    ("releases", lambda t: field("released")(t).update(value="2023-10-32")),
    ("releases", lambda t: field("yanked")(t).update(value="no")),
    ("releases", lambda t: field("triton_container")(t).update(value=["23.10"])),
    ("releases", lambda t: field("cuda")(t).update(releases=["0.5"])),
    ("releases", lambda t: field("cuda")(t).update(releases=[])),
    ("triton", lambda t: t["containers"][0].pop("source")),
    ("triton", lambda t: t["containers"][0].update(container="23.13")),
    ("triton", lambda t: t["containers"][0].update(holes={"wheels": "x"})),
    ("triton", lambda t: t["containers"][2]["backend_branch"].update(commit="abc")),
    ("triton", lambda t: t["containers"][6].update(colour="x")),
    ("tensorrt", lambda t: t["pypi"][0].pop("hole")),
    ("tensorrt", lambda t: t["pypi"][0].update(depends=[])),
    ("tensorrt", lambda t: t["pypi"][-1].update(hole="x")),
    ("tensorrt", lambda t: t["pypi"][-1].update(released=None)),
    ("tensorrt", lambda t: t["tags"][0].update(sources=[])),
    ("tensorrt", lambda t: t["tags"][0].update(tag="205")),
    ("drivers", lambda t: t["toolkit"][0].update(cuda="12.0")),
    ("drivers", lambda t: t["toolkit"][0].pop("source")),
    ("drivers", lambda t: t["forward_compatibility"][0].update(branches=None)),
    ("drivers", lambda t: t["forward_compatibility"][4].pop("hole")),
    ("drivers", lambda t: t["forward_compatibility"][0].update(refused=["520"])),
    ("gpus", lambda t: t["gpus"][0].update(compute_capability="70")),
    ("gpus", lambda t: t["gpus"][0].update(kind="gaming")),
    ("gpus", lambda t: t["gpus"][0].pop("source")),
    ("gpus", lambda t: t["precisions"][0].update(minimum=None)),
    ("gpus", lambda t: t["precisions"][0].update(hole="x")),
    ("gpus", lambda t: t["precisions"][0].update(listed=[])),
    ("gpus", lambda t: t["gpus"][0].pop("memory_source")),
    ("gpus", lambda t: t["gpus"][0].update(memory_gb=[])),
    ("models", lambda t: t["models"][0].pop("source")),
    ("models", lambda t: t["models"][0].update(config=None)),
    ("models", lambda t: t["models"][0].update(hole="x")),
    ("models", lambda t: t["models"][0].update(repository="gpt2")),
    ("models", lambda t: t["models"][0].update(names=[])),
]
WRONG_BY_RULE: list[tuple[str, Callable[[Table], object], str]] = [
    ("releases", lambda t: t["releases"].reverse(), "not in order"),
    ("releases", lambda t: t["releases"].append(t["releases"][-1]), "or twice"),
    ("releases", lambda t: t["releases"][0].update(kind="preview"), "expected stable"),
    ("releases", lambda t: t["left_out"].update({"1.0.0": "x"}), "not left out"),
    ("releases", lambda t: t["fields"]["cuda"].pop(), "told 0 times"),
    ("releases", lambda t: t["fields"]["cuda"].append(t["fields"]["cuda"][0]), "told 2 times"),
    ("releases", lambda t: t["fields"]["cuda"].reverse(), "not in the order of releases"),
    ("releases", lambda t: field("cuda")(t).update(releases=["0.4.0"]), "not in list"),
    ("releases", lambda t: field("cuda", 1)(t).update(releases=["0.7.1..0.6.0"]), "backwards"),
    (
        "releases",
        lambda t: field("cuda", 1)(t).update(releases=["0.6.0", "0.6.1..0.7.1"]),
        "shortest",
    ),
    ("releases", lambda t: field("pytorch")(t)["value"].update(public=None), "null parts"),
    ("releases", lambda t: field("mpi4py")(t).pop("partly"), "null parts"),
    (
        "releases",
        lambda t: field("commit", 1)(t).update(value=field("commit")(t)["value"]),
        "have the same",
    ),
    (
        "releases",
        lambda t: (field("commit")(t).pop("source"), field("commit")(t).update(value=None)),
        "speaks of its commit",
    ),
    ("releases", lambda t: field("released")(t).update(value="2024-01-01"), "is older"),
    ("triton", lambda t: t["containers"].reverse(), "not in order"),
    ("triton", lambda t: t["containers"][0].update(driver=None), "reasons for"),
    ("triton", lambda t: t["containers"][0]["holes"].update(driver="x"), "reasons for"),
    ("triton", lambda t: t["containers"][2]["backend_branch"].update(name="r23.11"), "branch"),
    ("triton", lambda t: t["containers"][-1].update(tensorrt="10.13.3.9"), "and no note"),
    ("triton", lambda t: t["containers"][-1].update(tensorrt_llm="1.2.2"), "is no known release"),
    ("triton", lambda t: t["containers"][-1].update(tensorrt_llm="1.2.0"), "only triton.json"),
    ("triton", lambda t: t["containers"].pop(), "only releases.json"),
    ("tensorrt", lambda t: t["pypi"].reverse(), "not in order"),
    ("tensorrt", lambda t: t["tags"].append(t["tags"][0]), "twice"),
    (
        "tensorrt",
        lambda t: t["engine_backend_removal"].update(last_stable_with_engine_backend="1.2.0"),
        "says 1.2.1",
    ),
    (
        "tensorrt",
        lambda t: t["engine_backend_removal"].update(first_preview_without="1.3.0rc15"),
        "still has",
    ),
    ("drivers", lambda t: t["toolkit"].reverse(), "not in order"),
    ("drivers", lambda t: t["toolkit"][5].update(driver="525"), "older driver"),
    ("drivers", lambda t: t["forward_compatibility"][0]["branches"].reverse(), "not in order"),
    (
        "drivers",
        lambda t: t["forward_compatibility"][0].update(refused=["R470"]),
        "usable and refused",
    ),
    ("gpus", lambda t: t["gpus"].append(t["gpus"][-1]), "twice"),
    ("gpus", lambda t: t["gpus"].reverse(), "order of their compute"),
    ("gpus", lambda t: t["gpus"][0].update(architecture="Turing"), "two architectures"),
    ("gpus", lambda t: t["precisions"].append(t["precisions"][0]), "told twice"),
    ("gpus", lambda t: t["precisions"].pop(1), "is not told"),
    ("gpus", lambda t: t["precisions"][0]["listed"].append("6.0"), "listed"),
    ("gpus", lambda t: t["precisions"][0].update(minimum="12.0"), "above all"),
    ("models", lambda t: t["models"][1]["names"].append("gpt2"), "a name is there twice"),
    ("models", lambda t: t["models"].append(t["models"][0]), "a repository is there twice"),
    ("models", lambda t: t["models"][0].update(vocabulary=1), "is of NeMo models"),
]


@pytest.mark.parametrize(("name", "spoil"), WRONG_BY_SCHEMA)
def test_the_schema_finds(name: str, spoil: Callable[[Table], object]) -> None:
    table = copy.deepcopy(READ[name])
    spoil(table)
    assert table != READ[name]
    assert schema_problems(name, table)


@pytest.mark.parametrize(("name", "spoil", "said"), WRONG_BY_RULE)
def test_the_rules_find(name: str, spoil: Callable[[Table], object], said: str) -> None:
    table = copy.deepcopy(READ[name])
    spoil(table)
    assert table != READ[name]
    assert [problem for problem in RULES[name](table) if said in problem]


def test_loaders_read_these_files() -> None:
    for module in (releases, triton, tensorrt, drivers, gpus, models):
        assert module.table() == READ[module.__name__.rpartition(".")[2]]
