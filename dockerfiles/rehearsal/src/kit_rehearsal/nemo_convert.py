"""Conversion of NeMo's archives: nemo_ckpt_convert.py and nemo_prompt_convert.py."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import ft_layout, nemo
from .files import write_bytes, write_npy
from .log import info
from .split import check_split

if TYPE_CHECKING:
    import argparse

    from .nemo import Archive


def convert_ft(release: str, args: argparse.Namespace) -> None:  # noqa: ARG001
    """nemo_ckpt_convert.py, which writes the same in all of its releases (0.5.0 to 0.8.0)."""
    archive = nemo.Archive.open(args.in_file)
    network = nemo.read_model(archive)
    tp_size = args.tensor_parallelism
    check_split(network.shape, tp_size)
    directory = Path(args.out_dir) / f"{tp_size}-gpu"
    files = copy_tokenizer(archive, directory)
    with tempfile.TemporaryDirectory() as scratch:
        network.source.update(nemo.special_ids(archive, files, Path(scratch)))
    ft_layout.write(directory, network, {}, args.storage_type, tp_size)
    info(f"wrote the checkpoint for {tp_size} ranks to {directory}")


def copy_tokenizer(archive: Archive, directory: Path) -> dict[str, str]:
    """The archive's tokenizer beside the checkpoint; which of its files became which."""
    files = archive.tokenizer_files(archive.config())
    for name, source in files.items():
        write_bytes(directory / name, archive.read(source))
    return files


def convert_prompts(release: str, args: argparse.Namespace) -> None:  # noqa: ARG001
    """nemo_prompt_convert.py: always float32, as the releases write it whatever the option says."""
    table = nemo.read_prompt_table(nemo.Archive.open(args.in_file))
    write_npy(Path(args.out_file), table.astype(np.float32))
    info(f"wrote {table.shape[0]} tasks of {table.shape[1]} tokens to {args.out_file}")
