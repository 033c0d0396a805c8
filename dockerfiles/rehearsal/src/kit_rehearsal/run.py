"""Running: run.py of a release on the engine of this rank."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from . import engine as engines
from .build import engine_name
from .engine import LlamaShape
from .errors import BackendError, NotComputedError
from .files import read_json, write_npy
from .generation import generate
from .gpt2 import Gpt2
from .llama import Llama
from .log import warning
from .releases import Span
from .tokens import Tokenizer, quoted, read_prompts, rows, write_csv, write_ids

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from .communicator import Communicator
    from .generation import Generated, Model
    from .tensors import Array


_ENGINES_OF_BUILD_PY = Span(before="0.9.0")
_ONE_FILE_OF_LOGITS = Span(before="0.8.0")
_TEXT_FILE_OF_LINES = Span("0.9.0")


@dataclass(frozen=True, slots=True)
class Limits:
    """What an engine was built for; None where the release has no such limit."""

    max_batch_size: int
    max_input_len: int
    max_output_len: int | None
    max_seq_len: int | None
    n_positions: int


@dataclass(frozen=True, slots=True)
class EngineDirectory:
    """What run.py needs of an engine directory's config.json; `engines` are named by their rank."""

    world_size: int
    limits: Limits
    engines: tuple[str, ...]
    gather_context: bool
    gather_generation: bool


def run_of_family(release: str, args: argparse.Namespace, ranks: Communicator) -> None:
    """examples/gpt/run.py, until 0.6.1."""
    directory = _read(release, Path(args.engine_dir))
    _check_world(directory.world_size, ranks)
    tokenizer = Tokenizer(args.tokenizer_path)
    if args.input_file is None:
        prompts = [tokenizer.encode(args.input_text, special=False)]
    else:
        prompts = read_prompts(Path(args.input_file), tokenizer, special=False, text=None)
    check_limits(directory.limits, prompts, args.max_output_len)
    model = _load(Path(args.engine_dir) / directory.engines[ranks.rank], release, ranks)
    results = [generate(model, p, args.max_output_len, tokenizer.end_id) for p in prompts]
    if ranks.rank != 0:
        return
    if args.output_csv is None and args.output_npy is None:
        for one in results:
            print(quoted("Input", tokenizer.decode(one.prompt)))
            print(quoted("Output", tokenizer.decode(one.tokens)))
    _write_tokens(args, results, tokenizer.end_id)
    if directory.gather_context:
        print(np.concatenate([one.context_logits for one in results]))


def run_of_all(release: str, args: argparse.Namespace, ranks: Communicator) -> None:
    """examples/run.py, from 0.7.0 on: until 0.8.0 with engines of examples/gpt/build.py."""
    directory = _read(release, Path(args.engine_dir))
    _check_world(directory.world_size, ranks)
    if args.tokenizer_dir is None:
        raise BackendError("--tokenizer_dir is not given, and nothing is downloaded")
    gathered = directory.gather_context or directory.gather_generation
    if args.output_logits_npy is not None and gathered and _ONE_FILE_OF_LOGITS.holds(release):
        raise NotComputedError(
            f"the one file of logits of release {release}", "--output_logits_npy"
        )
    tokenizer = Tokenizer(args.tokenizer_dir)
    special = args.add_special_tokens
    if args.input_file is None:
        prompts = [tokenizer.encode(text, special=special) for text in args.input_text]
        prompts = [prompt[: args.max_input_length] for prompt in prompts]
    else:
        path = Path(args.input_file)
        text: Literal["lines", "whole"] = "lines" if _TEXT_FILE_OF_LINES.holds(release) else "whole"
        prompts = read_prompts(path, tokenizer, special=special, text=text)
        keep = args.max_input_length
        cut = slice(0, keep) if path.suffix == ".txt" else slice(-keep, None)
        prompts = [prompt[cut] for prompt in prompts]
    check_limits(directory.limits, prompts, args.max_output_len)
    end_id = getattr(args, "end_id", None) or tokenizer.end_id
    model = _load(Path(args.engine_dir) / directory.engines[ranks.rank], release, ranks)
    results = [generate(model, prompt, args.max_output_len, end_id) for prompt in prompts]
    if ranks.rank != 0:
        return
    if args.output_csv is None and args.output_npy is None:
        for index, one in enumerate(results):
            print(quoted(f"Input [Text {index}]", tokenizer.decode(one.prompt)))
            print(quoted(f"Output [Text {index} Beam 0]", tokenizer.decode(one.tokens)))
    _write_tokens(args, results, end_id)
    _write_numbers(args, directory, results)


