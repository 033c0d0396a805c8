"""The refresh: against an index on the disk, and Triton's table as upstream writes it."""

from __future__ import annotations

import copy
import json
import random
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from kit.data import compatibility, layout, ranges, refresh, uploads
from kit.data.uploads import File, Upload
from kit.errors import ExitCode, KitError
from tests.unit.data.test_tables import READ, RULES, schema_problems, triton_problems

if TYPE_CHECKING:
    from pathlib import Path

COMMIT = "a" * 40
HEADER = (
    "| Triton release version\t | NGC Tag\t | Python version\t | Torch version | TensorRT version "
    "| TensorRT-LLM version | CUDA version | CUDA Driver version | Size |\n"
    "| --- | ---  | --- | --- | --- | --- | --- | --- | --- |\n"
)
AFTER = (
    "\n## Container Name: vllm-python-py3\n\n"
    "| Triton release version\t | NGC Tag\t | vLLM version |\n| --- | --- | --- |\n"
    "| 26.08 | nvcr.io/nvidia/tritonserver:26.08-vllm-python-py3 | 0.27.1 |\n"
)


def line(month: str, **cells: str) -> str:
    told = {
        "image": f"nvcr.io/nvidia/tritonserver:{month}-trtllm-python-py3",
        "python": "Python 3.12.3 ",
        "torch": "2.10.0a0+b4e4ee81d3.nv25.12",
        "tensorrt": "10.14.1.48",
        "tensorrt_llm": "1.2.1",
        "cuda": "13.1.0.036",
        "driver": "590.44.01",
        "size": "14.20 GB",
    } | cells
    return f"| {' | '.join([month, *told.values()])} |\n"


def document(*rows: str) -> str:
    return (
        "# Release Compatibility Matrix\n"
        "  - [Container Name: trtllm-python-py3](#container-name-trtllm-python-py3)\n\n"
        f"## Container Name: trtllm-python-py3\n\n{HEADER}{''.join(rows)}{AFTER}"
    )


def as_written(row: dict[str, Any]) -> str:
    """A row of our table as upstream has it."""
    cells = {name: row[name] or "" for name in compatibility.CELLS}
    order = ("python", "torch", "tensorrt", "tensorrt_llm", "cuda", "driver", "size")
    told = {name: cells[name] for name in order}
    return line(row["container"], **{**told, "python": f"Python {cells['python']}  "})


UPSTREAM = [
    as_written(row) for row in reversed(READ["triton"]["containers"]) if row["container"] >= "24.04"
]


