"""`kit triton`: a model repository for an engine, the server over it, and what that answers."""

from __future__ import annotations

import http.client
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from kit import images, project
from kit.artifacts.plan import REHEARSAL
from kit.console import envelope, note, result
from kit.errors import content_error, environment_error, usage_error
from kit.examples import serving, text
from kit.images.engine import Gpus
from kit.triton import repository, server, session

if TYPE_CHECKING:
    import argparse

    from kit.project import Project
    from kit.triton.server import Served

_NAME = "triton"


def run(options: argparse.Namespace) -> int:
    """Do one of the three."""
    needed = {"repository": ("engine", "tokenizer", "output"), "serve": ("target",)}
    for name in needed.get(options.action, ("target",)):
        if not getattr(options, name):
            shown = "REPOSITORY" if name == "target" else f"--{name} DIR"
            raise usage_error(
                f"kit triton {options.action}: missing {shown}", hint="kit triton --help"
            )
    return {"repository": _repository, "serve": _serve, "check": _check}[options.action](options)


def _repository(options: argparse.Namespace) -> int:
    place = project.find()
    folder = Path(options.engine)
    found, release = repository.open_engine(folder, options.release)
    again = f"kit triton repository --engine {options.engine}"
    image = serving.built_for(
        place, release, options.stack, again, rehearsal=found.backend == REHEARSAL
    )
    output = Path(options.output).absolute()
    made = repository.make(
        place,
        images.select(place.home),
        image,
        found,
        Path(options.tokenizer),
        release,
        output,
        options.set,
    )
    if options.json:
        envelope(_NAME, ok=True, repository=str(output), release=made.release, stack=made.stack)
    else:
        result(str(output))
    return 0


def _serve(options: argparse.Namespace) -> int:
    place = project.find()
    served = _served(place, Path(options.target), options)
    for warning in server.refuse_unfit(place, served):
        note(f"warning: {warning}")
    ports = {name: getattr(options, f"{name}_port") for name in server.PORTS}
    if len(set(ports.values())) != len(ports):
        raise usage_error(f"ports: expected different ones, found {ports}")
    address = f"http://127.0.0.1:{ports['http']}"

    def on_ready() -> None:
        if options.json:
            envelope(_NAME, ok=True, url=address, ports=ports, release=served.release)
        else:
            result(address)
        note(f"ready; kit triton check {address} --prompt TEXT; Ctrl-C stops it")

    # A job's end comes as SIGTERM: the container goes with it, in order.
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        gpus = Gpus.parse(options.gpus)
        server.serve(place, images.select(place.home), served, gpus, ports, on_ready)
    except KeyboardInterrupt:
        note("stopped")
    return 0


def _check(options: argparse.Namespace) -> int:
    questions: dict[str, Any] = {
        "model": options.served_model,
        "prompts": options.prompt,
        "values": {"max_tokens": options.max_tokens},
        "stream": options.stream,
    }
    if "://" in options.target:
        answers = _of_url(options, questions)
    else:
        place = project.find()
        served = _served(place, Path(options.target), options)
        for warning in server.refuse_unfit(place, served):
            note(f"warning: {warning}")
        tokenizer = text.load(served.tokenizer)
        if tokenizer is not None and tokenizer.end_id is not None:
            questions["values"] |= {"end_id": tokenizer.end_id, "pad_id": tokenizer.end_id}
        gpus = Gpus.parse(options.gpus)
        answers = server.ask(place, images.select(place.home), served, gpus, questions)
    return _told(options, answers)


def _of_url(options: argparse.Namespace, questions: dict[str, Any]) -> dict[str, Any]:
    """What a server that runs already answers."""
    url = urlsplit(options.target)
    if url.scheme != "http" or not url.hostname or url.path not in ("", "/"):
        raise usage_error(
            f"{options.target}: expected http://HOST:PORT",
            hint="kit triton check http://127.0.0.1:8000 --prompt TEXT",
        )
    if options.end_id is not None:
        questions["values"] |= {"end_id": options.end_id, "pad_id": options.end_id}
    questions["metrics"] = options.metrics_port
    try:
        found: dict[str, Any] = session.ask((url.hostname, url.port or 80), questions)
    except (session.Failed, ValueError, KeyError, TypeError) as error:
        raise content_error(f"{options.target}: {error}") from error
    except (OSError, http.client.HTTPException) as error:
        raise environment_error(
            f"{options.target}: no server answers: {error or type(error).__name__}",
            hint="kit triton serve REPOSITORY --stack STACK",
        ) from error
    return found


def _told(options: argparse.Namespace, found: dict[str, Any]) -> int:
    """Print what came back; 4 where a model is not ready."""
    unready = [model["name"] for model in found["models"] if not model["ready"]]
    answers = [{"name": item["prompt"], **item} for item in found["answers"]]
    if options.json:
        envelope(
            _NAME,
            ok=not unready,
            server=found["server"],
            models=found["models"],
            answers=answers,
            metrics=found.get("metrics"),
        )
        return 4 if unready else 0
    result(f"{found['server']['name']} {found['server']['version']}")
    for model in found["models"]:
        state = "ready" if model["ready"] else f"not ready: {model['state'] or 'no state'}"
        counted = found.get("metrics", {}).get(model["name"])
        requests = f", {counted} requests answered" if counted is not None else ""
        result(f"{model['name']} version {model['version']}: {state}{requests}")
    for answer in answers:
        result(f"{answer['prompt']!r} → {answer['text']!r}")
    return 4 if unready else 0


def _served(place: Project, folder: Path, options: argparse.Namespace) -> Served:
    release, stack, engine, tokenizer = repository.described(
        folder, options.engine, options.tokenizer
    )
    found, _ = repository.open_engine(engine, options.release or release)
    again = f"kit triton {options.action} {options.target}"
    image = serving.built_for(
        place,
        options.release or release,
        options.stack or stack or None,
        again,
        rehearsal=found.backend == REHEARSAL,
    )
    return server.Served(
        folder.absolute(),
        engine,
        tokenizer,
        options.release or release,
        image,
        found.world_size or 1,
    )


def _interrupted(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt
