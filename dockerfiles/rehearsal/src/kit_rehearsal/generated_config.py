"""examples/generate_checkpoint_config.py, 0.9.0 and later: config.json of a model without weights.

`trtllm-build --model_config` makes an engine of it. Keys and their order are those of the script at
NVIDIA/TensorRT-LLM@585c7567; `share_embedding_table` is inferred from the option that it had.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import CheckFailedError
from .files import write_json
from .log import info

if TYPE_CHECKING:
    import argparse

_MODEL = (
    *("architecture", "dtype", "vocab_size", "max_position_embeddings", "hidden_size"),
    *("intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("hidden_act", "norm_epsilon", "position_embedding_type", "use_parallel_embedding"),
    *("embedding_sharding_dim", "share_embedding_table"),
)
_GPT = ("bias", "apply_query_key_layer_scaling", "rotary_pct", "rotary_base", "rotary_scaling")


def write_config(release: str, args: argparse.Namespace) -> None:
    """Write the file that --output_path names."""
    if not args.output_path.endswith(".json"):
        raise CheckFailedError(
            f"examples/generate_checkpoint_config.py of release {release}: --output_path "
            f"{args.output_path} must end with .json"
        )
    args.intermediate_size = args.intermediate_size or 4 * args.hidden_size
    args.num_key_value_heads = args.num_key_value_heads or args.num_attention_heads
    sizes = {
        "world_size": args.tp_size * args.pp_size,
        "tp_size": args.tp_size,
        "pp_size": args.pp_size,
    }
    config = {
        **{name: getattr(args, name) for name in _MODEL if hasattr(args, name)},
        "quantization": _quantization(args),
        "mapping": sizes,
        **{name: getattr(args, name) for name in _GPT},
    }
    write_json(Path(args.output_path), config, indent=4)
    info(f"wrote {args.output_path}")


def _quantization(args: argparse.Namespace) -> dict[str, Any]:
    names = ["quant_algo", "kv_cache_quant_algo", "exclude_modules"]
    algorithm = args.quant_algo or ""
    if "AWQ" in algorithm or "GPTQ" in algorithm:
        names += ["group_size", "has_zero_point", "pre_quant_scale"]
    if "SQ" in algorithm:
        names.append("smoothquant_val")
    return {name: getattr(args, name) for name in names}
