"""examples/quantization/quantize.py, 0.8.0 and later: a calibrated checkpoint.

The releases hand the model to AMMO, from 0.10.0 on ModelOpt, and let it write the checkpoint. Here
config.json is that of the family's convert_checkpoint.py with the tool's own `quantization`; the
tensors are the tool's, with these differences: scales of AWQ and int8 stay with their layers
(the tool moves some into the norms), and those of FP8 caches are as measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from . import convert, huggingface, llama_huggingface, model_config
from .errors import BackendError, CheckFailedError, NotComputedError
from .files import read_json
from .releases import Span
from .split import HEAD
from .tensors import TAGS

if TYPE_CHECKING:
    import argparse

_GPT_OF_TRTLLM_BUILD = Span("0.9.0")


def quantize(release: str, args: argparse.Namespace) -> None:
    """Write the checkpoint of all ranks to --output_dir."""
    if args.model_dir is None:
        if getattr(args, "nemo_ckpt_path", None) is not None:
            raise NotComputedError("calibration of NeMo's models", "--nemo_ckpt_path")
        raise CheckFailedError("quantize.py needs --model_dir")
    # What this script has no options for.
    args.use_parallel_embedding, args.embedding_sharding_dim = False, 0
    args.disable_weight_only_quant_plugin = False
    source = Path(args.model_dir)
    kind = read_json(source / "config.json").get("model_type")
    if kind == "llama":
        _llama(release, args)
    elif _GPT_OF_TRTLLM_BUILD.holds(release):
        _gpt(release, args)
    else:
        raise NotComputedError(
            f"engines of release {release} from a quantized checkpoint of a {kind}", str(source)
        )


def _gpt(release: str, args: argparse.Namespace) -> None:
    network = huggingface.read_model(Path(args.model_dir))
    args.gpt_variant = huggingface.variant_of(network.source)
    _check_dtype(args, network.source)
    convert.write_checkpoint(args, network, lambda cut: model_config.of_gpt(release, cut, args))


def _llama(release: str, args: argparse.Namespace) -> None:
    network = llama_huggingface.read_model(Path(args.model_dir))
    _check_dtype(args, network.source)
    tied = HEAD not in network.weights
    convert.write_checkpoint(
        args,
        network,
        lambda cut: model_config.of_llama(release, cut.shape, args, tied=tied),
    )


def _check_dtype(args: argparse.Namespace, source: dict[str, object]) -> None:
    convert.resolve_dtype(args, source)
    if args.dtype not in TAGS:  # until 0.14.0 the option takes any word
        raise BackendError(f"--dtype {args.dtype}: expected one of {', '.join(TAGS)}")
