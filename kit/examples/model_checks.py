"""A model's folder or archive before a container starts: what is missing, what would run code.

Everything that is wrong is said at once. Nothing is unpickled, nothing of the model is run.
"""

from __future__ import annotations

import math
import re
import shlex
from typing import TYPE_CHECKING

from kit.artifacts import bounded, nemo, pointer, snapshot
from kit.artifacts.problem import few
from kit.errors import content_error, usage_error
from kit.examples import model_facts, shape_checks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kit.artifacts.snapshot import Snapshot
    from kit.errors import KitError
    from kit.examples.recipe import Recipe

_SINGLE = "model.safetensors"
_INDEX, _PICKLED_INDEX = snapshot.INDEXES
_PICKLED = re.compile(r"pytorch_model(-[0-9]+-of-[0-9]+)?\.(bin|pt|pth)|.*\.(ckpt|pth|pt)")
# What does not hold weights of the model, whatever its name ends in.
_TRAINING = re.compile(r"(optimizer|scheduler|training_args|rng_state.*|trainer_state)\..*")

_NUMPY_HEAD = 4096
# Magic, version, length; then a dictionary of Python's. An array of objects, `|O`, is a pickle.
_NUMPY = re.compile(
    rb"\x93NUMPY[\x01-\x03].{3,5}\{'descr': '[<|][fV][0-9]', 'fortran_order': (?:True|False), "
    rb"'shape': \(([0-9, ]*)\)",
    re.DOTALL,
)

_TOKENIZERS: tuple[tuple[str, ...], ...] = (
    ("tokenizer.json",),
    ("vocab.json", "merges.txt"),
    ("tokenizer.model",),
)
"""Files of which transformers can make the tokenizer of GPT-2, SantaCoder, StarCoder or LLaMA."""


def check_model(
    folder: Path, recipe: Recipe, release: str, allow_pickle: bool = False
) -> tuple[str, ...]:
    """Refuse a model that the steps of a recipe would fail on, or that would run foreign code.

    Args:
        folder: the user's own: in Hugging Face's layout, or a .nemo archive; of dummy weights that
            of the tokenizer.
        recipe: what is made of it.
        release: whose scripts read it, for the messages.
        allow_pickle: weights may be Python objects, which run what they say once they are loaded.

    Returns:
        What is allowed and worth knowing.

    Raises:
        KitError: files that are not there, weights that are pickles, code that would be run, a
            model that the recipe does not fit (exit 2); files that are damaged, or Git LFS pointers
            (exit 4).
    """
    if folder.is_file() or folder.suffix == ".nemo":
        return _archive(folder, recipe, release, allow_pickle)
    present = bounded.names(folder)
    if recipe.source.dummy is not None:
        _refuse(folder, [*_tokenizer(folder, present, recipe)])
        return ()
    if "config.json" not in present:
        raise _no_config(folder, present)
    unread = [name for name in present if name.endswith(".json") and pointer.is_at(folder / name)]
    if unread:
        raise _pointers(folder, unread)
    found = snapshot.look(folder)
    if found.folder != folder:
        raise usage_error(
            f"{folder}: a hub cache: the model is in {found.folder}",
            hint=f"cp -rL {shlex.quote(str(found.folder))} COPY",
        )
    weights, missing, pickled = _weights(found, present)
    unread = [name for name in found.pointers if name in {*weights, *found.tokenizer}]
    if unread:
        raise _pointers(folder, unread)
    broken = ("weights-damaged", "blob-missing")
    if damaged := [item.message for item in found.problems if item.name in broken]:
        raise content_error("\n".join(damaged), hint=f"kit inspect {shlex.quote(str(folder))}")
    problems = []
    if missing:
        problems.append(f"{folder}: {few(missing)}: not there: the weights are not complete")
    problems += _tokenizer(folder, present, recipe)
    problems += _code(found, recipe)
    if problems and pickled and not allow_pickle:
        problems.append(_pickle_problem(f"{folder}: {few(weights)}"))
    _refuse(folder, problems)
    pickles = [f"{folder}: {few(weights)}"] if pickled else []
    allowed = _pickles(pickles, recipe, release, allow_pickle)
    facts = model_facts.of_folder(folder)
    shape_checks.refuse_impossible(recipe, release, facts)
    notes = [*shape_checks.warnings(recipe, facts), *_notes(found, recipe, release)]
    if (changed := shape_checks.dtype_warning(recipe, facts)) is not None:
        notes.append(changed)
    return (*notes, *allowed)


