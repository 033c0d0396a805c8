"""Running: run.py of a release on the engine of this rank."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from . import engine_directory, prompt_table
from .engine_directory import check_limits
from .errors import BackendError, NotComputedError
from .files import write_npy
from .generation import sequences
from .log import warning
from .releases import Span
from .sampling import Sampling, Words
from .tokens import (
    SentencePieceTokenizer,
    Tokenizer,
    quoted,
    read_prompts,
    rows,
    write_csv,
    write_ids,
)

if TYPE_CHECKING:
    import argparse

    from .communicator import Communicator
    from .engine_directory import EngineDirectory
    from .generation import Generated, Model
    from .tensors import Array
    from .tokens import Vocabulary


_ONE_FILE_OF_LOGITS = Span(before="0.8.0")
_TEXT_FILE_OF_LINES = Span("0.9.0")
# What the families' own scripts take for the end, whatever the tokenizer says.
_END_WITH_VOCAB_FILE = 50256
_END_OF_LLAMA = 2


def run_of_gpt(release: str, args: argparse.Namespace, ranks: Communicator) -> None:
    """examples/gpt/run.py, until 0.6.1."""
    tokenizer: Vocabulary = (
        Tokenizer(args.tokenizer_path)
        if args.vocab_file is None
        else SentencePieceTokenizer(args.vocab_file, end_id=_END_WITH_VOCAB_FILE)
    )
    _run_of_family(release, args, ranks, tokenizer, tokenizer.end_id)


def run_of_llama(release: str, args: argparse.Namespace, ranks: Communicator) -> None:
    """examples/llama/run.py, until 0.6.1."""
    _run_of_family(release, args, ranks, Tokenizer(args.tokenizer_dir), _END_OF_LLAMA)


def _run_of_family(
    release: str,
    args: argparse.Namespace,
    ranks: Communicator,
    tokenizer: Vocabulary,
    end_id: int | None,
) -> None:
    directory = engine_directory.read(release, Path(args.engine_dir))
    if args.input_file is None:
        prompts = [tokenizer.encode(args.input_text, special=False)]
    else:
        prompts = read_prompts(Path(args.input_file), tokenizer, special=False, text=None)
    prompts = _cut_to(prompts, getattr(args, "input_tokens_limit", None))
    sampling = Sampling(num_beams=args.num_beams)
    check_limits(directory.limits, prompts, args.max_output_len, sampling.num_beams)
    model = directory.load(release, ranks)
    table, tasks = getattr(args, "prompt_table", None), getattr(args, "tasks", None)
    virtual = _virtual(directory, model, table, tasks, prompts)
    results = [
        sequences(model, prompt, args.max_output_len, end_id, sampling, vectors)
        for prompt, vectors in zip(prompts, virtual)
    ]
    if ranks.rank != 0:
        return
    if args.output_csv is None and args.output_npy is None:
        for beams in results:
            print(quoted("Input", tokenizer.decode(beams[0].prompt)))
            for one in beams:
                print(quoted("Output", tokenizer.decode(one.tokens)))
    _write_tokens(args, results, end_id)
    if directory.gather_context:
        print(np.concatenate([beams[0].context_logits for beams in results]))


def run_of_all(release: str, args: argparse.Namespace, ranks: Communicator) -> None:
    """examples/run.py, from 0.7.0 on: until 0.8.0 with engines of a family's build.py."""
    directory = engine_directory.read(release, Path(args.engine_dir))
    tokenizer = open_tokenizer(args.tokenizer_dir, args.vocab_file)
    sampling = sampling_of(args)
    _check_logits(release, args, directory, sampling)
    prompts = _prompts(release, args, tokenizer)
    check_limits(directory.limits, prompts, args.max_output_len, sampling.num_beams)
    end_id = getattr(args, "end_id", None) or tokenizer.end_id
    words = words_of(args, tokenizer, len(prompts), sampling)
    model = directory.load(release, ranks)
    if args.num_prepend_vtokens is not None and tokenizer.size != model.shape.vocab_size:
        raise BackendError(
            f"--num_prepend_vtokens: virtual tokens begin after the tokenizer's {tokenizer.size}, "
            f"but the engine's vocabulary has {model.shape.vocab_size}"
        )
    virtual = _virtual(directory, model, args.prompt_table_path, args.prompt_tasks, prompts)
    results = [
        sequences(model, prompt, args.max_output_len, end_id, sampling, vectors, stop)
        for prompt, vectors, stop in zip(prompts, virtual, words)
    ]
    if ranks.rank != 0:
        return
    if args.output_csv is None and args.output_npy is None:
        for index, beams in enumerate(results):
            print(quoted(f"Input [Text {index}]", tokenizer.decode(beams[0].prompt)))
            for beam, one in enumerate(beams):
                text = tokenizer.decode(one.tokens)
                print(quoted(f"Output [Text {index} Beam {beam}]", text))
    _write_tokens(args, results, end_id)
    _write_numbers(args, directory, results)


