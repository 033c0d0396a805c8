"""What summarize.py is asked about: articles with their highlights, from a local folder.

The releases load `ccdv/cnn_dailymail`. From 0.10.0 on they look for it under `--dataset_dir`; the
`--dataset_path` of older ones is only the cache of what they download. Here it is read in both
cases from the file `ccdv/cnn_dailymail/test.jsonl` below that folder: an object a line, with the
texts `article` and `highlights`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from .errors import BackendError

NAME = "ccdv/cnn_dailymail"
_FILE = "test.jsonl"


@dataclass(frozen=True)
class Record:
    """One article and what a summary of it is compared with."""

    article: str
    highlights: str


def find(option: str, folder: str | None) -> Path:
    """The dataset below the folder that an option names, or that folder if it is the dataset.

    Raises:
        BackendError: there is none; nothing is downloaded.
    """
    if not folder:
        raise BackendError(
            f"{option} is not given, and nothing is downloaded: "
            f"give a folder with {NAME}/{_FILE} in it"
        )
    whole = Path(folder)
    place = whole if folder.rstrip("/").endswith(NAME) else whole / NAME
    if not (place / _FILE).is_file():
        raise BackendError(f"{option} {folder}: no such file: {place / _FILE}")
    return place


def read(directory: Path) -> list[Record]:
    """The records in their order.

    Raises:
        BackendError: a line is no such object, or there is none; with its number.
    """
    path = directory / _FILE
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise BackendError(f"{path}:{number}: not JSON: {error}") from error
        texts = entry if isinstance(entry, dict) else {}
        article, highlights = texts.get("article"), texts.get("highlights")
        if not isinstance(article, str) or not isinstance(highlights, str):
            raise BackendError(f"{path}:{number}: expected the texts article and highlights")
        records.append(Record(article, highlights))
    if not records:
        raise BackendError(f"{path}: no records")
    return records
