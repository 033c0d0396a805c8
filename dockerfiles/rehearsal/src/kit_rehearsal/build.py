"""Engines: a checkpoint of a release into one engine per rank and config.json."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import BACKEND, VERSION, engine_config, ft_layout, unified_layout
from .engine import Engine, LlamaShape, ModelShape
from .errors import BackendError, CheckFailedError, NotComputedError
from .files import write_json, write_text
from .log import info, warning
from .releases import Span
from .split import check_split

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

TIMING_CACHE = f"no timing cache: built by {BACKEND} {VERSION}, which times nothing\n"
_BARE_PLUGINS = (
    "use_gpt_attention_plugin",
    "use_gemm_plugin",
    "use_layernorm_plugin",
    "use_lookup_plugin",
)
_TOKENS_FROM_BUILD_PY = Span("0.8.0")
_SEQUENCE_LENGTH = Span("0.11.0")
_KV_CACHE_TYPE = Span("0.13.0")


def complete_ft(args: argparse.Namespace) -> None:
    """What examples/gpt/build.py fills in before its later checks."""
    if args.model_dir is None:
        raise NotComputedError("engines without a checkpoint", "no --model_dir")
    args.dtype = ft_layout.read_config(Path(args.model_dir)).dtype
    for name in _BARE_PLUGINS:
        if getattr(args, name, False) is None:  # the bare flag: the model's type
            setattr(args, name, args.dtype)
    if args.use_inflight_batching:
        args.use_gpt_attention_plugin = args.use_gpt_attention_plugin or "float16"
        args.remove_input_padding = True
        args.paged_kv_cache = True
    if getattr(args, "use_lora_plugin", False) is not False:
        raise NotComputedError("LoRA", "--use_lora_plugin")
    args.parallel_build = False  # needs as many GPUs as ranks


def build_ft(release: str, args: argparse.Namespace) -> None:
    """examples/gpt/build.py of 0.5.0 to 0.8.0: all ranks, one after the other."""
    source, output = Path(args.model_dir), Path(args.output_dir)
    model = ft_layout.read_config(source)
    if model.hidden_act != "gelu_new":
        raise NotComputedError(f"activation {model.hidden_act}", str(source))
    if args.use_parallel_embedding and args.world_size > 1:
        raise NotComputedError("embeddings cut over several ranks", "--use_parallel_embedding")
    check_split(model.n_head, model.inter_size, args.world_size)
    if _TOKENS_FROM_BUILD_PY.holds(release):
        _deduce_packed_tokens(args)
    _announce(release, args.world_size)
    shape = ModelShape(
        n_head=model.n_head,
        n_layer=model.n_layer,
        n_positions=model.n_positions,
        vocab_size=model.vocab_size,
        layer_norm_epsilon=model.layer_norm_epsilon,
    )
    share = args.use_embedding_sharing and args.world_size == 1
    for rank in range(args.world_size):
        weights = ft_layout.read_rank(source, model, rank, args.world_size, share_embedding=share)
        made = Engine(release, rank, args.world_size, model.dtype, shape, weights)
        made.write(output / engine_name(model.dtype, args.world_size, rank))
        info(f"rank {rank}: engine written to {output}")
    config = engine_config.of_build_py(release, args, model)
    write_json(output / "config.json", config, indent=2, sort_keys=True)
    write_text(output / "model.cache", TIMING_CACHE)


def engine_name(dtype: str, world_size: int, rank: int) -> str:
    """The name that build.py gives a rank's engine."""
    return f"gpt_{dtype}_tp{world_size}_rank{rank}.engine"


def build_unified(release: str, args: argparse.Namespace) -> None:
    """trtllm-build of 0.9.0 and later."""
    if args.checkpoint_dir is None:
        raise CheckFailedError("trtllm-build needs --checkpoint_dir")
    source, output = Path(args.checkpoint_dir), Path(args.output_dir)
    checkpoint = unified_layout.read_config(source)
    mapping = checkpoint["mapping"]
    if mapping.get("pp_size", 1) != 1:
        raise NotComputedError("pipeline parallelism", str(source / "config.json"))
    if args.gather_all_token_logits:
        args.gather_context_logits = args.gather_generation_logits = True
    _deduce_tokens(release, args, checkpoint["max_position_embeddings"])
    _announce(release, mapping["world_size"])
    if args.input_timing_cache is not None and not Path(args.input_timing_cache).is_file():
        warning(f"--input_timing_cache {args.input_timing_cache}: no such file, ignored")
    shape = _shape(checkpoint)
    for rank in range(mapping["world_size"]):
        weights = unified_layout.read_rank(source, rank)
        if "transformer.ln_f.weight" not in weights:
            raise BackendError(f"{source}: rank {rank} has no transformer.ln_f.weight")
        made = Engine(release, rank, mapping["world_size"], checkpoint["dtype"], shape, weights)
        made.write(output / f"rank{rank}.engine")
        info(f"rank {rank}: engine written to {output}")
    config = engine_config.of_trtllm_build(release, args, checkpoint)
    write_json(output / "config.json", config, indent=4)
    if args.output_timing_cache:
        write_text(Path(args.output_timing_cache), TIMING_CACHE)


def _shape(checkpoint: Mapping[str, Any]) -> ModelShape | LlamaShape:
    sizes = {
        "n_head": checkpoint["num_attention_heads"],
        "n_layer": checkpoint["num_hidden_layers"],
        "n_positions": checkpoint["max_position_embeddings"],
        "vocab_size": checkpoint["vocab_size"],
    }
    epsilon = checkpoint["norm_epsilon"]
    if checkpoint["architecture"] in unified_layout.GPT:
        return ModelShape(**sizes, layer_norm_epsilon=epsilon)
    return LlamaShape(
        **sizes,
        n_kv_head=checkpoint["num_key_value_heads"],
        head_size=checkpoint["head_size"],
        rms_norm_epsilon=epsilon,
        rotary_base=checkpoint["rotary_base"],
    )


def _deduce_packed_tokens(args: argparse.Namespace) -> None:
    """0.8.0 on: one kind of logits or both, and the tokens that packed input may have."""
    if args.gather_all_token_logits:
        args.gather_context_logits = args.gather_generation_logits = True
    if args.remove_input_padding:
        most = args.max_input_len * args.max_batch_size
        args.max_num_tokens = min(args.max_num_tokens or most, most)


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
    if args.opt_num_tokens is None:
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


def _announce(release: str, world_size: int) -> None:
    info(f"{BACKEND} {VERSION}: reference backend in NumPy, not TensorRT")
    info(f"answering as release {release}; engines for {world_size} ranks, one after the other")
