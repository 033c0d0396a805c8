"""Plain build configurations: `model`, `checkpoint` and `build`, as users have them, as a recipe.

The folders are the user's own: the model's says by its `config.json` which family it is of; a plan
names them as they are called in the container, and says which is which.
"""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from kit import document, files
from kit.data import releases
from kit.errors import nearest
from kit.examples import layout, options, recipe, sense, source
from kit.examples.options import Options
from kit.examples.recipe import DTYPES, Checkpoint, Recipe
from kit.examples.source import Source
from kit.examples.tasks import Run, positive

if TYPE_CHECKING:
    from pathlib import Path

    from kit.document import Section
    from kit.examples.recipe import DType, Family, Variant

SECTIONS = ("model", "checkpoint", "build")
_KEYS = {
    "model": ("model_dir", "output_dir", "dtype"),
    "checkpoint": ("checkpoint_dir", "tp_size", "pp_size"),
    "build": ("max_input_len", "max_output_len", "max_seq_len", "max_batch_size", *options.KEYS),
}
_LARGEST = 1 << 20
"""Bytes of a model's config.json; those of LLaMA and GPT-2 have less than one KiB."""

# `model_type` and `architectures` as transformers writes them into a model's config.json.
_MODEL_TYPES: dict[str, tuple[Family, Variant]] = {
    "gpt2": ("gpt", "gpt2"),
    "gpt_bigcode": ("gpt", "starcoder"),
    "llama": ("llama", "gpt2"),
}
_ARCHITECTURES: dict[str, tuple[Family, Variant]] = {
    "GPT2LMHeadModel": ("gpt", "gpt2"),
    "GPT2LMHeadCustomModel": ("gpt", "santacoder"),
    "GPTBigCodeForCausalLM": ("gpt", "starcoder"),
    "LlamaForCausalLM": ("llama", "gpt2"),
}
"""With the variant, which LLaMA has none of."""


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
    beside = path.absolute().parent
    folder = source.path(model, "model_dir", beside)
    folders = (
        (str(folder), layout.MODEL),
        (str(source.path(checkpoint, "checkpoint_dir", beside)), layout.CHECKPOINT),
        (str(source.path(model, "output_dir", beside)), layout.ENGINE),
    )
    shapes = recipe.shapes(build)
    family, variant = _family(model, folder)
    found = Recipe(
        name=recipe.file_name(top, path),
        description=f"the build configuration {path.name}",
        family=family,
        model=folder.name,
        checkpoint=Checkpoint(
            _dtype(model), positive(checkpoint, "tp_size", 1), positive(checkpoint, "pp_size", 1)
        ),
        build=shapes,
        run=Run((), shapes.max_output_len, None),
        releases=tuple(releases.versions()),
        options=Options(**options.read(build, beside)),
        variant=variant,
        source=Source(directory=folder),
        folders=folders,
        argument=f"--config {shlex.quote(str(path))}",
        places=_places(top),
    )
    sense.check(found)
    return found


# Where a build configuration says what a recipe says elsewhere.
_ELSEWHERE = {
    "checkpoint.dtype": "model.dtype",
    "checkpoint.tp": "checkpoint.tp_size",
    "checkpoint.pp": "checkpoint.pp_size",
    **{f"checkpoint.{key}": f"build.{key}" for key in options.CHECKPOINT_KEYS},
}


def _places(top: Section) -> dict[str, str]:
    found = document.places(top)
    moved = {new: found[old] for new, old in _ELSEWHERE.items() if old in found}
    return {**found, **moved}


def _only(section: Section, keys: tuple[str, ...]) -> None:
    """Refuse other keys first: a misspelt one is not missing."""
    section.taken.update(keys)
    section.close()


def _dtype(section: Section) -> DType:
    value = section.text("dtype")
    if value not in DTYPES:
        raise section.error(f"dtype: unknown {value!r}; {nearest(value, DTYPES)}", "dtype")
    return value


def _family(section: Section, folder: Path) -> tuple[Family, Variant]:
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
        known = ", ".join(f"{name} ({family})" for name, (family, _) in _ARCHITECTURES.items())
        raise section.error(f"model_dir: {file}: no family for {said}; known: {known}", "model_dir")
    return family