def check_locked(folder: Path, recipe: Recipe, release: str) -> tuple[str, ...]:
    """Hold a recipe against the model of a stack's lock, whose files the lock answers for.

    Returns:
        What is allowed and worth knowing.

    Raises:
        KitError: no config.json, a model that the recipe does not fit (exit 2); no model that the
            kit knows (exit 4).
    """
    if recipe.source.dummy is not None:  # only the tokenizer is the lock's
        return ()
    facts = model_facts.of_folder(folder)
    shape_checks.refuse_impossible(recipe, release, facts)
    return shape_checks.warnings(recipe, facts)


def check_inputs(recipe: Recipe, release: str, allow_pickle: bool = False) -> tuple[str, ...]:
    """Refuse learned prompts and adapters of a recipe that are damaged, or pickles.

    Args:
        recipe: that names them.
        release: whose scripts read them, for the hint.
        allow_pickle: they may be Python objects, which run what they say once they are loaded.

    Returns:
        What is allowed and worth knowing.

    Raises:
        KitError: a file that is not there, a pickle (exit 2); no such file (exit 4).
    """
    pickled: list[str] = []
    if (table := recipe.run.prompt_table) is not None:
        if table.suffix == ".nemo":
            pickled.append(f"{table}: {few(nemo.look(table).weights)}")
        else:
            _table(table, recipe)
    if (lora := recipe.options.lora) is not None:
        names = bounded.names(lora.dir)
        if "adapter_config.json" not in names:
            raise usage_error(f"{lora.dir}: no adapter: no adapter_config.json in it")
        if "adapter_model.safetensors" not in names:
            if "adapter_model.bin" not in names:
                raise usage_error(f"{lora.dir}: no adapter: no adapter_model.safetensors in it")
            pickled.append(f"{lora.dir}: adapter_model.bin")
    return _pickles(pickled, recipe, release, allow_pickle)


def _table(path: Path, recipe: Recipe) -> None:
    """A table of learned prompts in NumPy's format, held against the recipe and its model."""
    head, _ = bounded.head(path, _NUMPY_HEAD)
    if (found := pointer.of(head)) is not None:
        raise content_error(f"{path}: {found}")
    match = _NUMPY.match(head)
    if match is None:
        raise content_error(f"{path}: no table: expected a file of numbers that NumPy wrote")
    shape = [int(size) for size in re.findall(rb"[0-9]{1,9}", match.group(1))]
    facts = model_facts.of_recipe(recipe)
    hidden = facts.hidden if isinstance(facts, model_facts.Dimensions) else None
    if not shape or (hidden is not None and shape[-1] != hidden):
        raise usage_error(
            f"{recipe.where('run.prompt_table')}prompt_table: {path} has rows of "
            f"{shape[-1] if shape else 'nothing'}, the model is {hidden} wide"
        )
    rows, most = math.prod(shape[:-1]), recipe.options.prompt_table_size
    if most is not None and rows > most:
        raise usage_error(
            f"{recipe.where('build.prompt_table_size')}prompt_table_size: {path} has {rows} rows, "
            f"the engine takes {most}"
        )


def _pickles(found: list[str], recipe: Recipe, release: str, allow_pickle: bool) -> tuple[str, ...]:
    """Refuse pickles that are not allowed; of the others say that they are some."""
    if not found or allow_pickle:
        return tuple(f"{name}: pickles, loaded because you allow it" for name in found)
    raise usage_error(
        "\n".join(_pickle_problem(name) for name in found),
        hint=f"kit run {recipe.argument or recipe.name} --stack STACK --release {release} "
        "--allow-pickle",
    )


def _archive(path: Path, recipe: Recipe, release: str, allow_pickle: bool) -> tuple[str, ...]:
    found = nemo.look(path)
    if not found.weights:
        raise content_error(f"{path}: no weights in it: expected model_weights.ckpt")
    notes = _pickles([f"{path}: {few(found.weights)}"], recipe, release, allow_pickle)
    facts = model_facts.of_nemo(path)
    shape_checks.refuse_impossible(recipe, release, facts)
    return (*shape_checks.warnings(recipe, facts), *notes)


