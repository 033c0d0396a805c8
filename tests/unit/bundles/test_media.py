"""What the file system of a medium takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.bundles import media
from kit.cli import run
from kit.errors import ExitCode, KitError
from tests.unit.bundles import making

MOUNTS = """22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 8:1 / {0} rw,relatime - ext4 /dev/sda1 rw
31 22 8:1 / {0}/USB\\040STICK rw,relatime shared:5 master:1 - vfat /dev/sdb1 rw
32 22 8:1 / {0}/USB\\040STICK/inner rw,relatime - tmpfs none rw
damaged
33 22 0:5 / /dev - devtmpfs
"""


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("USB STICK/new/out", "vfat"),
        ("USB STICK", "vfat"),
        ("USB STICKS", "ext4"),
        ("USB STICK/inner/x", "tmpfs"),
        ("link", "vfat"),
    ],
)
def test_the_mount_that_holds_it(tmp_path, where, expected):
    (tmp_path / "USB STICK" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to("USB STICK")
    assert media.filesystem(tmp_path / where, MOUNTS.format(tmp_path)) == expected


def test_this_host_says_what_it_has():
    assert media.filesystem(Path("/proc/nothing")) == "proc"


@pytest.mark.parametrize("size", [media.FAT32_LARGEST, media.FAT32_LARGEST + 1])
def test_fat_ends_below_four_gibibytes(tmp_path, monkeypatch, size):
    monkeypatch.setattr(media, "filesystem", lambda path: "vfat")
    if size <= media.FAT32_LARGEST:
        media.refuse_large_parts(tmp_path, size)
        return
    with pytest.raises(KitError, match="is on FAT32, whose files have 4294967295") as caught:
        media.refuse_large_parts(tmp_path, size)
    assert (caught.value.exit_code, caught.value.hint) == (ExitCode.USAGE, "--part-size 4G")


def test_elsewhere_it_is_told_and_done(tmp_path, monkeypatch, capsys):
    place = making.project(tmp_path)
    monkeypatch.setenv("KIT_ROOT", str(place.root))
    monkeypatch.setenv("KIT_HOME", str(place.home))
    making.noise(tmp_path / "data", [10])
    words = ["--file", str(tmp_path / "data"), "--without-kit", "--part-size"]
    assert run(["bundle", "create", str(tmp_path / "out"), *words, "4GiB"]) == 0
    assert "fit on no FAT32 medium (4294967295): --part-size 4G" in capsys.readouterr().err
    assert run(["bundle", "create", str(tmp_path / "two"), *words, "4G"]) == 0
    assert "FAT32" not in capsys.readouterr().err