def open_tokenizer(directory: str | None, vocab_file: str | None) -> Vocabulary:
    """The tokenizer that the options name; nothing is downloaded."""
    if vocab_file is not None:
        return SentencePieceTokenizer(vocab_file)
    if directory is None:
        raise BackendError("--tokenizer_dir is not given, and nothing is downloaded")
    return Tokenizer(directory)


def sampling_of(args: argparse.Namespace) -> Sampling:
    """How a script's options want tokens to be chosen."""
    return Sampling(
        temperature=getattr(args, "temperature", 1.0),
        top_k=args.top_k,
        top_p=getattr(args, "top_p", 0.0),
        random_seed=getattr(args, "random_seed", 0),
        num_beams=args.num_beams,
        length_penalty=getattr(args, "length_penalty", 1.0),
        early_stopping=getattr(args, "early_stopping", 1),
    )


def words_of(
    args: argparse.Namespace, tokenizer: Vocabulary, count: int, sampling: Sampling
) -> list[Words]:
    """Stop and bad words of each of `count` prompts, from 0.11.0 on: an option each."""
    lists = []
    for name in ("stop_words", "bad_words"):
        given = getattr(args, name, None)
        if given is not None and len(given) != count:
            raise BackendError(f"--{name} is given {len(given)} times for {count} prompts")
        if given is not None and sampling.num_beams > 1:
            raise NotComputedError("words that stop or are banned in a beam search", f"--{name}")
        lists.append(
            [
                tuple(tuple(tokenizer.encode(text, special=False)) for text in texts if text)
                for texts in given or [[]] * count
            ]
        )
    return [Words(stop, bad) for stop, bad in zip(*lists)]


def _prompts(release: str, args: argparse.Namespace, tokenizer: Vocabulary) -> list[list[int]]:
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
    lengths = args.num_prepend_vtokens
    if lengths is None:
        return prompts
    if len(lengths) != len(prompts):
        raise BackendError(
            f"--num_prepend_vtokens: {len(lengths)} numbers for {len(prompts)} prompts"
        )
    first = tokenizer.size
    return [[*range(first, first + length), *prompt] for length, prompt in zip(lengths, prompts)]


def _cut_to(prompts: list[list[int]], limit: int | None) -> list[list[int]]:
    return prompts if limit is None else [prompt[-limit:] for prompt in prompts]


def _virtual(
    directory: EngineDirectory,
    model: Model,
    path: str | Path | None,
    tasks: str | None,
    prompts: list[list[int]],
) -> list[Array | None]:
    """Each prompt's vectors of the tokens beyond the vocabulary, if there is a table."""
    found: list[Array | None] = [None] * len(prompts)
    if path is not None:
        hidden = model.shape.hidden_size
        table = prompt_table.read(Path(path), hidden, directory.dtype, directory.limits)
        found = list(prompt_table.of_prompts(table, tasks, len(prompts)))
    prompt_table.check_tokens(prompts, model.shape.vocab_size, found)
    return found


def _check_logits(
    release: str, args: argparse.Namespace, directory: EngineDirectory, sampling: Sampling
) -> None:
    gathered = directory.gather_context or directory.gather_generation
    if args.output_logits_npy is None or not gathered:
        return
    if _ONE_FILE_OF_LOGITS.holds(release):
        raise NotComputedError(
            f"the one file of logits of release {release}", "--output_logits_npy"
        )
    if sampling.num_beams > 1:
        raise NotComputedError("files of logits of several beams", "--output_logits_npy")


def _write_tokens(
    args: argparse.Namespace, results: list[list[Generated]], pad_id: int | None
) -> None:
    every = [one for beams in results for one in beams]
    table = rows(every, args.max_output_len, pad_id if pad_id is not None else 0)
    if args.output_csv is not None:
        write_csv(Path(args.output_csv), table)
    if args.output_npy is not None:
        write_ids(Path(args.output_npy), table)


def _write_numbers(
    args: argparse.Namespace, directory: EngineDirectory, results: list[list[Generated]]
) -> None:
    steps = args.max_output_len
    if args.output_logits_npy is not None:
        stem = args.output_logits_npy.split(".npy")[0]
        if directory.gather_context:
            context = np.concatenate([beams[0].context_logits for beams in results])
            write_npy(Path(f"{stem}_context.npy"), context)
        if directory.gather_generation:
            logits = np.stack([_filled(beams[0].generation_logits, steps) for beams in results])
            write_npy(Path(f"{stem}_generation.npy"), logits)
        if not (directory.gather_context or directory.gather_generation):
            warning("--output_logits_npy: the engine was built without gathering logits")
    log_probs = np.stack(
        [np.stack([_filled(one.log_probs, steps) for one in beams]) for beams in results]
    )
    each = getattr(args, "output_log_probs_npy", None)  # both from 0.9.0 on
    if each is not None:
        write_npy(Path(each), log_probs)
    sums = getattr(args, "output_cum_log_probs_npy", None)
    if sums is not None:
        write_npy(Path(sums), log_probs.sum(axis=-1))


def _filled(values: Array, length: int) -> Array:
    """The values with zeros after them, up to a length."""
    made = np.zeros((length, *values.shape[1:]), dtype=np.float32)
    made[: len(values)] = values
    return made
