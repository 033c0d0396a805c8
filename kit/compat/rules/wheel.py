"""A wheel against the release, and against the Python, TensorRT, PyTorch, C library around it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kit.compat import contents
from kit.compat.claim import bare, reference
from kit.compat.rule import Result, Rule
from kit.data import drivers, releases
from kit.data import tensorrt as table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kit.artifacts.wheel import WheelContents
    from kit.compat.facts import Facts
    from kit.compat.rule import Status

_CPYTHON = re.compile(r"cp(\d)(\d+)")
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def _real(facts: Facts) -> Iterable[Result]:
    wheel = facts.wheel
    if wheel is None:
        return
    component, where = f"wheel {wheel.name}", wheel.path
    if wheel.kind != "wheel":
        message = (
            f"{where} is a source distribution: it is built where it is installed and may download "
            "what it likes there; take the wheel"
        )
        yield Result("mismatch", component, "a wheel", wheel.kind, where, message)
    elif wheel.is_stub:
        message = (
            f"{where} is a placeholder without libraries: the package index of NVIDIA has the real "
            "one, which pip fetches while it installs this one"
        )
        yield Result("mismatch", component, "shared libraries", "none", where, message)
    else:
        yield Result("ok", component, "a wheel", wheel.version, where)


def _python(facts: Facts) -> Iterable[Result]:
    wheel = facts.wheel
    if wheel is None:
        return
    wanted = [f"{m[1]}.{m[2]}" for tag in wheel.python if (m := _CPYTHON.fullmatch(tag))]
    if not wanted or "abi3" in wheel.abi:
        return
    have: list[tuple[str, list[str], str]] = []
    if facts.image is not None and (seen := contents.versions(facts.image, "python")):
        have.append((f"image {facts.image.reference}", [seen[0]], "seen in the image"))
    release = reference(facts)
    if not have and release in releases.order() and _is_tensorrt_llm(wheel):
        fact = releases.fact(release or "", "python")
        have.append((f"release {release}", fact.value or [], fact.source or ""))
    for label, versions, source in have:
        minors = {".".join(version.split(".")[:2]) for version in versions}
        fits = bool(minors & set(wanted))
        message = (
            f"the wheel is for Python {' '.join(wanted)}, {label} has {' '.join(sorted(minors))}: "
            "not a supported wheel on this platform"
        )
        status: Status = "ok" if fits else "mismatch"
        yield Result(
            status if minors else "unknown",
            "wheel Python",
            " ".join(sorted(minors)) or None,
            " ".join(wanted),
            str(wheel.path),
            "" if fits else message,
            None,
            source,
        )


def _platform(facts: Facts) -> Iterable[Result]:
    wheel = facts.wheel
    if wheel is None or "any" in wheel.platform:
        return
    machines = {m for tag in wheel.platform for m in _MACHINES if tag.endswith(m)}
    have = _machine(facts)
    if machines and have is not None:
        machine, label, where = have
        fits = machine in machines
        message = f"the wheel is for {' '.join(sorted(machines))}, {label} is {machine}"
        yield Result(
            "ok" if fits else "mismatch",
            "wheel platform",
            machine,
            " ".join(sorted(machines)),
            where,
            "" if fits else message,
        )
    libc = _libc(facts)
    if wheel.glibc is not None and libc is not None:
        version, label, where = libc
        fits = drivers.numbers(version) >= drivers.numbers(wheel.glibc)
        message = (
            f"the wheel wants glibc {wheel.glibc} or newer, {label} has {version}: "
            "version `GLIBC_…' not found"
        )
        yield Result(
            "ok" if fits else "mismatch",
            "wheel glibc",
            f"{wheel.glibc} or newer",
            version,
            where,
            "" if fits else message,
        )


def _machine(facts: Facts) -> tuple[str, str, str] | None:
    names = {image: machine for machine, image in _MACHINES.items()}
    if facts.image is not None:
        machine = names.get(facts.image.architecture, facts.image.architecture)
        return machine, f"image {facts.image.reference}", facts.image.reference
    if facts.host is not None:
        return facts.host.system.architecture, facts.host_where, facts.host_where
    return None


def _libc(facts: Facts) -> tuple[str, str, str] | None:
    if facts.image is not None:
        seen = contents.versions(facts.image, "glibc")
        return (seen[0], f"image {facts.image.reference}", facts.image.reference) if seen else None
    if facts.host is not None and facts.host.system.glibc is not None:
        return facts.host.system.glibc, facts.host_where, facts.host_where
    return None


def _requirements(facts: Facts) -> Iterable[Result]:
    """What the wheel asks of TensorRT and PyTorch, against the image, else against the release."""
    wheel = facts.wheel
    if wheel is None:
        return
    release = reference(facts)
    for component, requirement in (("tensorrt", wheel.tensorrt), ("torch", wheel.torch)):
        if requirement is None:
            continue
        seen = contents.versions(facts.image, component) if facts.image is not None else ()
        label = f"image {facts.image.reference}" if facts.image is not None else ""
        version = seen[0] if seen else None
        if version is None and component == "tensorrt" and release in releases.order():
            version, label = releases.value(release or "", "tensorrt"), f"release {release}"
        if version is None:
            continue
        fits = _allows(requirement, version)
        if fits is None:
            continue
        message = f"the wheel wants {requirement}, {label} has {component} {version}"
        yield Result(
            "ok" if fits else "mismatch",
            f"wheel {component}",
            requirement,
            version,
            wheel.path,
            "" if fits else message,
        )


def _pinned(facts: Facts) -> Iterable[Result]:
    """A wheel of TensorRT or PyTorch against what the release wants."""
    wheel, release = facts.wheel, reference(facts)
    if wheel is None or release is None or release not in releases.order():
        return
    name = wheel.name.replace("_", "-").lower()
    fits: bool | None
    if re.fullmatch(r"tensorrt(-cu\d+)?(-libs|-bindings)?", name):
        fact = releases.fact(release, "tensorrt")
        # 10.0.1 to 10.7.0 are uploaded without the fourth number, and rebuilt as .postN.
        fits = fact.value and table.same(wheel.version, fact.value)
        if fits is None and ".post" not in wheel.version and len(table.parts(wheel.version)) == 3:
            fits = True
    elif name == "torch":
        fact = releases.fact(release, "torch_requirement")
        fits = _allows(fact.value, wheel.version) if fact.value else None
    else:
        return
    message = f"the wheel is {wheel.name} {wheel.version}, release {release} "
    message += f"wants {fact.value}" if fact.value else f"says of it: {fact.hole}"
    yield Result(
        "unknown" if fits is None else "ok" if fits else "mismatch",
        f"wheel {wheel.name} pin",
        fact.value,
        wheel.version,
        str(wheel.path),
        "" if fits else message,
        None,
        fact.source,
    )


def _allows(requirement: str, version: str) -> bool | None:
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.version import InvalidVersion

    try:
        wanted = Requirement(requirement).specifier
        return wanted.contains(bare(version), prereleases=True)
    except (InvalidRequirement, InvalidVersion):
        return None


def _is_tensorrt_llm(wheel: WheelContents) -> bool:
    return wheel.name.replace("_", "-").lower() == "tensorrt-llm"


RULES = (
    Rule(
        "wheel-pin",
        "A wheel of TensorRT or PyTorch is the one that the release pins: a plan loads in exactly "
        "its TensorRT, the bindings in their PyTorch.",
        ("NVIDIA/TensorRT-LLM requirements.txt", "PyPI: tensorrt, the names of its uploads"),
        _pinned,
    ),
    Rule(
        "wheel-real",
        "Some names on the public index hold a placeholder or a source distribution that downloads "
        "while pip installs it.",
        ("PyPI: tensorrt 9.x, tensorrt-llm", "kit: C10"),
        _real,
    ),
    Rule(
        "wheel-python",
        "Extension modules are bound to one minor version of CPython.",
        ("PEP 425",),
        _python,
    ),
    Rule(
        "wheel-platform",
        "Processor and C library of a wheel against those of the image or the host.",
        ("PEP 600",),
        _platform,
    ),
    Rule(
        "wheel-requirements",
        "The TensorRT and the PyTorch that a wheel asks for against those that are there.",
        ("PyPI: PKG-INFO of the release",),
        _requirements,
    ),
)
