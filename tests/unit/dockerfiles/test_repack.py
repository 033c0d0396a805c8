"""Wheels packed again: the same files give the same bytes, and nothing in them is lost."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[3] / "dockerfiles/trtllm/install/repack.py"
FILES = {
    "tensorrt_llm/__init__.py": b"",
    "tensorrt_llm/bin/executorWorker": b"\x7fELF" + bytes(300),
    "tensorrt_llm/libs/libth_common.so": bytes(range(256)) * 40,
    "tensorrt_llm-0.16.0.dist-info/METADATA": b"Name: tensorrt_llm\n",
    "tensorrt_llm-0.16.0.dist-info/WHEEL": b"Wheel-Version: 1.0\n",
}
RECORD = "tensorrt_llm-0.16.0.dist-info/RECORD"
NAME = "tensorrt_llm-0.16.0-cp312-cp312-linux_x86_64.whl"


def write(folder, names, year, compression):
    """A wheel as a tool may leave it: members and lines of RECORD in some order."""
    folder.mkdir()
    lines = [f"{name},sha256=x,{len(FILES[name])}\n" for name in names]
    with zipfile.ZipFile(folder / NAME, "w", compression) as wheel:
        wheel.writestr("tensorrt_llm/", b"")
        for name, content in [*((name, FILES[name]) for name in names), (RECORD, "".join(lines))]:
            entry = zipfile.ZipInfo(name, (year, 5, 4, 3, 2, 0))
            entry.external_attr = (0o100775 if "/bin/" in name else 0o100664) << 16
            wheel.writestr(entry, content)
    return folder / NAME


def repack(wheel, folder, epoch="1735027123"):
    folder.mkdir()
    subprocess.run(
        [sys.executable, SCRIPT, wheel, folder], check=True, env={"SOURCE_DATE_EPOCH": epoch}
    )
    return folder / NAME


def test_order_times_modes_and_compression_do_not_count(tmp_path):
    one = write(tmp_path / "a", list(FILES), 2024, zipfile.ZIP_DEFLATED)
    two = write(tmp_path / "b", list(reversed(FILES)), 2025, zipfile.ZIP_STORED)
    first, second = repack(one, tmp_path / "1"), repack(two, tmp_path / "2")
    assert one.read_bytes() != two.read_bytes()
    assert first.read_bytes() == second.read_bytes()


def test_content_stays_and_record_comes_last(tmp_path):
    packed = repack(write(tmp_path / "a", list(FILES), 2024, zipfile.ZIP_STORED), tmp_path / "1")
    with zipfile.ZipFile(packed) as wheel:
        assert {name: wheel.read(name) for name in FILES} == FILES
        assert wheel.namelist()[-1] == RECORD
        assert sorted(wheel.namelist()) == sorted([*FILES, RECORD])
        modes = {item.filename: item.external_attr >> 16 for item in wheel.infolist()}
        assert wheel.testzip() is None
    assert modes["tensorrt_llm/bin/executorWorker"] == 0o100755
    assert modes["tensorrt_llm/__init__.py"] == 0o100644


def test_an_epoch_before_the_format_began(tmp_path):
    wheel = write(tmp_path / "a", list(FILES), 2024, zipfile.ZIP_STORED)
    with zipfile.ZipFile(repack(wheel, tmp_path / "1", "0")) as packed:
        assert {item.date_time for item in packed.infolist()} == {(1980, 1, 1, 0, 0, 0)}
