"""`make bench`: the kit's own cost, as ratios against a peer in the same run.

Peers: a bare `python3 -c pass`, `grep`, `curl` with `sha256sum`, `aria2c`, `sha256sum` on all cores,
the engine's own command line, and for bundles what `bench_bundles` says. Each figure is the median of its repetitions; nothing here is asserted.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import Process, Queue
from pathlib import Path
from unittest import mock

from kit import images, project
from kit.console import table
from kit.digest import Digest
from kit.examples import recipe
from kit.examples import run as runner
from kit.images import base, build
from kit.images.confinement import user_arguments
from kit.images.engine import Gpus
from kit.locks import fetch, lock
from kit.locks.lock import Input, Lock
from kit.store import Store
from tests import bench_bundles

STACK = "rehearsal"
FETCHED_BYTES = 500_000_000


def _seconds(action, repetitions):
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _command(*argv, **options):
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, **options)


def start_up():
    """`kit --version` against an interpreter that does nothing."""
    kit = Path(sys.executable).with_name("kit")
    ours = _seconds(partial(_command, str(kit), "--version"), 25)
    bare = _seconds(partial(_command, sys.executable, "-c", "pass"), 25)
    return ["kit --version", "python3 -c pass", ours, bare, ours / bare, "≤ 4"]


def asking():
    """The questions that people ask most often, against an interpreter that does nothing."""
    kit = str(Path(sys.executable).with_name("kit"))
    questions = (
        ("verify-compat", "--release", "0.16.0", "--triton", "24.12"),
        ("check-command", "--release", "0.16.0", "--", "trtllm-build", "--max_batch_size", "8"),
    )
    bare = _seconds(partial(_command, sys.executable, "-c", "pass"), 25)
    for words in questions:
        ours = _seconds(partial(_command, kit, *words), 25)
        yield [f"kit {words[0]}", "python3 -c pass", ours, bare, ours / bare, "≤ 8"]


LOG_BYTES = 500_000_000
_LINES = (
    b"[11/20/2026-13:06:14] [TRT-LLM] [I] Serving request %d: 128 tokens in, 64 out, error=0\n",
    b"I1120 13:06:14.009883 4933 grpc_server.cc:1234] Started request %d at 0.0.0.0:8001\n",
    b"[TensorRT-LLM][WARNING] Retrying request %d, failed attempts: 0\n",
)


def diagnosing():
    """A log of half a gigabyte whose cause stands at the end, against `grep` for two words."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        log = Path(name) / "server.log"
        with log.open("wb") as stream:
            number = 0
            while stream.tell() < LOG_BYTES:
                lines = (line % (number + place) for place, line in enumerate(_LINES * 1000))
                stream.write(b"".join(lines))
                number += len(_LINES) * 1000
            stream.write(b"[TRT] [E] 2: Error Code 2: OutOfMemory (no further information)\n")
        kit = str(Path(sys.executable).with_name("kit"))
        ours = _seconds(partial(_command, kit, "diagnose", str(log)), 3)
        # Through a pipe: grep stops at its first match when it sees that nobody reads.
        search = "grep --count --ignore-case --extended-regexp 'error|fail' \"$0\" | cat"
        peer = _seconds(partial(_command, "sh", "-c", search, str(log)), 3)
    speed = f"{LOG_BYTES / ours / 1e6:.0f} MB/s, ≥ 50"
    return ["kit diagnose, 500 MB", "grep -ciE 'error|fail'", ours, peer, ours / peer, speed]


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def copyfile(self, source, outputfile):
        outputfile.flush()
        sent = 0
        while sent < FETCHED_BYTES:
            sent += os.sendfile(
                self.connection.fileno(), source.fileno(), sent, FETCHED_BYTES - sent
            )


