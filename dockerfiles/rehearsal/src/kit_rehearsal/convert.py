"""Conversion: a Hugging Face model into the checkpoint of a release."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import (
    ft_int8,
    ft_layout,
    huggingface,
    llama_huggingface,
    model_config,
    nemo,
    nemo_convert,
    scheme,
    unified_layout,
)
from .errors import BackendError, CheckFailedError, NotComputedError
from .files import write_json
from .log import info, warning
from .releases import Span
from .split import HEAD, check_split, placements, rank_weights, shares_embedding, with_embedding

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping

    from .engine import EmbeddingCut, Shape
    from .split import Network
    from .tensors import Array

# The order in which the release's own record of its arguments stands in config.ini.
_FT_ARGUMENTS = (
    "out_dir",
    "in_file",
    "tensor_parallelism",
    "processes",
    "calibrate_kv_cache",
    "smoothquant",
    "model",
    "storage_type",
    "dataset_cache_dir",
    "load_model_on_cpu",
    "convert_model_on_cpu",
)
_LLAMA_FT_ARGUMENTS = (
    "out_dir",
    "in_file",
    "tensor_parallelism",
    "processes",
    "calibrate_kv_cache",
    "smoothquant",
    "storage_type",
    "dataset_cache_dir",
    "load_model_on_cpu",
    "convert_model_on_cpu",
)
_VARIANT_FROM_TYPE = Span("0.15.0")
_ROTARY_BASE_OF_OPTION = Span(before="0.9.0")
# In the order in which the releases look for them in the path.
_VARIANTS = (
    *("starcoder2", "starcoder", "santacoder", "gpt2"),
    *("persimmon", "fuyu", "kosmos-2", "jais", "nemotron"),
)


def convert_ft(release: str, args: argparse.Namespace) -> None:  # noqa: ARG001
    """hf_gpt_convert.py, which writes the same in all of its releases (0.5.0 to 0.8.0)."""
    network = huggingface.read_model(Path(args.in_file))
    _check_variant(args.model, network)
    tp_size = args.tensor_parallelism
    check_split(network.shape, tp_size)
    directory = Path(args.out_dir) / f"{tp_size}-gpu"
    arguments = {name: getattr(args, name) for name in _FT_ARGUMENTS}
    network = ft_int8.convert(directory, network, args, ft_layout.GPT)
    ft_layout.write(directory, network, arguments, args.storage_type, tp_size)
    info(f"wrote the checkpoint for {tp_size} ranks to {directory}")


def convert_llama_ft(release: str, args: argparse.Namespace) -> None:  # noqa: ARG001
    """hf_llama_convert.py of 0.5.0 to 0.7.1, whose build.py also takes the model as it is."""
    network = llama_huggingface.read_model(Path(args.in_file))
    tp_size = args.tensor_parallelism
    check_split(network.shape, tp_size)
    directory = Path(args.out_dir) / f"{tp_size}-gpu"
    arguments = {name: getattr(args, name) for name in _LLAMA_FT_ARGUMENTS if hasattr(args, name)}
    network = ft_int8.convert(directory, network, args, ft_layout.LLAMA)
    ft_layout.write_llama(directory, network, arguments, args.storage_type, tp_size)
    info(f"wrote the checkpoint for {tp_size} ranks to {directory}")


def convert_unified(release: str, args: argparse.Namespace) -> None:
    """convert_checkpoint.py of the GPT family, 0.9.0 and later."""
    if args.model_dir is None and args.nemo_ckpt_path is not None:
        _convert_nemo(release, args)
        return
    if args.model_dir is None:
        raise CheckFailedError("convert_checkpoint.py needs --model_dir or --nemo_ckpt_path")
    network = huggingface.read_model(Path(args.model_dir))
    args.gpt_variant = _variant(release, args, network.source["model_type"])
    _check_variant(args.gpt_variant, network)
    resolve_dtype(args, network.source)
    write_checkpoint(args, network, lambda cut: model_config.of_gpt(release, cut, args))


def _convert_nemo(release: str, args: argparse.Namespace) -> None:
    """A NeMo archive: neither stages nor quantization, and the embedding cut by vocabulary."""
    if args.pp_size != 1:
        raise CheckFailedError(f"--nemo_ckpt_path goes with --pp_size 1, found {args.pp_size}")
    for name in ("smoothquant", "int8_kv_cache", "use_weight_only"):
        if getattr(args, name):
            raise CheckFailedError(f"--nemo_ckpt_path does not go with --{name}")
    archive = nemo.Archive.open(Path(args.nemo_ckpt_path))
    network = nemo.read_model(archive, getattr(args, "nemo_rename_key", ()))
    nemo_convert.copy_tokenizer(archive, Path(args.output_dir))
    args.use_parallel_embedding, args.embedding_sharding_dim = True, 0
    resolve_dtype(args, network.source)
    write_checkpoint(args, network, lambda cut: model_config.of_gpt(release, cut, args))


def convert_llama(release: str, args: argparse.Namespace) -> None:
    """convert_checkpoint.py of the LLaMA family, 0.8.0 and later.

    Without --model_dir, and with --save_config_only, it writes config.json alone.
    """
    if args.model_dir is None or getattr(args, "save_config_only", False):
        _write_llama_config(release, args)
        return
    network = llama_huggingface.read_model(Path(args.model_dir))
    if getattr(args, "use_embedding_sharing", False) and HEAD in network.weights:
        raise NotComputedError(
            "a shared embedding that the model has not", "--use_embedding_sharing"
        )
    network = replace(network, shape=_turned(release, network.shape, args))
    resolve_dtype(args, network.source)
    tied = HEAD not in network.weights
    write_checkpoint(
        args, network, lambda cut: model_config.of_llama(release, cut.shape, args, tied=tied)
    )


def _write_llama_config(release: str, args: argparse.Namespace) -> None:
    source: dict[str, Any] = {}
    if args.model_dir is None:
        shape = llama_huggingface.shape_of(_llama_dimensions(args))
    else:
        source = llama_huggingface.read_config(Path(args.model_dir))
        shape = _turned(release, llama_huggingface.shape_of(source), args)
    check_split(shape, args.tp_size, args.pp_size)
    resolve_dtype(args, source)
    tied = source.get("tie_word_embeddings", False)
    config = model_config.of_llama(release, shape, args, tied=tied)
    write_json(Path(args.output_dir) / "config.json", config, indent=4)
    info(f"wrote config.json without weights to {args.output_dir}")


def _llama_dimensions(args: argparse.Namespace) -> dict[str, Any]:
    """The options that stand for a model, under Hugging Face's names."""
    return {
        "hidden_act": args.hidden_act,
        "hidden_size": args.n_embd,
        "intermediate_size": args.inter_size,
        "max_position_embeddings": args.n_positions,
        "num_attention_heads": args.n_head,
        "num_hidden_layers": args.n_layer,
        "num_key_value_heads": args.n_kv_head or args.n_head,
        "rms_norm_eps": args.rms_norm_eps,
        "rope_theta": args.rotary_base,
        "vocab_size": args.vocab_size,
    }


