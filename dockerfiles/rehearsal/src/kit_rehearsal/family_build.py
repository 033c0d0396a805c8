"""The families' own build.py of 0.5.0 to 0.8.0: engines of all ranks, one after the other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from . import ammo, dummy, engine_config, ft_int8, ft_layout, llama_huggingface, scheme
from .build import TIMING_CACHE, announce, engine_name, write_engines
from .convert import embedding_cut, shared_embedding
from .engine import Shape
from .errors import CheckFailedError, NotComputedError
from .files import write_json, write_text
from .log import warning
from .releases import Span
from .split import check_split, placements, rank_weights, with_embedding

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from .ft_layout import FtConfig
    from .scheme import Scheme
    from .split import Network, Placement
    from .tensors import Array

_BARE_PLUGINS = (
    "use_gpt_attention_plugin",
    "use_gemm_plugin",
    "use_layernorm_plugin",
    "use_lookup_plugin",
)
_TOKENS_DEDUCED = Span("0.8.0")
_LLAMA_NEEDS_PLUGIN = Span(before="0.6.0")
# inferred: a tree of 0.5.0 has only the option, one between 0.7.1 and 0.8.0 the model's rope_theta.
_ROTARY_BASE_OF_MODEL = Span("0.7.0")


@dataclass(frozen=True)
class FamilyModel:
    """What a build.py builds: its shape, and where a rank's weights come from."""

    name: str
    shape: Shape
    dtype: str
    weights_of: Callable[[Placement], dict[str, Array]]
    origin: str = "checkpoint"
    has_scales: bool = False


def complete_gpt(release: str, args: argparse.Namespace) -> None:  # noqa: ARG001
    """What examples/gpt/build.py fills in before its later checks."""
    if args.model_dir is not None:
        args.dtype = ft_layout.read_config(Path(args.model_dir)).dtype
    for name in _BARE_PLUGINS:
        if getattr(args, name, False) is None:  # the bare flag: the model's type
            setattr(args, name, args.dtype)
    _complete(args)


def complete_llama(release: str, args: argparse.Namespace) -> None:
    """What examples/llama/build.py fills in before its later checks."""
    _complete(args)
    if _LLAMA_NEEDS_PLUGIN.holds(release):
        args.use_gpt_attention_plugin = args.dtype  # the only way to turn heads
    if args.tp_size * args.pp_size != args.world_size:
        raise CheckFailedError(
            f"examples/llama/build.py of release {release}: --tp_size {args.tp_size} * --pp_size "
            f"{args.pp_size} must be --world_size {args.world_size}"
        )


def _complete(args: argparse.Namespace) -> None:
    if args.use_inflight_batching:
        args.use_gpt_attention_plugin = args.use_gpt_attention_plugin or "float16"
        args.remove_input_padding = True
        args.paged_kv_cache = True
    if getattr(args, "use_lora_plugin", False) is not False:
        raise NotComputedError("LoRA", "--use_lora_plugin")
    args.parallel_build = False  # needs as many GPUs as ranks


def build_gpt(release: str, args: argparse.Namespace) -> None:
    """examples/gpt/build.py; without --model_dir an engine of the dimensions given."""
    if _TOKENS_DEDUCED.holds(release):
        _deduce_packed_tokens(args)
    cut = embedding_cut(args, args.world_size)
    if args.model_dir is None:
        shape = replace(_gpt_shape(args), embedding=cut)
        # As the releases have it: --no_bias is a store_false, so bias comes with the flag only.
        model = _of_dimensions("gpt", args, shape, bias=not args.no_bias, seed=args.random_seed)
    else:
        source = Path(args.model_dir)
        config = ft_layout.with_embedding(ft_layout.read_config(source), cut)
        share = not config.own_head and shared_embedding(args, cut, args.world_size)
        model = _of_folder("gpt", source, config, scheme.of_build(args), share=share)
    _build(release, args, model, placements(args.world_size, 1))


def build_llama(release: str, args: argparse.Namespace) -> None:
    """examples/llama/build.py: of a model, of hf_llama_convert.py's folder, or of dimensions."""
    cut = embedding_cut(args, args.tp_size)
    if args.model_dir is not None:
        network = with_embedding(_llama(release, args), cut)
        weights_of = partial(rank_weights, network)
        model = FamilyModel("llama", network.shape, args.dtype, weights_of)
    elif args.ft_model_dir is not None:
        source = Path(args.ft_model_dir)
        config = ft_layout.read_llama_config(source, rotary_base=args.rotary_base)
        config = ft_layout.with_embedding(config, cut)
        model = _of_folder("llama", source, config, scheme.of_build(args), share=False)
        model = replace(model, dtype=args.dtype)
    else:
        shape = replace(_llama_shape(args), embedding=cut)
        model = _of_dimensions("llama", args, shape, bias=False, seed=None)
    _build(release, args, model, placements(args.tp_size, args.pp_size))