@pytest.fixture
def tables() -> dict[str, Any]:
    return copy.deepcopy(READ)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the tables that a refresh may write."""
    copied = tmp_path / "data"
    copied.mkdir()
    for name in ("releases", "tensorrt", "triton"):
        shutil.copy(refresh.FOLDER / f"{name}.json", copied)
    return copied


class Index:
    """An index on the disk that says of every version what the tables say."""

    def __init__(self, root: Path) -> None:
        self.root = root
        known = READ["releases"]
        order = [row["version"] for row in known["releases"]]
        self.files: dict[str, dict[str, dict[str, str | None]]] = {
            "tensorrt-llm": {},
            "tensorrt": {},
        }
        for version in order:
            self.tell("tensorrt-llm", version, self.value(order, "released", version))
            if self.value(order, "yanked", version):
                self.files["tensorrt-llm"][version]["data-yanked"] = "a reason"
        for row in READ["tensorrt"]["pypi"]:
            self.tell("tensorrt", row["version"], row["released"])

    @staticmethod
    def value(order: list[str], field: str, version: str) -> Any:
        return ranges.find(READ["releases"]["fields"][field], version, order)["value"]

    def tell(self, project: str, version: str, day: str | None, **more: str | None) -> None:
        attributes = {"data-upload-time": f"{day}T12:00:00.5Z"} if day else {}
        self.files[project][version] = {**attributes, **more}

    def write(self) -> None:
        for project, versions in self.files.items():
            links = []
            for version, attributes in versions.items():
                name = f"{project.replace('-', '_')}-{version}.tar.gz"
                said = "".join(f' {key}="{text or ""}"' for key, text in attributes.items())
                links.append(f'<a href="../../files/{name}#sha256={"0" * 64}"{said}>{name}</a>')
            page = self.root / "simple" / project
            page.mkdir(parents=True, exist_ok=True)
            (page / "index.html").write_text("\n".join(links))


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_CERT"):
        monkeypatch.setenv(name, "")
    # `os.devnull` as configuration file makes pip read no other.
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", f"file://{tmp_path}/simple/")
    return Index(tmp_path)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def triton_table(tmp_path: Path, *rows: str) -> list[str]:
    path = tmp_path / "compatibility.md"
    path.write_text(document(*rows))
    return ["--triton-table", str(path)]


# --- the whole program ---------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--check"]])
def test_nothing_new_leaves_the_files_as_they_are(
    index: Index,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
) -> None:
    index.write()
    before = contents(folder)
    assert refresh.main([*options, *triton_table(tmp_path, *UPSTREAM)], folder) == 0
    assert contents(folder) == before
    assert capsys.readouterr().out == "nothing to refresh\n"


def test_a_mirror_with_holes_takes_nothing_away(index: Index, folder: Path) -> None:
    for versions in index.files.values():
        for version in list(versions)[1::2]:
            del versions[version]
    index.write()
    before = contents(folder)
    assert refresh.main([], folder) == 0
    assert contents(folder) == before


def test_what_is_new_is_written_once(
    index: Index, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index.tell("tensorrt", "12.0.0.1", "2027-01-02")
    index.tell("tensorrt", "10.7.0.post2", "2025-02-03")
    index.tell("tensorrt", "8.6.1", "2023-05-03")
    index.tell("tensorrt-llm", "1.2.0", "2026-03-11")
    index.tell("tensorrt-llm", "1.1.0", "2025-12-19", **{"data-yanked": ""})
    index.write()
    arguments = [
        *triton_table(tmp_path, line("26.09", tensorrt_llm="1.9.0"), line("26.08"), *UPSTREAM),
        "--triton-commit",
        COMMIT,
    ]
    before = contents(folder)
    with pytest.raises(KitError, match="7 values to refresh") as caught:
        refresh.main(["--check", *arguments], folder)
    assert caught.value.exit_code == ExitCode.CONTENT
    assert str(caught.value.hint) == f"python -m kit.data.refresh {' '.join(arguments)}"
    assert contents(folder) == before
    said = capsys.readouterr().out

    assert refresh.main(arguments, folder) == 0
    assert said
    assert capsys.readouterr().out == said
    written = contents(folder)
    tables = {name.removesuffix(".json"): json.loads(text) for name, text in written.items()}
    for name, table in tables.items():
        assert layout.text(table).encode() == written[name + ".json"]
        assert not schema_problems(name, table)
    assert not RULES["releases"](tables["releases"])
    assert not RULES["tensorrt"](tables["tensorrt"])
    assert not triton_problems(tables["triton"], tables["releases"])
    assert said.splitlines() == [
        "releases.json: 1.1.0 is yanked",
        "releases.json: 1.2.0: 2026-03-12 → 2026-03-11",
        "tensorrt.json: new 10.7.0.post2, uploaded on 2025-02-03",
        "tensorrt.json: new 12.0.0.1, uploaded on 2027-01-02",
        "triton.json: new 26.08 with TensorRT-LLM 1.2.1",
        "releases.json: 1.2.1 is shipped in 26.08-trtllm-python-py3",
        "triton.json: new 26.09 with TensorRT-LLM 1.9.0",
    ]
    assert sum(row["version"] == "12.0.0.1" for row in tables["tensorrt"]["pypi"]) == 1
    assert "8.6.1" not in {row["version"] for row in tables["tensorrt"]["pypi"]}
    last = tables["triton"]["containers"][-2]
    assert last == {
        "container": "26.08",
        "tensorrt_llm": "1.2.1",
        "tensorrt": "10.14.1.48",
        "cuda": "13.1.0.036",
        "driver": "590.44.01",
        "python": "3.12.3",
        "torch": "2.10.0a0+b4e4ee81d3.nv25.12",
        "size": "14.20 GB",
        "source": f"{compatibility.DOCUMENT}@{COMMIT}",
    }
    assert "1.9.0" in tables["triton"]["containers"][-1]["note"]

    assert refresh.main(arguments, folder) == 0
    assert contents(folder) == written
    assert capsys.readouterr().out == "nothing to refresh\n"


def test_only_changed_tables_get_a_new_date(index: Index, folder: Path) -> None:
    for name in ("releases", "tensorrt", "triton"):
        table = json.loads((folder / f"{name}.json").read_bytes())
        table["read"] = "2020-01"
        (folder / f"{name}.json").write_text(layout.text(table))
    index.tell("tensorrt", "12.0.0.1", "2027-01-02")
    index.write()
    refresh.main([], folder)
    read = {
        name.removesuffix(".json"): json.loads(text)["read"]
        for name, text in contents(folder).items()
    }
    assert read.pop("tensorrt") > "2020-01"
    assert read == {"releases": "2020-01", "triton": "2020-01"}


def test_new_releases_are_listed_not_made_up(
    index: Index, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index.tell("tensorrt-llm", "1.2.2", "2026-12-01", **{"data-requires-python": "&lt;4,&gt;=3.10"})
    index.tell("tensorrt-llm", "1.4.0rc2", "2026-12-02")
    index.tell("tensorrt-llm", "1.0.0rc0", "2025-06-25")
    index.tell("tensorrt-llm", "1.5.0.dev2026120100", "2026-12-03")
    index.tell("tensorrt-llm", "0.5.0.post1", "2023-11-01")
    index.write()
    before = contents(folder)
    assert refresh.main([], folder) == 0
    assert contents(folder) == before
    out, err = capsys.readouterr()
    assert out.count("by hand") == 1
    assert "by hand: releases.json: 1.2.2 is not in the table: uploaded on 2026-12-01" in out
    assert "<4,>=3.10" in out
    assert "previews newer than the table: 1.4.0rc2\n" in err
    for field in READ["releases"]["fields"]:
        assert (f"  {field}: last read in" in err) == (
            field not in ("released", "yanked", "requires_python")
        )
    assert "dev20261201" not in out + err
    with pytest.raises(KitError, match="0 values to refresh, 1 to look up by hand"):
        refresh.main(["--check"], folder)


def test_an_index_that_tells_no_times(
    index: Index, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for project, versions in index.files.items():
        for version in versions:
            index.tell(project, version, None)
    index.tell("tensorrt", "12.0.0.1", None)
    index.write()
    before = contents(folder)
    assert refresh.main([], folder) == 0
    assert contents(folder) == before
    out, err = capsys.readouterr()
    assert "by hand: tensorrt.json: 12.0.0.1 is on the index, which does not say since when" in out
    assert "0.17.0 is yanked; the index does not mark it" in err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--triton-table", "/nonexistent.md"], ExitCode.USAGE, "No such file"),
        (["--triton-table", "/"], ExitCode.USAGE, "Is a directory"),
        (["--triton-table", "a\0b"], ExitCode.USAGE, "null"),
        (["--triton-table", __file__], ExitCode.CONTENT, "no heading"),
        (["--triton-commit", COMMIT], ExitCode.USAGE, "not given"),
        (["--triton-table", "x", "--triton-commit", "HEAD"], ExitCode.USAGE, "40 hexadecimal"),
        ([], ExitCode.ENVIRONMENT, "no package index has tensorrt-llm"),
    ],
)
def test_errors(
    index: Index, folder: Path, arguments: list[str], code: ExitCode, said: str
) -> None:
    before = contents(folder)
    with pytest.raises(KitError, match=said) as caught:
        refresh.main(arguments, folder)
    assert caught.value.exit_code == code
    assert contents(folder) == before


def test_no_index_at_all(index: Index, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(KitError, match="configured to use none") as caught:
        refresh.main([], folder)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT


# --- releases and packages -----------------------------------------------------------------------


def test_a_later_date_and_a_lost_yank_are_only_noted(tables: dict[str, Any]) -> None:
    offered = {
        "0.16.0": Upload("2025-11-01", yanked=False, requires_python="<4,>=3.7"),
        "0.17.0": Upload("2025-01-30", yanked=False, requires_python=None),
    }
    found = refresh.Findings()
    refresh.refresh_releases(tables["releases"], offered, found)
    assert tables == READ
    assert (found.changed, found.by_hand) == ([], [])
    assert "0.16.0 came out on 2024-12-24" in found.noted[0]
    assert "0.17.0 is yanked" in found.noted[1]


@pytest.mark.parametrize("said", ["<4,>=3.9", "no range"])
def test_another_python_is_looked_up(tables: dict[str, Any], said: str) -> None:
    found = refresh.Findings()
    offered = {"1.2.1": Upload("2026-04-20", yanked=False, requires_python=said)}
    refresh.refresh_releases(tables["releases"], offered, found)
    assert tables == READ
    assert [said in text for text in found.by_hand] == [True]


def test_dates_of_packages_only_become_earlier(tables: dict[str, Any]) -> None:
    found = refresh.Findings()
    offered = {
        "10.1.0": Upload("2024-06-13", yanked=False, requires_python=None),
        "10.2.0": Upload("2030-01-01", yanked=False, requires_python=None),
    }
    refresh.refresh_tensorrt(tables["tensorrt"], offered, found)
    assert found.changed == ["tensorrt.json: 10.1.0: 2024-06-14 → 2024-06-13"]
    changed = [row for row in tables["tensorrt"]["pypi"] if row not in READ["tensorrt"]["pypi"]]
    assert [row["version"] for row in changed] == ["10.1.0"]


# --- Triton's table ------------------------------------------------------------------------------


def test_rows_oldest_first_and_only_of_tensorrt_llm() -> None:
    text = document(
        line("26.08", size="", torch="2.10.0a0%2Bb4e4ee81d3"),
        line("26.07", driver="-", tensorrt=" 10.14.1.48\t"),
    )
    rows = compatibility.rows(text, "x.md")
    assert [row["container"] for row in rows] == ["26.07", "26.08"]
    assert rows[0]["driver"] is None
    assert rows[0]["tensorrt"] == "10.14.1.48"
    assert rows[0]["python"] == "3.12.3"
    assert rows[1]["size"] is None
    assert rows[1]["torch"] == "2.10.0a0+b4e4ee81d3"


def test_columns_go_by_their_names() -> None:
    text = (
        "## Container Name: trtllm-python-py3\n"
        "| New | Size | NGC Tag | Python version | Torch version | TensorRT version "
        "| TensorRT-LLM version | CUDA Driver version | CUDA version | Triton release version |\n"
        "|-|-|-|-|-|-|-|-|-|-|\n"
        "| ? | 1G | nvcr.io/nvidia/tritonserver:27.01-trtllm-python-py3 | Python 3.14 | 3.0 | 11.0 "
        "| 2.0.0 | 700.1 | 14.0 | 27.01 |\n"
    )
    assert compatibility.rows(text, "x.md") == [
        {
            "container": "27.01",
            "tensorrt_llm": "2.0.0",
            "tensorrt": "11.0",
            "cuda": "14.0",
            "driver": "700.1",
            "python": "3.14",
            "torch": "3.0",
            "size": "1G",
        }
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "x.md: no heading"),
        ("<html>trtllm-python-py3</html>", "no heading"),
        ("## Container Name: trtllm-python-py3\n\nlater\n", "no table"),
        (document(), "no table"),
        (document(line("26.08")).replace("Torch version", "Torch"), "no column 'torch version'"),
        # Upstream has had both: a month with the image of another, and a row for it twice.
        (document(line("26.08").replace("26.08-", "26.07-")), "line 8: expected a month"),
        (document(line("26.08"), line("26.08")), "line 9: expected a month"),
        (document(line("main")), "found 'main'"),
        (document("| 26.08 | x |\n"), "expected 9 cells, found 2"),
    ],
)
def test_a_document_that_is_not_in_order(text: str, said: str) -> None:
    with pytest.raises(KitError, match=said) as caught:
        compatibility.rows(text, "x.md")
    assert caught.value.exit_code == ExitCode.CONTENT


def test_any_damage_is_refused_or_read() -> None:
    """Whatever happens to the document, the answer is rows or an error that explains."""
    text = document(*UPSTREAM[:4])
    chance = random.Random(20)
    for _ in range(300):
        place, length = chance.randrange(len(text)), chance.randrange(40)
        damaged = text[:place] + chance.choice(["", "|", "\n", "| |", "é"]) + text[place + length :]
        try:
            rows = compatibility.rows(damaged, "x.md")
        except KitError:
            continue
        assert all(set(row) == {"container", *compatibility.CELLS} for row in rows)


def test_cells_that_differ_are_listed_not_taken(tables: dict[str, Any]) -> None:
    found = refresh.Findings()
    rows = compatibility.rows(document(line("26.07", tensorrt="0.14.1.48", size="")), "x.md")
    refresh.refresh_triton(tables["triton"], tables["releases"], rows, "source", found)
    assert tables == READ
    assert found.changed == []
    assert found.by_hand == [
        "triton.json: tensorrt of 26.07 is '10.14.1.48', '0.14.1.48' in Triton's table",
        "triton.json: size of 26.07 is '14.20 GB', None in Triton's table",
    ]


@pytest.mark.parametrize(
    ("release", "had", "source"),
    [
        ("1.2.1", 4, "old; new"),
        ("0.18.1", 0, "new"),
        ("0.6.0", 0, "new"),
    ],
)
def test_a_release_gets_its_new_container(
    tables: dict[str, Any], release: str, had: int, source: str
) -> None:
    old = ranges.find(
        READ["releases"]["fields"]["triton_container"],
        release,
        [row["version"] for row in READ["releases"]["releases"]],
    )
    found = refresh.Findings()
    rows = compatibility.rows(
        document(line("26.08", tensorrt_llm=release, size="", driver="")), "x.md"
    )
    refresh.refresh_triton(tables["triton"], tables["releases"], rows, "new", found)
    assert tables["triton"]["containers"][-1]["holes"] == {"driver size": "empty in Triton's table"}
    row = next(
        row
        for row in tables["releases"]["fields"]["triton_container"]
        if row["releases"] == [release]
    )
    assert row["value"] == [*(old["value"] or []), "26.08-trtllm-python-py3"]
    assert len(row["value"]) == had + 1
    assert row["source"] == source.replace("old", str(old.get("source")))
    assert not schema_problems("releases", tables["releases"])
    assert not RULES["releases"](tables["releases"])


# --- what an index says --------------------------------------------------------------------------


def test_files_become_versions() -> None:
    files = [
        File("x-1.0-py3-none-any.whl", "2024-03-02T00:00:00Z", yanked=True, requires_python=">=3"),
        File("x-1.0.tar.gz", "2024-03-01T23:59:59.9Z", yanked=False, requires_python=">=3"),
        File("X-2.0.tar.gz", None, yanked=True, requires_python=">=3.8"),
        File("x-2.0-py3-none-any.whl", "yesterday", yanked=True, requires_python=None),
        File("x-1.0.exe", "2020-01-01T00:00:00Z", yanked=False, requires_python=None),
        File("nonsense.whl", "2020-01-01T00:00:00Z", yanked=False, requires_python=None),
    ]
    assert uploads.by_version(files) == {
        "1.0": Upload("2024-03-01", yanked=False, requires_python=">=3"),
        "2.0": Upload(None, yanked=True, requires_python=None),
    }


def test_both_kinds_of_page_say_the_same() -> None:
    html = (
        '<!DOCTYPE html><a href="../../x-1.0.tar.gz?a=b#sha256=0" data-requires-python="&gt;=3.8"'
        ' data-yanked data-upload-time="2024-03-01T00:00:00Z">x-1.0.tar.gz</a><a name="here">x</a>'
        '<a href="x-1.1.tar.gz">x-1.1.tar.gz</a>'
    )
    entries: list[dict[str, Any]] = [
        {
            "filename": "x-1.0.tar.gz",
            "url": "x",
            "hashes": {},
            "requires-python": ">=3.8",
            "yanked": "broken",
            "upload-time": "2024-03-01T00:00:00Z",
        },
        {"filename": "x-1.1.tar.gz", "url": "x", "hashes": {}, "yanked": False},
    ]
    page = json.dumps({"meta": {"api-version": "1.1"}, "files": entries})
    expected = [
        File("x-1.0.tar.gz", "2024-03-01T00:00:00Z", yanked=True, requires_python=">=3.8"),
        File("x-1.1.tar.gz", None, yanked=False, requires_python=None),
    ]
    assert list(uploads._json_files(page.encode())) == expected
    assert uploads._html(html.encode()) == expected


# --- ranges --------------------------------------------------------------------------------------


def test_ranges_are_spread_and_gathered() -> None:
    order = list("abcdefg")
    assert ranges.spread(["a", "c..e"], order) == ["a", "c", "d", "e"]
    assert ranges.gather(["e", "a", "d", "c"], order) == ["a", "c..e"]
    with pytest.raises(ValueError, match="is not in list"):
        ranges.spread(["a..z"], order)
    chance = random.Random(1)
    for _ in range(200):
        some = sorted(chance.sample(order, chance.randrange(1, 8)))
        assert ranges.spread(ranges.gather(some, order), order) == some


def test_one_release_is_told_anew() -> None:
    order = list("abcde")
    rows = [{"releases": ["a..d"], "value": 1, "source": "s"}, {"releases": ["e"], "value": 2}]
    split = ranges.replace(rows, "b", {"value": 2, "source": "t"}, order)
    assert split == [
        {"releases": ["a", "c..d"], "value": 1, "source": "s"},
        {"releases": ["b"], "value": 2, "source": "t"},
        {"releases": ["e"], "value": 2},
    ]
    assert ranges.replace(split, "b", {"value": 1, "source": "s"}, order) == rows
    assert ranges.replace(rows, "d", {"value": 2}, order) == [
        {"releases": ["a..c"], "value": 1, "source": "s"},
        {"releases": ["d..e"], "value": 2},
    ]
    with pytest.raises(KeyError):
        ranges.find(rows[:1], "e", order)
