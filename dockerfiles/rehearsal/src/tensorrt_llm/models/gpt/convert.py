"""NeMo's archives, at the place where the releases have them since 0.12.0."""

from __future__ import annotations

from kit_rehearsal.api_nemo import (
    UnpackedNemoCheckpointDir,
    copy_tokenizer_files,
    unpack_nemo_ckpt,
    update_tokenizer_paths,
)
from kit_rehearsal.signatures import check_import

__all__ = [
    "UnpackedNemoCheckpointDir",
    "copy_tokenizer_files",
    "unpack_nemo_ckpt",
    "update_tokenizer_paths",
]

check_import(__name__)