def _build(
    release: str, args: argparse.Namespace, model: FamilyModel, ranks: list[Placement]
) -> None:
    output, plan = Path(args.output_dir), scheme.of_build(args)
    check_split(model.shape, ranks[0].tp_size, ranks[0].pp_size)
    if plan.calibrates and plan.algorithm != scheme.FP8 and not model.has_scales:
        raise CheckFailedError(
            "int8 activations and caches need the scales of a folder that hf_"
            f"{model.name}_convert.py wrote with --smoothquant or --calibrate-kv-cache"
        )
    announce(release, len(ranks))
    write_engines(
        release,
        {place: output / engine_name(model.name, model.dtype, place) for place in ranks},
        model.dtype,
        model.shape,
        _quantized(args, model, plan),
        model.origin,
        plan.kv_cache,
        getattr(args, "builder_opt", None),
    )
    config = engine_config.of_build_py(release, args, model)
    write_json(output / "config.json", config, indent=2, sort_keys=True)
    write_text(output / "model.cache", TIMING_CACHE)


def _quantized(
    args: argparse.Namespace, model: FamilyModel, plan: Scheme
) -> Callable[[Placement], dict[str, Array]]:
    """The model's weights, rounded as the options say."""
    if plan.algorithm != scheme.FP8:
        return lambda place: scheme.finished(model.weights_of(place), plan, model.dtype)
    layers, cache = model.shape.n_layer, plan.kv_cache is not None
    path = getattr(args, "quantized_fp8_model_path", None)
    scales = ammo.scales_of(path, model.name, layers)
    return lambda place: ammo.rounded(
        model.weights_of(place), scales, place.layers(layers).start, cache=cache
    )


def _of_folder(
    name: str, source: Path, config: FtConfig, plan: Scheme, *, share: bool
) -> FamilyModel:
    shape = config.shape

    def weights_of(place: Placement) -> dict[str, Array]:
        weights = ft_layout.read_rank(source, config, place, shape.embedding, share=share)
        return ft_int8.quantized(weights, source, config.family, shape, place, plan)

    return FamilyModel(name, shape, config.dtype, weights_of, has_scales=True)


def _of_dimensions(
    name: str, args: argparse.Namespace, shape: Shape, *, bias: bool, seed: int | None
) -> FamilyModel:
    network = dummy.network(shape, bias=bias, seed=seed or 0)
    warning(f"no model is given: an engine of random weights ({dummy.origin(seed or 0)})")
    weights_of = partial(rank_weights, network)
    return FamilyModel(name, shape, args.dtype, weights_of, dummy.origin(seed or 0))


def _gpt_shape(args: argparse.Namespace) -> Shape:
    head_size = args.n_embd // args.n_head
    return Shape(
        n_layer=args.n_layer,
        n_head=args.n_head,
        n_kv_head=1 if args.multi_query_mode else args.n_head,
        head_size=head_size,
        hidden_size=args.n_embd,
        inner_size=args.inter_size or 4 * args.n_embd,
        vocab_size=args.vocab_size,
        n_positions=args.n_positions,
        norm="layer",
        norm_epsilon=1e-05,
        activation=args.hidden_act,
        rotary_dim=int(head_size * args.rotary_pct),
        rotary_base=getattr(args, "rotary_base", 10000.0),
    )


def _llama_shape(args: argparse.Namespace) -> Shape:
    narrow = int(int(4 * args.n_embd * 2 / 3) * args.ffn_dim_multiplier)
    inner = args.inter_size or args.multiple_of * -(-narrow // args.multiple_of)
    head_size = args.n_embd // args.n_head
    return Shape(
        n_layer=args.n_layer,
        n_head=args.n_head,
        n_kv_head=args.n_kv_head or args.n_head,
        head_size=head_size,
        hidden_size=args.n_embd,
        inner_size=inner,
        vocab_size=args.vocab_size,
        n_positions=args.n_positions,
        norm="rms",
        norm_epsilon=args.rms_norm_eps,
        activation=args.hidden_act,
        rotary_dim=head_size,
        rotary_base=args.rotary_base,
    )


def _llama(release: str, args: argparse.Namespace) -> Network:
    network = llama_huggingface.read_model(Path(args.model_dir))
    own = network.shape.rotary_base
    if _ROTARY_BASE_OF_MODEL.holds(release) or own == args.rotary_base:
        return network
    warning(
        f"the model's rope_theta is {own}, but release {release} turns by --rotary_base "
        f"{args.rotary_base}"
    )
    return replace(network, shape=replace(network.shape, rotary_base=args.rotary_base))


def _deduce_packed_tokens(args: argparse.Namespace) -> None:
    """0.8.0 on: one kind of logits or both, and the tokens that packed input may have."""
    if args.gather_all_token_logits:
        args.gather_context_logits = args.gather_generation_logits = True
    if args.remove_input_padding:
        most = args.max_input_len * args.max_batch_size
        args.max_num_tokens = min(args.max_num_tokens or most, most)
