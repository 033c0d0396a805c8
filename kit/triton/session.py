"""Runs a server inside its container, asks it or stands before it; mounted there, standard library.

    python3 session.py REQUEST -- COMMAND ARGUMENT…

COMMAND starts the server and may return before it is up. REQUEST is a JSON file: `http_port` of the
server, `timeout` in seconds until it has to be ready, and either `questions` with `answers`, the
file that gets what it says, or `sockets`: path of a Unix socket → port of the server that it leads
to, until SIGTERM. What goes wrong stands in a line that begins with `KIT-TRITON`; exit code 1 then.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import signal
import socket
import sys
import threading
import time
from typing import Any

MARK = "KIT-TRITON"
ANSWERS = "kit.triton-answers/1"
_LOOPBACK = "127.0.0.1"
_PR_SET_CHILD_SUBREAPER = 36
_LOOK = 0.1
"""Seconds between two looks at the server."""
_PATIENCE = 600
"""Seconds that one answer may take."""
_STOPPING = 60
"""Seconds that the server may take to stop."""
_PIECE = 1 << 16
_GENERATES = (2, 39)
"""The first version of the server with the endpoint `generate`; asked otherwise before."""


class Failed(Exception):  # noqa: N818 - what happened
    """The reason why there are no answers."""


def main(arguments: list) -> int:  # type: ignore[type-arg] # Python 3.8 of old images
    """Start, wait, ask or stand by, stop."""
    end = arguments.index("--")
    with open(arguments[0], encoding="utf-8") as stream:  # noqa: PTH123 - start-up time
        request = json.load(stream)
    command = arguments[end + 1 :]
    server = Server(command, request["http_port"])
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: stopped.set())
    try:
        server.wait(request["timeout"], stopped)
        if stopped.is_set():
            return 0
        if "questions" in request:
            answers = ask((_LOOPBACK, request["http_port"]), request["questions"])
            with open(request["answers"], "w", encoding="utf-8") as stream:  # noqa: PTH123
                json.dump(answers, stream, indent=1, sort_keys=True, ensure_ascii=False)
                stream.write("\n")
        else:
            stand_by(server, request["sockets"], stopped)
    except (Failed, OSError, http.client.HTTPException, ValueError, KeyError) as error:
        print(f"{MARK} {error or type(error).__name__}", flush=True)
        return 1
    finally:
        server.stop()
    return 0


class Server:
    """The processes that a command has started, whoever their parents are by now."""

    def __init__(self, command: list, port: int) -> None:  # type: ignore[type-arg]
        # Orphans become this process's children: it sees when the last of them is gone.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._port = port
        self._since = time.monotonic()
        self._first = os.spawnvp(os.P_NOWAIT, command[0], command)  # noqa: S606 - no shell wanted

    def wait(self, timeout: float, stopped: threading.Event) -> None:
        """Return once it is ready, or is to stop."""
        while not stopped.wait(_LOOK):
            self.look()
            if self._is_ready():
                print(f"{MARK} ready", flush=True)
                return
            if time.monotonic() - self._since > timeout:
                raise Failed(f"the server is not ready after {timeout:g} seconds")

    def look(self) -> None:
        """Collect what has ended; it is an error when nothing is left, or the command failed."""
        while True:
            try:
                ended, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                raise Failed("the server has ended") from None
            if ended == 0:
                return
            if ended == self._first and status != 0:
                code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
                raise Failed(f"what starts the server ended with exit code {code}")

    def stop(self) -> None:
        """End it in order; after some seconds whatever it has started and is left."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            asked = self._signal(number, named="tritonserver" if number == signal.SIGTERM else None)
            end = time.monotonic() + (_STOPPING if asked else 0)
            while time.monotonic() < end:
                try:
                    self.look()
                except Failed as error:
                    if "exit code" not in str(error):
                        return
                time.sleep(_LOOK)

    def _signal(self, number: int, named: str | None) -> int:
        """Send it to what has been started; returns to how many."""
        chosen = [
            process
            for process, name in descendants(os.getpid()).items()
            if named is None or name == named
        ]
        for process in chosen:
            with contextlib.suppress(OSError):
                os.kill(process, number)
        return len(chosen)

    def _is_ready(self) -> bool:
        try:
            status: int = call((_LOOPBACK, self._port), "GET", "/v2/health/ready")[0]
        except (OSError, http.client.HTTPException):
            return False
        return status == 200


def descendants(ancestor: int) -> dict:  # type: ignore[type-arg]
    """Processes that another one has started, by way of others too: number → name."""
    parents, names = {}, {}
    for entry in os.listdir("/proc"):  # noqa: PTH208
        if not entry.isdecimal():
            continue
        with contextlib.suppress(OSError):  # ended meanwhile
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as stream:  # noqa: PTH123
                head, _, rest = stream.read().rpartition(")")
            names[int(entry)] = head.partition("(")[2]
            parents[int(entry)] = int(rest.split()[1])
    found, more = {ancestor}, True
    while more:
        below = {process for process, parent in parents.items() if parent in found}
        more = not below <= found
        found |= below
    return {process: names[process] for process in found - {ancestor} if process in names}


