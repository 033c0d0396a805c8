import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit import document
from kit.errors import ExitCode, KitError

TEXT = """\
name: x
count: 3
ready: true
things: [a, b]
inner:
  deep: y
list:
  - key: 1
  - key: 2
nothing:
"""


def fails(text, words, read=lambda top: top.close()):
    with pytest.raises(KitError) as caught:
        read(document.loads(text, "f.yaml"))
    assert words in str(caught.value)
    assert caught.value.exit_code == ExitCode.USAGE
    return str(caught.value)


def test_everything_is_read_by_name(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text(TEXT)
    top = document.load(path)
    assert top.text("name") == "x"
    assert top.text("other", "default") == "default"
    assert top.integer("count") == 3
    assert top.integer("other", 7) == 7
    assert top.boolean("ready") is True
    assert top.texts("things") == ("a", "b")
    assert top.texts("other") == ()
    assert top.section("inner").text("deep") == "y"
    assert [item.integer("key") for item in top.sections("list")] == [1, 2]
    assert top.sections("other") == []
    assert top.optional_text("nothing") is None
    assert top.optional_section("other") is None
    assert top.plain("list") == [{"key": 1}, {"key": 2}]
    assert "name" in top
    assert "other" not in top
    assert next(iter(top.keys())) == "name"
    assert top.where("count") == f"{path}:2:8"
    top.close()


def test_an_absent_file_and_a_folder(tmp_path):
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(KitError, match="cannot be read") as caught:
            document.load(path)
        assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nbb: {", "f.yaml:3:1: not valid YAML"),
        ("a: 1\nb: c: d", "f.yaml:2:5: not valid YAML"),
        ("a: 1\nb: 2\na: 3", "f.yaml:3:1: key 'a' stands twice"),
        ("x:\n  - {b: 1,\n     b: 2}", "f.yaml:3:6: key 'b' stands twice"),
        ("", "f.yaml:1:1: empty file"),
        ("# only a comment", "empty file"),
        ("- a", "f.yaml:1:1: expected a mapping"),
        ("? [a]\n: b", "a key must be a plain text"),
        ("a: &x [*x]", "f.yaml:1:4: stands inside itself"),
        ("a: " + "[" * 200 + "]" * 200, "nested deeper than 64 levels"),
        ("a: " + "[" * 50_000, "f.yaml"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
        ("a: \x01", "not valid YAML"),
        (b"a: \xff", "not valid YAML"),
        ("a: *x", "undefined alias"),
    ],
)
def test_malformed_text_names_its_place(text, words):
    fails(text, words)


def test_laughs_are_cheap():
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
    document.loads("\n".join(lines), "f.yaml")


def test_unknown_keys_name_the_nearest():
    def read(top):
        top.text("name")
        top.close()

    fails("name: x\nnmae: y", "f.yaml:2:1: unknown key 'nmae'; did you mean name?", read)


@pytest.mark.parametrize(
    ("text", "read", "words"),
    [
        ("a: 1", lambda top: top.text("a"), "1:4: a: expected a text, found '1'; put it in quotes"),
        ("a: yes", lambda top: top.text("a"), "put it in quotes"),
        ("a: 1.5", lambda top: top.integer("a"), "expected a whole number"),
        ("a: true", lambda top: top.integer("a"), "expected a whole number"),
        ("a: 1", lambda top: top.boolean("a"), "expected true or false"),
        ("a: [x]", lambda top: top.text("a"), "found a list or mapping"),
        ("a: x", lambda top: top.texts("a"), "expected a list"),
        ("a: [x, 1]", lambda top: top.texts("a"), "f.yaml:1:8"),
        ("a: x", lambda top: top.section("a"), "a: expected a mapping"),
        ("a: [x]", lambda top: top.sections("a"), "f.yaml:1:5: a: expected a mapping"),
        ("a: {}", lambda top: top.sections("a"), "expected a list"),
        ("b: 1", lambda top: top.text("a"), "f.yaml:1:1: missing key 'a'"),
        ("b: 1", lambda top: top.section("a"), "missing key 'a'"),
        ("a: 2024-99-99", lambda top: top.text("a"), "f.yaml:1:4: cannot be read as plain data"),
        ("a: =", lambda top: top.text("a"), "cannot be read as plain data"),
        ("a: !!python/name:os.system x", lambda top: top.plain("a"), "cannot be read"),
        ("a: " + "9" * 5000, lambda top: top.integer("a"), "cannot be read as plain data"),
    ],
)
def test_wrong_kinds_name_their_place(text, read, words):
    fails(text, words, read)


def test_json_is_yaml():
    top = document.loads(json.dumps({"a": "x\ty", "b": [1]}, indent=1), "f.json")
    assert top.text("a") == "x\ty"
    assert top.plain("b") == [1]


@given(st.one_of(st.text(), st.binary()))
def test_no_text_brings_a_traceback(content):
    try:
        top = document.loads(content, "f.yaml")
        for key in list(top.keys()):
            top.plain(key)
        top.close()
    except KitError as error:
        assert str(error).startswith("f.yaml:")  # noqa: PT017 (an error is one of two outcomes)


def test_numbers_have_bounds() -> None:
    section = document.loads("a: 1\nb: 0.5\nc: 2\nd: true\ne: .nan\n", "x.yaml")
    assert (section.number("a", 0, 1), section.number("b", 0, 1)) == (1.0, 0.5)
    for key, place in (("c", "3:4"), ("d", "4:4"), ("e", "5:4")):
        with pytest.raises(KitError, match=f"{place}: {key}: expected a number from 0 to 1, found"):
            section.number(key, 0, 1)


def test_every_value_has_its_place() -> None:
    section = document.loads("a: 1\nb:\n  c: [1, 2]\n  d: {e: x}\n", "x.yaml")
    assert section.is_mapping("b")
    assert not section.is_mapping("a")
    assert document.places(section) == {
        "a": "x.yaml:1:4",
        "b": "x.yaml:3:3",
        "b.c": "x.yaml:3:6",
        "b.d": "x.yaml:4:6",
        "b.d.e": "x.yaml:4:10",
    }
