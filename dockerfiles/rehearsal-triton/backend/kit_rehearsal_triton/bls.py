"""The model `tensorrt_llm_bls`: the ensemble's wires, followed in Python."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from kit_rehearsal.errors import BackendError, NotComputedError

from . import serving, table, tensors
from .launch import VERSION_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

_STEPS = ("preprocessing", "tensorrt_llm", "postprocessing")
_TOKENS, _LENGTHS = "_TOKENS_BATCH", "_SEQUENCE_LENGTH"


class TritonPythonModel:
    """What the server calls."""

    def initialize(self, args: dict[str, Any]) -> None:
        """Read the configuration and the wires."""
        try:
            self.config = tensors.Configuration(args["model_config"])
            for name in ("tensorrt_llm_draft_model_name", "multimodal_encoders_name"):
                if self.config.setting(name) is not None:
                    raise NotComputedError(f"serving with another model ({name})", name)
        except BackendError as error:
            raise serving.failure(str(error)) from None
        version = os.environ[VERSION_VARIABLE]
        self.wires = {step: table.rows("maps", version, step) for step in _STEPS}
        self.accumulates = (self.config.setting("accumulate_tokens") or "").lower() == "true"
        self.engine = self.config.setting("tensorrt_llm_model_name") or "tensorrt_llm"

    def execute(self, requests: list[Any]) -> list[Any] | None:
        """Answer each request; a decoupled model as the tokens come."""
        if not self.config.decoupled:
            return [self._whole(request) for request in requests]
        import triton_python_backend_utils as triton  # type: ignore[import-not-found,unused-ignore]

        for request in requests:
            sender = request.get_response_sender()
            try:
                for values in self._answers(request):
                    sender.send(serving.response(self.config, request, values))
                sender.send(flags=triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            except BackendError as error:
                sender.send(
                    serving.refused(str(error)), flags=triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL
                )
        return None

    def _whole(self, request: Any) -> Any:
        try:
            (values,) = self._answers(request)
        except BackendError as error:
            return serving.refused(str(error))
        return serving.response(self.config, request, values)

    def _answers(self, request: Any) -> Iterator[dict[str, Any]]:
        """The values of every answer under the ensemble's names, [1, …] each."""
        values = {item.name(): item.as_numpy() for item in request.inputs()}
        known = {wire["ensemble"] for wires in self.wires.values() for wire in wires}
        for name in values:
            if name not in known:
                raise NotComputedError(f"the input {name}", "a request")
        (prepared,) = self._call("preprocessing", "preprocessing", values, decoupled=False)
        values |= prepared
        said: Any = None
        decoupled = self.config.decoupled
        for tokens in self._call("tensorrt_llm", self.engine, values, decoupled=decoupled):
            found = {**values, **tokens}
            if self.accumulates and decoupled:
                said = (
                    tokens[_TOKENS] if said is None else np.concatenate([said, tokens[_TOKENS]], 2)
                )
                found |= {_TOKENS: said, _LENGTHS: np.array([[said.shape[2]]], dtype=np.int32)}
            (text,) = self._call("postprocessing", "postprocessing", found, decoupled=False)
            yield {**found, **text}

    def _call(
        self, step: str, model: str, values: dict[str, Any], *, decoupled: bool
    ) -> Iterator[dict[str, Any]]:
        import triton_python_backend_utils as triton  # type: ignore[import-not-found,unused-ignore]

        ways = {
            direction: [wire for wire in self.wires[step] if wire["direction"] == direction]
            for direction in ("input", "output")
        }
        request = triton.InferenceRequest(
            model_name=model,
            requested_output_names=[wire["tensor"] for wire in ways["output"]],
            inputs=[
                triton.Tensor(wire["tensor"], values[wire["ensemble"]])
                for wire in ways["input"]
                if wire["ensemble"] in values
            ],
        )
        answers = request.exec(decoupled=True) if decoupled else [request.exec()]
        for answer in answers:
            if answer.has_error():
                raise BackendError(f"{model}: {answer.error().message()}")
            found = {item.name(): item.as_numpy() for item in answer.output_tensors()}
            if found:
                yield {
                    wire["ensemble"]: found[wire["tensor"]]
                    for wire in ways["output"]
                    if wire["tensor"] in found
                }
