"""Provenance: who made an image or an engine, and from what, as in-toto statements.

Statement v1 of in-toto around the predicate provenance v1 of SLSA. The same content gives the same
bytes; whoever signs a statement puts it into an envelope of their own (DSSE).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import kit
from kit.digest import Digest
from kit.errors import content_error
from kit.manifests import purl

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kit.images.oci import Image
    from kit.locks.lock import Input, Lock
    from kit.manifests.record import Artifact, File, Manifest

MEDIA_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:trtllm-kit:build:1"
"""`kit build`: a stack's lock becomes an image; parameters `stack` and `arguments`."""
RUN_TYPE = "urn:trtllm-kit:run:1"
"""`kit run`: an example becomes an engine; parameters `example`, `release`, `gpus`, `only`."""
_BUILDER = "urn:trtllm-kit:kit"
_REPOSITORY = "localhost/trtllm-kit"


def of_stack(lock: Lock, image: Image) -> dict[str, Any]:
    """The statement about an image that `kit build` made from a lock with the network off."""
    labels = image.labels
    overrides = json.loads(labels.get("org.trtllm-kit.arguments", "{}"))
    subject = {
        "name": f"{_REPOSITORY}/{lock.stack}",
        "digest": {"sha256": image.manifest_digest.hex},
    }
    definition = {
        "buildType": BUILD_TYPE,
        "externalParameters": {
            "stack": lock.stack,
            "arguments": {**dict(lock.arguments), **overrides},
        },
        "internalParameters": {
            "network": "none",
            "platform": f"{image.config.get('os')}/{image.config.get('architecture')}",
            "imageId": str(image.image_id),
        },
        "resolvedDependencies": [
            _descriptor(f"lockfiles/{lock.stack}.lock.yaml", lock.digest.hex),
            _descriptor(f"lockfiles/{lock.stack}.yaml", lock.intent.hex),
            *(_input(item) for item in lock.inputs),
        ],
    }
    return _statement([subject], definition, {"builder": _builder({})})


def of_run(manifest: Manifest) -> dict[str, Any]:
    """The statement about the engine that a run made, or about its outputs if it made none.

    Raises:
        KitError: the run left no file at all, so that there is nothing to speak of (exit 4).
    """
    made = manifest.select("engine") or manifest.select("checkpoint") or manifest.select("output")
    if not made:
        raise content_error(f"{manifest.example.name}: the run has left no file to speak of")
    others = [item for item in manifest.artifacts if item not in made]
    external: dict[str, Any] = {
        "example": manifest.example.name,
        "release": manifest.release,
        "gpus": manifest.gpus,
    }
    if manifest.only:
        external["only"] = list(manifest.only)
    image = manifest.image.manifest_digest
    definition = {
        "buildType": RUN_TYPE,
        "externalParameters": external,
        "internalParameters": {
            "network": "none",
            "commands": [
                {
                    "name": command.name,
                    "argv": list(command.argv),
                    "cwd": command.cwd,
                    "env": command.env,
                    "mpiRanks": command.mpi_ranks,
                }
                for command in manifest.commands
            ],
            "host": {
                "architecture": manifest.host.architecture,
                "gpus": [gpu.name for gpu in manifest.host.gpus],
                "driver": manifest.host.driver,
            },
        },
        "resolvedDependencies": [
            {
                "uri": purl.oci(f"{_REPOSITORY}/{manifest.stack}", image),
                "digest": {"sha256": image.removeprefix("sha256:")},
            },
            _descriptor(f"lockfiles/{manifest.stack}.lock.yaml", manifest.lock[len("sha256:") :]),
            _descriptor(
                f"recipe/{manifest.example.name}", manifest.example.digest[len("sha256:") :]
            ),
            *(_descriptor(f"model/{file.path}", file.sha256) for file in manifest.model.files),
            *(
                _descriptor(f"dataset/{file.path}", file.sha256)
                for file in (manifest.dataset.files if manifest.dataset else ())
            ),
        ],
    }
    container = {manifest.engine.name: manifest.engine.version}
    details = {
        "builder": _builder(container, manifest.kit.version),
        "metadata": {
            "invocationId": str(Digest.of_document(manifest.to_dict())),
            "startedOn": manifest.created,
        },
        "byproducts": [
            *(_descriptor(log.path, log.sha256) for item in manifest.commands for log in item.logs),
            *_files(others),
        ],
    }
    return _statement(_files(made), definition, details)


def _statement(
    subjects: list[dict[str, Any]], definition: dict[str, Any], details: dict[str, Any]
) -> dict[str, Any]:
    return {
        "_type": STATEMENT,
        "subject": subjects,
        "predicateType": PREDICATE,
        "predicate": {"buildDefinition": definition, "runDetails": details},
    }


def _builder(others: Mapping[str, str], version: str = kit.__version__) -> dict[str, Any]:
    return {"id": _BUILDER, "version": {"trtllm-kit": version, **others}}


def _input(item: Input) -> dict[str, Any]:
    described = _descriptor(f"{item.kind}/{item.group}/{item.file}", item.sha256.hex)
    address = purl.of_input(item) if item.kind != "oci" else None
    if address is None and "://" in item.location:
        address = item.location
    if address is not None:
        described = {"uri": address, **described}
    if item.kind == "git":
        described["digest"]["gitCommit"] = item.version
    return described


def _files(files: Iterable[Artifact | File]) -> list[dict[str, Any]]:
    return [_descriptor(file.path, file.sha256) for file in files]


def _descriptor(name: str, sha256: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": sha256}}
