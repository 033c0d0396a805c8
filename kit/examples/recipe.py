"""Recipes: what an example makes out of which model, for any release."""

from __future__ import annotations

import re
import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from kit import document
from kit.data import releases
from kit.digest import Digest
from kit.errors import nearest, usage_error
from kit.examples import options
from kit.examples.options import Options

if TYPE_CHECKING:
    from kit.document import Section

SCHEMA = "kit.recipe/1"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
CATALOG = Path(__file__).with_name("catalog")
PUBLISHED = Path(__file__).with_name("schema") / "recipe-1.json"
"""JSON Schema of a recipe, for editors and other programs."""

Family = Literal["gpt", "llama"]
FAMILIES: tuple[Family, ...] = get_args(Family)
DType = Literal["float32", "float16", "bfloat16"]
DTYPES: tuple[DType, ...] = get_args(DType)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How the model is converted: the weights' type, tensor and pipeline parallel ranks."""

    dtype: DType
    tp: int
    pp: int


@dataclass(frozen=True, slots=True)
class Build:
    """The shapes that the engine is built for; `max_output_len` counts new tokens only."""

    max_batch_size: int
    max_input_len: int
    max_output_len: int


@dataclass(frozen=True, slots=True)
class Run:
    """What the engine is asked: greedy, `max_output_len` new tokens for every prompt.

    Without prompts nothing is asked: the example ends with the engine.
    `end_id` overrides the token that ends a text; None leaves it to the tokenizer.
    """

    prompts: tuple[str, ...]
    max_output_len: int
    end_id: int | None


@dataclass(frozen=True, slots=True)
class Recipe:
    """One example: model → checkpoint → engine → text, and the releases that it is meant for.

    Attributes:
        name: of the example.
        description: for people.
        family: whose scripts convert and build it.
        model: name of the model in a stack's lock.
        checkpoint: how it is converted.
        build: the engine's shapes.
        run: what it is asked.
        releases: that it is meant for, oldest first.
        options: what else is asked of the engine.
        repository: of Hugging Face that has the model, where one has.
        folders: of a user's own build, the model's first, each with its name in a plan.
        argument: how the command line names it.
    """

    name: str
    description: str
    family: Family
    model: str
    checkpoint: Checkpoint
    build: Build
    run: Run
    releases: tuple[str, ...]
    options: Options = field(default_factory=Options)
    repository: str | None = None
    folders: tuple[tuple[str, str], ...] = ()
    argument: str = ""

    @property
    def world_size(self) -> int:
        """Ranks that the engine has, one GPU each."""
        return self.checkpoint.tp * self.checkpoint.pp

    @property
    def own_model(self) -> Path | None:
        """The folder of a model that no stack has: the first of a user's own build."""
        return Path(self.folders[0][0]) if self.folders else None

    @property
    def digest(self) -> Digest:
        """Identity of what the recipe asks for; what is said about it does not count."""
        content = asdict(self)
        for name in ("description", "argument", "folders", "repository"):
            del content[name]
        # What is not said does not count either, so that a new option changes no old recipe.
        content["options"] = self.options.said()
        if not content["options"]:
            del content["options"]
        return Digest.of_document(content)


def names() -> list[str]:
    """The names of all examples."""
    return sorted(path.stem for path in CATALOG.glob("*.yaml"))


def catalog() -> list[Recipe]:
    """All examples, by name."""
    return [find(name) for name in names()]


def find(name: str) -> Recipe:
    """The example of that name; an unknown one is an error with the nearest (exit 2)."""
    if name not in names():
        raise usage_error(
            f"unknown example {name!r}; {nearest(name, names())}", hint="kit example list"
        )
    return load(CATALOG / f"{name}.yaml", name)


def load(path: Path, argument: str | None = None) -> Recipe:
    """Read a recipe, which the command line names by `argument`, or else by its path.

    Raises:
        KitError: malformed, unknown key, impossible value; with file, line and column (exit 2).
    """
    return parse(document.load(path), path, argument)


