"""Evaluation: summarize.py of a release on a local dataset, with ROUGE and perplexity."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import BACKEND, datasets, engine_directory, huggingface, llama_huggingface, rouge
from .communicator import SingleRank
from .decoder import Decoder
from .engine import Engine
from .engine_directory import check_limits
from .errors import BackendError, CheckFailedError
from .files import read_json, write_text
from .generation import sequences
from .log import info, warning
from .releases import Span
from .run import open_tokenizer, sampling_of
from .sampling import log_softmax
from .split import Placement, rank_weights
from .tensors import decode, encode

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from .communicator import Communicator
    from .datasets import Record
    from .engine_directory import Limits
    from .generation import Generated
    from .sampling import Sampling
    from .tokens import Vocabulary

_LINE = "-" * 57
# The families' own script of 0.5.0 has it in its text, and keeps the end of a prompt.
_MAX_INPUT = 923
_KEEPS_THE_END = Span(before="0.6.0")
_DATASET_DIR = Span("0.10.0")
_METRIC_FROM_HUB = Span("0.11.0")
_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


@dataclass
class Tally:
    """What one model said about the articles, beam by beam."""

    predictions: list[list[str]]
    references: list[str] = field(default_factory=list)
    perplexities: list[list[float]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Task:
    """What is done with every article."""

    tokenizer: Vocabulary
    sampling: Sampling
    end_id: int | None
    output_len: int
    batch_size: int
    max_batches: int
    max_input: int
    min_input: int
    special: bool
    keeps_end: bool
    perplexity: bool

    def prompt(self, record: Record) -> list[int]:
        """The article and the words that ask for a summary, as the releases write them."""
        text = (record.article + " TL;DR: ").strip().replace(" n't", "n't")
        ids = self.tokenizer.encode(text, special=self.special)
        return ids[-self.max_input :] if self.keeps_end else ids[: self.max_input]


def summarize(release: str, args: argparse.Namespace, ranks: Communicator) -> None:
    """examples/{gpt,llama}/summarize.py of 0.5.0, examples/summarize.py from 0.6.0 on."""
    option = "--dataset_dir" if _DATASET_DIR.holds(release) else "--dataset_path"
    folder = args.dataset_dir if _DATASET_DIR.holds(release) else args.dataset_path
    records = datasets.read(datasets.find(option, folder))
    _check_metric(release, args)
    task = _task(release, args)
    engine = engine_directory.read(release, Path(args.engine_dir))
    if args.test_trt_llm:
        if task.perplexity and not (engine.gather_context and engine.gather_generation):
            raise CheckFailedError(
                "--eval_ppl needs an engine built with --gather_all_token_logits"
            )
        model = engine.load(release, ranks)
        ours = _evaluate(model, task, records, engine.limits)
        if ranks.rank == 0:
            _show_first("TensorRT-LLM", ours, records)
            _write_lines(args, "trtllm.out", f"Engine path: {args.engine_dir}", ours)
    if args.test_hf and ranks.rank == 0:
        theirs = _evaluate(_peer(release, args), task, records, None)
        _show_first("HF", theirs, records)
        _write_lines(args, "hf.out", f"Model path: {_model_dir(args)}", theirs)
    if ranks.rank != 0 or args.max_ite < 1:
        return
    if args.test_trt_llm:
        _report("TensorRT-LLM", "TensorRT-LLM", ours, args if args.check_accuracy else None)
    if args.test_hf:
        _report("Hugging Face", "HF", theirs, None)


def _task(release: str, args: argparse.Namespace) -> Task:
    tokenizer = open_tokenizer(_tokenizer_dir(args), getattr(args, "vocab_file", None))
    for name, least in (("batch_size", 1), ("output_len", 1)):
        if getattr(args, name, least) < least:
            raise BackendError(f"--{name} {getattr(args, name)}: expected {least} or more")
    old = _KEEPS_THE_END.holds(release)
    return Task(
        tokenizer=tokenizer,
        sampling=sampling_of(args),
        end_id=getattr(args, "end_id", None) or tokenizer.end_id,
        output_len=getattr(args, "output_len", 100),
        batch_size=args.batch_size,
        max_batches=args.max_ite,
        max_input=getattr(args, "max_input_length", _MAX_INPUT),
        min_input=getattr(args, "min_input_length", 0),
        special=getattr(args, "add_special_tokens", not old),
        keeps_end=old,
        perplexity=getattr(args, "eval_ppl", False),
    )


def _check_metric(release: str, args: argparse.Namespace) -> None:
    """A release without the metric on its disk asks the Hub: said before an air gap says it."""
    if not _METRIC_FROM_HUB.holds(release):
        return
    if args.rouge_dir is None:
        warning(f"--rouge_dir is not given: release {release} would read the metric from the Hub")
    elif not Path(args.rouge_dir).exists():
        raise BackendError(
            f"--rouge_dir {args.rouge_dir}: not there; release {release} would ask the Hub instead"
        )


def _model_dir(args: argparse.Namespace) -> str:
    found = getattr(args, "hf_model_dir", None) or getattr(args, "hf_model_location", None)
    if found is None:
        raise BackendError("--hf_model_dir is not given, and nothing is downloaded")
    return str(found)


def _tokenizer_dir(args: argparse.Namespace) -> str:
    """The model's folder where no other is given: --tokenizer in 0.5.0, --tokenizer_dir later."""
    given = getattr(args, "tokenizer_dir", None) or getattr(args, "tokenizer", None)
    return str(given) if given else _model_dir(args)


