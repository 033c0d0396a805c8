"""Asks the pip of an image what it would install, and writes that down.

Runs in a container without a network: everything that pip asks for goes through a socket to an
index outside, which records it. Any Python from 3.8 on runs it, with nothing but its own library.

`pip_report.py GIVEN WORK` reads `GIVEN/job.json`:

    name          of this job
    arguments     what `pip install` is asked for; empty: nothing is asked, only who is there
    index         path of the index behind the socket for what is to be installed
    build_index   the same for what source distributions need to be built
    below         names of earlier jobs whose packages count as installed
    constrained   whether the image's own PIP_CONSTRAINT holds

and writes `WORK/result.json`: `python`, `pip` (its version; null without one), `install` (name,
version and url of each package that pip would install) and `failed` (`resolve`, `build` or null).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

SOCKET = "/kit/index/socket"
_OURS = re.compile(
    r"PIP_(INDEX_URL|EXTRA_INDEX_URL|FIND_LINKS|NO_INDEX|TRUSTED_HOST|PROXY|CERT|CLIENT_CERT|USER|"
    r"TARGET|PREFIX|ROOT|CACHE_DIR|LOG|QUIET|VERBOSE|DRY_RUN|REPORT|REQUIRE_VIRTUALENV)"
    r"|(https?|ftp|all|no)_proxy",
    re.IGNORECASE,
)
"""Settings of the image that say where packages are, or where they go: not what is chosen."""


def main(given: Path, work: Path) -> None:
    """Do the job."""
    job = json.loads((given / "job.json").read_text(encoding="utf-8"))
    result: dict[str, Any] = {
        "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "pip": _pip_version(),
        "install": [],
        "failed": None,
    }
    if job["arguments"]:
        result.update(_resolve(job, work, f"http://127.0.0.1:{_forward()}"))
    (work / "result.json").write_text(json.dumps(result), encoding="utf-8")


def _resolve(job: dict[str, Any], work: Path, address: str) -> dict[str, Any]:
    """What pip would install, and whether its source distributions can be prepared."""
    report = work / "report.json"
    below = [str(work / "installed" / name) for name in job["below"]]
    environment = _environment(work, below, constrained=job["constrained"])
    command = ["install", "--dry-run", "--report", str(report), *job["arguments"]]
    if _pip(command, environment, address + job["index"]) != 0:
        return {"failed": "resolve"}
    install = json.loads(report.read_text(encoding="utf-8"))["install"]
    _pretend(install, work / "installed" / job["name"])
    found = [
        {
            "name": item["metadata"]["name"],
            "version": item["metadata"]["version"],
            "url": item["download_info"]["url"],
        }
        for item in install
    ]
    sources = [
        item["url"].replace(f"{job['index']}/files/", f"{job['build_index']}/files/", 1)
        for item in found
        if item["url"].startswith(address) and not item["url"].endswith(".whl")
    ]
    if sources:
        # Once more, apart from the rest: what is asked for now is what their builds need.
        command = ["install", "--dry-run", "--no-deps", "--ignore-installed", *sources]
        if _pip(command, environment, address + job["build_index"]) != 0:
            return {"failed": "build", "install": found}
    return {"install": found}


def _pip(command: list[str], environment: dict[str, str], index: str) -> int:
    simple = f"{index}/simple"
    # The second stands in the place of further indexes that a file of the image may name.
    settings = {**environment, "PIP_INDEX_URL": simple, "PIP_EXTRA_INDEX_URL": simple}
    return subprocess.call([sys.executable, "-m", "pip", *command], env=settings)


def _environment(work: Path, below: list[str], *, constrained: bool) -> dict[str, str]:
    """The image's own environment, but for where packages come from and where they go."""
    home, scratch, nothing = (work / name for name in ("home", "tmp", "nothing"))
    for folder in (home, scratch, nothing):
        folder.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not _OURS.fullmatch(name)}
    if not constrained:
        kept.pop("PIP_CONSTRAINT", None)
    paths = [*below, *filter(None, [kept.get("PYTHONPATH")])]
    return {
        **kept,
        **({"PYTHONPATH": os.pathsep.join(paths)} if paths else {}),
        "HOME": str(home),
        "TMPDIR": str(scratch),
        "LC_ALL": "C.UTF-8",
        "NO_COLOR": "1",
        "PIP_FIND_LINKS": str(nothing),
        "PIP_NO_INDEX": "0",
        "PIP_USER": "0",
        # Nothing is installed, but Debian's pip 23.0 asks all the same.
        "PIP_BREAK_SYSTEM_PACKAGES": "1",
        "PIP_NO_CACHE_DIR": "1",
        "PIP_NO_INPUT": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_PROGRESS_BAR": "off",
        # The index outside downloads a whole file and checks it before the first byte comes here,
        # and tries again by itself.
        "PIP_DEFAULT_TIMEOUT": "86400",
        "PIP_RETRIES": "0",
        # TensorRT's source distributions start a pip of their own unless told not to; their parts
        # become dependencies then (setup.py of tensorrt-cu12 10.1.0).
        "NVIDIA_TENSORRT_DISABLE_INTERNAL_PIP": "1",
    }


def _pretend(install: list[dict[str, Any]], folder: Path) -> None:
    """Write what later jobs need to take the packages for installed: their metadata alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for item in install:
        known = item["metadata"]
        stem = re.sub(r"[-_.]+", "_", known["name"])
        place = folder / f"{stem}-{known['version']}.dist-info"
        place.mkdir(exist_ok=True)
        lines = [
            "Metadata-Version: 2.1",
            f"Name: {known['name']}",
            f"Version: {known['version']}",
            *[f"Requires-Dist: {text}" for text in known.get("requires_dist") or []],
            *[f"Provides-Extra: {text}" for text in known.get("provides_extra") or []],
        ]
        contents = {"METADATA": "\n".join(lines) + "\n", "INSTALLER": "pip\n", "RECORD": ""}
        for name, text in contents.items():
            (place / name).write_text(text, encoding="utf-8")


def _pip_version() -> str | None:
    try:
        import pip
    except ImportError:
        return None
    return str(pip.__version__)


def _forward() -> int:
    """Bring a port of the loopback device to the socket; returns the port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    threading.Thread(target=_accept, args=(listener,), daemon=True).start()
    return int(listener.getsockname()[1])


def _accept(listener: socket.socket) -> None:
    while True:
        near, _ = listener.accept()
        far = socket.socket(socket.AF_UNIX)
        if far.connect_ex(SOCKET) != 0:
            far.close()
            near.close()
            continue
        for source, target in ((near, far), (far, near)):
            threading.Thread(target=_copy, args=(source, target), daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Hand on what comes until it ends; if one side hangs up, neither can go on."""
    with contextlib.suppress(OSError):
        while piece := source.recv(1 << 16):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
        return
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