def _serve(folder, ready):
    handler = partial(_Handler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    ready.put(server.server_port)
    server.serve_forever()


def _serve_many(folder, ready):
    """A server that costs little for each request, so that the clients are what is measured."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=256)
    ready.put(listening.getsockname()[1])

    def answer(connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        waiting = b""
        while True:
            while b"\r\n\r\n" not in waiting:
                if not (more := connection.recv(1 << 16)):
                    return
                waiting += more
            request, _, waiting = waiting.partition(b"\r\n\r\n")
            with (folder / request.split(b" ", 2)[1].decode().lstrip("/")).open("rb") as stream:
                size = os.fstat(stream.fileno()).st_size
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
                sent = 0
                while sent < size:
                    sent += os.sendfile(connection.fileno(), stream.fileno(), sent, size - sent)

    while True:
        connection, _ = listening.accept()
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


@contextmanager
def _server(folder, serve=_serve):
    ready = Queue()
    process = Process(target=serve, args=(folder, ready), daemon=True)
    process.start()
    yield f"http://127.0.0.1:{ready.get()}"
    process.terminate()


def fetching():
    """Half a gigabyte over loopback into the store, against `curl` and then `sha256sum`."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        scratch = Path(name)
        content = os.urandom(1 << 20) * (FETCHED_BYTES // (1 << 20) + 1)
        (scratch / "served").mkdir()
        (scratch / "served" / "blob").write_bytes(content[:FETCHED_BYTES])
        digest = Digest(hashlib.sha256(content[:FETCHED_BYTES]).hexdigest())
        with _server(scratch / "served") as url:
            item = Input("file", "bench", "blob", "", "blob", f"{url}/blob", digest, FETCHED_BYTES)
            pinned = Lock(STACK, digest, (item,))

            def ours():
                shutil.rmtree(scratch / "home", ignore_errors=True)
                place = project.Project(project.find().root, scratch / "home")
                fetch.fetch(place, pinned)

            def peer():
                target = scratch / "copy"
                _command("curl", "--silent", "--fail", "-o", str(target), f"{url}/blob")
                _command("sha256sum", str(target))

            took, reference = _seconds(ours, 5), _seconds(peer, 5)
    name = f"fetch {FETCHED_BYTES // 1_000_000} MB"
    return [name, "curl + sha256sum", took, reference, reference / took, "≥ 0.8 (speed)"]


def fetching_many():
    """Many files at once, each checked; then all of them again, when there is nothing to do.

    Every repetition writes to folders of its own: file systems take long to make files anew where
    many have just been deleted.
    """
    for count, size in ((1000, 64_000), (80, 2_000_000)):
        with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
            scratch = Path(name)
            yield from _fetching_many(scratch, count, size)


def _fetching_many(scratch, count, size):
    served = scratch / "served"
    served.mkdir()
    contents = {f"f{number}": os.urandom(size) for number in range(count)}
    for name, content in contents.items():
        (served / name).write_bytes(content)
    digests = {name: Digest.of_bytes(content) for name, content in contents.items()}
    del contents
    with _server(served, _serve_many) as url:
        inputs = [
            Input("file", "bench", name, "", name, f"{url}/{name}", digest, size)
            for name, digest in digests.items()
        ]
        pinned = Lock(STACK, Digest("1" * 64), tuple(inputs))
        folders = (scratch / f"copy-{number}" for number in range(1000))
        homes = []

        def ours():
            homes.append(project.Project(project.find().root, next(folders)))
            fetch.fetch(homes[-1], pinned)

        def again():
            fetch.fetch(homes[-1], pinned)

        def aria():
            folder = next(folders)
            rows = (
                f"{item.location}\n out={item.name}\n dir={folder}\n"
                f" checksum=sha-256={item.sha256.hex}\n"
                for item in inputs
            )
            options = ["--quiet", "--max-concurrent-downloads=8", "--file-allocation=none"]
            _fed(["aria2c", *options, "--input-file=-"], rows)

        def curl():
            folder = next(folders)
            folder.mkdir()
            rows = (f"url={item.location}\noutput={folder / item.name}\n" for item in inputs)
            _fed(["curl", "-sS", "--fail", "--parallel", "--parallel-max", "8", "-K", "-"], rows)
            _hash_all(folder)

        ours()  # imports
        with _grown() as memory:
            took = _seconds(ours, 3)
        name = f"fetch {count} files of {size // 1000} KB"
        peers = [("curl --parallel, sha256sum", curl)]
        if shutil.which("aria2c"):
            peers.append(("aria2c, checked", aria))
        for title, peer in peers:
            reference = _seconds(peer, 3)
            yield [name, title, took, reference, reference / took, "≥ 0.8 (speed)"]
        present = _seconds(again, 5)
        aim = f"{present / count * 1000:.3f} s per 1,000, ≤ 0.3; fetching took {memory[0]} MB more"
        yield [f"all {count} present", "the fetch before", present, took, present / took, aim]


@contextmanager
def _grown():
    """By how many megabytes this process has been larger in between than before, as a list."""
    found = []
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from now on
    before = _status("VmRSS")
    yield found
    found.append((_status("VmHWM") - before) >> 10)


def _status(key):
    rows = Path("/proc/self/status").read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith(f"{key}:"))


def _fed(argv, rows):
    text = "".join(rows)
    subprocess.run(argv, input=text, text=True, check=True, capture_output=True)


def _hash_all(folder):
    """What `sha256sum` takes on all cores."""
    cores = len(os.sched_getaffinity(0))
    script = f'find "$0" -type f -print0 | xargs -0 -P {cores} -n 8 sha256sum'
    _command("sh", "-c", script, str(folder))


def hashing():
    """A store of files of all sizes, hashed again, against `sha256sum` on all cores."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        store = Store(Path(name))
        items = []
        for count, size in ((400, 64_000), (60, 4_000_000), (4, 100_000_000)):
            for _ in range(count):
                content = os.urandom(size)
                digest = Digest.of_bytes(content)
                items.append(Input("file", "bench", digest.hex, "", "f", "", digest, size))
                with store.receive(digest, size) as reception:
                    reception.write(content)
                    reception.finish()
        with _grown() as memory:
            took = _seconds(partial(store.check_all, items), 3)
        reference = _seconds(partial(_hash_all, store.root / "sha256"), 3)
    total = sum(item.size for item in items)
    aim = f"≥ 0.9 (speed); {total / took / 1e6:.0f} MB/s, {memory[0]} MB of memory more"
    return ["hash a store", "sha256sum, all cores", took, reference, reference / took, aim]


def building(place, engine):
    """A build from nothing: base images against `dpkg-deb`, the rest against the engine's command.

    Base images are made once a lock and then kept; everything else is done around every build.
    """
    spent = {}

    def timed(name, function):
        def call(*arguments, **options):
            start = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                spent[name] = time.perf_counter() - start

        return call

    with (
        mock.patch.object(engine, "build", timed("engine", engine.build)),
        mock.patch.object(base, "assemble", timed("base", base.assemble)),
    ):
        fresh = partial(build.build, place, STACK, engine, lambda _line: None, fresh=True)
        total = _seconds(fresh, 1)
    inner = spent["engine"]
    own = total - inner - spent["base"]
    rows = [
        [f"around {engine.name} build", f"{engine.name} build", own, inner, own / inner, "≤ 0.05"]
    ]
    if shutil.which("dpkg-deb"):
        debs = lock.load(place.lock_path(STACK)).select(kind="deb")
        paths = [Store(place.store).path(item.sha256) for item in debs]

        def unpack():
            for path in paths:
                _command("dpkg-deb", "--fsys-tarfile", str(path))

        peer = _seconds(unpack, 1)
        name = f"base images, {len(paths)} packages"
        rows.append(
            [name, "dpkg-deb --fsys-tarfile", spent["base"], peer, spent["base"] / peer, "-"]
        )
    return rows


def running(place, engine):
    """`kit run` against the same containers started by hand, one after the other."""
    image = build.built(place, STACK)
    example, release = recipe.find("gpt2-tiny"), "0.9.0"
    requests = []
    original = engine.run

    def recorded(request, on_line):
        requests.append(request)
        return original(request, on_line)

    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        output = Path(name) / "runs"
        engine.run = recorded
        runner.run(place, engine, image, example, release, output, Gpus())
        engine.run = original
        steps = list(requests)
        argv = [sys.executable, "-m", "kit", "run", example.name, "--stack", STACK]
        argv += ["--release", release, "--output", str(output), "--no-reuse"]
        ours = partial(_command, *argv, stderr=subprocess.DEVNULL)

        def peer():
            work = Path(tempfile.mkdtemp(dir=name))
            work.chmod(0o777)
            for request in steps:
                _command(*_by_hand(engine, request, work), stderr=subprocess.DEVNULL)

        took, reference = _seconds(ours, 5), _seconds(peer, 5)
    difference = took - reference
    return [
        "kit run gpt2-tiny",
        f"{engine.name} run, {len(steps)} times",
        took,
        reference,
        took / reference,
        f"own time {difference:.2f} s, ≤ 0.3 s",
    ]


def _by_hand(engine, request, work):
    """What a person would type for the same container."""
    argv = engine._podman() if engine.name == "podman" else ["docker"]
    argv = [*argv, "run", "--rm", "--network=none", "--read-only", "--cap-drop=all"]
    argv += engine._limits() if engine.name == "podman" else []
    argv += ["--security-opt=no-new-privileges", "--tmpfs=/tmp:rw,exec,mode=1777"]
    argv += [f"--user={user_arguments()[0]}", f"--workdir={request.workdir}"]
    for key, value in request.environment.items():
        argv += ["--env", f"{key}={value}"]
    for mount in request.mounts:
        source = work if mount.writable else mount.source
        options = "" if mount.writable else ",readonly"
        argv += ["--mount", f"type=bind,source={source},target={mount.target}{options}"]
    return [*argv, f"--entrypoint={request.argv[0]}", request.image, *request.argv[1:]]


def main():
    """Measure and print."""
    place = project.find()
    engine = images.select(place.home)
    _command(sys.executable, "-m", "kit", "fetch", STACK)
    _command(sys.executable, "-m", "kit", "build", STACK, "--quiet", stderr=subprocess.DEVNULL)
    rows = [start_up(), *asking(), diagnosing(), fetching()]
    rows += [*fetching_many(), hashing()]
    rows += [*building(place, engine), running(place, engine), *bench_bundles.rows()]
    shown = [
        [ours, peer, f"{took:.3f} s", f"{reference:.3f} s", f"{ratio:.2f}", aim]
        for ours, peer, took, reference, ratio, aim in rows
    ]
    print(table(shown, ["OURS", "PEER", "OURS TOOK", "PEER TOOK", "RATIO", "AIM"]))


if __name__ == "__main__":
    main()
