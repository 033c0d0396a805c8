"""Conversion: a Hugging Face GPT-2 into the checkpoint of a release."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from . import ft_layout, unified_layout
from .errors import BackendError, CheckFailedError, NotComputedError
from .huggingface import intermediate_size, read_model
from .log import info
from .split import check_split

if TYPE_CHECKING:
    import argparse

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


def convert_ft(args: argparse.Namespace) -> None:
    """0.5.0's hf_gpt_convert.py."""
    model = read_model(Path(args.in_file))
    tp_size = args.tensor_parallelism
    check_split(model.config["n_head"], intermediate_size(model.config), tp_size)
    directory = Path(args.out_dir) / f"{tp_size}-gpu"
    arguments = {name: getattr(args, name) for name in _FT_ARGUMENTS}
    ft_layout.write(directory, model, arguments, args.storage_type, tp_size)
    info(f"wrote the checkpoint for {tp_size} ranks to {directory}")


def convert_unified(release: str, args: argparse.Namespace) -> None:
    """0.9.0's and 0.16.0's convert_checkpoint.py."""
    if args.model_dir is None:
        raise CheckFailedError("convert_checkpoint.py needs --model_dir")
    _check_embedding(args)
    model = read_model(Path(args.model_dir))
    _check_variant(release, args, str(model.config.get("model_type")))
    if args.dtype == "auto":
        args.dtype = infer_dtype(model.config.get("torch_dtype") or model.config.get("dtype"))
        info(f"dtype auto: {args.dtype}")
    share = bool(getattr(args, "use_embedding_sharing", False))
    make = unified_layout.config_0_9 if release == "0.9.0" else unified_layout.config_0_16
    directory = Path(args.output_dir)
    unified_layout.write(directory, model, make(model, args), share_embedding=share)
    info(f"wrote the checkpoint for {args.tp_size} ranks to {directory}")


def infer_dtype(source: str | None) -> str:
    """What `--dtype auto` means: the model's own type, but float16 for float32 or none."""
    if source not in {None, "float32", "float16", "bfloat16"}:
        raise BackendError(f"dtype auto: the model's torch_dtype is {source}")
    return "float16" if source in {None, "float32"} else str(source)


def _check_variant(release: str, args: argparse.Namespace, model_type: str) -> None:
    """The releases infer the GPT variant from the path's text and assert that they found one."""
    if args.gpt_variant is not None or "gpt2" in args.model_dir:
        return
    if release == "0.16.0" and model_type == "gpt2":
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