def check_limits(limits: Limits, prompts: list[list[int]], max_output_len: int) -> None:
    """BackendError for what the engine was not built for."""
    if not prompts or not all(prompts):
        raise BackendError("there is an empty prompt, or no prompt at all")
    if max_output_len < 1:
        raise BackendError(f"--max_output_len {max_output_len}: expected 1 or more")
    longest = max(map(len, prompts))
    total = longest + max_output_len
    found = [
        ("prompts", len(prompts), "max_batch_size", limits.max_batch_size),
        ("tokens in the longest prompt", longest, "max_input_len", limits.max_input_len),
        ("tokens to generate", max_output_len, "max_output_len", limits.max_output_len),
        ("tokens with the output", total, "max_seq_len", limits.max_seq_len),
        ("tokens with the output", total, "max_position_embeddings", limits.n_positions),
    ]
    for what, number, name, most in found:
        if most is not None and number > most:
            raise BackendError(f"{number} {what}: the engine has {name} {most}")


def _read(release: str, directory: Path) -> EngineDirectory:
    path = directory / "config.json"
    config = read_json(path)
    try:
        if _ENGINES_OF_BUILD_PY.holds(release):
            return _of_build_py(config["builder_config"])
        return _of_trtllm_build(config["build_config"], config["pretrained_config"])
    except (KeyError, TypeError) as error:
        raise BackendError(f"{path}: not a config.json of release {release}: {error}") from error


def _of_build_py(builder: Mapping[str, Any]) -> EngineDirectory:
    both = builder.get("gather_all_token_logits", False)  # one switch until 0.7.1
    dtype, world_size = builder["precision"], builder["tensor_parallel"]
    return EngineDirectory(
        world_size=world_size,
        limits=Limits(
            max_batch_size=builder["max_batch_size"],
            max_input_len=builder["max_input_len"],
            max_output_len=builder["max_output_len"],
            max_seq_len=None,
            n_positions=builder["max_position_embeddings"],
        ),
        engines=tuple(engine_name(dtype, world_size, rank) for rank in range(world_size)),
        gather_context=builder.get("gather_context_logits", both),
        gather_generation=builder.get("gather_generation_logits", both),
    )


def _of_trtllm_build(build: Mapping[str, Any], model: Mapping[str, Any]) -> EngineDirectory:
    world_size = model["mapping"]["world_size"]
    return EngineDirectory(
        world_size=world_size,
        limits=Limits(
            max_batch_size=build["max_batch_size"],
            max_input_len=build["max_input_len"],
            max_output_len=build.get("max_output_len"),
            max_seq_len=build.get("max_seq_len"),
            n_positions=model["max_position_embeddings"],
        ),
        engines=tuple(f"rank{rank}.engine" for rank in range(world_size)),
        gather_context=build["gather_context_logits"],
        gather_generation=build["gather_generation_logits"],
    )


def _check_world(world_size: int, ranks: Communicator) -> None:
    if world_size != ranks.size:
        raise BackendError(
            f"engine world size {world_size} != runtime world size {ranks.size}; "
            f"start it with mpirun -n {world_size}"
        )


def _load(path: Path, release: str, ranks: Communicator) -> Model:
    loaded = engines.read(path)
    found = (loaded.release, loaded.rank, loaded.world_size)
    expected = (release, ranks.rank, ranks.size)
    if found != expected:
        raise BackendError(
            f"{path}: expected release, rank and world size {expected}, found {found}"
        )
    if isinstance(loaded.model, LlamaShape):
        return Llama(loaded, loaded.model, ranks)
    return Gpt2(loaded, loaded.model, ranks)


def _write_tokens(args: argparse.Namespace, results: list[Generated], pad_id: int | None) -> None:
    table = rows(results, args.max_output_len, pad_id if pad_id is not None else 0)
    if args.output_csv is not None:
        write_csv(Path(args.output_csv), table)
    if args.output_npy is not None:
        write_ids(Path(args.output_npy), table)


def _write_numbers(
    args: argparse.Namespace, directory: EngineDirectory, results: list[Generated]
) -> None:
    steps = args.max_output_len
    if args.output_logits_npy is not None:
        stem = args.output_logits_npy.split(".npy")[0]
        if directory.gather_context:
            context = np.concatenate([one.context_logits for one in results])
            write_npy(Path(f"{stem}_context.npy"), context)
        if directory.gather_generation:
            logits = np.stack([_filled(one.generation_logits, steps) for one in results])
            write_npy(Path(f"{stem}_generation.npy"), logits)
        if not (directory.gather_context or directory.gather_generation):
            warning("--output_logits_npy: the engine was built without gathering logits")
    log_probs = np.stack([_filled(one.log_probs, steps) for one in results])
    each = getattr(args, "output_log_probs_npy", None)  # both from 0.9.0 on
    if each is not None:
        write_npy(Path(each), log_probs[:, None, :])
    sums = getattr(args, "output_cum_log_probs_npy", None)
    if sums is not None:
        write_npy(Path(sums), log_probs.sum(axis=-1)[:, None])


def _filled(values: Array, length: int) -> Array:
    """The values with zeros after them, up to a length."""
    made = np.zeros((length, *values.shape[1:]), dtype=np.float32)
    made[: len(values)] = values
    return made
