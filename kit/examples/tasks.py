"""What a recipe does with its engine: questions, evaluation, a server."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from kit.errors import nearest
from kit.examples import source

if TYPE_CHECKING:
    from pathlib import Path

    from kit.document import Section
    from kit.examples.recipe import Build

Batching = Literal["inflight", "static"]
BATCHINGS: tuple[Batching, ...] = get_args(Batching)
_Word = TypeVar("_Word", bound=str)
_LARGEST_SEED = (1 << 31) - 1
_PORTS = 65535


@dataclass(frozen=True, slots=True)
class Run:
    """What the engine is asked: `max_output_len` new tokens for every prompt.

    Without prompts nothing is asked: the example ends with the engine. None is not said: greedy,
    one beam, one host.

    Attributes:
        prompts: texts, one answer each.
        max_output_len: new tokens of an answer.
        end_id: overrides the token that ends a text; None leaves it to the tokenizer.
        num_beams: hypotheses that a beam search keeps.
        temperature: that logits are divided by.
        top_k: tokens to sample from.
        top_p: share of probability to sample from.
        random_seed: of the sampling.
        prompt_table: learned prompts; an .npy table, or the .nemo file that they were trained into.
        prompt_tasks: row of the table for each prompt.
        input_file: token ids to ask with in place of prompts: a .csv or an .npy file.
        nodes: hosts that share the ranks.
        gpus_per_node: of each of them.
    """

    prompts: tuple[str, ...]
    max_output_len: int
    end_id: int | None
    num_beams: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    random_seed: int | None = None
    prompt_table: Path | None = None
    prompt_tasks: tuple[int, ...] | None = None
    input_file: Path | None = None
    nodes: int | None = None
    gpus_per_node: int | None = None

    def identity(self) -> dict[str, Any]:
        """What counts for a digest: what is said; of a table its name."""
        found = asdict(self)
        for name in _SINCE:
            if found[name] is None:
                del found[name]
        for name in ("prompt_table", "input_file"):
            if name in found:
                found[name] = found[name].name
        return found


_SINCE = tuple(Run.__slots__[3:])
"""What the first recipes did not have, so that a digest does not have it where it is not said."""


@dataclass(frozen=True, slots=True)
class Summarize:
    """News articles summarized, compared with their highlights by ROUGE.

    Attributes:
        dataset: folder of articles; None leaves it to the command line.
        rouge1: that the summaries must reach, 0 to 100.
        batch_size: articles at a time.
        max_articles: batches that are summarized; the scripts' own default is 20.
        output_len: new tokens of a summary.
        max_input_len: tokens of an article that are read.
        num_beams: hypotheses that a beam search keeps.
        top_k: tokens to sample from.
        hugging_face: also by the model's own implementation.
        rouge_dir: folder of the metric's own script, which releases fetch without it.
    """

    dataset: Path | None = None
    rouge1: float | None = None
    batch_size: int | None = None
    max_articles: int | None = None
    output_len: int | None = None
    max_input_len: int | None = None
    num_beams: int | None = None
    top_k: int | None = None
    hugging_face: bool | None = None
    rouge_dir: Path | None = None


@dataclass(frozen=True, slots=True)
class Evaluate:
    """How good the engine is; `perplexity` is the largest that is still good."""

    summarize: Summarize
    perplexity: float | None = None

    def identity(self) -> dict[str, Any]:
        """What counts for a digest: what is said; not where a dataset lies."""
        found = {name: value for name, value in asdict(self.summarize).items() if value is not None}
        for name in ("dataset", "rouge_dir"):
            found.pop(name, None)
        said: dict[str, Any] = {"summarize": found}
        if self.perplexity is not None:
            said["perplexity"] = self.perplexity
        return said


@dataclass(frozen=True, slots=True)
class Triton:
    """A model repository for the engine, and Triton over it; None leaves the release's default.

    Attributes:
        batching: in flight, or one batch after the other.
        decoupled: tokens are sent as they come.
        max_queue_delay: microseconds that a request waits for others.
        kv_cache_fraction: of the GPU memory that is left free, for keys and values.
        kv_cache_reuse: blocks of equal prompts are kept.
        max_tokens_in_cache: of all sequences together.
        instances: processes each of tokenizing and of detokenizing.
        http_port: of the server.
        grpc_port: of the server.
        metrics_port: of the server.
    """

    batching: Batching | None = None
    decoupled: bool | None = None
    max_queue_delay: int | None = None
    kv_cache_fraction: float | None = None
    kv_cache_reuse: bool | None = None
    max_tokens_in_cache: int | None = None
    instances: int | None = None
    http_port: int | None = None
    grpc_port: int | None = None
    metrics_port: int | None = None


@dataclass(frozen=True, slots=True)
class Serve:
    """The server of the engine."""

    triton: Triton

    def identity(self) -> dict[str, Any]:
        """What counts for a digest: what is said."""
        said = {name: value for name, value in asdict(self.triton).items() if value is not None}
        return {"triton": said}


def read_run(section: Section, build: Build, beside: Path) -> Run:
    """The section `run`.

    Raises:
        KitError: no prompt, one that run.py cannot take, a value that no release takes (exit 2).
    """
    input_file = _file(section, "input_file", (".csv", ".npy"), beside)
    prompts = _prompts(section, build, needed=input_file is None)
    max_output_len = positive(section, "max_output_len")
    if max_output_len > build.max_output_len:
        raise section.error(
            f"max_output_len: {max_output_len} is more than the engine is built for "
            f"({build.max_output_len})",
            "max_output_len",
        )
    found = Run(
        prompts,
        max_output_len,
        end_id=optional(section, "end_id"),
        num_beams=optional(section, "num_beams"),
        temperature=_number(section, "temperature", 0, 100),
        top_k=_integer(section, "top_k", 0, _LARGEST_SEED),
        top_p=_number(section, "top_p", 0, 1),
        random_seed=_integer(section, "random_seed", 0, _LARGEST_SEED),
        prompt_table=_file(section, "prompt_table", (".npy", ".nemo"), beside),
        prompt_tasks=_tasks(section, len(prompts)),
        input_file=input_file,
        nodes=optional(section, "nodes"),
        gpus_per_node=optional(section, "gpus_per_node"),
    )
    if found.num_beams is not None and found.num_beams > 1:
        for key in ("temperature", "top_k", "top_p", "random_seed"):
            if key in section and section.plain(key) not in (0, 1):
                raise section.error(
                    f"{key}: is of sampling, num_beams: {found.num_beams} searches; "
                    "leave one of the two out",
                    key,
                )
    section.close()
    return found


def _prompts(section: Section, build: Build, *, needed: bool) -> tuple[str, ...]:
    prompts = section.texts("prompts")
    if needed and not prompts:
        raise section.error("prompts: expected at least one")
    if prompts and not needed:
        raise section.error("input_file: stands in place of prompts; expected one", "input_file")
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
    return prompts


def _file(section: Section, key: str, suffixes: tuple[str, ...], beside: Path) -> Path | None:
    section.taken.add(key)
    return source.file(section, key, suffixes, beside) if key in section else None


def _tasks(section: Section, prompts: int) -> tuple[int, ...] | None:
    section.taken.add("prompt_tasks")
    if "prompt_tasks" not in section:
        return None
    given = section.plain("prompt_tasks")
    if (
        not isinstance(given, list)
        or not all(type(item) is int and item >= 0 for item in given)
        or not given
        or (prompts and len(given) != prompts)
    ):
        raise section.error(
            f"prompt_tasks: expected a row of the table for each of {prompts or 'the'} prompts, "
            f"found {given!r}",
            "prompt_tasks",
        )
    if "prompt_table" not in section:
        raise section.error("prompt_tasks: are of a prompt_table", "prompt_tasks")
    return tuple(given)


def read_evaluate(section: Section, beside: Path) -> Evaluate:
    """The section `evaluate`.

    Raises:
        KitError: an unknown key, an impossible value; with its place (exit 2).
    """
    inner = section.section("summarize")
    summarize = Summarize(
        dataset=source.path(inner, "dataset", beside) if "dataset" in inner else None,
        rouge1=_number(inner, "rouge1", 0, 100),
        batch_size=optional(inner, "batch_size"),
        max_articles=optional(inner, "max_articles"),
        output_len=optional(inner, "output_len"),
        max_input_len=optional(inner, "max_input_len"),
        num_beams=optional(inner, "num_beams"),
        top_k=_integer(inner, "top_k", 0, _LARGEST_SEED),
        hugging_face=_true(inner, "hugging_face"),
        rouge_dir=source.path(inner, "rouge_dir", beside) if "rouge_dir" in inner else None,
    )
    inner.taken.update(("dataset", "rouge_dir"))
    inner.close()
    found = Evaluate(summarize, _number(section, "perplexity", 1, 1e9))
    section.close()
    return found


def read_serve(section: Section) -> Serve:
    """The section `serve`.

    Raises:
        KitError: an unknown key, an impossible value; with its place (exit 2).
    """
    inner = section.section("triton")
    triton = Triton(
        batching=word(inner, "batching", BATCHINGS) if "batching" in inner else None,
        decoupled=inner.boolean("decoupled") if "decoupled" in inner else None,
        max_queue_delay=_integer(inner, "max_queue_delay", 0, _LARGEST_SEED),
        kv_cache_fraction=_number(inner, "kv_cache_fraction", 0, 1),
        kv_cache_reuse=inner.boolean("kv_cache_reuse") if "kv_cache_reuse" in inner else None,
        max_tokens_in_cache=optional(inner, "max_tokens_in_cache"),
        instances=optional(inner, "instances"),
        http_port=_integer(inner, "http_port", 1, _PORTS),
        grpc_port=_integer(inner, "grpc_port", 1, _PORTS),
        metrics_port=_integer(inner, "metrics_port", 1, _PORTS),
    )
    inner.taken.update(Triton.__slots__)
    inner.close()
    section.close()
    ports = [triton.http_port, triton.grpc_port, triton.metrics_port]
    given = [port for port in ports if port is not None]
    if len(set(given)) != len(given):
        raise inner.error(f"ports: expected different ones, found {given}")
    return Serve(triton)


def positive(section: Section, key: str, default: int | None = None) -> int:
    """The whole number under `key`, 1 or more."""
    value = section.integer(key, default)
    if value < 1:
        raise section.error(f"{key}: expected 1 or more, found {value}", key)
    return value


def word(
    section: Section, key: str, known: tuple[_Word, ...], default: _Word | None = None
) -> _Word:
    """The one of `known` under `key`; another is an error with the nearest."""
    value = section.text(key, default)
    for item in known:
        if item == value:
            return item
    raise section.error(f"{key}: unknown {value!r}; {nearest(value, known)}", key)


def optional(section: Section, key: str) -> int | None:
    """The whole number under `key`, 1 or more, or None where it is not there."""
    section.taken.add(key)
    return positive(section, key) if key in section else None


def _integer(section: Section, key: str, least: int, most: int) -> int | None:
    section.taken.add(key)
    if key not in section:
        return None
    value = section.integer(key)
    if not least <= value <= most:
        raise section.error(f"{key}: expected {least} to {most}, found {value}", key)
    return value


def _number(section: Section, key: str, least: float, most: float) -> float | None:
    section.taken.add(key)
    return section.number(key, least, most) if key in section else None


def _true(section: Section, key: str) -> bool | None:
    section.taken.add(key)
    return (section.boolean(key) or None) if key in section else None
