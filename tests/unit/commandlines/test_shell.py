"""Shell text becomes simple commands, whatever people paste."""

from __future__ import annotations

import random
import shlex

import pytest

from kit.commandlines.shell import BLANK_AFTER_BACKSLASH, MISSING_BACKSLASH, split


def texts(text: str) -> list[list[str]]:
    return [[word.text for word in command.words] for command in split(text)]


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ("a b  c", [["a", "b", "c"]]),
        ("a 'b c' \"d e\" f\\ g", [["a", "b c", "d e", "f g"]]),
        ('a "x\\"y" \'x"y\' ""', [["a", 'x"y', 'x"y', ""]]),
        ("a --x='b c'd", [["a", "--x=b cd"]]),
        ("a \\\n  b", [["a", "b"]]),
        ("a; b && c || d | e & f\ng", [["a"], ["b"], ["c"], ["d"], ["e"], ["f"], ["g"]]),
        ("a # b", [["a"]]),
        ("a#b 'c # d'", [["a#b", "c # d"]]),
        ("# nothing\n\n", []),
        ("$ a\n$ b", [["a"], ["b"]]),
        ("user@host:~/x$ a b", [["a", "b"]]),
        ("!a b\n%cd c", [["a", "b"], ["cd", "c"]]),
        ("X=1 Y='2 3' a b", [["a", "b"]]),
        ("X=1", []),
        ("a > out 2>&1", [["a"]]),
        ("a b >> out 2> err < in c", [["a", "b", "c"]]),
        ("a &> out", [["a"]]),
        ("cat <<EOF\nb c\nEOF\nd", [["cat"], ["d"]]),
        ("cat <<-'EOF' | e\n\tb c\n\tEOF\nd", [["cat"], ["e"], ["d"]]),
        ("for x in 1 2; do a $x; done", [["a", "$x"]]),
        ("if [ -f x ]; then\n  a\nelse\n  b\nfi", [["a"], ["b"]]),
        ("while true; do a; done", [["true"], ["a"]]),
        ("(cd x && a); b", [["cd", "x"], ["a"], ["b"]]),
        ("{ a; b; }", [["a"], ["b"]]),
        ("time a b", [["a", "b"]]),
        ("python .\\scripts\\build_wheel.py -a 89", [["python", "./scripts/build_wheel.py", "-a", "89"]]),
        ("a --dir .\\x\\y\\ --b c", [["a", "--dir", "./x/y/", "--b", "c"]]),
        ("a `\n  b", [["a", "b"]]),
        ("a \\\r\n b", [["a", "b"]]),
        ("a 'b", [["a", "b"]]),
        ("a $'b c' $ d", [["a", "b c", "$", "d"]]),
    ],
)  # fmt: skip
def test_commands(text: str, commands: list[list[str]]) -> None:
    assert texts(text) == commands


@pytest.mark.parametrize(
    ("word", "known", "splits"),
    [
        ("$X", "", True),
        ('"$X"', "", False),
        ('"$@"', "", True),
        ('"${A[@]}"', "", True),
        ("${X:-a b}", "", True),
        ("$(a b | c)", "", True),
        ("`a b`", "", True),
        ("--x=$Y", "--x=", True),
        ("--x=<a b>", "--x=", False),
        ("<path to the model>", "", False),
        ("{model}", "", False),
        ("{{model}}/x", "", False),
        ("{1..4}", "", True),
        ("a/*.txt", "a/", True),
        ("[options]", "", True),
        ("...", "", True),
        ("a/...", "a/", True),
        ('"{name}"', "", False),
    ],
)
def test_what_only_a_running_shell_knows(word: str, known: str, splits: bool) -> None:
    [command] = split(f"x {word} y")
    assert [found.text for found in command.words] == ["x", command.words[1].text, "y"]
    found = command.words[1]
    assert (found.raw, found.known, found.opaque, found.splits) == (word, known, True, splits)


def test_redirection_is_no_placeholder() -> None:
    assert texts("a <in >out") == [["a"]]
    assert texts("a < in > out b") == [["a", "b"]]
    assert texts("a <in> b") == [["a", "<in>", "b"]]


def test_slips_of_documentation_are_mended_and_said() -> None:
    [command] = split("a --x 1 \\ \n  --y 2")
    assert [word.text for word in command.words] == ["a", "--x", "1", "--y", "2"]
    assert command.notes == (BLANK_AFTER_BACKSLASH,)
    [command] = split("a --x 1 \\ # why\n  --y 2")
    assert [word.text for word in command.words] == ["a", "--x", "1", "--y", "2"]
    [command] = split("a --x 1\n  --y 2")
    assert [word.text for word in command.words] == ["a", "--x", "1", "--y", "2"]
    assert command.notes == (MISSING_BACKSLASH,)


def test_scopes_of_subshells() -> None:
    scopes = [command.scope for command in split("a; (b; (c)); d; (e)")]
    assert scopes == [(), (1,), (1, 2), (), (3,)]


def test_literal_words_are_split_as_shlex_does() -> None:
    chance = random.Random(3)
    letters = "ab-=/.,:@%^+0 'l\""
    for _ in range(2000):
        words = ["".join(chance.choices(letters, k=chance.randint(0, 8))) for _ in range(4)]
        text = shlex.join(["x", *words])
        [command] = split(text)
        assert [word.text for word in command.words] == ["x", *words]
        assert " ".join(word.raw for word in command.words) == text


def test_any_text_ends() -> None:
    chance = random.Random(5)
    for _ in range(5000):
        text = "".join(chance.choices("ab \\\n'\"$`(){}<>|&;#[]*?!=-\t", k=chance.randint(0, 40)))
        for command in split(text):
            assert command.words
    assert split("(" * 50_000) == []
    assert len(split("$(" * 20_000)) <= 1
