"""Podman, with or without root, through its command line."""

from __future__ import annotations

import csv
import io
import json
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.digest import CHUNK
from kit.errors import environment_error
from kit.images import cdi, process
from kit.images.confinement import Way, handed_over, user_arguments, working
from kit.images.engine import Mount
from kit.images.ledger import Ledger
from kit.images.oci import Layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kit.images.engine import BuildRequest, Gpus, RunRequest
    from kit.images.oci import Image

_CHECK = "podman info"
_ENGINE_FAILED = 125
"""Podman's exit code for "the container could not be run"."""


class Podman:
    """The `podman` on PATH; `home` keeps what was found out about this host."""

    name = "podman"

    def __init__(self, home: Path) -> None:
        self._home = home
        self._memory = home / "engines" / "podman.json"
        self._ledger = Ledger(home / "engines" / "podman-containers")
        self._version = ""
        self._way: Way | None = None

    @staticmethod
    def is_installed() -> bool:
        """Whether there is a `podman` on PATH."""
        return shutil.which("podman") is not None

    def version(self) -> str:
        """What `podman --version` says."""
        if not self._version:
            done = process.capture(["podman", "--version"])
            if done.returncode != 0:
                raise environment_error(f"podman does not work: {done.stderr.strip()}")
            self._version = done.stdout.split()[-1]
        return self._version

    def has(self, reference: str) -> bool:
        """Whether storage has the image."""
        return process.capture(["podman", "image", "exists", reference]).returncode == 0

    def load(self, image: Image, name: str) -> str:
        """Copy an image's missing layers into storage and name it; returns its id."""
        image = image.in_oci_form()
        folder = image.layout.root
        # Podman makes a name out of the folder it is given; not every path would be a valid one.
        source = f"oci:{folder.name}:{image.named()}"
        self._must("pull", "--quiet", source, folder=folder.parent)
        self._must("tag", image.image_id.hex, name)
        # Newer ones keep the name that is in the layout, and have nothing to untag.
        process.capture(["podman", "untag", image.image_id.hex, f"localhost/{folder.name}:latest"])
        return image.image_id.hex

    def build(self, context: Path, dockerfile: Path, request: BuildRequest) -> None:
        """`podman build` with network none, every step anew.

        Its layer cache is not used: it takes a RUN for done although the files mounted into it
        have changed, and loses sight of a cached stage that is mounted (both seen in 4.3.1).
        """
        self._remove_unfinished(request.images)
        argv = [*self._podman(), "build", *self._limits(), "--network=none", "--pull=never"]
        argv += ["--format=docker", "--timestamp=0", "--security-opt=label=disable"]
        argv += ["--layers=false", "--http-proxy=false"]
        argv += ["--tag", request.tag, "--target", request.target]
        for key, value in request.arguments.items():
            argv += ["--build-arg", f"{key}={value}"]
        argv += ["--file", str(dockerfile), str(context)]
        # A time stamp of the user's own would contradict the one that is asked for.
        code, tail = process.stream(argv, request.log, {"SOURCE_DATE_EPOCH": ""})
        if code < 0:
            reason = signal.Signals(-code).name
            raise environment_error(f"podman stopped in the middle: killed by {reason}", _CHECK)
        if code != 0:
            raise request.failed(code, tail)

    def inspect(self, reference: str) -> dict[str, Any]:
        """What `podman image inspect` says."""
        answer: list[dict[str, Any]] = json.loads(self._must("image", "inspect", reference))
        return answer[0]

    def save(self, reference: str) -> Iterator[bytes]:
        """The image as a docker-archive stream."""
        argv = ["podman", "save", "--quiet", "--format", "docker-archive", reference]
        with process.child(argv, separate_errors=True) as saving:
            assert saving.stdout is not None
            assert saving.stderr is not None
            while piece := saving.stdout.read(CHUNK):
                yield piece
            problem = saving.stderr.read().decode(errors="replace").strip()
            if saving.wait() != 0:
                raise environment_error(f"podman save {reference} failed: {problem}")

    def run(self, request: RunRequest, on_line: Callable[[str], None]) -> int:
        """`podman run`, closed; the container is removed at the end, however it comes."""
        is_root = user_arguments()[1]
        with self._ledger.container(self._remove_container) as name:
            argv = [*self._podman(), "run", *self._limits(), *self._closed(request)]
            argv += ["--name", name, "--entrypoint", request.argv[0]]
            argv += [request.image, *request.argv[1:]]
            code = _ENGINE_FAILED
            try:
                with handed_over(request, active=is_root and request.node is None):
                    code, tail = process.stream(argv, on_line)
            finally:
                if code < 0 or code == _ENGINE_FAILED:
                    self._remove_container(name)
        if code == _ENGINE_FAILED:
            # What worked may not work any more: the next command finds out anew.
            self._memory.unlink(missing_ok=True)
            last = tail[-1] if tail else "no message"
            raise environment_error(f"podman could not run the container: {last}", _CHECK)
        if code < 0:
            reason = signal.Signals(-code).name
            raise environment_error(f"podman stopped in the middle: killed by {reason}", _CHECK)
        return code

    def remove(self, reference: str) -> None:
        """Untag or delete an image."""
        process.capture(["podman", "rmi", "--force", reference])

    def _remove_container(self, name: str) -> None:
        process.capture(["podman", "rm", "--force", "--time", "2", "--ignore", name])

    def _remove_unfinished(self, images: tuple[str, ...]) -> None:
        """Remove what killed builds left on these images: it takes disk and stops later builds."""
        answer = self._must("ps", "--all", "--external", "--format", "json")
        for container in json.loads(answer or "[]"):
            if container.get("Image") in images and container.get("Command") == ["buildah"]:
                self._remove_container(container["Id"])

    def _closed(self, request: RunRequest) -> list[str]:
        user, is_root = user_arguments()
        argv = ["--rm", "--pull=never", "--read-only", "--cap-drop=all"]
        if request.node is None:
            argv += ["--network=none"]
        else:
            argv += ["--network=host", f"--hostname={request.node}"]
        argv += ["--security-opt=no-new-privileges", "--security-opt=label=disable"]
        argv += ["--tmpfs=/tmp:rw,exec,nosuid,nodev,mode=1777", "--no-hosts", "--http-proxy=false"]
        argv += [
            f"--user={user}",
            f"--shm-size={request.shm_bytes}",
            f"--workdir={request.workdir}",
        ]
        argv += [] if is_root else ["--userns=keep-id"]
        for key, value in request.environment.items():
            argv += ["--env", f"{key}={value}"]
        for mount in request.mounts:
            argv += ["--mount", _mount(mount)]
        return argv + _devices(request.gpus)

    def _podman(self) -> list[str]:
        way = self._working()
        return ["podman", "--runtime", way.runtime] if way.runtime else ["podman"]

    def _limits(self) -> list[str]:
        return [f"--ulimit={limit}" for limit in self._working().limits]

    def _working(self) -> Way:
        if self._way is None:
            layout = Layout(self._home / "engines" / "probe")
            self._way = working(self._memory, f"podman {self.version()}", layout, self._attempt)
        return self._way

    def _attempt(self, image: Image, way: Way) -> str | None:
        """Run and build, for they differ: 5.4.2 needs limits for a build and none for a run."""
        reference = self.load(image, image.named())
        podman = ["podman", *(["--runtime", way.runtime] if way.runtime else [])]
        options = ["--network=none", *[f"--ulimit={limit}" for limit in way.limits]]
        done = process.capture([*podman, "run", "--rm", "--pull=never", *options, reference])
        if done.returncode == 0:
            with tempfile.TemporaryDirectory() as context:
                (Path(context) / "Dockerfile").write_text(f'FROM {reference}\nRUN ["/true"]\n')
                argv = [*podman, "build", "--quiet", "--pull=never", "--layers=false", *options]
                done = process.capture([*argv, context])
            if done.returncode == 0:
                self.remove(done.stdout.strip())
        return None if done.returncode == 0 else (done.stderr.strip() or f"exit {done.returncode}")

    def _must(self, *arguments: str, folder: Path | None = None) -> str:
        done = process.capture(["podman", *arguments], folder)
        if done.returncode != 0:
            raise environment_error(
                f"podman {arguments[0]} failed: {done.stderr.strip()}", hint=_CHECK
            )
        return done.stdout


def _devices(gpus: Gpus) -> list[str]:
    if not gpus:
        return []
    cdi.check(list(gpus.devices))
    wanted = ["all"] if gpus.all else list(gpus.devices)
    if cdi.is_specified():
        return [f"--device={cdi.KIND}={device}" for device in wanted]
    edits = cdi.edits(wanted)
    argv = [f"--device={node}" for node in edits.nodes]
    for name, value in edits.environment:
        argv += ["--env", f"{name}={value}"]
    for target, source in edits.mounts:
        argv += ["--mount", _mount(Mount(Path(source), target))]
    return argv


def _mount(mount: Mount) -> str:
    """A `--mount` value; it is read as a line of CSV, so a path may hold a comma."""
    fields = ["type=bind", f"src={mount.source}", f"dst={mount.target}"]
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([*fields, *([] if mount.writable else ["ro"])])
    return line.getvalue()
