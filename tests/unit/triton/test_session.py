"""The session with servers on loopback: processes that are started, and what they are asked."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from kit.triton import session

MODEL = {
    "name": "ensemble",
    "inputs": [
        {"name": "text_input", "datatype": "BYTES", "shape": [-1, 1]},
        {"name": "max_tokens", "datatype": "INT32", "shape": [-1, 1]},
        {"name": "bad_words", "datatype": "BYTES", "shape": [-1, -1]},
        {"name": "seed", "datatype": "UINT64", "shape": [-1, 1]},
    ],
}


class Triton(BaseHTTPRequestHandler):
    version = "2.51.0"
    asked: list = []  # noqa: RUF012 - one server a test

    def do_GET(self) -> None:
        self.answer(
            {
                "/v2": {"name": "triton", "version": self.version},
                "/v2/models/ensemble": MODEL,
                "/v2/models/ensemble/ready": {},
                "/v2/health/ready": {},
            }.get(self.path)
        )

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).asked.append((self.path, body))
        self.answer(
            {
                "/v2/repository/index": [{"name": "ensemble", "version": "1", "state": "READY"}],
                "/v2/models/ensemble/generate": {"text_output": "generated"},
                "/v2/models/ensemble/infer": {"outputs": [{"data": ["inferred"]}]},
            }.get(self.path)
        )

    def answer(self, content) -> None:
        self.send_response(404 if content is None else 200)
        self.end_headers()
        self.wfile.write(json.dumps({"error": "unknown"} if content is None else content).encode())

    def log_message(self, *_arguments) -> None:
        pass


@pytest.fixture
def server():
    class Own(Triton):
        asked: list = []  # noqa: RUF012

    found = HTTPServer(("127.0.0.1", 0), Own)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


QUESTIONS = {
    "model": "ensemble",
    "prompts": ["Hello"],
    "values": {"max_tokens": 3, "end_id": 7, "random_seed": 5},
}


def test_only_what_the_model_has_is_sent_under_its_name(server) -> None:
    found = session.ask(server.server_address, QUESTIONS)
    assert found["server"] == {"name": "triton", "version": "2.51.0"}
    assert found["models"] == [
        {"name": "ensemble", "version": "1", "state": "READY", "ready": True}
    ]
    path, body = server.RequestHandlerClass.asked[-1]
    assert path.endswith("/generate")
    assert body == {"max_tokens": 3, "seed": 5, "text_input": "Hello", "bad_words": ""}
    assert [answer["text"] for answer in found["answers"]] == ["generated"]


def test_a_server_without_generate_is_asked_to_infer(server) -> None:
    server.RequestHandlerClass.version = "2.38.0"
    found = session.ask(server.server_address, QUESTIONS)
    path, body = server.RequestHandlerClass.asked[-1]
    assert path.endswith("/infer")
    assert {"name": "max_tokens", "shape": [1, 1], "datatype": "INT32", "data": [3]} in body[
        "inputs"
    ]
    assert [answer["text"] for answer in found["answers"]] == ["inferred"]


def test_what_is_refused_is_said(server) -> None:
    with pytest.raises(session.Failed, match=r'/v2/models/other is answered with 404: .*"unknown"'):
        session.ask(server.server_address, QUESTIONS | {"model": "other"})


def start(tmp_path, command, **request):
    place = tmp_path / "request.json"
    place.write_text(json.dumps({"http_port": 1, "timeout": 20, **request}))
    return subprocess.run(
        [sys.executable, "-I", "-S", session.__file__, str(place), "--", *command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        start_new_session=True,
    )


def test_what_starts_the_server_fails(tmp_path) -> None:
    done = start(tmp_path, ["sh", "-c", "echo no; exit 3"], questions=QUESTIONS)
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == "no"
    assert "KIT-TRITON what starts the server ended with exit code 3" in done.stdout


def test_the_server_ends_before_it_is_ready(tmp_path) -> None:
    done = start(tmp_path, ["sh", "-c", "sleep 0.3 & exit 0"], questions=QUESTIONS)
    assert done.returncode == 1
    assert "KIT-TRITON the server has ended" in done.stdout


def test_bytes_go_both_ways_until_either_end() -> None:
    (near, outer), (far, inner) = socket.socketpair(), socket.socketpair()
    session.relay(near, far)
    outer.sendall(b"question")
    assert inner.recv(64) == b"question"
    inner.sendall(b"answer" * 50000)
    inner.shutdown(socket.SHUT_WR)
    found = b""
    while piece := outer.recv(1 << 16):
        found += piece
    assert found == b"answer" * 50000
    outer.close()
    assert inner.recv(1) == b""


def test_only_what_it_has_started_is_stopped(tmp_path) -> None:
    with subprocess.Popen(["sleep", "30"]) as other:
        done = start(tmp_path, ["sh", "-c", "(trap '' TERM; sleep 30) & sleep 0.2; exit 1"])
        assert done.returncode == 1
        assert other.poll() is None
        assert not session.descendants(other.pid)
        other.kill()
    with subprocess.Popen(["sh", "-c", "sleep 30 & wait"]) as parent:
        end = time.monotonic() + 30
        # Between fork and exec it still has its parent's name.
        while list((found := session.descendants(parent.pid)).values()) != ["sleep"]:
            assert time.monotonic() < end, found
        for process in (*found, parent.pid):
            os.kill(process, signal.SIGKILL)
