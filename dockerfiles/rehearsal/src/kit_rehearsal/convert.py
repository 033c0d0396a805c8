"""Conversion: a Hugging Face GPT-2 into the checkpoint of a release."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import ft_layout, llama_huggingface, model_config, unified_layout
from .errors import BackendError, CheckFailedError, NotComputedError
from .huggingface import intermediate_size, read_model
from .log import info
from .releases import Span
from .split import check_split, rank_weights

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from .huggingface import HuggingFaceModel
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
_VARIANT_FROM_TYPE = Span("0.15.0")


def convert_ft(release: str, args: argparse.Namespace) -> None:  # noqa: ARG001
    """hf_gpt_convert.py, which writes the same in all of its releases (0.5.0 to 0.8.0)."""
    model = read_model(Path(args.in_file))
    tp_size = args.tensor_parallelism
    check_split(model.config["n_head"], intermediate_size(model.config), tp_size)
    directory = Path(args.out_dir) / f"{tp_size}-gpu"
    arguments = {name: getattr(args, name) for name in _FT_ARGUMENTS}
    ft_layout.write(directory, model, arguments, args.storage_type, tp_size)
    info(f"wrote the checkpoint for {tp_size} ranks to {directory}")


def convert_unified(release: str, args: argparse.Namespace) -> None:
    """convert_checkpoint.py of the GPT family, 0.9.0 and later."""
    if args.model_dir is None:
        raise CheckFailedError("convert_checkpoint.py needs --model_dir")
    _check_embedding(args)
    model = read_model(Path(args.model_dir))
    _check_variant(release, args, str(model.config.get("model_type")))
    _infer_dtype(args, model)
    share = bool(getattr(args, "use_embedding_sharing", False))
    check_split(model.config["n_head"], intermediate_size(model.config), args.tp_size)
    config = model_config.of_gpt(release, model, args)
    cut = partial(rank_weights, model, tp_size=args.tp_size, share_embedding=share)
    _write(Path(args.output_dir), config, cut)


def convert_llama(release: str, args: argparse.Namespace) -> None:
    """convert_checkpoint.py of the LLaMA family, 0.9.0 and later."""
    if args.model_dir is None:
        raise NotComputedError("checkpoints without a model", "no --model_dir")
    _check_embedding(args)
    model = llama_huggingface.read_model(Path(args.model_dir))
    share = bool(getattr(args, "use_embedding_sharing", False))
    if share and not model.config["tie_word_embeddings"]:
        raise NotComputedError(
            "a shared embedding that the model has not", "--use_embedding_sharing"
        )
    llama_huggingface.check_ranks(model.config, args.tp_size)
    _infer_dtype(args, model)
    config = model_config.of_llama(release, model, args)
    cut = partial(
        llama_huggingface.rank_weights, model, tp_size=args.tp_size, share_embedding=share
    )
    _write(Path(args.output_dir), config, cut)


def _write(directory: Path, config: dict[str, Any], cut: Callable[[int], dict[str, Array]]) -> None:
    unified_layout.write(directory, config, cut)
    info(f"wrote the checkpoint for {config['mapping']['tp_size']} ranks to {directory}")


def _infer_dtype(args: argparse.Namespace, model: HuggingFaceModel) -> None:
    if args.dtype == "auto":
        args.dtype = infer_dtype(model.config.get("torch_dtype") or model.config.get("dtype"))
        info(f"dtype auto: {args.dtype}")


def infer_dtype(source: str | None) -> str:
    """What `--dtype auto` means: the model's own type, but float16 for float32 or none."""
    if source not in {None, "float32", "float16", "bfloat16"}:
        raise BackendError(f"dtype auto: the model's torch_dtype is {source}")
    return "float16" if source in {None, "float32"} else str(source)


def _check_variant(release: str, args: argparse.Namespace, model_type: str) -> None:
    """The releases infer the GPT variant from the path's text, later ones from the model's type."""
    if args.gpt_variant is not None or "gpt2" in args.model_dir:
        return
    if _VARIANT_FROM_TYPE.holds(release) and model_type == "gpt2":
        return
    raise CheckFailedError(
        f"--model_dir {args.model_dir} does not contain the text gpt2, from which release "
        f"{release} infers the variant; give --gpt_variant gpt2"
    )


def _check_embedding(args: argparse.Namespace) -> None:
    if args.tp_size == 1:
        return
    for dest in ("use_parallel_embedding", "use_embedding_sharing"):
        if getattr(args, dest, False):
            raise NotComputedError("embeddings cut or shared over several ranks", f"--{dest}")
