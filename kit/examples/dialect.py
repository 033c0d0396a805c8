"""How each release spells the steps of a recipe.

Every fact stands once in `dialects`, with the releases that it holds for. Options were read from
the releases' own parsers (`kit/data/cli.json`, which a test holds every line of every release
against); what else is relied on is said where it is used, with its source in NVIDIA/TensorRT-LLM.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from kit.data import releases
from kit.errors import usage_error
from kit.examples import layout
from kit.examples.dialects import gpt, llama, python, settings, triton
from kit.examples.words import spelled

if TYPE_CHECKING:
    from kit.examples.recipe import Family, Recipe
    from kit.examples.words import Refusal, Script, Settings

FAMILY_NAMES: dict[Family, str] = {"gpt": "GPT", "llama": "LLaMA"}

MODEL = layout.MODEL
DATASET = layout.DATASET
WORK = layout.WORK
CHECKPOINT = layout.CHECKPOINT
ENGINE = layout.ENGINE
OUTPUT = layout.OUTPUT
CACHE = layout.CACHE

MPI_STEPS = frozenset({"run", "summarize", "python"})
"""What every rank of an engine does; `run-<n>` as `run`."""
SERVING = frozenset({"repository", "fill", "serve"})
"""Steps in Triton's container; `fill-<model>` as `fill`."""


@dataclass(frozen=True, slots=True)
class Command:
    """One step in a release's own words; `ranks` of 0 means that MPI does not start it.

    Attributes:
        name: of the step.
        argv: its words, without MPI's.
        ranks: processes that MPI starts.
        produces: files or folders below the work folder that must exist afterwards.
        writes: files that must be there before: path in the container, content.
        cwd: where it runs, if not in the release's tree.
        image: whose container it runs in, if not the release's.
    """

    name: str
    argv: tuple[str, ...]
    ranks: int
    produces: tuple[str, ...]
    writes: tuple[tuple[str, str], ...] = ()
    cwd: str | None = None
    image: str | None = None


class Objection(NamedTuple):
    """Why a release cannot do what a recipe asks, and the key in the recipe that asks it."""

    reason: str
    key: str


_SCRIPTS: dict[Family, tuple[Script, ...]] = {"gpt": gpt.SCRIPTS, "llama": llama.SCRIPTS}
_CANNOT: dict[Family, tuple[Refusal, ...]] = {"gpt": gpt.REFUSALS, "llama": llama.REFUSALS}
_SEVERAL_PROMPTS = "0.7.0"
_PRODUCES = {
    "convert": CHECKPOINT,
    "quantize": CHECKPOINT,
    "configure": f"{CHECKPOINT}/config.json",
    "build": ENGINE,
    "prompts": f"{OUTPUT}/prompt_table.npy",
}
_EVERYWHERE = ("workers",)
"""What every release spells, though not every value with words."""


def commands(recipe: Recipe, release: str, server_root: str | None = None) -> list[Command]:
    """The steps of a recipe as that release wants them.

    `server_root` is where Triton's container has the backend, if not where its documents say.

    Raises:
        KitError: the release cannot; says why and names the nearest that can (exit 2).
    """
    release = releases.known(release)
    if (found := objection(recipe, release)) is not None:
        able = [name for name in recipe.releases if refusal(recipe, name) is None]
        near = releases.closest(release, able)
        raise usage_error(
            f"{recipe.where(found.key)}{found.reason}; nearest release that can: {near or 'none'}",
            hint=f"kit plan {recipe.argument or recipe.name} --release {near}"
            if near
            else "kit example list",
        )
    chosen = settings.of(recipe)
    ranks = recipe.world_size if recipe.world_size > 1 else 0
    made: list[Command] = []
    if recipe.workflow == "python":
        made.append(
            Command(
                "python",
                ("python3", python.PLACE),
                ranks,
                (CHECKPOINT, ENGINE),
                writes=((python.PLACE, python.script(recipe, release)),),
            )
        )
    for script in _scripts(recipe):
        if not script.hold(release, chosen):
            continue
        if script.step == "run":
            for name, tokens, prompts in questions(recipe, release):
                argv = script.argv(release, _asked(chosen, recipe, prompts, tokens))
                asked = ("--input_text", *prompts) if prompts else ()
                written = (tokens, *logits(recipe, release))
                made.append(Command(name, (*argv, *asked), ranks, written))
            continue
        produces = (_PRODUCES[script.step],) if script.step in _PRODUCES else ()
        made.append(
            Command(
                script.step,
                script.argv(release, chosen),
                ranks if script.step in MPI_STEPS else 0,
                produces,
            )
        )
    if recipe.serve is not None:
        made += [
            Command(step.name, step.argv, 0, step.produces, cwd=step.cwd, image=step.image)
            for step in triton.steps(recipe, release, server_root)
        ]
    return made


