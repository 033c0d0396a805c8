"""A server over a model repository, in a closed container of its stack.

The container has no network. A Unix socket in a folder of its own leads into it, and this process
listens for it on the host's loopback: nobody else's machine reaches the server.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit import console, files
from kit.compat.gather import Request
from kit.compat.script import mountable
from kit.compat.verdict import verify
from kit.errors import KitError, content_error, environment_error
from kit.examples import layout, serving
from kit.examples.dialects import triton
from kit.images import build
from kit.images.engine import Mount, RunRequest
from kit.triton import session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from kit.images.build import BuiltImage
    from kit.images.engine import Engine, Gpus
    from kit.project import Project

PORTS: dict[str, int] = {"http": 8000, "grpc": 8001, "metrics": 8002}
"""The server's own, which it has in the container."""
READY_SECONDS = serving.READY_SECONDS
_SESSION = "/kit/session"
"""Folder of what the container and this process share while it runs."""
_REQUEST = f"{_SESSION}/request.json"
_ANSWERS = f"{_SESSION}/answers.json"
_LARGEST = 16 << 20
_ENVIRONMENT = {"HOME": "/tmp", "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}  # noqa: S108
_LEFT = "repository placeholder left"
"""What verify-compat calls one that the backend has a default for."""
_LISTENING = f"{session.MARK} listening"


@dataclass(frozen=True, slots=True)
class Served:
    """What is served: all of it on this host, but for the image."""

    repository: Path
    engine: Path
    tokenizer: Path
    release: str
    image: BuiltImage
    world_size: int


def refuse_unfit(project: Project, served: Served) -> list[str]:
    """Hold engine, repository and image against each other; returns what is worth knowing.

    Raises:
        KitError: something does not fit; the message names every member that does not (exit 4).
    """
    verdict = verify(
        project,
        Request(
            release=served.release,
            stack=served.image.stack,
            engine=served.engine,
            model_repository=served.repository,
        ),
    )
    bad = [item for item in verdict.findings if item.status == "mismatch"]
    if bad:
        lines = [
            f"{item.component}: "
            + (item.message or f"expected {item.expected}, found {item.found} ({item.where})")
            for item in bad
        ]
        raise content_error(
            "these do not fit together:\n  " + "\n  ".join(map(console.visible, lines)),
            hint=f"kit verify-compat --stack {served.image.stack} --release {served.release} "
            f"--engine {served.engine} --model-repository {served.repository}",
        )
    told = [item for item in verdict.findings if item.status == "warning" and item.message]
    left = sum(item.component == _LEFT for item in told)
    more = [f"{left} placeholders are left as the templates have them"] if left else []
    return [item.message for item in told if item.component != _LEFT] + more


def serve(
    project: Project,
    engine: Engine,
    served: Served,
    gpus: Gpus,
    ports: Mapping[str, int],
    on_ready: Callable[[], None],
) -> None:
    """Start the server and stay until it is interrupted, or ends by itself.

    Args:
        project: where the images are.
        engine: what runs the container.
        served: what to serve.
        gpus: that the container sees.
        ports: `http`, `grpc`, `metrics` → port on the host's loopback.
        on_ready: called once they are answered.

    Raises:
        KitError: a port is taken, the engine cannot (exit 3); the server has ended (exit 4).
    """
    with _folder(project) as folder, contextlib.ExitStack() as stack:
        listeners = {name: stack.enter_context(_listener(port)) for name, port in ports.items()}
        sockets = {f"{_SESSION}/{name}": PORTS[name] for name in ports}
        request = {"http_port": PORTS["http"], "timeout": READY_SECONDS, "sockets": sockets}
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, descriptor)

        def on_line(line: str) -> None:
            if line == _LISTENING:
                for name, listener in listeners.items():
                    # By way of the folder's descriptor: a socket's path has to be short.
                    place = f"/proc/self/fd/{descriptor}/{name}"
                    threading.Thread(target=_lead, args=(listener, place), daemon=True).start()
                on_ready()

        _run(project, engine, served, gpus, folder, request, on_line)


