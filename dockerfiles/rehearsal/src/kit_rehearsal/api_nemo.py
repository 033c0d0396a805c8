"""What scripts take from tensorrt_llm/models/gpt/convert.py for NeMo's archives, since 0.12.0."""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath
from typing import Any

from . import nemo
from .files import write_bytes
from .log import warning
from .signatures import bound

# The names that tokenizer files get beside a checkpoint, by their key in the configuration.
_STEMS = {"model": "tokenizer", "vocab_file": "vocab", "merge_file": "merges"}


def unpack_nemo_ckpt(*given: Any, **named: Any) -> Any:
    """The archive's files in a folder, which is returned as it was given."""
    said = bound("unpack_nemo_ckpt", given, named)
    archive = nemo.Archive.open(Path(said["nemo_archive_path"]))
    for name in archive.names:
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts:
            raise ValueError(f"{archive.path}: {name} leads out of the folder")
        write_bytes(Path(said["out_dir_path"]) / inside, archive.read(name))
    return said["out_dir_path"]


class UnpackedNemoCheckpointDir:
    """The folder of an unpacked archive."""

    def __init__(self, *given: Any, **named: Any) -> None:
        said = bound("UnpackedNemoCheckpointDir", given, named)
        self._archive = nemo.Archive.open(Path(said["checkpoints_dir"]))

    @property
    def model_config(self) -> dict[str, Any]:
        """What model_config.yaml says."""
        return self._archive.config()

    def get_all_tokenizer_file_paths(self) -> dict[str, Path | None]:
        """The files of the tokenizer by their keys; None for one that the archive has not."""
        files = self._archive.tokenizer_files(self._archive.config())
        stems = {PurePosixPath(beside).stem: inside for beside, inside in files.items()}
        return {
            key: self._archive.path / stems[stem] if stem in stems else None
            for key, stem in _STEMS.items()
        }


def update_tokenizer_paths(*given: Any, **named: Any) -> dict[str, Any]:
    """The tokenizer's configuration with the paths that its files have."""
    said = bound("update_tokenizer_paths", given, named)
    config: dict[str, Any] = said["tokenizer_config"]
    for key, path in said["tokenizer_file_paths"].items():
        if config[key] is None:
            continue
        if path is None and not Path(config[key]).exists():
            warning(f"tokenizer {key}: {config[key]} does not exist")
        if path is not None or not Path(config[key]).exists():
            config[key] = path.as_posix() if path else None
    return config


def copy_tokenizer_files(*given: Any, **named: Any) -> None:
    """The tokenizer's files into a folder that is there, under the names that run.py looks for."""
    said = bound("copy_tokenizer_files", given, named)
    for key, stem in _STEMS.items():
        path = said["config"][key]
        if path is not None and Path(path).exists():
            shutil.copy(path, said["out_dir"] / f"{stem}{Path(path).suffix}")
