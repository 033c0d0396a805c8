"""`CUDA_ARCHS` against the release: does it build for these GPUs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kit.data import gpus, releases
from kit.preflight import needs
from kit.preflight.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kit.locks.intent import Intent
    from kit.preflight.finding import State

ARGUMENT = "CUDA_ARCHS"
_NAME = "cuda architectures"
_SUPPORTED = "compute_capabilities_supported"
_DEFAULT = "cuda_architectures_default"
_WORD = re.compile(r"([1-9][0-9]?)([0-9])([af])?(?:-(real|virtual))?")
"""One entry of CMAKE_CUDA_ARCHITECTURES: `80`, `80-real`, `90a-real`, `100f-virtual`."""
_LISTS = {
    "all": "every architecture that this nvcc knows",
    "all-major": "the first architecture of every generation that this nvcc knows",
}
_EXAMPLE = '--arg CUDA_ARCHS="80-real;90-real"'


def check(intent: Intent, arguments: Mapping[str, str]) -> Iterator[Finding]:
    """What the tables say of the asked architectures; nothing for a stack of no release.

    Args:
        intent: names the release.
        arguments: the build arguments as the build will get them.
    """
    if intent.release is None or ARGUMENT not in {**dict(intent.arguments), **arguments}:
        return
    release, text = intent.release, arguments.get(ARGUMENT, "").strip()
    if release not in releases.order():
        yield Finding(_NAME, "unknown", f"release {release} is in no table, nor are its GPUs")
        return
    if not text:
        yield _default(release)
        return
    if text == "native":
        # Builds are closed: no GPU is passed in that nvcc could ask.
        yield Finding(
            _NAME, "failed", "native: builds see no GPU to ask, in any stage", f"say it: {_EXAMPLE}"
        )
        return
    if text in _LISTS:
        detail = f"{text} means {_LISTS[text]}; no table says whether {release} compiles for each"
        yield Finding(_NAME, "unknown", detail, f"to be sure: {_EXAMPLE}")
        return
    words = [word.strip() for word in text.split(";")]
    wrong = [word for word in words if not _WORD.fullmatch(word)]
    if wrong:
        detail = f"{ARGUMENT}={text}: {wrong[0]!r} is no architecture as CMake has them"
        yield Finding(_NAME, "failed", detail, _EXAMPLE)
        return
    found = [_judged(word, release) for word in dict.fromkeys(words)]
    worst = [finding for finding in found if finding.state != "ok"]
    yield from worst or [Finding(_NAME, "ok", f"{release} builds for {', '.join(words)}")]


def _default(release: str) -> Finding:
    fact = releases.fact(release, _DEFAULT)
    if fact.value is None:
        detail = f"{ARGUMENT} is empty, and what {release} then builds for is not known"
        return Finding(_NAME, "unknown", f"{detail}: {fact.hole}", f"say it: {_EXAMPLE}")
    return Finding(_NAME, "ok", f"the default of {release}: {', '.join(fact.value)}")


def _judged(word: str, release: str) -> Finding:
    match = _WORD.fullmatch(word)
    assert match is not None
    capability = f"{match[1]}.{match[2]}"
    supported = releases.fact(release, _SUPPORTED)
    refused = needs.refusal(release, capability)
    if refused is not None:
        return _unfit(word, release, capability, "failed", f"its build refuses it ({refused})")
    if supported.value is None:
        return Finding(_NAME, "unknown", f"{word}: the GPUs of {release}: {supported.hole}")
    if capability in supported.value:
        return Finding(_NAME, "ok", word)
    if capability not in gpus.capabilities():
        return Finding(_NAME, "unknown", f"{word}: no table has a GPU of {capability}")
    listed = f"it supports {', '.join(supported.value)}"
    newest = max(map(gpus.rank, supported.value))
    if gpus.rank(capability) > newest:
        return _unfit(word, release, capability, "failed", listed)
    # An older one may still compile: only its support has ended.
    return _unfit(word, release, capability, "warning", listed)


def _unfit(word: str, release: str, capability: str, state: State, reason: str) -> Finding:
    able = [
        version
        for version in releases.versions()
        if capability in (releases.value(version, _SUPPORTED) or ())
        and needs.refusal(version, capability) is None
        and not releases.value(version, "yanked")
    ]
    near = releases.closest(release, able)
    remedy = f"kit build trtllm-{near}, or take {word} out of {ARGUMENT}" if near else None
    return Finding(
        _NAME,
        state,
        f"{word} (compute capability {capability}) does not fit {release}: {reason}; "
        + (f"releases {able[0]} to {able[-1]} do" if able else "no release does"),
        remedy or f"take {word} out of {ARGUMENT}",
    )
