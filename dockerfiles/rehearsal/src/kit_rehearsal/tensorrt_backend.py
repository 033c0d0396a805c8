"""The second way to compute: a TensorRT plan, built and run on a GPU.

Asked for by `KIT_REHEARSAL_BACKEND=tensorrt` when an engine is built; an engine says itself how it
is to be run. The image `rehearsal-gpu` sets the variable.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .device import Device, load
from .engine import Plan
from .errors import BackendError, NotComputedError
from .log import error, info, warning
from .tensorrt_network import IDS, LOGITS, POSITIONS, DecoderNetwork, refuse

if TYPE_CHECKING:
    from .engine import Engine, Shape
    from .tensors import Array

VARIABLE = "KIT_REHEARSAL_BACKEND"
_NAMES = ("numpy", "tensorrt")
_LIBRARIES = (
    "cublas/lib/libcublasLt.so.12",
    "cublas/lib/libcublas.so.12",
    "cudnn/lib/libcudnn.so.8",
)
"""In their order: one needs those before it."""
LEVEL = 0
"""Of the builder's optimization, unless the command line says another. Two builds by 8.6.0 on an
H200 had equal outputs more often than at TensorRT's own default, 3, and were done sooner."""


def is_asked_for() -> bool:
    """Whether engines are to be TensorRT's."""
    name = os.environ.get(VARIABLE, _NAMES[0])
    if name not in _NAMES:
        raise BackendError(f"${VARIABLE}: expected one of {', '.join(_NAMES)}, found {name!r}")
    return name == "tensorrt"


def built(engine: Engine, level: int | None) -> Engine:
    """The engine with a plan instead of its weights.

    Raises:
        BackendError: no GPU, something that TensorRT is not asked to compute, or it cannot.
    """
    refuse(engine)
    trt = loaded()
    device = Device()
    logger = _logger(trt)
    level = LEVEL if level is None else level
    builder = trt.Builder(logger)
    explicit = 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
    network = builder.create_network(explicit)
    network.name = f"{engine.release}+rehearsal rank {engine.rank}"
    decoder = DecoderNetwork(trt, network, engine)  # to be kept until the plan is built
    decoder.add()
    config = builder.create_builder_config()
    config.builder_optimization_level = level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.clear_flag(trt.BuilderFlag.TF32)
    if engine.dtype == "float16":
        config.set_flag(trt.BuilderFlag.FP16)
        config.set_flag(trt.BuilderFlag.PREFER_PRECISION_CONSTRAINTS)
    # Libraries whose choice depends on more than the plan records.
    config.set_tactic_sources(0)
    profile = builder.create_optimization_profile()
    most = engine.model.n_positions
    for name in (IDS, POSITIONS):
        profile.set_shape(name, (1,), (min(64, most),), (most,))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BackendError(f"TensorRT {trt.__version__} could not build the engine; see above")
    content = bytes(plan)
    said = Plan(content, level, device.compute_capability, _layers(trt, logger, content))
    info(f"TensorRT {said.tensorrt}, level {level}: a plan of {len(content)} bytes")
    return replace(engine, weights={}, plan=said)


class Tokens:
    """What a plan without a key/value cache keeps of a sequence: its tokens."""

    def __init__(self) -> None:
        self.tokens: list[int] = []


class PlanModel:
    """An engine's plan on the first GPU; a `Model` of `generation.py`."""

    def __init__(self, engine: Engine) -> None:
        assert engine.plan is not None
        trt = loaded()
        self.shape: Shape = engine.model
        self._device = Device()
        self._plan = engine.plan
        here = self._device.compute_capability
        if here != engine.plan.compute_capability:
            raise BackendError(
                f"the engine was built for compute capability {engine.plan.compute_capability}, "
                f"this GPU has {here}: build it again"
            )
        self._logger = _logger(trt)
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(engine.plan.content)
        if self._engine is None:
            raise BackendError(
                f"TensorRT {trt.__version__} does not take the plan, which TensorRT "
                f"{engine.plan.tensorrt} built; see above"
            )
        self._context = self._engine.create_execution_context()
        most = self.shape.n_positions
        sizes = {IDS: 4 * most, POSITIONS: 4 * most, LOGITS: 4 * most * self.shape.vocab_size}
        self._places = {name: self._device.allocate(size) for name, size in sizes.items()}
        for name, address in self._places.items():
            self._context.set_tensor_address(name, address)
        self._device.upload(np.arange(most, dtype=np.int32), self._places[POSITIONS])

    def cache(self, capacity: int) -> Tokens:  # noqa: ARG002  nothing is reserved
        """An empty sequence."""
        return Tokens()

    def logits(
        self,
        tokens: list[int],
        cache: Tokens,
        *,
        last_only: bool,
        virtual: Array | None = None,
    ) -> Array:
        """Logits after each new token, or after the last one only, [tokens or 1, vocabulary]."""
        if virtual is not None:
            raise NotComputedError("prompt tables in TensorRT", "the prompt table")
        cache.tokens += tokens
        length = len(cache.tokens)
        if length > self.shape.n_positions:  # before more is copied than there is room for
            raise BackendError(f"{length} tokens: the engine takes {self.shape.n_positions}")
        self._device.upload(np.array(cache.tokens, dtype=np.int32), self._places[IDS])
        for name in (IDS, POSITIONS):
            if not self._context.set_input_shape(name, (length,)):
                raise BackendError(f"TensorRT refuses {length} tokens; see above")
        if not self._context.execute_async_v3(self._device.stream):
            raise BackendError("TensorRT could not run the engine; see above")
        sizes = (length, self.shape.vocab_size)
        rows = self._device.download(self._places[LOGITS], sizes)
        return rows[-1:] if last_only else rows[length - len(tokens) :]


def loaded() -> Any:
    """The module `tensorrt`, with the libraries that it is linked against."""
    try:
        for library in _LIBRARIES:
            load(library)
        import tensorrt  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError as failure:
        raise BackendError(f"TensorRT cannot be loaded: {failure}") from failure
    return tensorrt


def _layers(trt: Any, logger: Any, plan: bytes) -> list[Any]:
    """What the plan is made of, as TensorRT's own inspector tells it."""
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    if engine is None:
        raise BackendError("TensorRT does not take the plan that it has just built; see above")
    inspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    found: list[Any] = json.loads(text)["Layers"]
    return found


def _logger(trt: Any) -> Any:
    """TensorRT's lines as the backend's own."""

    class Lines(trt.ILogger):  # type: ignore[misc,name-defined,unused-ignore]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            if int(severity) <= int(trt.ILogger.Severity.ERROR):
                error(f"TensorRT: {text}")
            elif severity == trt.ILogger.Severity.WARNING:
                warning(f"TensorRT: {text}")

    return Lines()
