import os
import random
import subprocess
import time

import pytest

from kit.errors import KitError
from kit.locks.attributes import Attributes, Glob


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("*.a", "lib.a", True),
        ("*.a", "deep/er/lib.a", True),
        ("*.a", "lib.a.txt", False),
        ("cpp/**", "cpp/x/y.a", True),
        ("cpp/**", "cpp", False),
        ("cpp/**", "x/cpp/y", False),
        ("cpp/*", "cpp/x/y", False),
        ("/lib.a", "lib.a", True),
        ("/lib.a", "x/lib.a", False),
        ("**/x86/*.a", "x86/l.a", True),
        ("**/x86/*.a", "a/b/x86/l.a", True),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("a/**/b", "a/x/y/c", False),
        ("[a-c]?.so", "bx.so", True),
        ("[!a-c]?.so", "bx.so", False),
        ("x\\*", "x*", True),
        ("x\\*", "xy", False),
        ("folder/", "folder", False),
        ("[", "[", False),
    ],
)
def test_globs(pattern, path, fits):
    assert Glob(pattern).fits(path) is fits


def test_the_deepest_and_last_rule_decides():
    attributes = Attributes()
    attributes.add("a/.gitattributes", "*.a -filter\nkeep.a filter=lfs\nback.a !filter\n")
    attributes.add(
        ".gitattributes",
        "# no rule\n[attr]large filter=lfs -text\n*.a filter=lfs diff=lfs\n*.bin large\n"
        '"with blank.*" filter=lfs\nother.bin -large\n*.x filter=crypt\n',
    )
    lfs = ["x.a", "b/x.a", "a/keep.a", "x.bin", "with blank.y"]
    others = ["a/x.a", "a/back.a", "other.bin", "y.x", "with"]
    assert [path for path in lfs + others if attributes.is_lfs(path)] == lfs


def test_as_git_decides(tmp_path):
    """The peer: `git check-attr` on random rules and paths."""
    git = ["git", "-c", "core.attributesFile=/dev/null"]
    environment = {
        "PATH": os.environ["PATH"],
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
    subprocess.run([*git, "init", "-q", tmp_path], check=True, env=environment)
    dice = random.Random(3)
    words = [
        "a",
        "b",
        "ab",
        "a.b",
        "*",
        "?",
        "**",
        "*b",
        "a*",
        "[ab]",
        "[!a]*",
        "a\\b",
        "[[:alpha:]]",
        "*a*b",
    ]
    values = [
        "filter=lfs",
        "filter=lfs",
        "-filter",
        "!filter",
        "filter",
        "filter=x",
        "big",
        "-big",
        "!big",
    ]
    names = ["a", "b", "ab", "a.b", "ba", "aab", "c"]
    paths = ["/".join(dice.choices(names, k=dice.randrange(1, 5))) for _ in range(150)]
    wrong = []
    for _ in range(60):
        attributes = Attributes()
        for folder in ("", "a/", "a/b/"):
            lines = ["[attr]big filter=lfs -text"]
            for _ in range(dice.randrange(6)):
                pattern = "/".join(dice.choices(words, k=dice.randrange(1, 4)))
                pattern = dice.choice(("", "", "/")) + pattern
                lines.append(f"{pattern} {' '.join(dice.choices(values, k=dice.randrange(1, 3)))}")
            text = "\n".join(lines) + "\n"
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / ".gitattributes").write_text(text)
            attributes.add(f"{folder}.gitattributes", text)
        answer = subprocess.run(
            [*git, "-C", tmp_path, "check-attr", "-z", "--stdin", "filter"],
            input="\0".join(paths) + "\0",
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        ).stdout.split("\0")
        for path, value in zip(answer[0::3], answer[2::3], strict=False):
            if attributes.is_lfs(path) != (value == "lfs"):
                wrong.append(
                    (
                        path,
                        value,
                        [(tmp_path / f / ".gitattributes").read_text() for f in ("", "a", "a/b")],
                    )
                )
    assert wrong == []


def test_hostile_patterns_take_no_time():
    start = time.process_time()
    for pattern in (
        "a*" * 60 + "b",
        "**/" * 60 + "b",
        "*/" * 60 + "b",
        "[a-z]*" * 100,
        "?*" * 100 + "x",
    ):
        assert not Glob(pattern).fits("/".join(["a" * 60] * 60))
    assert time.process_time() - start < 10, "no more than minutes would show"


def test_too_many_rules():
    with pytest.raises(KitError, match="more than 5000 rules"):
        Attributes().add(".gitattributes", "x filter=lfs\n" * 6000)
