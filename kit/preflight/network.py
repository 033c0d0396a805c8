"""The hosts that missing inputs come from: each asked once, all at the same time, for seconds."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kit.errors import KitError, environment_error
from kit.locks.connection import GivenUp, NotFound, Refused, shown
from kit.preflight.finding import Finding
from kit.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kit.locks.http import Client
    from kit.locks.lock import Input, Lock
    from kit.project import Project

SECONDS = 5.0
"""What a host is given to answer, and what all of them together are."""
_TRIES = 2
_PREFIX_DIRECTORY = "directory:"


@dataclass(frozen=True, slots=True)
class _Question:
    """What is asked of one host: for a file that is missing, the way it would be fetched."""

    host: str
    item: Input
    ask: Callable[[Input, Client], None] = field(compare=False)


def check(project: Project, lock: Lock, *, offline: bool) -> Iterator[Finding]:
    """One finding for each host that is needed; none is asked if nothing is missing.

    A host is asked through the proxies, mirrors and logins of this site for a file that has to
    come from there. What it refuses now it would refuse after hours.
    """
    store = Store(project.store)
    missing = [item for item in lock.inputs if not store.has(item.sha256, item.size)]
    if not missing or offline:
        why = "no host is needed" if not missing else "no host was asked"
        yield Finding("network", "ok", why)
        return
    yield from _asked(missing, lock.stack)


def _asked(missing: list[Input], stack: str) -> Iterator[Finding]:
    from kit.locks.http import Client

    client = Client(connect_timeout=SECONDS, read_timeout=SECONDS, attempts=_TRIES)
    answers: queue.SimpleQueue[tuple[_Question, KitError | None]] = queue.SimpleQueue()
    questions: list[_Question] = []
    for item in {_origin(item): item for item in reversed(missing)}.values():
        try:
            question = _question(item)
        except KitError as error:  # no index, no mirror: nothing to ask
            yield Finding(f"source of {item.kind}", "failed", str(error), error.hint)
            continue
        if question is not None:
            questions.append(question)

    def run(question: _Question) -> None:
        try:
            question.ask(question.item, client)
        except KitError as error:
            answers.put((question, error))
        except Exception as error:  # noqa: BLE001 (a preflight never fails by itself)
            reason = f"cannot be asked ({type(error).__name__})"
            answers.put((question, environment_error(f"{question.host}: {reason}")))
        else:
            answers.put((question, None))

    # Daemons: a name server that hangs must not keep the process.
    for question in questions:
        threading.Thread(target=run, args=(question,), daemon=True).start()
    found: dict[_Question, KitError | None] = dict.fromkeys(questions, _silent())
    deadline = time.monotonic() + SECONDS + 1
    for _ in questions:
        try:
            answered, failure = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        found[answered] = failure
    client.cancelled.set()
    for question in questions:
        yield _finding(question, found[question], stack)


def _silent() -> KitError:
    return environment_error(f"no answer in {SECONDS:.0f} seconds")


def _finding(question: _Question, error: KitError | None, stack: str) -> Finding:
    name = f"host {question.host}"
    what = f"for {question.item.kind} inputs"
    if error is None:
        return Finding(name, "ok", f"answers {what}")
    if isinstance(error, GivenUp) and error.status is not None:  # there, and busy: it may pass
        return Finding(name, "warning", f"answers {error.status} {what}", None)
    if isinstance(error, NotFound):
        detail = f"{question.item} has vanished: {error}"
        return Finding(name, "failed", detail, error.hint or f"kit lock {stack}")
    if isinstance(error, Refused):
        login = f"put a login for {question.host.rpartition(':')[0] or question.host} in ~/.netrc"
        return Finding(name, "failed", str(error), error.hint or login)
    elsewhere = f"export KIT_MIRRORS='{question.host}/=<a host that has it>/', or set a proxy"
    return Finding(name, "failed", str(error), error.hint or elsewhere)


def _origin(item: Input) -> tuple[str, str]:
    """Inputs of one kind and one host are asked for once; an empty host is the configured one."""
    if item.kind == "oci":
        return item.kind, item.location.removeprefix("oci:").partition("/")[0]
    if item.location.startswith(_PREFIX_DIRECTORY):
        return item.kind, _PREFIX_DIRECTORY
    return item.kind, urlsplit(item.location).netloc if "://" in item.location else ""


def _question(item: Input) -> _Question | None:
    """Whom to ask for an input; None for what comes from the project itself.

    Raises:
        KitError: no mirror or index is known on this host (exit 3).
    """
    from kit.locks.mirrors import rewrite

    location = item.location
    if location.startswith(_PREFIX_DIRECTORY):
        return None
    match item.kind:
        case "oci":
            name = location.removeprefix("oci:")
            return _Question(_host(rewrite(name)), item, _registry)
        case "git":
            return _Question(_host(rewrite(location)), item, _git)
        case "lfs":
            return _Question(_host(rewrite(location)), item, _lfs)
        case "model":
            return _hub(item)
        case "deb" if "://" not in location:
            from kit.locks.mirror import debian_mirror

            return _plain(item, f"{debian_mirror()}/dists/")
        case "wheel" | "sdist" if "://" not in location:
            return _index(item)
    return _plain(item, rewrite(location))


def _plain(item: Input, url: str) -> _Question | None:
    """A file under a URL, or the folder that it is to be found below: any answer will do there."""
    if urlsplit(url).scheme == "file":
        return None

    def ask(_item: Input, client: Client) -> None:
        try:
            client.length(url)
        except NotFound:
            if not url.endswith("/"):
                raise

    return _Question(_host(url), item, ask)


def _index(item: Input) -> _Question | None:
    from kit.locks import pip_settings

    settings = pip_settings.load()
    if not settings.indexes:
        return None
    url = f"{settings.indexes[0]}/"

    def ask(_item: Input, client: Client) -> None:
        if settings.certificates:
            client.trust(settings.certificates)
        try:
            client.length(url)
        except NotFound:  # an index need not list all that it has
            return

    return _Question(_host(url), item, ask)


def _hub(item: Input) -> _Question:
    from kit.locks import hf

    repo, _, commit = item.location.partition(":")[2].rpartition("@")
    url = hf._url(repo, commit, item.file)  # noqa: SLF001 (the address that a fetch asks for)

    def ask(_item: Input, client: Client) -> None:
        hf._require_online(str(item))  # noqa: SLF001
        client.length(url, hf._headers())  # noqa: SLF001

    return _Question(_host(url), item, ask)


def _registry(item: Input, client: Client) -> None:
    from kit.locks.registry import Registry

    registry = Registry(item.location.removeprefix("oci:"), client)
    if str(item.sha256) == item.version:
        registry.manifest(item.version)
    elif not registry.has_blob(item.sha256):
        raise NotFound(f"{registry.name}: {item.sha256}")


def _git(item: Input, client: Client) -> None:
    from kit.locks import git_server

    git_server.find(item.location, client)


def _lfs(item: Input, client: Client) -> None:
    from kit.locks import lfs

    lfs.require_served([item], client)


def _host(url: str) -> str:
    """Host and port, no login; of a name without a scheme too, as images have them."""
    bare = shown(url if "://" in url else f"https://{url}")
    return urlsplit(bare).netloc