def _weights(found: Snapshot, present: tuple[str, ...]) -> tuple[list[str], list[str], bool]:
    """The files that the converters load, those that are missing, whether they are pickles.

    transformers takes safetensors where there are any, in one file or by their index.
    """
    folder = found.folder
    if _INDEX in present:
        names = sorted(_indexed(folder / _INDEX))
        return names, [name for name in names if not bounded.is_file(folder / name)], False
    tensors = [name for name in found.weights if name.endswith(".safetensors")]
    if tensors:
        # Shards without their index cannot be told apart from half of them.
        return tensors, [] if _SINGLE in tensors else [_INDEX], False
    if _PICKLED_INDEX in present:
        names = sorted(_indexed(folder / _PICKLED_INDEX))
        return names, [name for name in names if not bounded.is_file(folder / name)], True
    pickled = [
        name for name in found.pickles if _PICKLED.fullmatch(name) and not _TRAINING.fullmatch(name)
    ]
    return pickled, [] if pickled else [_SINGLE], bool(pickled)


def _indexed(index: Path) -> set[str]:
    named = bounded.mapping(bounded.json_object(index), "weight_map").values()
    names = {name for name in named if isinstance(name, str) and name and "/" not in name}
    if not names:
        raise content_error(f"{index}: names no file with weights under weight_map")
    return names


def _pointers(folder: Path, names: list[str]) -> KitError:
    return content_error(
        f"{folder}: {few(names)}: Git LFS pointers, not the files",
        hint=f"git -C {shlex.quote(str(folder))} lfs pull",
    )


def _tokenizer(folder: Path, present: tuple[str, ...], recipe: Recipe) -> Iterator[str]:
    """What keeps the release's scripts from making the tokenizer; nobody asks, nobody needs it."""
    if not recipe.asks:
        return
    if not any(set(files) <= set(present) for files in _TOKENIZERS):
        expected = ", or ".join(" and ".join(files) for files in _TOKENIZERS)
        yield f"{folder}: no tokenizer: expected {expected}"
    if "tokenizer_config.json" in present:
        config = bounded.json_object(folder / "tokenizer_config.json")
        named = bounded.at(config, "auto_map", "AutoTokenizer")
        code = [name for name in named if name] if isinstance(named, list) else [named]
        if code and code[0]:
            yield (
                f"{folder}/tokenizer_config.json: the tokenizer is code of its own: "
                f"auto_map: {few([str(name) for name in code])}; take auto_map out of a copy and "
                "use the tokenizer.json that transformers' save_pretrained writes"
            )


def _code(found: Snapshot, recipe: Recipe) -> Iterator[str]:
    """Models that bring their own code, which the converters would run.

    hf_gpt_convert.py and convert_checkpoint.py load with `trust_remote_code=True`. SantaCoder has
    no other way.
    """
    named = [name for name in found.remote_code if name.startswith("auto_map: ")]
    if named and recipe.variant != "santacoder":
        yield (
            f"{found.folder}/config.json: the converter would run code of the model: {few(named)}; "
            "take auto_map out of a copy, if transformers has the class itself"
        )


def _notes(found: Snapshot, recipe: Recipe, release: str) -> Iterator[str]:
    code = [name for name in found.remote_code if name.endswith(".py")]
    if code and recipe.variant == "santacoder":
        yield (
            f"{found.folder}: {few(code)}: code of the model, which the converter of release "
            f"{release} runs, in a container without network"
        )


def _pickle_problem(what: str) -> str:
    return (
        f"{what}: weights as Python pickles, which run what they say once they are loaded; "
        "expected safetensors, or --allow-pickle if you trust where they come from"
    )


def _no_config(folder: Path, present: tuple[str, ...]) -> KitError:
    if snapshot.is_cache(folder):
        inside = snapshot.look(folder).folder
        return usage_error(
            f"{folder}: a hub cache: the model is in {inside}",
            hint=f"cp -rL {shlex.quote(str(inside))} COPY",
        )
    below = [name for name in present if (folder / name / "config.json").is_file()]
    where = f"; there is one in {few(below)}" if below else ""
    return usage_error(
        f"{folder}: no Hugging Face model: no config.json in it{where}",
        hint=f"kit inspect {shlex.quote(str(folder))}",
    )


def _refuse(place: Path, problems: list[str]) -> None:
    if problems:
        raise usage_error("\n".join(problems), hint=f"kit inspect {shlex.quote(str(place))}")
