"""Triton over an engine: the model repository of a release's backend, and the server.

Names, defaults and what happens to those left out are of the backend's own templates
(triton-inference-server/tensorrtllm_backend all_models/inflight_batcher_llm and scripts/ at each
release's tag, NVIDIA/TensorRT-LLM triton_backend/ from 0.20.0 on, read in the containers there).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from kit.data import releases
from kit.data import triton as containers
from kit.examples import layout
from kit.examples.tasks import Triton
from kit.examples.words import Script, Words, spelled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kit.examples.recipe import Recipe

FAMILY = "inflight_batcher_llm"
"""The models that serve one engine."""
REPOSITORY = f"{layout.OUTPUT}/repository"
"""Triton's model repository."""
MODELS = ("preprocessing", "tensorrt_llm", "postprocessing", "ensemble", "tensorrt_llm_bls")

_BACKEND = "/tensorrtllm_backend"
"""Where the documents mount a checkout of the backend at the release's tag, up to 0.19.0."""
_APP = "/app"
"""Where the containers have it from then on."""
_MOVED = "0.20.0"


class Serving(NamedTuple):
    """One step in Triton's container."""

    name: str
    argv: tuple[str, ...]
    produces: tuple[str, ...]
    cwd: str
    image: str


_BATCH = Words("triton_max_batch_size:{max_batch_size}", since="0.6.0")
_INSTANCES = {"instances": (None,)}
_LOGITS = Words("logits_datatype:TYPE_FP32", since="0.17.0")
_TOKENIZER = (
    Words("tokenizer_dir:{model}"),
    # A model of LLaMA has a slow tokenizer of its own there.
    Words("tokenizer_type:llama", before="0.9.0", when={"family": ("llama",)}),
    Words("tokenizer_type:auto", before="0.9.0", when={"family": ("gpt",)}),
)

# Everything that a model does not load without, and what a recipe may ask for.
_FILLED: dict[str, tuple[Words, ...]] = {
    "preprocessing": (
        _BATCH,
        *_TOKENIZER,
        Words("preprocessing_instance_count:1", since="0.7.0", when=_INSTANCES),
        Words("preprocessing_instance_count:{instances}", since="0.7.0", unless=_INSTANCES),
        Words("max_queue_delay_microseconds:0 max_queue_size:0", since="0.19.0"),
    ),
    "tensorrt_llm": (
        Words("triton_backend:tensorrtllm", since="0.10.0"),
        _BATCH,
        Words("decoupled_mode:{decoupled}", unless={"decoupled": (None,)}),
        Words("decoupled_mode:false", when={"decoupled": (None,)}),
        Words("max_queue_delay_microseconds:0", since="0.6.0", when={"max_queue_delay": (None,)}),
        Words(
            "max_queue_delay_microseconds:{max_queue_delay}",
            since="0.6.0",
            unless={"max_queue_delay": (None,)},
        ),
        Words("max_queue_size:0", since="0.12.0"),
        Words("encoder_input_features_data_type:TYPE_FP16", since="0.15.0"),
        _LOGITS,
        Words("prompt_embedding_table_data_type:TYPE_FP16", since="1.1.0"),
        Words(
            "batching_strategy:inflight_fused_batching",
            since="0.6.0",
            when={"batching": (None, "inflight")},
        ),
        # 0.5.0 has no choice: its template says in flight.
        Words("", before="0.6.0", when={"batching": ("inflight",)}),
        Words("batching_strategy:V1", since="0.6.0", when={"batching": ("static",)}),
        Words("batch_scheduler_policy:guaranteed_no_evict"),
        Words("max_beam_width:{max_beam_width}", since="0.6.0", unless={"max_beam_width": (None,)}),
        Words("engine_dir:{engine}"),
        Words(
            "kv_cache_free_gpu_mem_fraction:{kv_cache_fraction}",
            unless={"kv_cache_fraction": (None,)},
        ),
        Words(
            "max_tokens_in_paged_kv_cache:{max_tokens_in_cache}",
            unless={"max_tokens_in_cache": (None,)},
        ),
        Words(
            "enable_kv_cache_reuse:{kv_cache_reuse}",
            since="0.7.0",
            unless={"kv_cache_reuse": (None,)},
        ),
    ),
    "postprocessing": (
        _BATCH,
        *_TOKENIZER,
        Words("postprocessing_instance_count:1", since="0.7.0", when=_INSTANCES),
        Words("postprocessing_instance_count:{instances}", since="0.7.0", unless=_INSTANCES),
    ),
    "ensemble": (_BATCH, _LOGITS),
    "tensorrt_llm_bls": (
        Words("triton_max_batch_size:{max_batch_size}", since="0.7.0"),
        Words("decoupled_mode:{decoupled}", since="0.7.0", unless={"decoupled": (None,)}),
        Words("decoupled_mode:false", since="0.7.0", when={"decoupled": (None,)}),
        Words("bls_instance_count:1 accumulate_tokens:false", since="0.7.0"),
        Words("tensorrt_llm_model_name:tensorrt_llm", since="0.9.0"),
        _LOGITS,
    ),
}
_LAUNCH = (
    Words("python3 {root}/scripts/launch_triton_server.py"),
    # It starts MPI itself.
    Words(f"--world_size {{ranks}} --model_repo {REPOSITORY}"),
    Words("--http_port {http_port}", since="0.7.0", unless={"http_port": (None,)}),
    Words("--grpc_port {grpc_port}", since="0.7.0", unless={"grpc_port": (None,)}),
    Words("--metrics_port {metrics_port}", since="0.7.0", unless={"metrics_port": (None,)}),
)