def _peer(release: str, args: argparse.Namespace) -> Decoder:
    """The model that --test_hf asks for, computed here from its own weights."""
    directory = _model_dir(args)
    named = str(getattr(args, "hf_data_type", None) or args.data_type)
    dtype = _DTYPES.get(named, named)
    info(f"--test_hf: {directory} in {dtype}, computed by {BACKEND} and not by transformers")
    kind = read_json(Path(directory) / "config.json").get("model_type")
    family = llama_huggingface if kind == "llama" else huggingface
    network = family.read_model(Path(directory))
    weights = {
        name: decode(encode(value, dtype), dtype, value.shape)
        for name, value in rank_weights(network, Placement(0, 1)).items()
    }
    return Decoder(Engine(release, 0, 1, 1, dtype, network.shape, weights), SingleRank())


def _evaluate(
    model: Decoder, task: Task, records: Sequence[Record], limits: Limits | None
) -> Tally:
    """All batches, one after the other; those without a long enough article count for none."""
    beams = range(task.sampling.num_beams)
    tally = Tally([[] for _ in beams], perplexities=[[] for _ in beams])
    batches = 0
    for first in range(0, len(records), task.batch_size):
        if batches == task.max_batches:
            break
        prompts = [(record, task.prompt(record)) for record in records[first:][: task.batch_size]]
        prompts = [pair for pair in prompts if len(pair[1]) > task.min_input]
        if not prompts:
            continue
        if limits is not None:
            check_limits(limits, [ids for _, ids in prompts], task.output_len, len(beams))
        start = time.perf_counter()
        for place, (record, prompt) in enumerate(prompts):
            found = sequences(model, prompt, task.output_len, task.end_id, task.sampling)
            tally.references.append(record.highlights)
            for beam, one in enumerate(found):
                text = task.tokenizer.decode(one.tokens, special=False)
                tally.predictions[beam].append(text)
                tally.lines.append(f"[{first + place}] [Beam {beam}] {text}")
                tally.tokens += len(one.tokens)
                if task.perplexity:
                    size = model.shape.vocab_size
                    tally.perplexities[beam].append(perplexity(one, size))
        tally.seconds += time.perf_counter() - start
        batches += 1
    if not tally.references:
        raise BackendError("no article was long enough, or --max_ite is 0")
    return tally


def perplexity(one: Generated, vocab_size: int) -> float:
    """Of the prompt after its first token and of what was generated, per token."""
    ids = [*one.prompt, *one.tokens][1:]
    rows = np.concatenate([one.context_logits, one.generation_logits[1:]])[: len(ids), :vocab_size]
    logs = [log_softmax(row)[token] for row, token in zip(rows, ids)]
    return float(np.exp(-np.mean(logs)))


def _show_first(name: str, tally: Tally, records: Sequence[Record]) -> None:
    info(_LINE)
    info(f"{name} Generated : ")
    info(f" Input : {[records[0].article]}")
    info(f" Reference : {tally.references[:1]}")
    info(f" Output : {[[beam[0] for beam in tally.predictions]]}")
    info(_LINE)


def _write_lines(args: argparse.Namespace, name: str, title: str, tally: Tally) -> None:
    folder = getattr(args, "output_dir", None)
    if folder is not None:
        lines = [title, f"Tokenizer path: {_tokenizer_dir(args)}", *tally.lines]
        write_text(Path(folder) / name, "".join(f"{line}\n" for line in lines))


def _report(name: str, short: str, tally: Tally, thresholds: argparse.Namespace | None) -> None:
    """Log the scores; with thresholds, CheckFailedError when the first beam's miss them."""
    info(f"{name} (total latency: {tally.seconds} sec)")
    info(f"{name} (total output tokens: {tally.tokens})")
    for beam, predictions in enumerate(tally.predictions):
        info(f"{short} beam {beam} result")
        scores = rouge.score(predictions, tally.references)
        for key, value in scores.items():
            info(f"  {key} : {value}")
        mean = float(np.mean(tally.perplexities[beam])) if tally.perplexities[beam] else None
        if mean is not None:
            info(f"  Per-token perplexity: {mean}")
        if thresholds is not None and beam == 0:
            _check(scores["rouge1"], mean, thresholds)


def _check(rouge1: float, mean: float | None, args: argparse.Namespace) -> None:
    least = args.tensorrt_llm_rouge1_threshold
    if not rouge1 > least:
        raise CheckFailedError(
            f"--check_accuracy: rouge1 is {rouge1}, expected more than {least} "
            "(--tensorrt_llm_rouge1_threshold)"
        )
    most = getattr(args, "tensorrt_llm_ppl_threshold", None)  # from 0.8.0 on
    if mean is not None and most is not None and not mean < most:
        raise CheckFailedError(
            f"--check_accuracy: the perplexity is {mean}, expected less than {most} "
            "(--tensorrt_llm_ppl_threshold)"
        )
