"""Recipes: what an example makes out of which model, for any release."""

from __future__ import annotations

import re
import shlex
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from kit import document
from kit.data import releases
from kit.digest import Digest
from kit.errors import nearest, usage_error
from kit.examples import layout, options, sense, source, tasks
from kit.examples.options import Options
from kit.examples.source import Source
from kit.examples.tasks import Run, positive, word

if TYPE_CHECKING:
    from kit.document import Section
    from kit.examples.tasks import Evaluate, Serve

SCHEMA = "kit.recipe/1"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
CATALOG = Path(__file__).with_name("catalog")
PUBLISHED = Path(__file__).with_name("schema") / "recipe-1.json"
"""JSON Schema of a recipe, for editors and other programs."""

Family = Literal["gpt", "llama"]
FAMILIES: tuple[Family, ...] = get_args(Family)
Variant = Literal["gpt2", "santacoder", "starcoder", "gpt-next"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
Workflow = Literal["commands", "python"]
WORKFLOWS: tuple[Workflow, ...] = get_args(Workflow)
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

    @property
    def max_seq_len(self) -> int:
        """Prompt and answer together."""
        return self.max_input_len + self.max_output_len


@dataclass(frozen=True, slots=True)
class Recipe:
    """One example: model → checkpoint → engine → text, and the releases that it is meant for.

    Attributes:
        name: of the example.
        description: for people.
        family: whose scripts convert and build it.
        model: name of the model; in a stack's lock, where `source` says nothing else.
        checkpoint: how it is converted.
        build: the engine's shapes.
        run: what it is asked.
        releases: that it is meant for, oldest first.
        options: what else is asked of the engine.
        variant: of GPT.
        workflow: the release's commands, or one script against its Python API.
        source: where the weights come from.
        evaluate: how good the engine has to be.
        serve: the server of it.
        folders: of a user's own build, the model's first, each with its name in a plan.
        argument: how the command line names it.
        places: `file:line:column` of keys such as `checkpoint.tp`, for complaints that come later.
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
    variant: Variant = "gpt2"
    workflow: Workflow = "commands"
    source: Source = field(default_factory=Source)
    evaluate: Evaluate | None = None
    serve: Serve | None = None
    folders: tuple[tuple[str, str], ...] = ()
    argument: str = ""
    places: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def world_size(self) -> int:
        """Ranks that the engine has, one GPU each."""
        return self.checkpoint.tp * self.checkpoint.pp

    @property
    def own_model(self) -> Path | None:
        """The user's folder of a model, or of the tokenizer for dummy weights; none of a stack."""
        return self.source.directory

    @property
    def locked_model(self) -> str | None:
        """The model that a stack's lock has to have; None where the recipe needs none of it."""
        if self.source.directory is not None or self.source.nemo is not None:
            return None
        # Dummy weights need a tokenizer to be asked or evaluated, and nothing else.
        return self.model if self.source.dummy is None else self.source.tokenizer

    @property
    def inputs(self) -> tuple[tuple[Path, str], ...]:
        """Files and folders besides the model's folder and the dataset: here, in the container."""
        found: list[tuple[Path, str]] = []
        if self.source.nemo is not None:
            found.append((self.source.nemo, f"{layout.MODEL}/{self.source.nemo.name}"))
        single = (self.run.prompt_table, self.run.input_file, self.options.timing_cache)
        found += [(file, f"{layout.INPUT}/{file.name}") for file in single if file is not None]
        if self.options.lora is not None:
            found.append((self.options.lora.dir, layout.LORA))
        if self.evaluate is not None and self.evaluate.summarize.rouge_dir is not None:
            found.append((self.evaluate.summarize.rouge_dir, layout.ROUGE))
        return tuple(found)

    @property
    def asks(self) -> bool:
        """Whether the engine is asked anything, for which a tokenizer is needed."""
        return bool(self.run.prompts or self.run.input_file or self.evaluate or self.serve)

    @property
    def repository(self) -> str | None:
        """Of Hugging Face that has the model, where one has."""
        return self.source.repository

    @property
    def digest(self) -> Digest:
        """Identity of what the recipe asks for; what is said about it does not count."""
        content: dict[str, Any] = {
            "name": self.name,
            "family": self.family,
            "model": self.model,
            "checkpoint": asdict(self.checkpoint),
            "build": asdict(self.build),
            "run": self.run.identity(),
            "releases": self.releases,
        }
        # What is not said does not count either, so that a new option changes no old recipe.
        said = {
            "options": self.options.said(),
            "variant": self.variant if self.variant != VARIANTS[0] else None,
            "workflow": self.workflow if self.workflow != WORKFLOWS[0] else None,
            "source": self.source.identity(),
            "evaluate": self.evaluate.identity() if self.evaluate else None,
            "serve": self.serve.identity() if self.serve else None,
        }
        content |= {name: value for name, value in said.items() if value}
        return Digest.of_document(content)

    def where(self, key: str) -> str:
        """`file:line:column: ` of a key such as `checkpoint.tp`, or of the nearest above it.

        Empty where the recipe comes from no file.
        """
        while key and key not in self.places:
            key = key.rpartition(".")[0]
        return f"{self.places[key]}: " if key in self.places else ""


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
    # An example of the catalogue has no files beside it: those that it names have to be given.
    beside = path.absolute().parent if argument is None else Path()
    family = word(top, "family", FAMILIES)
    model, where_from = source.read(top, beside)
    weights, shapes = top.section("checkpoint"), top.section("build")
    asked = {
        **options.read(weights, beside, options.CHECKPOINT_KEYS),
        **options.read(shapes, beside, options.BUILD_KEYS),
    }
    build = _build(shapes)
    run = top.optional_section("run")
    evaluate, serve = top.optional_section("evaluate"), top.optional_section("serve")
    recipe = Recipe(
        name=name,
        description=top.text("description"),
        family=family,
        model=model,
        checkpoint=_checkpoint(weights),
        build=build,
        run=tasks.read_run(run, build, beside) if run else Run((), build.max_output_len, None),
        releases=_releases(top),
        options=Options(**asked),
        variant=word(top, "variant", VARIANTS, "gpt2"),
        workflow=word(top, "workflow", WORKFLOWS, "commands"),
        source=where_from,
        evaluate=tasks.read_evaluate(evaluate, beside) if evaluate else None,
        serve=tasks.read_serve(serve) if serve else None,
        argument=argument or f"--config {shlex.quote(str(path))}",
        # An example's file is the kit's own business.
        places=document.places(top) if argument is None else {},
    )
    top.close()
    sense.check(recipe)
    return recipe


def file_name(top: Section, path: Path) -> str:
    """The name that a file gives its example: it becomes a folder's and stands in scripts."""
    if not _NAME.fullmatch(path.stem):
        raise top.error(
            f"the file is called {path.name!r}; expected letters, digits, '.', '_', '-'"
        )
    return path.stem


def with_model(recipe: Recipe, given: Path) -> Recipe:
    """The recipe with a folder, or a .nemo file, that the command line gives for its model.

    A folder stands for the place of all files that the recipe names: the .nemo archive, the table
    of prompts, the file of token ids.

    Raises:
        KitError: there is no such thing, or not what the recipe wants (exit 2).
    """
    path = given.absolute()
    hint = f"kit plan {recipe.argument or recipe.name} --model "
    if not path.is_dir() and not path.is_file():
        raise usage_error(f"{given}: expected a folder with a model, or a .nemo file; not there")
    if path.is_file():
        if recipe.source.nemo is None or path.suffix != ".nemo":
            wanted = "a .nemo file" if recipe.source.nemo else "a folder with a model"
            raise usage_error(
                f"{given}: {recipe.name} wants {wanted}, found a file",
                hint=hint + ("FILE.nemo" if recipe.source.nemo else "DIR"),
            )
        return replace(recipe, source=replace(recipe.source, nemo=path))
    if recipe.source.nemo is None:
        kept = replace(recipe.source, repository=None, commit=None, directory=path, tokenizer=None)
        return replace(recipe, source=kept)
    run = recipe.run
    for name in ("prompt_table", "input_file"):
        if (file := getattr(run, name)) is not None:
            run = replace(run, **{name: path / file.name})
    nemo = path / recipe.source.nemo.name
    return replace(recipe, source=replace(recipe.source, nemo=nemo), run=run)


def refuse_incomplete(recipe: Recipe) -> None:
    """Refuse to run a recipe that names files, or a dataset, which nobody has given (exit 2)."""
    wanted = [str(path) for path, _ in recipe.inputs if not path.is_absolute()]
    command = f"kit run {recipe.argument or recipe.name}"
    if wanted:
        single = len(wanted) == 1 and recipe.source.nemo is not None
        raise usage_error(
            f"{recipe.name} wants {', '.join(wanted)}, which no stack has",
            hint=f"{command} --model {'FILE.nemo' if single else 'DIR'} --stack STACK",
        )
    if recipe.evaluate is not None and recipe.evaluate.summarize.dataset is None:
        raise usage_error(
            f"{recipe.name} evaluates with a folder of articles, which no stack has",
            hint=f"{command} --dataset DIR --stack STACK",
        )


def with_dataset(recipe: Recipe, given: Path) -> Recipe:
    """The recipe with a folder of articles that the command line gives for its evaluation.

    Raises:
        KitError: it evaluates nothing, or there is no such folder (exit 2).
    """
    if recipe.evaluate is None:
        raise usage_error(f"{recipe.name} has no evaluation, which a dataset would be for")
    if not given.is_dir():
        raise usage_error(f"{given}: expected a folder with a dataset; not there")
    summarize = replace(recipe.evaluate.summarize, dataset=given.absolute())
    return replace(recipe, evaluate=replace(recipe.evaluate, summarize=summarize))


def _checkpoint(section: Section) -> Checkpoint:
    checkpoint = Checkpoint(
        word(section, "dtype", DTYPES), positive(section, "tp", 1), positive(section, "pp", 1)
    )
    section.close()
    return checkpoint


def _build(section: Section) -> Build:
    build = shapes(section)
    section.close()
    return build


def shapes(section: Section) -> Build:
    """The engine's shapes; `max_seq_len` stands for `max_output_len`, less the input.

    Raises:
        KitError: neither of them, or both and they do not add up (exit 2).
    """
    batch, given = positive(section, "max_batch_size"), positive(section, "max_input_len")
    together = tasks.optional(section, "max_seq_len")
    if together is None:
        return Build(batch, given, positive(section, "max_output_len"))
    if together <= given:
        raise section.error(
            f"max_seq_len: {together} leaves no new token after max_input_len {given}",
            "max_seq_len",
        )
    fresh = tasks.optional(section, "max_output_len")
    if fresh is not None and given + fresh != together:
        raise section.error(
            f"max_seq_len: {together} is not max_input_len {given} and max_output_len {fresh} "
            f"together ({given + fresh}); leave one of them out",
            "max_seq_len",
        )
    return Build(batch, given, together - given)


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