def _turned(release: str, shape: Shape, args: argparse.Namespace) -> Shape:
    """0.8.0 turns heads by its option whatever the model says."""
    if not _ROTARY_BASE_OF_OPTION.holds(release) or shape.rotary_base == args.rotary_base:
        return shape
    warning(
        f"the model's rope_theta is {shape.rotary_base}, but release {release} turns by "
        f"--rotary_base {args.rotary_base}"
    )
    return replace(shape, rotary_base=args.rotary_base)


def embedding_cut(args: argparse.Namespace, tp_size: int) -> EmbeddingCut:
    """How the options want the input embedding to be cut; along vocabulary is dimension 0."""
    if tp_size == 1 or not args.use_parallel_embedding:
        return "whole"
    return "vocabulary" if args.embedding_sharding_dim == 0 else "hidden"


def shared_embedding(args: argparse.Namespace, cut: EmbeddingCut, tp_size: int) -> bool:
    """Whether input and output embedding become one; a wish that cannot be met is logged."""
    if not getattr(args, "use_embedding_sharing", False):
        return False
    if shares_embedding(cut, tp_size):
        return True
    warning(
        "--use_embedding_sharing: over several ranks only with --use_parallel_embedding "
        "--embedding_sharding_dim 0; the embeddings stay two"
    )
    return False


def write_checkpoint(
    args: argparse.Namespace, network: Network, config_of: Callable[[Network], dict[str, Any]]
) -> None:
    """The checkpoint of all ranks, as the options want it cut."""
    tp_size, pp_size = args.tp_size, args.pp_size
    check_split(network.shape, tp_size, pp_size)
    cut = embedding_cut(args, tp_size)
    share = shared_embedding(args, cut, tp_size)
    plan = scheme.of(args)
    config = config_of(with_embedding(network, cut))
    whole = with_embedding(scheme.applied(network, plan, args), cut)
    ranks = placements(tp_size, pp_size)
    directory = Path(args.output_dir)

    def cut_of(rank: int) -> dict[str, Array]:
        weights = rank_weights(whole, ranks[rank], share_embedding=share)
        return scheme.converted(weights, plan, args.dtype)

    unified_layout.write(directory, config, cut_of)
    info(f"wrote the checkpoint for {len(ranks)} ranks to {directory}")


def resolve_dtype(args: argparse.Namespace, source: Mapping[str, Any]) -> None:
    """Put the model's own type in the place of `--dtype auto`."""
    if args.dtype == "auto":
        args.dtype = infer_dtype(source.get("torch_dtype") or source.get("dtype"))
        info(f"dtype auto: {args.dtype}")


def infer_dtype(source: str | None) -> str:
    """What `--dtype auto` means: the model's own type, but float16 for float32 or none."""
    if source not in {None, "float32", "float16", "bfloat16"}:
        raise BackendError(f"dtype auto: the model's torch_dtype is {source}")
    return "float16" if source in {None, "float32"} else str(source)


def infer_variant(release: str, model_dir: str, model_type: str) -> str | None:
    """The GPT variant that a release makes of the path's text, later ones of the model's type."""
    by_type = _VARIANT_FROM_TYPE.holds(release)
    for variant in _VARIANTS:
        if variant in model_dir or (by_type and variant == model_type):
            return variant
    return None


def _variant(release: str, args: argparse.Namespace, model_type: str) -> str:
    if args.gpt_variant is not None:
        return str(args.gpt_variant)
    found = infer_variant(release, args.model_dir, model_type)
    if found is None:
        raise CheckFailedError(
            f"--model_dir {args.model_dir} does not contain the name of a variant, from which "
            f"release {release} infers it; give --gpt_variant gpt2, santacoder or starcoder"
        )
    return found


def _check_variant(variant: str, network: Network) -> None:
    """CheckFailedError where the scripts would look for other tensors than the model has."""
    found = huggingface.variant_of(network.source)
    if variant not in {"gpt2", "santacoder", "starcoder"}:
        raise NotComputedError("GPT variants other than gpt2, santacoder, starcoder", variant)
    if found != variant:
        raise CheckFailedError(f"the variant is {variant}, but the model has the layout of {found}")
