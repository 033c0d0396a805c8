"""What an image has of a component: what lies in it counts more than what its variables say.

An image keeps the variables of the one that it was built on: TRT_VERSION of the base still stands
there after docker/common/install_tensorrt.sh of NVIDIA/TensorRT-LLM put another TensorRT in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kit.artifacts.image import ImageContents
    from kit.observation import Observation

_SAID = frozenset({"environment", "label"})


def seen(image: ImageContents, component: str) -> list[Observation]:
    """Where a component was seen: by the probe, else in files and packages, else in variables."""
    told = [item for item in image.observations if item.component == component and item.version]
    probed = [item for item in told if item.how == "probe"]
    return probed or [item for item in told if item.how not in _SAID] or told


def versions(image: ImageContents, component: str) -> tuple[str, ...]:
    """The versions that an image really has, each as exact as anything in the image says it.

    The name of a library has three of TensorRT's four numbers: its `10.7.0` is the `10.7.0.23` of
    a header or a variable.
    """
    every = image.versions(component)
    found = dict.fromkeys(_exact(item.version or "", every) for item in seen(image, component))
    return tuple(found)


def _exact(version: str, every: tuple[str, ...]) -> str:
    return next((longer for longer in every if longer.startswith(f"{version}.")), version)
