"""Engines: trtllm-build, and what it shares with the families' own build.py."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import BACKEND, VERSION, dummy, engine_config, scheme, tensorrt_backend, unified_layout
from .decoder import ACTIVATIONS
from .engine import Engine
from .errors import BackendError, CheckFailedError, NotComputedError
from .files import write_json, write_text
from .log import info, warning
from .releases import Span
from .split import HEAD, check_split, placements, rank_weights, shares_embedding

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping

    from .engine import Shape
    from .kv_cache import KvType
    from .split import Placement
    from .tensors import Array

TIMING_CACHE = f"no timing cache: built by {BACKEND} {VERSION}, which keeps none\n"
_SEQUENCE_LENGTH = Span("0.11.0")
_KV_CACHE_TYPE = Span("0.13.0")


def engine_name(name: str, dtype: str, place: Placement) -> str:
    """The name that a family's build.py gives a rank's engine."""
    pipeline = f"_pp{place.pp_size}" if place.pp_size > 1 else ""
    return f"{name}_{dtype}_tp{place.tp_size}{pipeline}_rank{place.rank}.engine"


def write_engines(
    release: str,
    paths: Mapping[Placement, Path],
    dtype: str,
    shape: Shape,
    weights_of: Callable[[Placement], dict[str, Array]],
    origin: str = "checkpoint",
    kv_cache: KvType | None = None,
    level: int | None = None,
) -> None:
    """The engines of all ranks, one after the other; `level` of TensorRT's optimization."""
    if shape.activation not in ACTIVATIONS:
        raise NotComputedError(f"activation {shape.activation}", "the model")
    for place, path in paths.items():
        weights = weights_of(place)
        if place.is_last and "transformer.ln_f.weight" not in weights:
            raise BackendError(f"rank {place.rank} has no transformer.ln_f.weight")
        sizes = (place.tp_size, place.pp_size)
        made = Engine(release, place.rank, *sizes, dtype, shape, weights, origin, kv_cache)
        if tensorrt_backend.is_asked_for():
            made = tensorrt_backend.built(made, level)
        made.write(path)
        info(f"rank {place.rank}: engine written to {path.parent}")


def build_unified(release: str, args: argparse.Namespace, only_rank: int | None = None) -> None:
    """trtllm-build of 0.8.0 and later; of --model_config alone an engine of its dimensions.

    `only_rank` leaves the others out, as the Python API does, whose ranks build their own; the
    first one writes config.json.
    """
    checkpoint, output = unified_layout.read_config(_config_path(args)), Path(args.output_dir)
    mapping = checkpoint["mapping"]
    if args.gather_all_token_logits:
        args.gather_context_logits = args.gather_generation_logits = True
    _deduce_tokens(release, args, checkpoint["max_position_embeddings"])
    announce(release, mapping["world_size"])
    known_timings = getattr(args, "input_timing_cache", None)
    if known_timings is not None and not Path(known_timings).is_file():
        warning(f"--input_timing_cache {known_timings}: no such file, ignored")
    shape = unified_layout.shape_of(checkpoint)
    if getattr(args, "weight_only_precision", None) is not None:
        scheme.set_weights(checkpoint["quantization"], args.weight_only_precision)
    plan = scheme.of_record(checkpoint["quantization"])
    ranks = placements(mapping["tp_size"], mapping.get("pp_size", 1))
    check_split(shape, ranks[0].tp_size, ranks[0].pp_size)
    weights_of, origin = _weights(args, checkpoint, shape)
    write_engines(
        release,
        {
            place: output / f"rank{place.rank}.engine"
            for place in ranks
            if only_rank in {None, place.rank}
        },
        checkpoint["dtype"],
        shape,
        lambda place: scheme.finished(weights_of(place), plan, checkpoint["dtype"]),
        origin,
        plan.kv_cache,
        getattr(args, "builder_opt", None),
    )
    if only_rank not in {None, 0}:
        return
    config = engine_config.of_trtllm_build(release, args, checkpoint, origin)
    write_json(output / "config.json", config, indent=4)
    # inferred for 0.8.0, whose option names the cache that is read.
    timing_cache = getattr(args, "output_timing_cache", output / "model.cache")
    if timing_cache:
        write_text(Path(timing_cache), TIMING_CACHE)


