"""Plain build configurations: `model`, `checkpoint` and `build`, as users have them, as a recipe.

The folders are the user's own: the model's says by its `config.json` which family it is of; a plan
names them as they are called in the container, and says which is which.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit import files
from kit.data import releases
from kit.errors import nearest
from kit.examples import dialect, options, recipe
from kit.examples.recipe import DTYPES, Build, Checkpoint, Recipe, Run, positive

if TYPE_CHECKING:
    from kit.document import Section
    from kit.examples.recipe import DType, Family

SECTIONS = ("model", "checkpoint", "build")
_KEYS = {
    "model": ("model_dir", "output_dir", "dtype"),
    "checkpoint": ("checkpoint_dir", "tp_size", "pp_size"),
    "build": ("max_input_len", "max_output_len", "max_batch_size", *options.KEYS),
}
_LARGEST = 1 << 20
"""Bytes of a model's config.json; those of LLaMA and GPT-2 have less than one KiB."""

# `model_type` and `architectures` as transformers writes them into a model's config.json.
_MODEL_TYPES: dict[str, Family] = {"gpt2": "gpt", "llama": "llama"}
_ARCHITECTURES: dict[str, Family] = {"GPT2LMHeadModel": "gpt", "LlamaForCausalLM": "llama"}


def parse(top: Section, path: Path) -> Recipe:
    """The recipe of a build configuration: every release, nothing asked of the engine.

    Raises:
        KitError: an unknown or missing key, an impossible value, a model of no known family; with
            file, line and column (exit 2).
    """
    _only(top, SECTIONS)
    sections = {name: top.section(name) for name in SECTIONS}
    for name, section in sections.items():
        _only(section, _KEYS[name])
    model, checkpoint, build = sections.values()
    folder = _folder(model, "model_dir", path)
    folders = (
        (str(folder), dialect.MODEL),
        (str(_folder(checkpoint, "checkpoint_dir", path)), dialect.CHECKPOINT),
        (str(_folder(model, "output_dir", path)), dialect.ENGINE),
    )
    max_output_len = positive(build, "max_output_len")
    return Recipe(
        name=recipe.file_name(top, path),
        description=f"the build configuration {path.name}",
        family=_family(model, folder),
        model=folder.name,
        checkpoint=Checkpoint(
            _dtype(model), positive(checkpoint, "tp_size", 1), positive(checkpoint, "pp_size", 1)
        ),
        build=Build(
            max_batch_size=positive(build, "max_batch_size"),
            max_input_len=positive(build, "max_input_len"),
            max_output_len=max_output_len,
        ),
        run=Run((), max_output_len, None),
        releases=tuple(releases.versions()),
        options=options.read(build),
        folders=folders,
        argument=f"--config {shlex.quote(str(path))}",
    )


def _only(section: Section, keys: tuple[str, ...]) -> None:
    """Refuse other keys first: a misspelt one is not missing."""
    section.taken.update(keys)
    section.close()


def _folder(section: Section, key: str, path: Path) -> Path:
    """A folder that the configuration names; a relative one stands beside the file."""
    value = section.text(key)
    if not value.strip() or "\0" in value:
        raise section.error(f"{key}: expected the path of a folder, found {value!r}", key)
    try:
        return path.absolute().parent / Path(value).expanduser()
    except RuntimeError as error:  # ~ of a user that there is none of
        raise section.error(f"{key}: {value}: {error}", key) from error


def _dtype(section: Section) -> DType:
    value = section.text("dtype")
    if value not in DTYPES:
        raise section.error(f"dtype: unknown {value!r}; {nearest(value, DTYPES)}", "dtype")
    return value


def _family(section: Section, folder: Path) -> Family:
    file = folder / "config.json"
    try:
        content: Any = json.loads(files.content(file, _LARGEST))
    except OSError as error:
        raise section.error(
            f"model_dir: {file} cannot be read: {error.strerror}; "
            "expected a folder with a Hugging Face model",
            "model_dir",
        ) from error
    except (ValueError, RecursionError) as error:
        raise section.error(f"model_dir: {file}: not valid JSON: {error}", "model_dir") from error
    found = content if isinstance(content, dict) else {}
    kind = found.get("model_type")
    architectures = found.get("architectures")
    named = architectures if isinstance(architectures, list) else []
    # The class decides: other models reuse the configuration of LLaMA under its `model_type`.
    families = {_ARCHITECTURES.get(name) for name in named if isinstance(name, str)}
    if not named and isinstance(kind, str):
        families = {_MODEL_TYPES.get(kind)}
    family = families.pop() if len(families) == 1 else None
    if family is None:
        said = f"model_type {kind!r}, architectures {named!r}"
        known = ", ".join(f"{name} ({family})" for name, family in _ARCHITECTURES.items())
        raise section.error(f"model_dir: {file}: no family for {said}; known: {known}", "model_dir")
    return family