def refusal(recipe: Recipe, release: str) -> str | None:
    """Why that release cannot serve the recipe; None where it can."""
    if not containers.shipping(release):
        return f"no Triton container with release {release} is known"
    chosen = _settings(recipe)
    scripts = tuple(Script(name, rows) for name, rows in (*_FILLED.items(), ("serve", _LAUNCH)))
    for name, value in _asked(recipe).items():
        if value is not None and not spelled(scripts, name, release, chosen):
            return f"the Triton backend of release {release} has no setting for {name}: {value}"
    return None


def steps(recipe: Recipe, release: str, root: str | None = None) -> list[Serving]:
    """Copy the release's templates, fill them in, start the server; of a release that can.

    `root` is where the container has the backend's tools and templates, if not where the release's
    documents say.
    """
    return written(_settings(recipe), release, root)


def written(settings: Mapping[str, Any], release: str, root: str | None = None) -> list[Serving]:
    """The same for settings as `unset` has them, with values in place of some None."""
    # Any of them has the release; the first was made for it.
    image = containers.image(containers.shipping(release)[0])
    documented = _BACKEND if releases.between(release, None, _MOVED) else _APP
    root = root or documented
    templates = f"{root}/all_models/{FAMILY}"
    found = [Serving("repository", ("cp", "-R", templates, REPOSITORY), (REPOSITORY,), "/", image)]
    for name, values in filled(settings, release).items():
        if values:
            found.append(fill(name, values, root, image))
    launch = Script("serve", _LAUNCH).argv(release, {**settings, "root": root})
    found.append(Serving("serve", launch, (), "/", image))
    return found


def filled(settings: Mapping[str, Any], release: str) -> dict[str, tuple[str, ...]]:
    """What is filled in of every model: `name:value`."""
    return {name: Script(name, rows).argv(release, settings) for name, rows in _FILLED.items()}


def fill(model: str, values: Sequence[str], root: str, image: str) -> Serving:
    """The step that fills in a model."""
    config = f"{REPOSITORY}/{model}/config.pbtxt"
    argv = ("python3", f"{root}/tools/fill_template.py", "-i", config, ",".join(values))
    return Serving(f"fill-{model}", argv, (config,), "/", image)


def unset() -> dict[str, Any]:
    """Every setting of a server, none of them made."""
    return asdict(Triton())


def _asked(recipe: Recipe) -> dict[str, Any]:
    assert recipe.serve is not None
    values = asdict(recipe.serve.triton)
    return {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in values.items()
    }


def _settings(recipe: Recipe) -> dict[str, Any]:
    return {
        **_asked(recipe),
        "family": recipe.family,
        "model": layout.MODEL,
        "engine": layout.ENGINE,
        "max_batch_size": recipe.build.max_batch_size,
        "max_beam_width": recipe.options.max_beam_width,
        "ranks": recipe.world_size,
    }