def _config_path(args: argparse.Namespace) -> Path:
    if args.checkpoint_dir is not None:
        return Path(args.checkpoint_dir) / "config.json"
    if args.model_config is not None:
        return Path(args.model_config)
    raise CheckFailedError(
        "trtllm-build needs --checkpoint_dir, or --model_config for dummy weights"
    )


def _weights(
    args: argparse.Namespace, checkpoint: Mapping[str, Any], shape: Shape
) -> tuple[Callable[[Placement], dict[str, Array]], str]:
    """Where a rank's weights come from, and the engine's word for it."""
    if args.checkpoint_dir is not None:
        source = Path(args.checkpoint_dir)
        return (lambda place: unified_layout.read_rank(source, place.rank)), "checkpoint"
    algorithm = checkpoint["quantization"].get("quant_algo")
    if algorithm not in {None, *scheme.WEIGHT_ONLY}:
        raise NotComputedError(f"dummy weights of {algorithm}", "--model_config")
    bias = shape.norm == "layer" and checkpoint.get("bias", True)
    network = dummy.network(shape, bias=bias)
    warning(f"no --checkpoint_dir: an engine of random weights ({dummy.origin(0)})")
    share = checkpoint.get("share_embedding_table", False)
    if share:
        del network.weights[HEAD]
    share = share and shares_embedding(shape.embedding, checkpoint["mapping"]["tp_size"])
    return partial(rank_weights, network, share_embedding=share), dummy.origin(0)


def _deduce_tokens(release: str, args: argparse.Namespace, n_positions: int) -> None:
    """Fill in what the command line leaves open, as the release does, and keep it in bounds."""
    if _SEQUENCE_LENGTH.holds(release):
        _deduce_sequence_length(args, n_positions)
        longest = args.max_seq_len
        most = args.max_seq_len * args.max_batch_size
    else:
        longest = args.max_input_len + args.max_output_len
        most = args.max_input_len * args.max_batch_size
    if _KV_CACHE_TYPE.holds(release):
        args.kv_cache_type = _kv_cache_type(args)
    if longest > n_positions:
        warning(f"sequences of {longest} tokens: the model has {n_positions} positions")
    if args.max_num_tokens is None or args.max_num_tokens > most:
        args.max_num_tokens = most
    if getattr(args, "opt_num_tokens", None) is None:
        args.opt_num_tokens = min(args.max_batch_size * args.max_beam_width, args.max_num_tokens)


def _deduce_sequence_length(args: argparse.Namespace, n_positions: int) -> None:
    new_tokens = getattr(args, "max_output_len", None)
    if new_tokens:
        warning("--max_output_len is the old way of saying --max_seq_len, and comes before it")
        args.max_seq_len = args.max_input_len + new_tokens
    if args.max_seq_len is None:
        args.max_seq_len = n_positions
        info(f"max_seq_len not given: {n_positions}, from the model")
    if args.max_input_len > args.max_seq_len:
        warning(f"max_input_len {args.max_input_len} is cut to max_seq_len {args.max_seq_len}")
        args.max_input_len = args.max_seq_len


def _kv_cache_type(args: argparse.Namespace) -> str:
    named = getattr(args, "kv_cache_type", None)
    if named is not None:
        return str(named)
    paged = getattr(args, "paged_kv_cache", None)
    if paged is not None:
        warning("--paged_kv_cache is the old name of --kv_cache_type")
        return "PAGED" if paged == "enable" else "CONTINUOUS"
    return "CONTINUOUS" if args.gpt_attention_plugin == "disable" else "PAGED"


def announce(release: str, world_size: int) -> None:
    """Say what builds, before it does."""
    how = "engines of TensorRT" if tensorrt_backend.is_asked_for() else "in NumPy, not TensorRT"
    info(f"{BACKEND} {VERSION}: reference backend, {how}")
    info(f"answering as release {release}; engines for {world_size} ranks, one after the other")
