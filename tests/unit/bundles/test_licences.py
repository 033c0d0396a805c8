"""What packages say of their licences, whatever state they are in, and where it is printed."""

from __future__ import annotations

import zipfile

import pytest

from kit.bundles import licences
from kit.bundles.contents import Content, Entry
from kit.errors import ExitCode, KitError
from tests.unit.bundles import making

METADATA = "a-1.dist-info/METADATA"


def wheel(folder, metadata, compression=zipfile.ZIP_DEFLATED):
    path = folder / "a-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(METADATA, metadata)
    return path


def said(path):
    entry = Entry(path.name, "wheel", str(path))
    return licences.of(Content("file", "x", "", "y", (entry,)))


@pytest.mark.parametrize(
    "compression",
    [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA],
)
def test_a_damaged_wheel_is_named(tmp_path, compression):
    path = wheel(tmp_path, "License: MIT\n" * 500, compression)
    content = bytearray(path.read_bytes())
    place = content.index(b"METADATA") + len(b"METADATA")
    for offset in range(place, place + 40):  # behind what LZMA says of itself, too
        content[offset] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(KitError, match=f"{path}: a damaged wheel: {METADATA}") as caught:
        said(path)
    assert caught.value.exit_code == ExitCode.CONTENT


def test_what_is_no_wheel_names_none(tmp_path):
    path = tmp_path / "a.whl"
    for content in (b"", b"x" * 5000, b"PK\x05\x06" + bytes(18)):
        path.write_bytes(content)
        assert said(path) == "a package that names none"


def test_what_a_licence_says_makes_no_line_of_its_own(place, tmp_path):
    path = wheel(tmp_path, "Name: a\nLicense: MIT\x1b]0;x\x07\r  id: forged \u202e\n")
    making.make(place, tmp_path / "out", path)
    for name in ("transfer-sheet.txt", "transfer-sheet.html"):
        text = (tmp_path / "out" / name).read_bytes().decode()
        assert "MIT\\x1b]0;x\\x07\\r  id: forged" in text
        assert all(sign.isprintable() or sign == "\n" for sign in text)
