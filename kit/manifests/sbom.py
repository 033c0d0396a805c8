"""Bills of materials in CycloneDX 1.6: of a stack's image, and of the engine that a run made.

The same content gives the same bytes: no clock, no random number.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import kit
from kit.digest import Digest
from kit.manifests import components, purl
from kit.manifests.components import properties

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kit.images.oci import Image
    from kit.locks.lock import Lock
    from kit.manifests.record import Manifest

MEDIA_TYPE = "application/vnd.cyclonedx+json"
_FORMAT = "1.6"
_REPOSITORY = "localhost/trtllm-kit"


def of_stack(lock: Lock, image: Image | None = None) -> dict[str, Any]:
    """All that an image is made of: what its lock pins, and the packages that are found in it.

    Args:
        lock: of the stack.
        image: of a layout; with it, what is installed comes in, and inputs that were only needed to
            build it get the scope `excluded`.

    Raises:
        KitError: a layer is damaged (exit 4), or compressed by what the kit does not read (exit 3).
    """
    found = components.of_inputs(lock.inputs)
    top: dict[str, Any] = {
        "type": "container",
        "bom-ref": f"stack:{lock.stack}",
        "name": lock.stack,
    }
    created = None
    if image is not None:
        digest = str(image.manifest_digest)
        top |= {
            "version": digest,
            "purl": purl.oci(f"{_REPOSITORY}/{lock.stack}", digest),
            "hashes": [{"alg": "SHA-256", "content": image.manifest_digest.hex}],
        }
        created = image.config.get("created")
        found = _joined(found, components.of_image(image))
    top["properties"] = properties(
        lock=str(lock.digest),
        intent=str(lock.intent),
        unresolved=str(len(lock.unresolved)) if lock.unresolved else None,
    )
    return _document(top, found, {}, created)


def of_run(manifest: Manifest) -> dict[str, Any]:
    """All that an engine is made of: the model, the data, the image and the packages in it."""
    image_ref, engine_ref = f"image:{manifest.stack}", f"engine:{manifest.example.name}"
    image = manifest.image.manifest_digest
    engine = {
        "type": "machine-learning-model",
        "bom-ref": engine_ref,
        "name": f"{manifest.example.name} engine",
        "version": manifest.release,
        "description": f"Engine of {manifest.model.name} for TensorRT-LLM {manifest.release}",
        "components": components.of_artifacts(engine_ref, manifest.select("engine")),
        "properties": properties(
            example=manifest.example.digest,
            lock=manifest.lock,
            tensorrt=manifest.versions.tensorrt,
            cuda=manifest.versions.cuda,
        ),
    }
    model = components.of_model(manifest.model.name, manifest.model.files)
    inside = [
        {"type": "library", "bom-ref": address, "name": name, "version": version, "purl": address}
        for name, version in sorted(manifest.versions.distributions.items())
        for address in [purl.pypi(name, version)]
    ]
    container = {
        "type": "container",
        "bom-ref": image_ref,
        "name": manifest.stack,
        "version": image,
        "purl": purl.oci(f"{_REPOSITORY}/{manifest.stack}", image),
        "hashes": [{"alg": "SHA-256", "content": image.removeprefix("sha256:")}],
        "components": inside,
    }
    parts = [model, container]
    if manifest.dataset is not None:
        parts.append(components.of_model(manifest.dataset.name, manifest.dataset.files, "data"))
    below = {image_ref: [row["bom-ref"] for row in inside]}
    return _document(engine, parts, below, manifest.created)


def _joined(pinned: list[dict[str, Any]], installed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for a package that is pinned and installed, and where it is then."""
    places = {_bare(row["purl"]): row for row in installed}
    found = []
    for row in pinned:
        more: dict[str, Any] = {}
        if (there := places.pop(_bare(row.get("purl", "")), None)) is not None:
            more = {"scope": "required", "evidence": there["evidence"]}
        elif row["type"] == "library":
            more = {"scope": "excluded"}
        found.append({**row, **more})
    return [*found, *({**row, "scope": "required"} for row in places.values())]


def _bare(address: str) -> str:
    """Without vendor and file name: a security update is one of the same package."""
    name = address.partition("?")[0]
    return "pkg:deb/" + name.rpartition("/")[2] if name.startswith("pkg:deb/") else name


def _document(
    top: dict[str, Any],
    parts: list[dict[str, Any]],
    below: Mapping[str, list[str]],
    created: str | None,
) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "tools": {
            "components": [
                {"type": "application", "name": "trtllm-kit", "version": kit.__version__}
            ]
        },
        "component": top,
    }
    if created:
        metadata["timestamp"] = created
    uses = {top["bom-ref"]: [row["bom-ref"] for row in parts], **below}
    content = {
        "metadata": metadata,
        "components": parts,
        "dependencies": [{"ref": ref, "dependsOn": _once(used)} for ref, used in uses.items()],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, str(Digest.of_document(content)))
    head = {
        "bomFormat": "CycloneDX",
        "specVersion": _FORMAT,
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
    }
    return {**head, **content}


def _once(refs: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(refs))
