"""In what two runs differ, and in what they could not but differ."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kit import console

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kit.manifests.record import Manifest

COUNTED = (
    "example",
    "release",
    "stack",
    "lock",
    "image",
    "versions",
    "gpus",
    "model",
    "dataset",
    "commands",
    "checkpoint",
    "engine",
    "output",
    "outputs",
    "server",
    "evaluations",
)
"""The parts whose differences count, in the order in which one causes the next."""

VOLATILE = ("created", "kit", "container engine", "host", "measurements", "logs", "cache")
"""The parts that differ between any two runs or hosts: shown apart, never counted."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that is not the same; None stands for absent."""

    part: str
    key: str
    first: Any
    second: Any

    @property
    def name(self) -> str:
        """Part and key together."""
        return f"{self.part} {self.key}".rstrip()

    def to_dict(self) -> dict[str, Any]:
        """A row of the JSON envelope."""
        return {"name": self.name, **asdict(self)}

    def __str__(self) -> str:
        return f"{self.name}: {_shown(self.first)} → {_shown(self.second)}"


@dataclass(frozen=True, slots=True)
class Diff:
    """The differences of two manifests; `ok` when none counts."""

    differences: tuple[Difference, ...]
    volatile: tuple[Difference, ...]

    @property
    def ok(self) -> bool:
        """The two runs had the same inputs and the same results."""
        return not self.differences

    def to_dict(self) -> dict[str, Any]:
        """The content of the JSON envelope."""
        return {
            "differences": [item.to_dict() for item in self.differences],
            "volatile": [item.to_dict() for item in self.volatile],
        }

    def text(self) -> str:
        """For people: what counts first, part by part."""
        lines = [str(difference) for difference in self.differences]
        if not lines:
            lines = ["same inputs, commands and results"]
        if self.volatile:
            lines += ["", "not counted (differs from run to run, or from host to host):"]
            lines += [f"  {difference}" for difference in self.volatile]
        return "\n".join(lines)


def diff(first: Manifest, second: Manifest) -> Diff:
    """Compare two manifests value by value."""
    one, other = _parts(first), _parts(second)
    return Diff(
        tuple(item for part in COUNTED for item in _compare(part, one[part], other[part])),
        tuple(item for part in VOLATILE for item in _compare(part, one[part], other[part])),
    )


def show(manifest: Manifest) -> str:
    """A manifest as readable text."""
    host = manifest.host
    present = ", ".join(gpu.name for gpu in host.gpus) or "none"
    memory = console.size(host.memory_bytes)
    model_size = console.size(sum(file.size for file in manifest.model.files))
    lines = [
        f"{manifest.example.name} with TensorRT-LLM {manifest.release}, {manifest.created}",
        f"  stack    {manifest.stack}",
        f"  lock     {manifest.lock}",
        f"  image    {manifest.image.manifest_digest}",
        f"  engine   {manifest.engine.name} {manifest.engine.version}",
        f"  host     {host.os}, {host.kernel}, {host.cores} cores, {memory}, GPUs: {present}",
        f"  gpus     {manifest.gpus}",
        f"  model    {manifest.model.name}, {len(manifest.model.files)} files, {model_size}",
        f"  kit      {manifest.kit.version}",
        *(
            f"  taken    {command.name} from {command.reused_from}"
            for command in manifest.commands
            if command.reused_from is not None
        ),
        "",
        console.table(
            [
                [
                    command.name,
                    str(command.mpi_ranks),
                    f"{command.seconds:.2f}",
                    console.size(command.peak_memory_bytes),
                    " ".join(command.argv),
                ]
                for command in manifest.commands
            ],
            ["STEP", "RANKS", "SECONDS", "MEMORY", "COMMAND"],
        ),
        "",
        console.table(
            [[item.path, console.size(item.size), item.sha256] for item in manifest.artifacts],
            ["FILE", "SIZE", "SHA256"],
        ),
    ]
    for output in manifest.outputs:
        answer = " ".join(map(str, output.token_ids)) if output.text is None else repr(output.text)
        lines += ["", f"{output.prompt!r} → {answer}"]
    if (server := manifest.server) is not None and server.version is not None:
        ready = ", ".join(model.name for model in server.models if model.ready)
        lines += ["", f"{server.name} {server.version} of {server.stack}, ready: {ready}"]
        lines += [f"{answer.prompt!r} → {answer.text!r}" for answer in server.answers]
    lines += ["", *map(str, manifest.evaluations)] if manifest.evaluations else []
    return "\n".join(lines)


def _parts(manifest: Manifest) -> dict[str, dict[str, Any]]:
    content = manifest.to_dict()
    versions = content["versions"]
    commands = manifest.commands
    return {
        "example": content["example"],
        "release": {"": manifest.release},
        "stack": {"": manifest.stack},
        "lock": {"": manifest.lock},
        "image": content["image"],
        "versions": {**versions.pop("distributions"), **versions},
        "gpus": {"": manifest.gpus},
        "model": {"name": manifest.model.name}
        | {file.path: file.sha256 for file in manifest.model.files},
        "commands": {
            f"{command.name} {key}": value
            for command in commands
            for key, value in (
                ("argv", list(command.argv)),
                ("cwd", command.cwd),
                ("env", command.env),
                ("path", command.path),
                ("ranks", command.mpi_ranks),
                ("exit code", command.exit_code),
            )
        },
        "checkpoint": {item.path: item.sha256 for item in manifest.select("checkpoint")},
        "engine": {item.path: item.sha256 for item in manifest.select("engine")},
        "output": {item.path: item.sha256 for item in manifest.select("output")},
        "outputs": {
            item.prompt: {"token_ids": list(item.token_ids), "text": item.text}
            for item in manifest.outputs
        },
        "server": _server(manifest),
        "dataset": {file.path: file.sha256 for file in manifest.dataset.files}
        if manifest.dataset
        else {},
        "evaluations": {
            f"{item.step} {item.subject} {item.metric}": item.value for item in manifest.evaluations
        },
        "created": {"": manifest.created},
        "kit": content["kit"],
        "container engine": content["engine"],
        "host": content["host"],
        "measurements": {
            f"{command.name} {key}": value
            for command in commands
            for key, value in (
                ("seconds", command.seconds),
                ("peak memory", command.peak_memory_bytes),
            )
        },
        "logs": {command.log.path: command.log.sha256 for command in commands},
        "cache": {item.path: item.sha256 for item in manifest.select("cache")},
    }


def _server(manifest: Manifest) -> dict[str, Any]:
    server = manifest.server
    if server is None:
        return {}
    return {
        "stack": server.stack,
        "image": server.image.manifest_digest,
        "version": server.version,
        **{f"model {model.name}": f"{model.version} {model.state}" for model in server.models},
        **{f"answer to {answer.prompt!r}": answer.text for answer in server.answers},
    }


def _compare(part: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> list[Difference]:
    return [
        Difference(part, key, one.get(key), other.get(key))
        for key in sorted({*one, *other})
        if one.get(key) != other.get(key)
    ]


def _shown(value: Any) -> str:
    return "absent" if value is None else str(value)
