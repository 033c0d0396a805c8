"""An engine directory: what its config.json says of running, and the engine of this rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import engine as engines
from .build import engine_name
from .decoder import Decoder
from .errors import BackendError
from .files import read_json
from .releases import Span
from .split import placements

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .communicator import Communicator
    from .generation import Model

_BUILDER_CONFIG = "builder_config"
_PROMPT_SWITCH = Span(before="0.6.0")


@dataclass(frozen=True)
class Limits:
    """What an engine was built for; None where the release has no such limit."""

    max_batch_size: int
    max_input_len: int
    max_output_len: int | None
    max_seq_len: int | None
    max_beam_width: int | None
    n_positions: int
    max_prompt_table: int | None


@dataclass(frozen=True)
class EngineDirectory:
    """What a script needs of config.json; `engines` are named by their rank."""

    path: Path
    limits: Limits
    engines: tuple[str, ...]
    dtype: str
    gather_context: bool
    gather_generation: bool

    @property
    def world_size(self) -> int:
        """How many ranks run it."""
        return len(self.engines)

    def load(self, release: str, ranks: Communicator) -> Model:
        """This rank's share of the model.

        Raises:
            BackendError: there are more or fewer ranks, or the engine is another rank's or
                release's.
        """
        if self.world_size != ranks.size:
            raise BackendError(
                f"engine world size {self.world_size} != runtime world size {ranks.size}; "
                f"start it with mpirun -n {self.world_size}"
            )
        path = self.path / self.engines[ranks.rank]
        loaded = engines.read(path)
        found = (loaded.release, loaded.rank, loaded.world_size)
        expected = (release, ranks.rank, ranks.size)
        if found != expected:
            raise BackendError(
                f"{path}: expected release, rank and world size {expected}, found {found}"
            )
        if loaded.plan is not None:
            from .tensorrt_backend import PlanModel

            return PlanModel(loaded)
        return Decoder(loaded, ranks)


def read(release: str, directory: Path) -> EngineDirectory:
    """config.json of an engine that build.py or trtllm-build made."""
    path = directory / "config.json"
    config = read_json(path)
    try:
        # In 0.8.0 there are both: GPT still has its build.py.
        if _BUILDER_CONFIG in config:
            return _of_build_py(release, directory, config[_BUILDER_CONFIG])
        return _of_trtllm_build(directory, config["build_config"], config["pretrained_config"])
    except (KeyError, TypeError) as error:
        raise BackendError(f"{path}: not a config.json of release {release}: {error}") from error


def check_limits(
    limits: Limits, prompts: list[list[int]], max_output_len: int, num_beams: int = 1
) -> None:
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
        ("beams", num_beams, "max_beam_width", limits.max_beam_width),
    ]
    for what, number, name, most in found:
        if most is not None and number > most:
            raise BackendError(f"{number} {what}: the engine has {name} {most}")


def _of_build_py(release: str, directory: Path, builder: Mapping[str, Any]) -> EngineDirectory:
    both = builder.get("gather_all_token_logits", False)  # one switch until 0.7.1
    dtype = builder["precision"]
    ranks = placements(builder["tensor_parallel"], builder.get("pipeline_parallel", 1))
    names = [engine_name(builder["name"], dtype, place) for place in ranks]
    prompts = builder.get("max_prompt_embedding_table_size", 0)
    if _PROMPT_SWITCH.holds(release) and builder.get("use_prompt_tuning", False):
        prompts = None  # recorded as a switch only
    return EngineDirectory(
        path=directory,
        limits=Limits(
            max_batch_size=builder["max_batch_size"],
            max_input_len=builder["max_input_len"],
            max_output_len=builder["max_output_len"],
            max_seq_len=None,
            max_beam_width=builder.get("max_beam_width"),
            n_positions=builder["max_position_embeddings"],
            max_prompt_table=prompts,
        ),
        engines=tuple(names),
        dtype=dtype,
        gather_context=builder.get("gather_context_logits", both),
        gather_generation=builder.get("gather_generation_logits", both),
    )


def _of_trtllm_build(
    directory: Path, build: Mapping[str, Any], model: Mapping[str, Any]
) -> EngineDirectory:
    world_size = model["mapping"]["world_size"]
    return EngineDirectory(
        path=directory,
        limits=Limits(
            max_batch_size=build["max_batch_size"],
            max_input_len=build["max_input_len"],
            max_output_len=build.get("max_output_len"),
            max_seq_len=build.get("max_seq_len"),
            max_beam_width=build["max_beam_width"],
            n_positions=model["max_position_embeddings"],
            max_prompt_table=build["max_prompt_embedding_table_size"],
        ),
        engines=tuple(f"rank{rank}.engine" for rank in range(world_size)),
        dtype=model["dtype"],
        gather_context=build["gather_context_logits"],
        gather_generation=build["gather_generation_logits"],
    )
