"""What loads plans, and which TensorRT it loads them with: containers and images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.compat import contents
from kit.data import releases, triton
from kit.data import tensorrt as table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kit.compat.facts import Facts


@dataclass(frozen=True, slots=True)
class Loader:
    """Something that loads plans.

    Attributes:
        component: what a finding calls it.
        label: what a sentence calls it.
        versions: what it may have; several when sources disagree; empty where nothing is known.
        where: its place.
        source: where that was read, or None.
        hole: why nothing is known.
    """

    component: str
    label: str
    versions: tuple[str, ...]
    where: str
    source: str | None = None
    hole: str | None = None


def of_container(month: str) -> Loader:
    """The TensorRT of a Triton container: what the table says, made exact by its release.

    The table often has three numbers or none; TensorRT-LLM of the container's release pins four.
    Where both contradict each other, both stand.
    """
    row = triton.row(month)
    label = f"tritonserver:{month}"
    if row is None:
        return Loader("triton TensorRT", label, (), label, None, "the table has no such container")
    stated, shipped = row["tensorrt"], row["tensorrt_llm"]
    pinned = None
    if shipped in releases.order():
        pinned = releases.fact(shipped, "tensorrt")
    if pinned is None or pinned.value is None:
        hole = None if stated else triton.hole(month, "tensorrt")
        found = (stated,) if stated else ()
        return Loader("triton TensorRT", label, found, label, row["source"], hole)
    if stated is None or table.same(stated, pinned.value) is not False:
        source = f"{row['source']}; release {shipped}: {pinned.source}"
        return Loader("triton TensorRT", label, (pinned.value,), label, source)
    hole = f"its table says {stated}, its TensorRT-LLM {shipped} pins {pinned.value}"
    return Loader("triton TensorRT", label, (stated, pinned.value), label, row["source"], hole)


def loading(version: str) -> list[str]:
    """The containers that load plans of exactly this TensorRT, oldest first."""
    return [
        month
        for month in triton.containers()
        if [table.same(have, version) for have in of_container(month).versions] == [True]
    ]


def serving(wanted: Iterable[str]) -> list[str]:
    """The containers that ship one of these releases, oldest first.

    Those whose sources disagree on their TensorRT are left out where there is another one.
    """
    found = [month for version in wanted for month in triton.shipping(version)]
    return [month for month in found if len(of_container(month).versions) < 2] or found


def loaders(facts: Facts) -> list[Loader]:
    """Everything in these facts that loads plans."""
    found = []
    if facts.triton is not None and facts.triton.row is not None:
        found.append(of_container(facts.triton.month))
    if facts.stack is not None:
        have = facts.stack.tensorrt
        label = f"the image of stack {facts.stack.stack}"
        found.append(
            Loader(
                "image TensorRT",
                label,
                (have,) if have else (),
                label,
                "probe",
                "the image was not probed yet",
            )
        )
    if facts.image is not None:
        have_all = contents.versions(facts.image, "tensorrt")
        found.append(
            Loader(
                "image TensorRT",
                f"image {facts.image.reference}",
                have_all,
                facts.image.reference,
                "seen in the image",
                "several were seen in it" if have_all else "no TensorRT was seen in it",
            )
        )
    return found