def parse(top: Section, path: Path, argument: str | None = None) -> Recipe:
    """Like `load`, of a file that has been read."""
    schema = top.text("schema")
    if schema != SCHEMA:
        raise top.error(f"expected schema {SCHEMA}, found {schema}", "schema")
    name = top.text("name")
    file_name(top, path)
    if name != path.stem:
        raise top.error(
            f"name: expected {path.stem!r}, the name of the file, found {name!r}", "name"
        )
    family = top.text("family")
    if family not in FAMILIES:
        raise top.error(f"family: unknown {family!r}; {nearest(family, FAMILIES)}", "family")
    shapes = top.section("build")
    asked = options.read(shapes)
    build = _build(shapes)
    recipe = Recipe(
        name=name,
        description=top.text("description"),
        family=family,
        model=top.text("model"),
        checkpoint=_checkpoint(top.section("checkpoint")),
        build=build,
        run=_run(top.section("run"), build),
        releases=_releases(top),
        options=asked,
        repository=top.optional_text("repository"),
        argument=argument or f"--config {shlex.quote(str(path))}",
    )
    top.close()
    return recipe


def file_name(top: Section, path: Path) -> str:
    """The name that a file gives its example: it becomes a folder's and stands in scripts."""
    if not _NAME.fullmatch(path.stem):
        raise top.error(
            f"the file is called {path.name!r}; expected letters, digits, '.', '_', '-'"
        )
    return path.stem


def _checkpoint(section: Section) -> Checkpoint:
    dtype = section.text("dtype")
    if dtype not in DTYPES:
        raise section.error(f"dtype: unknown {dtype!r}; {nearest(dtype, DTYPES)}", "dtype")
    checkpoint = Checkpoint(dtype, positive(section, "tp", 1), positive(section, "pp", 1))
    section.close()
    return checkpoint


def _build(section: Section) -> Build:
    build = Build(
        max_batch_size=positive(section, "max_batch_size"),
        max_input_len=positive(section, "max_input_len"),
        max_output_len=positive(section, "max_output_len"),
    )
    section.close()
    return build


def _run(section: Section, build: Build) -> Run:
    prompts = section.texts("prompts")
    if not prompts:
        raise section.error("prompts: expected at least one")
    if len(prompts) > build.max_batch_size:
        raise section.error(
            f"prompts: {len(prompts)} are more than max_batch_size {build.max_batch_size}",
            "prompts",
        )
    for prompt in prompts:
        # run.py takes them as words of one option, where a dash would begin the next option.
        if not prompt.strip() or prompt.startswith("-") or "\0" in prompt:
            raise section.error(
                f"prompts: {prompt!r} is empty or begins with '-'; run.py cannot take it", "prompts"
            )
        if prompt == ":":
            raise section.error("prompts: ':' would begin another program of mpirun", "prompts")
        # Answers are told apart by their prompts.
        if prompts.count(prompt) > 1:
            raise section.error(f"prompts: {prompt!r} stands twice", "prompts")
    max_output_len = positive(section, "max_output_len")
    if max_output_len > build.max_output_len:
        raise section.error(
            f"max_output_len: {max_output_len} is more than the engine is built for "
            f"({build.max_output_len})",
            "max_output_len",
        )
    end_id = positive(section, "end_id") if "end_id" in section else None
    section.close()
    return Run(prompts, max_output_len, end_id)


def _releases(top: Section) -> tuple[str, ...]:
    given = top.plain("releases")
    if isinstance(given, str):
        try:
            found = tuple(releases.select(given))
        except ValueError as error:
            raise top.error(str(error), "releases") from error
    elif isinstance(given, list) and all(isinstance(item, str) for item in given):
        known = releases.versions()
        for item in given:
            if item not in known:
                raise top.error(
                    f"releases: unknown release {item!r}; {nearest(item, known)}", "releases"
                )
        found = tuple(version for version in known if version in given)
    else:
        raise top.error("releases: expected a range such as '>=0.9.0' or a list", "releases")
    if not found:
        raise top.error(f"releases: {given!r} holds no release", "releases")
    return found


def positive(section: Section, key: str, default: int | None = None) -> int:
    """The whole number under `key`, 1 or more."""
    value = section.integer(key, default)
    if value < 1:
        raise section.error(f"{key}: expected 1 or more, found {value}", key)
    return value
