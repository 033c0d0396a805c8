import hashlib
import io
import random
import tarfile

import pytest

from kit.errors import ExitCode, KitError
from kit.locks import archive

LONG = "/".join(["folder" * 8] * 4) + "/ß\udcff"
ROWS = [
    (".gitmodules", "file", b"[submodule]\n", ""),
    ("3rdparty/sub", "submodule", b"", "ab" * 20),
    ("a.sh", "program", b"#!/bin/sh\n", ""),
    (LONG, "file", b"x" * 513, ""),
    ("link", "symlink", b"", "t/" * 90 + "end"),
    ("z", "file", b"", ""),
]


def made(rows=ROWS):
    parts = [
        archive.header(path, kind, len(content), link) + content + archive.padding(len(content))
        for path, kind, content, link in rows
    ]
    return b"".join(parts) + archive.END


def read(content):
    return [
        (member.path, member.kind, b"".join(member.chunks()), member.link)
        for member in archive.members(io.BytesIO(content), "here")
    ]


def read_if_sound(content):
    """None for what is refused; any other end than a content error is the test's."""
    try:
        return read(content)
    except KitError as error:
        if error.exit_code != ExitCode.CONTENT:
            raise
        return None


def test_the_form_does_not_change():
    """Every lock hangs on these bytes: another digest is another version of the form."""
    assert hashlib.sha256(made()).hexdigest() == (
        "1cc9b5b5597794daca999d7e9961a3ac61d94f967ffbab969ec24af9c1d23d88"
    )


def test_what_was_written_is_read():
    assert read(made()) == ROWS
    assert read(archive.END) == []


def test_python_reads_it_too():
    with tarfile.open(fileobj=io.BytesIO(made()), errors="surrogateescape") as tar:
        members = tar.getmembers()
        assert [member.name for member in members] == [row[0] for row in ROWS]
        assert [member.mode for member in members] == [0o644, 0o755, 0o755, 0o644, 0o777, 0o644]
        assert {(member.mtime, member.uid, member.gid) for member in members} == {(0, 0, 0)}
        assert members[1].isdir()
        assert members[4].linkname == ROWS[4][3]
        assert tar.extractfile(members[3]).read() == ROWS[3][2]


def test_large_sizes_are_not_octal():
    for size in (8**11 - 1, 8**11, 1 << 40):
        block = archive.header("x", "file", size)
        assert tarfile.TarInfo.frombuf(block, "utf-8", "strict").size == size


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/x",
        "../x",
        "a/../x",
        "a//b",
        "a/./b",
        "a/",
        ".git/config",
        "a/.GIT",
        "a\0b",
        "x" * 5000,
    ],
)
def test_refused_paths(path):
    with pytest.raises(KitError, match="refused path") as caught:
        archive.safe_path(path.encode(), "here")
    assert caught.value.exit_code == ExitCode.CONTENT


def test_any_flipped_bit_outside_of_contents_is_found():
    content = made()
    dice = random.Random(2)
    contents = [
        range(start, start + len(row[2]))
        for row in ROWS
        if row[2] and (start := content.index(row[2])) is not None
    ]
    for _ in range(600):
        place = dice.randrange(len(content))
        if any(place in span for span in contents):
            continue
        flipped = bytearray(content)
        flipped[place] ^= 1 << dice.randrange(8)
        found = read_if_sound(bytes(flipped))
        # A bit of a long name has no checksum: it is another name, and no other difference.
        if found is not None:
            assert [row[1:3] for row in found] == [row[1:3] for row in ROWS]
            assert made(found) == bytes(flipped)


def test_cut_short_and_longer():
    content = made()
    for count in (*range(0, len(content), 97), len(content) - 1):
        with pytest.raises(KitError, match=r"ends early|more after its end"):
            read(content[:count])
    with pytest.raises(KitError, match="more after its end"):
        read(content + b"\0")


@pytest.mark.parametrize(
    "rows",
    [
        [ROWS[2], ROWS[0]],
        [ROWS[0], ROWS[0]],
        [("a", "symlink", b"content", "b")],
    ],
)
def test_not_of_this_form(rows):
    with pytest.raises(KitError, match="no archive of a source tree"):
        read(made(rows))


def test_archives_of_others():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("x"))
    with pytest.raises(KitError, match="no archive of a source tree"):
        read(stream.getvalue())
    for size in (0, 511, 512, 5000):
        with pytest.raises(KitError):
            read(random.Random(size).randbytes(size))
