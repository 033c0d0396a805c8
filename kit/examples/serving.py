"""Serving: the steps of a plan in Triton's container, and what the server there says.

The server runs in a closed container like every step, without a network: what asks it runs beside
it (`kit.triton.session`), over the container's own loopback.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kit import console, files
from kit.data import triton as containers
from kit.errors import KitError, content_error, environment_error, nearest, usage_error
from kit.examples import layout, results
from kit.examples.dialects import triton
from kit.images import build, records
from kit.images.engine import Mount
from kit.manifests import record
from kit.triton.session import ANSWERS as ANSWERS_SCHEMA
from kit.triton.session import MARK

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from kit.examples.plan import Step
    from kit.examples.recipe import Recipe
    from kit.images.build import BuiltImage
    from kit.project import Project

SERVER = "serve"
"""The step that starts the server."""
SESSION = "/kit/session.py"
QUESTIONS = f"{layout.OUTPUT}/questions.json"
ANSWERS = f"{layout.OUTPUT}/answers.json"
MODEL = "ensemble"
"""The model that is asked: text in, text out, by way of all others."""
HTTP_PORT = 8000
"""Triton's own, where a recipe says no other."""
READY_SECONDS = 1800
"""How long a server may take to load its models."""

ROOT_LABEL = "org.trtllm-kit.root"
RELEASES_LABEL = "org.trtllm-kit.releases"
BACKEND_LABEL = "org.trtllm-kit.backend"
_REHEARSAL = "rehearsal"
_WITHOUT_GPU = frozenset({"cuda-driver-insufficient"})
"""What `kit diagnose` makes of a server that finds no driver."""
_LARGEST = 16 << 20


def server_image(
    project: Project, engine_image: BuiltImage, release: str, chosen: str | None, again: str
) -> BuiltImage:
    """The image that serves what another image builds.

    Args:
        project: where the stacks are.
        engine_image: what makes the engine.
        release: of both.
        chosen: the stack of the server, if somebody has chosen one.
        again: the command line that was given.

    Raises:
        KitError: as `built_for`.
    """
    is_rehearsal = engine_image.labels.get(BACKEND_LABEL) == _REHEARSAL
    return built_for(project, release, chosen, again, rehearsal=is_rehearsal)


def built_for(
    project: Project, release: str, chosen: str | None, again: str, *, rehearsal: bool
) -> BuiltImage:
    """The image that serves engines of a release, real ones or a rehearsal's.

    Raises:
        KitError: no stack is known for it, or the chosen one does not go with the engine (exit 2);
            it is not built yet (exit 3), or from another lock (exit 4).
    """
    names = [chosen] if chosen else stacks_for(release, rehearsal=rehearsal)
    known = [name for name in names if name in project.stacks]
    if not known:
        wanted = f"stack {chosen}" if chosen else "stack of a Triton container"
        raise usage_error(
            f"no {wanted} to serve release {release} with; {nearest(chosen or '', project.stacks)}",
            hint=f"{again} --triton-stack STACK"
            if "kit run" in again
            else f"{again} --stack STACK",
        )
    built = [name for name in known if records.read(records.of_stack(project, name))]
    if not built:
        raise environment_error(
            f"stack {known[0]} is not built yet, and the server runs in its image",
            hint=f"kit fetch {known[0]} && kit build {known[0]}",
        )
    image = build.built(project, built[0])
    held = image.labels.get(RELEASES_LABEL, "").split()
    if release not in held:
        raise usage_error(
            f"stack {image.stack} does not serve release {release}; {nearest(release, held)}",
            hint=f"kit verify-compat --release {release} --stack {image.stack}",
        )
    if (image.labels.get(BACKEND_LABEL) == _REHEARSAL) != rehearsal:
        engine = "the engine is a rehearsal's" if rehearsal else "the engine is none of a rehearsal"
        right = stacks_for(release, rehearsal=rehearsal)
        raise usage_error(
            f"stack {image.stack} does not load it: {engine}",
            hint=f"kit build {right[0]}" if right else "kit example list",
        )
    return image


def stacks_for(release: str, *, rehearsal: bool) -> list[str]:
    """The stacks that can serve a release, the one that was made for it first."""
    if rehearsal:
        return ["rehearsal-triton"]
    return [f"triton-{month}" for month in containers.shipping(release)]


def root(image: BuiltImage, release: str) -> str:
    """Where a server's image has the templates and tools of a release.

    Raises:
        KitError: the image does not say (exit 4).
    """
    found = image.labels.get(ROOT_LABEL, "")
    if not found.startswith("/"):
        raise content_error(
            f"image {image.manifest_digest} of stack {image.stack}: label {ROOT_LABEL}: "
            f"expected an absolute path, found {found!r}",
            hint=f"kit build {image.stack}",
        )
    return found.replace("{release}", release)


