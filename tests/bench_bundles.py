"""What bundles cost, against `cp -r`, `sha256sum` on all cores, `tar`, `docker save`, `skopeo copy`.

8 GB of random data in 50 files and 10,000 small ones, all on one disk, in one run.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kit.digest import Digest
from kit.images.oci import Layer, Layout

BYTES = int(os.environ.get("KIT_BENCH_BYTES", "8000000000"))
FILES, SMALL = 50, 10_000
CHANGED = 100_000_000


def _fill(folder):
    size = BYTES // FILES
    for number in range(FILES):
        _noise(folder / f"large-{number:02}", size)
    noise = random.Random(0)
    for number in range(SMALL):
        path = folder / "small" / f"{number % 100:02}" / f"{number:05}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(noise.randbytes(noise.randrange(1, 16_000)))
    _noise(folder / "one", CHANGED)


def _noise(path, size):
    with path.open("wb") as stream:
        for start in range(0, size, 1 << 22):
            stream.write(os.urandom(min(1 << 22, size - start)))


def _timed(*argv, before=True, **options):
    """Seconds and the largest memory in MB of a program; everything is on the disk `before`."""
    if before:
        os.sync()
    start = time.perf_counter()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, **options)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, argv
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def _copied(source, scratch):
    """Seconds of `cp -r`, which unlike the kit does not wait for the disk."""
    seconds, _ = _timed("cp", "-r", source, scratch / "copy")
    _gone(scratch / "copy")
    return seconds


def _gone(folder):
    """Remove, and wait: ext4 passes over the inodes of five seconds, one by one."""
    shutil.rmtree(folder)
    os.sync()
    time.sleep(6)


def _forget(folder):
    """Have memory give up its files, so that both sides read them from the disk."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def rows():
    """Rows of the table of `make bench`."""
    kit = str(Path(sys.executable).with_name("kit"))
    with contextlib.ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp", prefix="kit-bench-"))
        scratch = Path(name)
        source = scratch / "source"
        source.mkdir()
        _fill(source)
        environment = {**os.environ, "KIT_HOME": str(scratch / "home")}
        site = {**os.environ, "KIT_HOME": str(scratch / "site")}
        create = [kit, "bundle", "create", str(scratch / "bundle"), "--file", str(source)]
        create += ["--name", "bench", "--without-kit"]

        before = _copied(source, scratch)
        made, memory = _timed(*create, env=environment)
        again, _ = _timed(*create, env=environment)
        copy = (before + _copied(source, scratch)) / 2
        yield ["bundle create", "cp -r", made, copy, made / copy, f"≤ 1.3, {memory:.0f} MB ≤ 150"]
        yield ["create, unchanged", "the first", again, made, again / made, "≤ 0.02"]

        sums = f"find '{source}' -type f -print0 | xargs -0 -n 20 -P {os.cpu_count()} sha256sum"
        _forget(source)
        peer, _ = _timed("sh", "-c", sums)
        _forget(scratch / "bundle")
        verify = [kit, "bundle", "verify", str(scratch / "bundle")]
        ours, memory = _timed(*verify, env=site)
        speed = f"speed {peer / ours:.2f} ≥ 0.9, {memory:.0f} MB ≤ 150"
        yield ["bundle verify", "sha256sum, all cores", ours, peer, ours / peer, speed]

        before = _copied(source, scratch)
        ours, memory = _timed(kit, "bundle", "load", str(scratch / "bundle"), env=site)
        _gone(scratch / "site")
        copy = (before + _copied(source, scratch)) / 2
        yield ["bundle load", "cp -r", ours, copy, ours / copy, f"≤ 1.3, {memory:.0f} MB ≤ 150"]

        _noise(source / "one", CHANGED)
        delta = [kit, "bundle", "create", str(scratch / "delta"), *create[4:]]
        delta += ["--since", str(scratch / "bundle")]
        ours, _ = _timed(*delta, env=environment)
        size = sum(path.stat().st_size for path in (scratch / "delta").iterdir())
        yield [
            "delta, one file of 100 MB",
            "the first",
            ours,
            made,
            ours / made,
            f"{size} B ≤ 101 MB",
        ]

        tar = scratch / "peer.tar"
        peer, _ = _timed("tar", "-cf", tar, "-C", source, ".")
        yield ["bundle create", "tar -cf", made, peer, made / peer, "tar verifies nothing"]
        shutil.rmtree(scratch / "bundle")
        yield from _images(scratch, tar, made)


def _images(scratch, tar, made):
    """The same data as the one layer of an image: `skopeo copy` and `docker save`."""
    if shutil.which("skopeo"):
        layout = Layout(scratch / "layout")
        digest, size = Digest.of_file(tar), tar.stat().st_size
        layout.take(digest, tar)
        layout.write_image(
            name="bench",
            layers=(Layer(digest, size),),
            settings={},
            history=["bench"],
            platform="linux/amd64",
            epoch=0,
        )
        words = [f"oci:{layout.root}:bench", f"oci:{scratch}/copied:bench"]
        peer, _ = _timed("skopeo", "copy", "--quiet", *words)
        shutil.rmtree(scratch / "copied")
        yield ["bundle create", "skopeo copy", made, peer, made / peer, ""]
    docker = shutil.which("docker")
    if (
        docker
        and subprocess.run([docker, "info"], capture_output=True, check=False).returncode == 0
    ):
        name = "kit-bench:latest"
        subprocess.run([docker, "import", str(tar), name], stdout=subprocess.DEVNULL, check=True)
        try:
            peer, _ = _timed("sh", "-c", f"docker save {name} | sha256sum")
        finally:
            subprocess.run([docker, "rmi", name], capture_output=True, check=False)
        yield ["bundle create", "docker save | sha256sum", made, peer, made / peer, ""]


if __name__ == "__main__":
    for row in rows():
        print(
            *(f"{cell:.2f}" if isinstance(cell, float) else cell for cell in row),
            sep="  ",
            flush=True,
        )
