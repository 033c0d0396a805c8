"""CycloneDX components: inputs of a lock, packages of an image, files of a model."""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING, Any

import kit
from kit.artifacts import layers, software, stored
from kit.artifacts.tar import Limit
from kit.artifacts.tree import Tree
from kit.files import write_json
from kit.manifests import purl

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from kit.images.oci import Image
    from kit.locks.lock import Input
    from kit.manifests.record import Artifact, File

PREFIX = "trtllm-kit:"
"""Of properties that CycloneDX has no field for."""
_ONE = {"deb": "library", "wheel": "library", "sdist": "library", "git": "library"}
_STATUS = re.compile(r"^(Package|Status|Version|Architecture): *(\S.*?)\s*$", re.MULTILINE)
_ID = re.compile(r'^ID="?([a-z0-9._-]+)"?\s*$', re.MULTILINE)
_DIST_INFO = ("dist-info", "egg-info", "METADATA", "PKG-INFO")


def of_inputs(inputs: Iterable[Input]) -> list[dict[str, Any]]:
    """What a lock pins, one component each; files of one model and blobs of one image together."""
    found: list[dict[str, Any]] = []
    whole: dict[tuple[str, str, str, str], dict[str, Any]] = {}
    for item in inputs:
        if item.kind not in ("model", "oci"):
            found.append(_single(item))
            continue
        key = (item.kind, item.group, item.location.partition("@")[0], item.version)
        if key not in whole:
            whole[key] = _gathered(item)
            found.append(whole[key])
        whole[key]["components"].append(
            _file(whole[key]["bom-ref"], item.file, item.sha256.hex, item.size)
        )
    return found


def of_model(
    name: str, files: Iterable[File], kind: str = "machine-learning-model"
) -> dict[str, Any]:
    """A model, or a data set, by its files."""
    ref = f"{kind}:{name}"
    below = [_file(ref, file.path, file.sha256, file.size) for file in files]
    return {"type": kind, "bom-ref": ref, "name": name, "components": below}


def of_artifacts(parent: str, artifacts: Iterable[Artifact]) -> list[dict[str, Any]]:
    """Files that a run has made."""
    return [_file(parent, item.path, item.sha256, item.size) for item in artifacts]


def of_image(image: Image) -> list[dict[str, Any]]:
    """The packages inside an image: dpkg's status and the metadata of Python distributions.

    Nothing is unpacked or run; a file that no package manager knows of is in no list. What was
    found is kept beside the image: NVIDIA's have gigabytes of compressed layers to read through.

    Raises:
        KitError: a layer is damaged (exit 4), or compressed by what the kit does not read (exit 3).
    """
    kept = image.layout.root / "packages" / f"{image.manifest_digest.hex}.json"
    if (known := _known(kept)) is not None:
        return known
    found = _packages(image)
    write_json(kept, {"kit": kit.__version__, "packages": found})
    return found


def _known(path: Path) -> list[dict[str, Any]] | None:
    """What this version of the kit has found before; None if it has not looked yet."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        content: Any = json.loads(path.read_bytes())
        if content["kit"] == kit.__version__ and all("purl" in row for row in content["packages"]):
            found: list[dict[str, Any]] = content["packages"]
            return found
    return None


def _packages(image: Image) -> list[dict[str, Any]]:
    digest = str(image.manifest_digest)
    limit, tree = Limit(), Tree()
    for number, region in enumerate(stored.look(image.layout.root, digest).layers, 1):
        where = f"{digest}: layer {number}"
        tree.add_layer(layers.of_region(region, where, limit), where)
    entries = list(tree.entries())
    vendor = purl.DEBIAN
    statuses: list[tuple[str, str]] = []
    for path, entry in entries:
        if entry is None or entry.content is None:
            continue
        text = entry.content.decode("utf-8", "replace")
        if path.endswith("/os-release") and (match := _ID.search(text)):
            vendor = match[1]
        elif path.startswith("var/lib/dpkg/status"):
            statuses.append((path, text))
    found = {
        component["purl"]: component
        for path, text in statuses
        for component in _debs(text, f"/{path}", vendor)
    }
    for seen in software.observations(entries):
        if seen.version is not None and seen.how in _DIST_INFO:
            address = purl.pypi(seen.component, seen.version)
            name = seen.component.replace("_", "-")
            found.setdefault(address, _installed(name, seen.version, address, seen.where))
    return list(found.values())


def properties(**values: str | None) -> list[dict[str, str]]:
    """Properties with the kit's prefix; those without a value are left out."""
    return [{"name": f"{PREFIX}{name}", "value": value} for name, value in values.items() if value]


def _debs(status: str, where: str, vendor: str) -> Iterator[dict[str, Any]]:
    for stanza in status.split("\n\n"):
        fields = dict(_STATUS.findall(stanza))
        name, version = fields.get("Package"), fields.get("Version")
        if not name or not version:
            continue
        if fields.get("Status", "installed").split()[-1] == "installed":
            address = purl.deb(vendor, name, version, fields.get("Architecture"))
            yield _installed(name, version, address, where)


def _installed(name: str, version: str, address: str, where: str) -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": f"installed:{address}",
        "name": name,
        "version": version,
        "purl": address,
        "evidence": {"occurrences": [{"location": where}]},
    }


def _single(item: Input) -> dict[str, Any]:
    address = purl.of_input(item)
    component: dict[str, Any] = {
        "type": _ONE.get(item.kind, "file"),
        "bom-ref": f"{item.kind}:{item.group}/{item.file}",
        "name": item.name,
        "hashes": _hashes(item.sha256.hex),
        "properties": properties(
            kind=item.kind, group=item.group, file=item.file, size=str(item.size)
        ),
    }
    if item.version:
        component["version"] = item.version
    if address:
        component["purl"] = address
    if "://" in item.location:
        kind = "vcs" if item.kind in ("git", "lfs") else "distribution"
        component["externalReferences"] = [{"type": kind, "url": item.location}]
    return component


def _gathered(item: Input) -> dict[str, Any]:
    """The model or image that a file or blob belongs to."""
    is_model = item.kind == "model"
    component: dict[str, Any] = {
        "type": "machine-learning-model" if is_model else "container",
        "bom-ref": f"{item.kind}:{item.group}",
        "name": item.group if is_model else item.location.removeprefix("oci:"),
        "components": [],
        "properties": properties(kind=item.kind, group=item.group, location=item.location),
    }
    if item.version:
        component["version"] = item.version
    if address := purl.of_input(item):
        component["purl"] = address
    if not is_model and item.version.startswith("sha256:"):
        component["hashes"] = _hashes(item.version.removeprefix("sha256:"))
    return component


def _file(parent: str, path: str, sha256: str, size: int) -> dict[str, Any]:
    return {
        "type": "file",
        "bom-ref": f"{parent}/{path}",
        "name": path,
        "hashes": _hashes(sha256),
        "properties": properties(size=str(size)),
    }


def _hashes(sha256: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": sha256}]