def asking(steps: Sequence[Step], recipe: Recipe, end_id: int | None) -> tuple[Step, ...]:
    """The steps, with the questions for the server where one is started."""
    return tuple(
        replace(
            step,
            writes=((QUESTIONS, _questions(recipe, end_id)),),
            produces=(ANSWERS,),
        )
        if step.name == SERVER
        else step
        for step in steps
    )


def argv(step: Step) -> tuple[str, ...]:
    """What runs in the container: of a server the session that asks it."""
    if step.name != SERVER:
        return step.argv
    return ("python3", "-I", "-S", SESSION, QUESTIONS, "--", *step.argv)


def mounts(step: Step, work: Path) -> tuple[Mount, ...]:
    """What a server sees in addition: its repository, in which it may leave nothing."""
    if step.name != SERVER:
        return ()
    return (Mount(results.in_work(work, triton.REPOSITORY), triton.REPOSITORY),)


def problem(log: Path, release: str, image: BuiltImage) -> KitError | None:
    """What the session and the server's log say of the first failure; None if nothing."""
    from kit.diagnose.diagnosis import diagnose

    is_rehearsal = image.labels.get(BACKEND_LABEL) == _REHEARSAL
    with log.open(encoding="utf-8", errors="replace") as stream:
        own = [line.strip() for line in stream if line.startswith(f"{MARK} ")]
    lines = [line.removeprefix(f"{MARK} ") for line in own[-1:]]
    for match in diagnose(log, release).matches:
        # A rehearsal's server says in every log that there is no driver, and needs none.
        if match.kind == "cause" and not (is_rehearsal and match.id in _WITHOUT_GPU):
            lines += [match.id, f"  cause: {match.cause}", f"  fix: {match.fix}"]
            lines += [f"  {line}" for line in match.evidence.splitlines()[:1]]
            break
    if not lines:
        return None
    hint = f"kit diagnose --release {release} {shlex.quote(str(log))}"
    return content_error("\n".join(lines), hint=hint)


def said(
    image: BuiltImage, work: Path, done: Collection[str], outputs: Sequence[record.Output]
) -> record.Server:
    """What a manifest says of the server: its image, its models, its answers.

    An answer that is not what run.py has said is told, and no error: the two may batch otherwise.

    Raises:
        KitError: the answers are malformed (exit 4).
    """
    identity = record.Image(str(image.manifest_digest), str(image.image_id))
    if SERVER not in done:
        return record.Server(image.stack, identity)
    path = results.in_work(work, ANSWERS)
    try:
        content: Any = json.loads(files.content(path, _LARGEST))
        if content.pop("schema") != ANSWERS_SCHEMA:
            raise ValueError("another schema")  # noqa: TRY301 - told as all the others
        for answer in content["answers"]:
            del answer["request"]
        server = content.pop("server")
        found = record.decode(
            record.Server,
            {
                "stack": image.stack,
                "image": {
                    "manifest_digest": identity.manifest_digest,
                    "image_id": identity.image_id,
                },
                "name": server["name"],
                "version": server["version"],
                **content,
            },
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise content_error(f"{path}: not the answers of a server: {error}") from error
    unready = [model.name for model in found.models if not model.ready]
    if unready:
        raise content_error(f"{path}: not ready: {', '.join(unready)}")
    texts = {output.prompt: output.text for output in outputs}
    for answer in found.answers:
        expected = texts.get(answer.prompt)
        if expected is not None and answer.text not in (expected, answer.prompt + expected):
            console.note(f"{answer.prompt!r}: the server says {answer.text!r}, run.py {expected!r}")
    return found


def _questions(recipe: Recipe, end_id: int | None) -> str:
    """The request of a session, as JSON."""
    run, settings = recipe.run, recipe.serve.triton if recipe.serve else None
    values = {
        "max_tokens": run.max_output_len,
        "end_id": end_id,
        "pad_id": end_id,
        "beam_width": run.num_beams,
        "temperature": run.temperature,
        "top_k": run.top_k,
        "top_p": run.top_p,
        "random_seed": run.random_seed,
    }
    content = {
        "http_port": (settings.http_port if settings else None) or HTTP_PORT,
        "timeout": READY_SECONDS,
        "questions": {
            "model": MODEL,
            "prompts": list(run.prompts),
            "values": {name: value for name, value in values.items() if value is not None},
        },
        "answers": ANSWERS,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
