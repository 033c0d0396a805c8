"""What is inside an image: versions that do not go together, and things that are there twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.compat import contents
from kit.compat.claim import reference
from kit.compat.facts import REAL, REHEARSAL
from kit.compat.rule import Result, Rule
from kit.data import drivers, releases

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kit.artifacts.image import ImageContents
    from kit.compat.facts import Facts
    from kit.compat.rule import Status
    from kit.observation import Observation

_BACKEND_LABEL = "org.trtllm-kit.backend"


def _pinned(facts: Facts) -> Iterable[Result]:
    """Versions seen in the image against those of its release; the image counts."""
    image, release = _real(facts), reference(facts)
    if image is None or release is None or release not in releases.order():
        return
    pairs = (
        ("python", releases.fact(release, "python"), 2),
        ("cuda", releases.fact(release, "cuda"), 2),
        ("cudnn", releases.fact(release, "cudnn"), 2),
        ("nccl", releases.fact(release, "nccl"), 2),
    )
    for component, fact, digits in pairs:
        seen = contents.versions(image, component)
        if not seen or fact.value is None:
            continue
        wanted = fact.value if isinstance(fact.value, list) else [fact.value]
        fits = any(_minor(seen[0], digits) == _minor(text, digits) for text in wanted)
        message = (
            f"{image.reference} has {component} {seen[0]}, release {release} "
            f"{'is for' if component == 'python' else 'pins'} {' or '.join(wanted)}"
        )
        # A wheel's extension modules are bound to one Python; libraries may be newer.
        wrong: Status = "mismatch" if component == "python" else "warning"
        yield Result(
            "ok" if fits else wrong,
            f"image {component}",
            " or ".join(wanted),
            seen[0],
            _place(image, component),
            "" if fits else message,
            None,
            fact.source,
        )


def _torch(facts: Facts) -> Iterable[Result]:
    """TensorRT-LLM's extension modules are bound to one build of PyTorch, and to its C++ ABI."""
    image, release = _real(facts), reference(facts)
    if image is None or release is None or release not in releases.order():
        return
    seen = contents.versions(image, "torch")
    fact = releases.fact(release, "torch_requirement")
    if not seen or not fact.value:
        return
    found, where = seen[0], _place(image, "torch")
    fits = _satisfies(fact.value, found)
    base = (releases.value(release, "pytorch") or {}).get("base_image")
    message = (
        f"{image.reference} has torch {found}, release {release} wants {fact.value}"
        f"{f' ({base} in its own image)' if base else ''}: undefined symbols when it is imported"
    )
    yield Result(
        "ok" if fits else "mismatch",
        "image torch",
        fact.value,
        found,
        where,
        "" if fits else message,
        None,
        fact.source,
    )
    if fits and base is not None and "+" in base and found != base and "+" in found:
        message = (
            f"{image.reference} has the torch build {found}, the wheels of release {release} were "
            f"made for {base}: libth_common may have undefined symbols (C++11 ABI)"
        )
        yield Result("warning", "image torch build", base, found, where, message)


def _twice(facts: Facts) -> Iterable[Result]:
    image = facts.image
    if image is None:
        return
    for component, title in (("tensorrt", "TensorRT"), ("libmpi", "MPI"), ("nccl", "NCCL")):
        installs = image.installs(component)
        library = {"tensorrt": "libnvinfer"}.get(component, component)
        seen = (image.probed or {}).get("libraries", {}).get(library)
        if seen is not None and len(seen) < 2:
            continue  # the loader finds one of them
        if len(installs) < 2:
            continue
        places = ", ".join(f"{item.where} ({item.version or '?'})" for item in installs)
        versions = {item.version for item in installs}
        message = (
            f"{image.reference} holds {len(installs)} installations of {title}: {places}; "
            "which one is loaded depends on the search path"
        )
        # Two of one version load the same code; two TensorRT of different versions are the failure.
        is_wrong = component == "tensorrt" and len(versions) > 1
        yield Result(
            "mismatch" if is_wrong else "warning",
            f"image {title}",
            "one installation",
            str(len(installs)),
            installs[0].where,
            message,
        )


def _driver(facts: Facts) -> Iterable[Result]:
    """A driver library in the image hides the one that the host gives to the container."""
    image = facts.image
    for item in _observed(image, "driver") if image else ():
        if "/compat/" in f"/{item.where}" or "stubs" in item.where:
            continue
        message = (
            f"{image.reference if image else ''} holds a driver library, {item.where}: it hides "
            "the host's (system has unsupported display driver / cuda driver combination)"
        )
        yield Result("warning", "image driver library", "none", item.version, item.where, message)


def _numpy(facts: Facts) -> Iterable[Result]:
    image, release = _real(facts), reference(facts)
    seen = contents.versions(image, "numpy") if image else ()
    if image is None or not seen:
        return
    found, where = seen[0], _place(image, "numpy")
    wanted = "numpy<2"
    source = None
    if release is not None and release in releases.order():
        fact = releases.fact(release, "numpy_requirement")
        wanted, source = fact.value or wanted, fact.source
    if wanted == "numpy":
        # Written before NumPy 2 was there: nothing excludes it, and nothing was tried with it.
        wanted, source = "numpy<2", None
    fits = _satisfies(wanted, found)
    message = f"{image.reference} has NumPy {found}, {release or 'TensorRT-LLM'} wants {wanted}"
    message += ": modules compiled for NumPy 1 fail in NumPy 2" if "<2" in wanted else ""
    wrong: Status = "mismatch" if source else "warning"
    yield Result(
        "ok" if fits else wrong,
        "image NumPy",
        wanted,
        found,
        where,
        "" if fits else message,
        None,
        source,
    )


