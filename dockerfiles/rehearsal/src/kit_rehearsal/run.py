"""Running: run.py of a release on the engine of this rank."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import engine as engines
from .build import engine_name
from .errors import BackendError
from .files import read_json, write_npy
from .generation import generate
from .gpt2 import Gpt2
from .log import warning
from .tokens import Tokenizer, quoted, read_prompts, rows, write_csv, write_ids

if TYPE_CHECKING:
    import argparse

    from .communicator import Communicator
    from .generation import Generated
    from .tensors import Array


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
    """What run.py needs of an engine directory's config.json."""

    world_size: int
    limits: Limits
    dtype: str
    gather_context: bool
    gather_generation: bool


def run_0_5(args: argparse.Namespace, ranks: Communicator) -> None:
    """0.5.0's examples/gpt/run.py."""
    directory = _read_0_5(Path(args.engine_dir))
    _check_world(directory.world_size, ranks)
    name = engine_name(directory.dtype, directory.world_size, ranks.rank)
    tokenizer = Tokenizer(args.tokenizer_path)
    if args.input_file is None:
        prompts = [tokenizer.encode(args.input_text, special=False)]
    else:
        prompts = read_prompts(Path(args.input_file), tokenizer, special=False, text=False)
    check_limits(directory.limits, prompts, args.max_output_len)
    model = _load(Path(args.engine_dir) / name, "0.5.0", ranks)
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


def run_unified(release: str, args: argparse.Namespace, ranks: Communicator) -> None:
    """0.9.0's and 0.16.0's examples/run.py."""
    directory = _read_unified(release, Path(args.engine_dir))
    _check_world(directory.world_size, ranks)
    if args.tokenizer_dir is None:
        raise BackendError("--tokenizer_dir is not given, and nothing is downloaded")
    tokenizer = Tokenizer(args.tokenizer_dir)
    special = args.add_special_tokens
    if args.input_file is None:
        prompts = [tokenizer.encode(text, special=special) for text in args.input_text]
        prompts = [prompt[: args.max_input_length] for prompt in prompts]
    else:
        path = Path(args.input_file)
        prompts = read_prompts(path, tokenizer, special=special, text=True)
        keep = args.max_input_length
        cut = slice(0, keep) if path.suffix == ".txt" else slice(-keep, None)
        prompts = [prompt[cut] for prompt in prompts]
    check_limits(directory.limits, prompts, args.max_output_len)
    end_id = getattr(args, "end_id", None) or tokenizer.end_id
    model = _load(Path(args.engine_dir) / f"rank{ranks.rank}.engine", release, ranks)
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


def _read_0_5(directory: Path) -> EngineDirectory:
    path = directory / "config.json"
    config = read_json(path)
    try:
        builder = config["builder_config"]
        return EngineDirectory(
            world_size=builder["tensor_parallel"],
            limits=Limits(
                max_batch_size=builder["max_batch_size"],
                max_input_len=builder["max_input_len"],
                max_output_len=builder["max_output_len"],
                max_seq_len=None,
                n_positions=builder["max_position_embeddings"],
            ),
            dtype=builder["precision"],
            gather_context=builder["gather_all_token_logits"],
            gather_generation=False,
        )
    except (KeyError, TypeError) as error:
        raise BackendError(f"{path}: not a config.json of release 0.5.0: {error}") from error


def _read_unified(release: str, directory: Path) -> EngineDirectory:
    path = directory / "config.json"
    config = read_json(path)
    try:
        build, model = config["build_config"], config["pretrained_config"]
        return EngineDirectory(
            world_size=model["mapping"]["world_size"],
            limits=Limits(
                max_batch_size=build["max_batch_size"],
                max_input_len=build["max_input_len"],
                max_output_len=build.get("max_output_len"),
                max_seq_len=build.get("max_seq_len"),
                n_positions=model["max_position_embeddings"],
            ),
            dtype=model["dtype"],
            gather_context=build["gather_context_logits"],
            gather_generation=build["gather_generation_logits"],
        )
    except (KeyError, TypeError) as error:
        raise BackendError(f"{path}: not a config.json of release {release}: {error}") from error


def _check_world(world_size: int, ranks: Communicator) -> None:
    if world_size != ranks.size:
        raise BackendError(
            f"engine world size {world_size} != runtime world size {ranks.size}; "
            f"start it with mpirun -n {world_size}"
        )


def _load(path: Path, release: str, ranks: Communicator) -> Gpt2:
    loaded = engines.read(path)
    found = (loaded.release, loaded.rank, loaded.world_size)
    expected = (release, ranks.rank, ranks.size)
    if found != expected:
        raise BackendError(
            f"{path}: expected release, rank and world size {expected}, found {found}"
        )
    return Gpt2(loaded, ranks)


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
    if args.output_log_probs_npy is not None:
        write_npy(Path(args.output_log_probs_npy), log_probs[:, None, :])
    if args.output_cum_log_probs_npy is not None:
        write_npy(Path(args.output_cum_log_probs_npy), log_probs.sum(axis=-1)[:, None])


def _filled(values: Array, length: int) -> Array:
    """The values with zeros after them, up to a length."""
    made = np.zeros((length, *values.shape[1:]), dtype=np.float32)
    made[: len(values)] = values
    return made