def ask(address: tuple, questions: dict) -> dict:  # type: ignore[type-arg]
    """What the server at an address is, which models are ready, and what it says to each prompt.

    `questions` has `model`, `prompts` and `values`: the other inputs, as far as the model has them;
    `stream` where the answers are to come in pieces, and `metrics`, the port that they are told at.
    """
    server = fetched(address, "GET", "/v2")
    models = []
    for row in fetched(address, "POST", "/v2/repository/index", {}):
        status = call(address, "GET", f"/v2/models/{row['name']}/ready")[0]
        models.append(
            {
                "name": row["name"],
                "version": str(row.get("version", "")),
                "state": row.get("state", ""),
                "ready": status == 200,
            }
        )
    answers = []
    if questions["prompts"]:
        model = fetched(address, "GET", f"/v2/models/{questions['model']}")
        numbers = tuple(map(int, server["version"].split(".")[:2]))
        way: Any = generate if numbers >= _GENERATES else infer
        if questions.get("stream"):
            way = stream
        for prompt in questions["prompts"]:
            wanted = {**questions["values"], "stream": bool(questions.get("stream"))}
            values = inputs(model, prompt, wanted)
            found = way(address, model, values)
            answers.append({"prompt": prompt, "request": values, "text": found})
    content = {
        "schema": ANSWERS,
        "server": {"name": server["name"], "version": server["version"]},
        "models": sorted(models, key=lambda item: item["name"]),
        "answers": answers,
    }
    if questions.get("metrics"):
        content["metrics"] = metrics((address[0], questions["metrics"]))
    return content


def inputs(model: dict, prompt: str, values: dict) -> dict:  # type: ignore[type-arg]
    """The inputs of a request: those of the values that the model has, by its own names."""
    known = {item["name"] for item in model["inputs"]}
    wanted = {**values, "text_input": prompt, "bad_words": "", "stop_words": ""}
    renamed = {"random_seed": "seed"} if "seed" in known else {}
    named = {renamed.get(name, name): value for name, value in wanted.items()}
    return {name: value for name, value in named.items() if name in known}


def generate(address: tuple, model: dict, values: dict) -> str:  # type: ignore[type-arg]
    """The text that a model gives back by the endpoint `generate`."""
    found = fetched(address, "POST", f"/v2/models/{model['name']}/generate", values)
    return str(found["text_output"])


def infer(address: tuple, model: dict, values: dict) -> str:  # type: ignore[type-arg]
    """The text that a model gives back by the endpoint `infer`, which every version has."""
    kinds = {item["name"]: item["datatype"] for item in model["inputs"]}
    tensors = [
        {"name": name, "shape": [1, 1], "datatype": kinds[name], "data": [value]}
        for name, value in values.items()
    ]
    content = {"inputs": tensors, "outputs": [{"name": "text_output"}]}
    found = fetched(address, "POST", f"/v2/models/{model['name']}/infer", content)
    (output,) = found["outputs"]
    return str(output["data"][0])


def stream(address: tuple, model: dict, values: dict) -> list:  # type: ignore[type-arg]
    """The pieces of text that a decoupled model sends one after the other."""
    path = f"/v2/models/{model['name']}/generate_stream"
    status, answer = call(address, "POST", path, values)
    pieces = []
    for line in answer.decode(errors="replace").splitlines():
        if line.startswith("data:"):
            event = json.loads(line[len("data:") :])
            if "error" in event:
                raise Failed(f"{path} answers {event['error']}")
            pieces.append(str(event["text_output"]))
    if status != 200 or not pieces:
        raise Failed(f"{path} is answered with {status}: {answer.decode(errors='replace').strip()}")
    return pieces


def metrics(address: tuple) -> dict:  # type: ignore[type-arg]
    """Requests that were answered, by model, as the server counts them."""
    status, answer = call(address, "GET", "/metrics")
    if status != 200:
        raise Failed(f"/metrics is answered with {status}")
    found = {}
    for line in answer.decode(errors="replace").splitlines():
        name, _, rest = line.partition("{")
        if name == "nv_inference_request_success":
            labels, _, value = rest.partition("} ")
            model = labels.partition('model="')[2].partition('"')[0]
            found[model] = int(float(value))
    return found


def fetched(address: tuple, method: str, path: str, content: object = None) -> Any:  # type: ignore[type-arg]
    """The JSON that the server answers; Failed with what it says instead."""
    status, answer = call(address, method, path, content)
    if status != 200:
        raise Failed(f"{path} is answered with {status}: {answer.decode(errors='replace').strip()}")
    return json.loads(answer)


def call(address: tuple, method: str, path: str, content: object = None) -> tuple:  # type: ignore[type-arg]
    """Status and body of an answer."""
    connection = http.client.HTTPConnection(address[0], address[1], timeout=_PATIENCE)
    try:
        body = None if content is None else json.dumps(content)
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def stand_by(server: Server, sockets: dict, stopped: threading.Event) -> None:  # type: ignore[type-arg]
    """Lead from each Unix socket to a port, as long as the server runs and nobody stops it."""
    for path, port in sockets.items():
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(64)
        threading.Thread(target=_accept, args=(listener, port), daemon=True).start()
    print(f"{MARK} listening", flush=True)
    while not stopped.wait(_LOOK):
        server.look()


def _accept(listener: socket.socket, port: int) -> None:
    while True:
        near, _ = listener.accept()
        try:
            far = socket.create_connection((_LOOPBACK, port))
        except OSError:
            near.close()
            continue
        relay(near, far)


def relay(near: socket.socket, far: socket.socket) -> None:
    """Hand everything on in both directions, each until its end, in the background."""
    left = [2]

    def hand_on(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(_PIECE):
                target.sendall(piece)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
        left[0] -= 1
        if not left[0]:
            near.close()
            far.close()

    for pair in ((near, far), (far, near)):
        threading.Thread(target=hand_on, args=pair, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