def ask(
    project: Project, engine: Engine, served: Served, gpus: Gpus, questions: Mapping[str, Any]
) -> dict[str, Any]:
    """Start the server, ask it within its container, stop it; returns the session's answers.

    Raises:
        KitError: the engine cannot (exit 3); the server failed, or refused to answer (exit 4).
    """
    with _folder(project) as folder:
        request = {
            "http_port": PORTS["http"],
            "timeout": READY_SECONDS,
            "questions": {**questions, "metrics": PORTS["metrics"]},
            "answers": _ANSWERS,
        }
        _run(project, engine, served, gpus, folder, request, lambda _line: None)
        path = folder / Path(_ANSWERS).name
        try:
            answers: dict[str, Any] = json.loads(files.content(path, _LARGEST))
        except (OSError, ValueError, RecursionError) as error:
            raise content_error(f"not the answers of a server: {error}") from error
    return answers


def _run(
    project: Project,
    engine: Engine,
    served: Served,
    gpus: Gpus,
    folder: Path,
    request: Mapping[str, Any],
    on_line: Callable[[str], None],
) -> None:
    """The server's container from its start to its end; an error is told with its cause."""
    files.write_json(folder / Path(_REQUEST).name, dict(request))
    root = serving.root(served.image, served.release)
    settings = {**triton.unset(), "ranks": served.world_size, "max_batch_size": 1, "family": "gpt"}
    settings |= {"model": "", "engine": "", "max_beam_width": None}
    launch = triton.written(settings, served.release, root)[-1].argv
    container = RunRequest(
        image=build.ready(project, engine, served.image),
        argv=("python3", "-I", "-S", serving.SESSION, _REQUEST, "--", *launch),
        environment=_ENVIRONMENT,
        mounts=(
            Mount(served.tokenizer, layout.MODEL),
            Mount(served.engine, layout.ENGINE),
            Mount(served.repository, triton.REPOSITORY),
            Mount(mountable(project, Path(session.__file__)), serving.SESSION),
            Mount(folder, _SESSION, writable=True),
        ),
        gpus=gpus,
    )
    log = project.home / "logs" / "triton" / f"{served.image.stack}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8", errors="replace") as stream:

        def both(line: str) -> None:
            stream.write(f"{line}\n")
            stream.flush()
            console.note(f"[server] {console.visible(line)}")
            on_line(line)

        code = engine.run(container, both)
    if code != 0:
        raise _failed(log, served, code)


def _failed(log: Path, served: Served, code: int) -> KitError:
    known = serving.problem(log, served.release, served.image)
    return content_error(
        f"{known or f'the server ended with exit code {code}'}\nlog: {log}",
        hint=f"kit diagnose --release {served.release} {log}",
    )


@contextlib.contextmanager
def _folder(project: Project) -> Iterator[Path]:
    """A folder that lasts as long as this process; those of killed ones are removed first."""
    place = project.home / "triton"
    place.mkdir(parents=True, exist_ok=True)
    with files.locked(place / ".lock"):
        for left in place.glob("session-*"):
            with contextlib.suppress(OSError):
                descriptor = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(left, ignore_errors=True)
                finally:
                    os.close(descriptor)
        folder = Path(tempfile.mkdtemp(prefix="session-", dir=place))
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(held, fcntl.LOCK_EX)
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


@contextlib.contextmanager
def _listener(port: int) -> Iterator[socket.socket]:
    """A socket that listens on the loopback; its port is taken before anything is started."""
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            raise environment_error(
                f"port {port} of the loopback: {error.strerror}",
                hint="kit triton serve … --http-port N --grpc-port N --metrics-port N",
            ) from error
        listener.listen(64)
        yield listener
    finally:
        listener.close()


def _lead(listener: socket.socket, place: str) -> None:
    """Hand every connection on to the Unix socket, until the listener is closed."""
    while True:
        try:
            near, _ = listener.accept()
        except OSError:
            return
        far = socket.socket(socket.AF_UNIX)
        try:
            far.connect(place)
        except OSError:
            near.close()
            far.close()
            continue
        session.relay(near, far)
