"""What the models written in Python have in common: they answer requests one by one."""

from __future__ import annotations

import traceback
from typing import Any

from kit_rehearsal.errors import BackendError

from . import tensors


class Served:
    """A model of the Python backend; a subclass has `load` and `answer`."""

    def initialize(self, args: dict[str, Any]) -> None:
        """Read the configuration; an error keeps the model from loading."""
        try:
            self.config = tensors.Configuration(args["model_config"])
            self.load()
        except (BackendError, OSError) as error:
            raise failure(str(error)) from None

    def load(self) -> None:
        """What a model needs."""
        raise NotImplementedError

    def answer(self, given: dict[str, Any]) -> dict[str, Any]:
        """The outputs of one request, [1, …] each."""
        raise NotImplementedError

    def execute(self, requests: list[Any]) -> list[Any]:
        """A response for each request."""
        return [self._response(request) for request in requests]

    def _response(self, request: Any) -> Any:
        try:
            values = self.answer(tensors.of_request(request))
        except BackendError as error:
            return refused(str(error))
        except Exception:  # noqa: BLE001 - the server goes on, and the caller hears of it
            return refused(traceback.format_exc())
        return response(self.config, request, values)


def response(config: tensors.Configuration, request: Any, values: dict[str, Any]) -> Any:
    """The response with the outputs that the request asks for."""
    import triton_python_backend_utils as triton  # type: ignore[import-not-found,unused-ignore]

    wanted = set(request.requested_output_names())
    filled = config.filled(values)
    return triton.InferenceResponse(
        output_tensors=[
            triton.Tensor(name, value) for name, value in filled.items() if name in wanted
        ]
    )


def refused(message: str) -> Any:
    """The response that says why there is none."""
    import triton_python_backend_utils as triton  # type: ignore[import-not-found,unused-ignore]

    return triton.InferenceResponse(output_tensors=[], error=triton.TritonError(message))


def failure(message: str) -> Exception:
    """The exception that keeps a model from loading."""
    import triton_python_backend_utils as triton  # type: ignore[import-not-found,unused-ignore]

    error: Exception = triton.TritonModelException(message)
    return error


def warn(message: str) -> None:
    """A line of the server's own log."""
    import triton_python_backend_utils as triton  # type: ignore[import-not-found,unused-ignore]

    triton.Logger.log_warn(f"[kit-rehearsal] {message}")
