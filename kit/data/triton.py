"""Triton containers for TensorRT-LLM and what they hold: `triton.json`."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("triton.json")
_MONTH = re.compile(r"([0-9]{2}\.(?:0[1-9]|1[0-2]))(?:-([a-z0-9-]+))?")
_FLAVOUR = "trtllm-python-py3"


@lru_cache(maxsize=1)
def table() -> dict[str, Any]:
    """The table as it stands in `triton.json`; shared, not to be changed by the caller."""
    content: dict[str, Any] = json.loads(TABLE.read_bytes())
    return content


def containers() -> list[str]:
    """The months of all containers, oldest first, such as `24.12`."""
    return [row["container"] for row in table()["containers"]]


def row(container: str) -> dict[str, Any] | None:
    """What is known of a container by its month, None for one that the table does not have."""
    found = (row for row in table()["containers"] if row["container"] == container)
    return next(found, None)


def hole(container: str, field: str) -> str | None:
    """Why a field of a container has no value."""
    found = row(container) or {}
    for names, reason in found.get("holes", {}).items():
        if field in names.split():
            return str(reason)
    return None


def shipping(release: str) -> list[str]:
    """The containers that ship a release, oldest first; empty if none is known to."""
    return [row["container"] for row in table()["containers"] if row["tensorrt_llm"] == release]


def image(container: str) -> str:
    """The full name of a container's image."""
    return str(table()["image"]).format(container=container)


def month(text: str) -> tuple[str, str | None] | None:
    """The month and the flavour of a tag, `YY.MM` or a full image name; None if it is none of them.

    `24.12`, `24.12-trtllm-python-py3` and `nvcr.io/nvidia/tritonserver:24.12-trtllm-python-py3`
    all give `24.12`; the flavour is None for a bare month.
    """
    tag = text.strip().partition("@")[0].rpartition(":")[2]
    match = _MONTH.fullmatch(tag)
    return (match.group(1), match.group(2)) if match else None


def has_tensorrt_llm(flavour: str | None) -> bool:
    """Whether images of a flavour hold TensorRT-LLM at all; a bare month is taken for one."""
    return flavour is None or flavour == _FLAVOUR
