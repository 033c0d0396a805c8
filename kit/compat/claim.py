"""Who says which TensorRT-LLM: the claims that rules hold against each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kit.compat import contents
from kit.compat.facts import built_by
from kit.compat.rule import either
from kit.data import releases, triton

if TYPE_CHECKING:
    from kit.compat.facts import Facts, LockFile

Subject = Literal[
    "release", "engine", "manifest", "image", "wheel", "source", "checkpoint", "lock", "triton"
]

RELEASES_LABEL = "org.trtllm-kit.releases"
FIRST_TRTLLM_BUILD = "0.7.0"
"""The first release with trtllm-build, which builds from checkpoints with a config.json."""
AFTER_BUILD_PY = "0.9.0"
"""The first in which no example's build.py writes such engines (GPT's: 0.8.0, LLaMA's: 0.7.1)."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that says, or limits, which TensorRT-LLM it belongs to.

    Attributes:
        subject: what it is.
        label: how a sentence calls it: `the engine`, `tritonserver:24.12`.
        versions: all that it may be, local labels left out; None where nothing at all is known.
        is_choice: it offers each of its versions, rather than being one nobody knows which.
        where: its place.
        source: where a claim that comes from a table was read.
        hole: why nothing is known.
    """

    subject: Subject
    label: str
    versions: tuple[str, ...] | None
    where: str
    is_choice: bool = False
    source: str | None = None
    hole: str | None = None

    @property
    def text(self) -> str | None:
        """The versions as a table shows them."""
        if not self.versions:
            return None
        if _is_run(self.versions):
            return f"{self.versions[0]} to {self.versions[-1]}"
        return " ".join(self.versions)

    @property
    def is_unsure(self) -> bool:
        """Whether it is one of several versions and does not say which."""
        return self.versions is not None and len(self.versions) > 1 and not self.is_choice

    @property
    def telling(self) -> str:
        """The versions as a sentence tells them."""
        if self.is_unsure:
            return f"{self._range} (it does not say which)"
        return self._range

    @property
    def _range(self) -> str:
        if self.versions is not None and _is_run(self.versions):
            return str(self.text)
        return either(list(self.versions or ())) or "nobody knows which"

    @property
    def version(self) -> str | None:
        """The one version, if it is one."""
        return self.versions[0] if self.versions and len(self.versions) == 1 else None


def claims(facts: Facts) -> list[Claim]:
    """Every claim on a TensorRT-LLM version; the first one is what the others are held against."""
    found = []
    if facts.release is not None:
        found.append(
            Claim("release", f"release {facts.release}", (facts.release,), "the command line")
        )
    if facts.engine is not None:
        found.append(_engine(facts))
    if facts.manifest is not None:
        found.append(
            Claim("manifest", "the manifest", (facts.manifest.release,), facts.manifest_path)
        )
    if (image := _image(facts)) is not None:
        found.append(image)
    if facts.wheel is not None and facts.wheel.name.replace("_", "-").lower() == "tensorrt-llm":
        found.append(
            Claim("wheel", "the wheel", (bare(facts.wheel.version),), str(facts.wheel.path))
        )
    if facts.source is not None:
        found.append(_source(facts))
    if facts.checkpoint is not None and facts.checkpoint.release is not None:
        version = bare(facts.checkpoint.release)
        found.append(
            Claim("checkpoint", "the checkpoint", (version,), str(facts.checkpoint.folder))
        )
    if facts.lock is not None and (lock := _lock(facts.lock, facts)) is not None:
        found.append(lock)
    if facts.triton is not None:
        found.append(container(facts))
    return found


def reference(facts: Facts) -> str | None:
    """The release that everything is about, where exactly one is named."""
    return next((claim.version for claim in claims(facts) if claim.version is not None), None)


def container(facts: Facts) -> Claim:
    """What the table says of a container."""
    assert facts.triton is not None
    month, label, row = facts.triton.month, facts.triton.label, facts.triton.row
    if row is None:
        hole = f"the table holds {triton.containers()[0]} to {triton.containers()[-1]}"
        if triton.row(month) is not None:
            hole = f"{facts.triton.text} is an image without TensorRT-LLM"
        return Claim("triton", label, None, facts.triton.text, hole=hole)
    version = row["tensorrt_llm"]
    return Claim(
        "triton",
        label,
        None if version is None else (version,),
        facts.triton.text,
        source=row["source"],
        hole=triton.hole(month, "tensorrt_llm"),
    )


def _is_run(versions: tuple[str, ...]) -> bool:
    """Whether they are more than two, and every stable release from the first to the last."""
    order = releases.versions()
    if len(versions) < 3 or versions[0] not in order:
        return False
    first = order.index(versions[0])
    return tuple(order[first : first + len(versions)]) == versions


def bare(version: str) -> str:
    """A version without its local label."""
    return version.partition("+")[0]


def _engine(facts: Facts) -> Claim:
    engine = facts.engine
    assert engine is not None
    where = str(engine.folder / "config.json")
    if engine.release:
        return Claim("engine", "the engine", (bare(engine.release),), where)
    if engine.layout != "builder_config":
        # A plan alone need not be TensorRT-LLM's at all.
        hole = "there is no config.json of TensorRT-LLM that says it"
        return Claim("engine", "the engine", None, str(engine.folder), hole=hole)
    possible = releases.versions()
    possible = possible[: possible.index(AFTER_BUILD_PY)]
    built = {version for have in built_by(engine) for version in releases.with_tensorrt(have)}
    # A TensorRT that no release has leaves the era as the only thing that is known.
    possible = [version for version in possible if version in built] or possible
    return Claim("engine", "the engine", tuple(possible), where, hole="the engine does not say")


def _image(facts: Facts) -> Claim | None:
    if facts.stack is not None:
        label = f"the image of stack {facts.stack.stack}"
        where = f"labels of stack {facts.stack.stack}"
        return Claim("image", label, facts.stack.releases or None, where, is_choice=True)
    if facts.image is None:
        return None
    label = f"image {facts.image.reference}"
    offered = facts.image.labels.get(RELEASES_LABEL)
    if offered:
        where = f"label {RELEASES_LABEL}"
        return Claim("image", label, tuple(offered.split()), where, is_choice=True)
    places = contents.seen(facts.image, "tensorrt_llm")
    if not places:
        hole = "no TensorRT-LLM was seen in it"
        return Claim("image", label, None, facts.image.reference, hole=hole)
    found = tuple(dict.fromkeys(map(bare, contents.versions(facts.image, "tensorrt_llm"))))
    return Claim("image", label, found, places[0].where)


def _lock(file: LockFile, facts: Facts) -> Claim | None:
    version = file.pins.get("tensorrt_llm")
    if version is not None:
        return Claim("lock", "the lock", (bare(version),), file.path)
    if facts.stack is not None or facts.manifest is not None:
        return None  # which image and which run it is of, its digest says
    hole = "the lock pins no TensorRT-LLM"
    return Claim("lock", "the lock", None, file.path, hole=hole)


def _source(facts: Facts) -> Claim:
    source = facts.source
    assert source is not None
    where = str(source.folder)
    committed = releases.at_commit(source.commit) if source.commit else None
    version = committed or (bare(source.version) if source.version else None)
    # The setup.py of 0.6.0 still says 0.5.0.
    if (
        committed is None
        and version == "0.5.0"
        and (source.version_where or "").endswith("setup.py")
    ):
        return Claim("source", "the checkout", ("0.5.0", "0.6.0"), where)
    return Claim("source", "the checkout", None if version is None else (version,), where)