def _conda(facts: Facts) -> Iterable[Result]:
    image = facts.image
    if image is None:
        return
    path = image.environment.get("PATH", "").split(":")
    for item in _observed(image, "conda"):
        root = item.where.partition("/conda-meta")[0]
        on_path = any(folder.startswith(f"{root}/") for folder in path)
        if image.probed is not None:
            on_path = image.probed.get("conda") is not None
        if not on_path:
            continue
        message = (
            f"a conda installation is on the path ({item.where}): its libstdc++ and Python come "
            "before the system's (undefined reference to __libc_single_threaded)"
        )
        yield Result("warning", "image conda", "none", item.version or "there", item.where, message)


def _rehearsal(facts: Facts) -> Iterable[Result]:
    image = facts.image
    backend = image.labels.get(_BACKEND_LABEL) if image else None
    if image is None or not backend:
        return
    real = facts.engine is not None and facts.engine.backend == REAL
    message = f"{image.reference} is a {backend} image: it loads {REHEARSAL} engines alone"
    yield Result(
        "mismatch" if real else "warning",
        "image backend",
        REAL,
        backend,
        image.reference,
        message,
    )


def _probed(facts: Facts) -> Iterable[Result]:
    """What the layers say against what the image itself says when it runs."""
    image = facts.image
    if image is None or image.probed is None:
        return
    for component in ("tensorrt", "python", "cuda", "nccl", "cudnn", "torch", "numpy"):
        told = [item for item in _observed(image, component) if item.version]
        said = next((item.version for item in told if item.how == "probe"), None)
        for item in told if said else ():
            if item.how == "environment" and not _agree(item.version or "", said or ""):
                message = (
                    f"{item.where} says {component} {item.version}, the image itself has "
                    f"{said}: what it has counts"
                )
                yield Result(
                    "warning", f"image {component}", said, item.version, item.where, message
                )


def _real(facts: Facts) -> ImageContents | None:
    """The image, if it is not a rehearsal's, which has Python and libraries of its own.

    Any word in the label says that something stands in for the real thing.
    """
    image = facts.image
    return image if image and not image.labels.get(_BACKEND_LABEL) else None


def _observed(image: ImageContents, component: str) -> Iterator[Observation]:
    return (item for item in image.observations if item.component == component)


def _place(image: ImageContents, component: str) -> str:
    return next((item.where for item in contents.seen(image, component)), image.reference)


def _agree(one: str, other: str) -> bool:
    first, second = drivers.numbers(one), drivers.numbers(other)
    shared = min(len(first), len(second))
    return first[:shared] == second[:shared]


def _minor(version: str, digits: int) -> tuple[int, ...]:
    return drivers.numbers(version.partition("-")[0].partition("+")[0])[:digits]


def _satisfies(requirement: str, version: str) -> bool:
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.version import InvalidVersion

    try:
        # NGC's builds are alphas with a local label: 2.6.0a0+df5bbc09d1.nv24.11.
        return Requirement(requirement).specifier.contains(
            version.partition("+")[0], prereleases=True
        )
    except (InvalidRequirement, InvalidVersion):
        return True


RULES = (
    Rule(
        "image-backend",
        "A rehearsal image, or one that anything stands in for, is never taken for a real one.",
        ("kit: the label org.trtllm-kit.backend",),
        _rehearsal,
    ),
    Rule(
        "image-versions",
        "Python, CUDA, cuDNN and NCCL of an image against those that its release pins. The wheel "
        "is bound to its Python; a library that differs is said and may work.",
        ("NVIDIA/TensorRT-LLM docker/common/install_tensorrt.sh", "setup.py of the release"),
        _pinned,
    ),
    Rule(
        "image-torch",
        "libth_common and the bindings are bound to one build of PyTorch and to its C++11 ABI; "
        "another one ends in undefined symbols.",
        ("NVIDIA/TensorRT-LLM requirements.txt",),
        _torch,
    ),
    Rule(
        "image-twice",
        "Two TensorRT, MPI or NCCL in one image: the search path decides which is loaded.",
        ("kit: C7, failures in public issues of TensorRT-LLM",),
        _twice,
    ),
    Rule(
        "image-driver",
        "libcuda and libnvidia-ml come from the host; a copy in a layer hides them.",
        ("NVIDIA Container Toolkit documentation",),
        _driver,
    ),
    Rule(
        "image-numpy",
        "NumPy 2 breaks modules compiled for NumPy 1.",
        ("NumPy 2.0 migration guide", "PyPI PKG-INFO of tensorrt-llm"),
        _numpy,
    ),
    Rule(
        "image-conda",
        "conda's libraries come before the system's when it is on the path.",
        ("kit: C7, failures in public issues of TensorRT-LLM",),
        _conda,
    ),
    Rule(
        "image-probe",
        "What an image's configuration says, held against what it is when it runs.",
        ("kit: the probe",),
        _probed,
    ),
)
