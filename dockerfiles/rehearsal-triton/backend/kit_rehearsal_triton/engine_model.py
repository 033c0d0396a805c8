"""The backend `tensorrtllm`, and the model `tensorrt_llm` in Python: tokens in, tokens out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from kit_rehearsal import engine_directory
from kit_rehearsal.communicator import connect
from kit_rehearsal.errors import BackendError, NotComputedError
from kit_rehearsal.sampling import Sampling, Words

from . import serving, table, tensors
from .flight import Crew, Flight, Job, follow
from .launch import VERSION_VARIABLE

if TYPE_CHECKING:
    from concurrent.futures import Future

    from kit_rehearsal.generation import Generated

_TRUE, _FALSE = ("true", "True", "TRUE", "1"), ("false", "False", "FALSE", "0")
_NEUTRAL = {
    "repetition_penalty": (1.0,),
    "presence_penalty": (0.0,),
    "frequency_penalty": (0.0,),
    "min_length": (0, 1),
    "min_tokens": (0, 1),
    "early_stopping": (0, 1),
    "beam_search_diversity_rate": (0.0,),
    "num_return_sequences": (1,),
    "runtime_top_p_min": (0.0,),
    "runtime_top_p_decay": (1.0,),
    "return_perf_metrics": (0,),
    "return_kv_cache_reuse_stats": (0,),
    "prompt_table_extra_ids": (0,),
    "prompt_vocab_size": (0,),
    "lora_task_id": (0,),
}
"""Inputs that are computed for these values only."""
_PASSED_OVER = frozenset(
    {
        *("input_lengths", "pad_id", "stop", "runtime_top_p_reset_ids"),
        # Of models with an encoder; preprocessing sends them for all.
        *("decoder_input_ids", "decoder_input_lengths"),
    }
)
_READ = frozenset(
    {
        *("input_ids", "request_output_len", "end_id", "beam_width", "temperature"),
        *("runtime_top_k", "runtime_top_p", "len_penalty", "random_seed", "seed", "streaming"),
        *("stop_words_list", "bad_words_list", "return_log_probs", "return_context_logits"),
        *("return_generation_logits", "exclude_input_in_output"),
        *("return_num_input_tokens", "return_num_output_tokens"),
    }
)


class TritonPythonModel:
    """What the server calls."""

    def initialize(self, args: dict[str, Any]) -> None:
        """Load the engine; on a rank after the first, follow the first one until it ends."""
        try:
            self._load(args)
        except (BackendError, OSError) as error:
            raise serving.failure(str(error)) from None

    def _load(self, args: dict[str, Any]) -> None:
        version = os.environ.get(VERSION_VARIABLE, "")
        if version not in table.versions():
            raise BackendError(
                f"{VERSION_VARIABLE} is {version!r}: this server is every version's, and "
                "scripts/launch_triton_server.py of one of them says which it is"
            )
        self.config = tensors.Configuration(args["model_config"])
        _check_parameters(self.config, version)
        release = table.release(version)
        folder = Path(self.config.parameters["gpt_model_path"])
        directory = engine_directory.read(release, folder)
        ranks = connect()
        model = directory.load(release, ranks)
        crew = Crew(ranks.size)
        if ranks.rank > 0:
            follow(model, crew)
            raise BackendError("the first rank has ended")
        self.directory = directory
        self.flight = Flight(model, directory.limits, crew)
        self.excludes = self.config.setting("exclude_input_in_output") in _TRUE

    def execute(self, requests: list[Any]) -> list[Any] | None:
        """Answer requests in flight together; a decoupled model answers as it goes on."""
        if self.config.decoupled:
            for request in requests:
                self._stream(request)
            return None
        # All are asked before any is waited for.
        asked = [self._ask(request) for request in requests]
        return [self._answer(request, *item) for request, item in zip(requests, asked, strict=True)]

    def finalize(self) -> None:
        """Let the other ranks end."""
        flight = getattr(self, "flight", None)
        if flight is not None:
            flight.end()

    def _ask(self, request: Any) -> tuple[dict[str, Any], Future[list[Generated]] | str]:
        given: dict[str, Any] = {}
        try:
            given = tensors.of_request(request)
            if not bool(_one(given, "streaming", 0)):
                return given, self.flight.ask(job(given))
        except BackendError as error:
            return given, str(error)
        return given, "streaming is answered by a decoupled model only: decoupled_mode"

    def _answer(
        self, request: Any, given: dict[str, Any], asked: Future[list[Generated]] | str
    ) -> Any:
        if isinstance(asked, str):
            return serving.refused(asked)
        try:
            return serving.response(self.config, request, self._values(given, asked.result()))
        except Exception as error:  # noqa: BLE001 - the server goes on, and the caller hears of it
            return serving.refused(f"{type(error).__name__}: {error}")

    def _stream(self, request: Any) -> None:
        """Ask, and let the thread that computes send what comes."""
        import triton_python_backend_utils as triton  # type: ignore[import-not-found,unused-ignore]

        sender = request.get_response_sender()
        final = triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL

        def refuse(message: str) -> None:
            sender.send(serving.refused(message), flags=final)

        def on_token(token: int) -> bool:
            if request.is_cancelled():
                return False
            values = {"output_ids": [[[token]]], "sequence_length": [[1]]}
            sender.send(serving.response(self.config, request, values))
            return True

        try:
            given = tensors.of_request(request)
            streams = bool(_one(given, "streaming", 0))
            wanted = job(given)
            if streams and wanted.sampling.num_beams > 1:
                raise NotComputedError("streams of several beams", "input beam_width")
            asked = self.flight.ask(wanted, on_token if streams else None)
        except BackendError as error:
            refuse(str(error))
            return

        def done(future: Future[list[Generated]]) -> None:
            if (error := future.exception()) is not None:
                refuse(str(error))
            elif streams:
                sender.send(flags=final)
            else:
                sender.send(self._answer(request, given, future), flags=final)

        asked.add_done_callback(done)

    def _values(self, given: dict[str, Any], made: list[Generated]) -> dict[str, Any]:
        """The outputs of a whole answer; the beams are filled up to the longest."""
        excludes = bool(_one(given, "exclude_input_in_output", self.excludes))
        rows = [[*([] if excludes else one.prompt), *one.tokens] for one in made]
        longest = max(1, *map(len, rows))
        pad = int(_one(given, "end_id", 0))
        values: dict[str, Any] = {
            "output_ids": [[row + [max(pad, 0)] * (longest - len(row)) for row in rows]],
            "sequence_length": [[len(row) for row in rows]],
            "num_input_tokens": [[len(made[0].prompt)]],
            "num_output_tokens": [[len(one.tokens) for one in made]],
        }
        if bool(_one(given, "return_log_probs", 0)):
            length = max(len(one.log_probs) for one in made)
            filled = [np.pad(one.log_probs, (0, length - len(one.log_probs))) for one in made]
            values["output_log_probs"] = [filled]
            values["cum_log_probs"] = [[row.sum() for row in filled]]
        gathered = (
            ("context_logits", self.directory.gather_context, [made[0].context_logits]),
            (
                "generation_logits",
                self.directory.gather_generation,
                [[one.generation_logits for one in made]],
            ),
        )
        for name, has, logits in gathered:
            if bool(_one(given, f"return_{name}", 0)):
                if not has:
                    raise BackendError(
                        f"return_{name}: the engine was built without gathering them"
                    )
                values[name] = logits
        return values


def job(given: dict[str, Any]) -> Job:
    """What a request's tensors ask for.

    Raises:
        BackendError: something that is not computed, or impossible.
    """
    for name, values in given.items():
        if name in _READ or name in _PASSED_OVER or np.asarray(values).size == 0:
            continue
        if name not in _NEUTRAL or float(_one(given, name, 0)) not in _NEUTRAL[name]:
            raise NotComputedError(
                f"the input {name} of {np.asarray(values).tolist()}", "a request"
            )
    top_p = float(_one(given, "runtime_top_p", 0.0))
    end_id = int(_one(given, "end_id", -1))
    sampling = Sampling(
        temperature=float(_one(given, "temperature", 1.0)),
        # Neither of them is the likeliest token; top-p alone chooses among all.
        top_k=int(_one(given, "runtime_top_k", 0 if 0 < top_p < 1 else 1)),
        top_p=top_p,
        random_seed=int(_one(given, "random_seed", _one(given, "seed", 0))),
        num_beams=int(_one(given, "beam_width", 1)),
        length_penalty=float(_one(given, "len_penalty", 1.0)),
    )
    words = Words(
        *(
            tensors.word_lists(given[name]) if name in given else ()
            for name in ("stop_words_list", "bad_words_list")
        )
    )
    if sampling.num_beams > 1 and (words.stop or words.bad):
        raise NotComputedError("words that stop or are banned in a beam search", "input beam_width")
    return Job(
        prompt=[int(token) for token in given["input_ids"].reshape(-1)],
        max_tokens=int(_one(given, "request_output_len", 0)),
        end_id=None if end_id < 0 else end_id,
        sampling=sampling,
        words=words,
    )


def _one(given: dict[str, Any], name: str, default: Any) -> Any:
    """The one number of a tensor."""
    values = np.asarray(given.get(name, default)).reshape(-1)
    if values.size != 1:
        raise BackendError(f"input {name}: expected one value, found {values.tolist()}")
    return values[0]


def _check_parameters(config: tensors.Configuration, version: str) -> None:
    """Say of every parameter that is not what its table says what becomes of it.

    Raises:
        BackendError: of one that keeps the model from loading.
    """
    left = []
    for row in table.rows("placeholders", version, "tensorrt_llm"):
        for field in row["fields"]:
            name = field.removeprefix("parameters[").removesuffix("].string_value")
            if name == field or name not in config.parameters:
                continue
            value = config.parameters[name]
            if name == "gpt_model_type" and value not in row["values"]:
                raise BackendError(
                    f"Invalid gpt_model_type: {value!r}; expected one of {', '.join(row['values'])}"
                )
            if value.startswith("${"):
                left.append(name)
            elif value and not _is_kind(value, row):
                serving.warn(f"{name} is {value!r}, no {row['kind']}: {row['if_left']}")
    if left:
        serving.warn(f"not filled in, and so as the backend has them: {', '.join(left)}")


def _is_kind(text: str, row: dict[str, Any]) -> bool:
    try:
        if row["kind"] == "int":
            int(text)
        elif row["kind"] == "float":
            float(text)
        elif row["kind"] == "bool":
            return text in (*_TRUE, *_FALSE)
        elif row["kind"] == "enum":
            return text in row["values"]
    except ValueError:
        return False
    return True