def refusal(recipe: Recipe, release: str) -> str | None:
    """Why a known release cannot do what a recipe asks; None where it can."""
    found = objection(recipe, release)
    return found.reason if found else None


def objection(recipe: Recipe, release: str) -> Objection | None:
    """Like `refusal`, with the key that asks it."""
    if release not in recipe.releases:
        return Objection(f"example {recipe.name} is not meant for release {release}", "releases")
    chosen = settings.of(recipe)
    wishes = settings.wishes(recipe)
    for row in _CANNOT[recipe.family]:
        if row.hold(release, chosen):
            return Objection(row.reason.format(release=release, **chosen), _key(row, wishes))
    if "end_id" in wishes and releases.between(release, None, "0.11.0"):
        reason = f"run.py of release {release} has no --end_id, which the example sets"
        return Objection(reason, "run.end_id")
    if recipe.workflow == "python" and (reason_ := python.refusal(recipe, release)) is not None:
        return Objection(reason_, "workflow")
    if recipe.serve is not None and (reason_ := triton.refusal(recipe, release)) is not None:
        return Objection(reason_, "serve")
    scripts = _SCRIPTS[recipe.family]
    for name, (key, value) in wishes.items():
        if name not in _EVERYWHERE and not spelled(scripts, name, release, chosen):
            shown = str(value).lower() if isinstance(value, bool) else value
            return Objection(
                f"the scripts of release {release} have no option for "
                f"{key.rpartition('.')[2]}: {shown} with {FAMILY_NAMES[recipe.family]}",
                key,
            )
    return None


def questions(recipe: Recipe, release: str) -> list[tuple[str, str, tuple[str, ...]]]:
    """The run steps: name, file of token ids in the container, the prompts that it answers.

    `--input_text` takes one text before 0.7.0, so that every prompt is a step there. A file of
    token ids is asked in one step, without prompts.
    """
    prompts = recipe.run.prompts
    if not prompts and recipe.run.input_file is None:
        return []
    if len(prompts) < 2 or releases.between(release, _SEVERAL_PROMPTS, None):
        return [("run", f"{OUTPUT}/tokens.csv", prompts)]
    return [
        (f"run-{number}", f"{OUTPUT}/tokens-{number}.csv", (prompt,))
        for number, prompt in enumerate(prompts, start=1)
    ]


def logits(recipe: Recipe, release: str) -> tuple[str, ...]:
    """The files of logits that a question leaves, where the recipe gathers them.

    From 0.18.0 on those of answers want an option that no table is certain of
    (`--output_generation_logits`), so that nobody relies on them there.
    """
    asked = recipe.options.gather_logits
    if settings.of(recipe)["logits"] is None or not releases.between(release, "0.8.0", None):
        return ()
    found = ["context"] if asked in ("all", "context") else []
    if asked in ("all", "generation") and releases.between(release, None, "0.18.0"):
        found.append("generation")
    return tuple(f"{OUTPUT}/logits_{kind}.npy" for kind in found)


def _scripts(recipe: Recipe) -> list[Script]:
    """The programs of a family; where a script of ours makes the engine, those that follow."""
    scripts = _SCRIPTS[recipe.family]
    if recipe.workflow == "commands":
        return list(scripts)
    return [script for script in scripts if script.step in ("prompts", "run", "summarize")]


def _asked(
    chosen: Settings, recipe: Recipe, prompts: tuple[str, ...], tokens: str
) -> dict[str, Any]:
    """The settings of one question of several."""
    found = {**chosen, "tokens": tokens}
    tasks = recipe.run.prompt_tasks
    if tasks is not None and len(prompts) < len(recipe.run.prompts):
        found["prompt_tasks"] = tasks[recipe.run.prompts.index(prompts[0])]
    return found


def _key(row: Refusal, wishes: dict[str, tuple[str, Any]]) -> str:
    """The key of a recipe that a refusal speaks of: the first that is there."""
    for name in (*row.when, *row.unless):
        if name in wishes:
            return wishes[name][0]
        if name in ("tp", "pp", "dtype"):
            return f"checkpoint.{name}"
        if name == "blocks":
            return "build.tokens_per_block"
    return "model"
