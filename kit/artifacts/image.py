"""What is inside an image: its configuration, its layers, and what it says itself if it can run.

Nothing is extracted and nothing pulled. Of layers that are plain tar archives the headers are read
and a few small files; gzip has to be unpacked from end to end.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit import console
from kit.artifacts import bounded, layers, settings, software, stored
from kit.artifacts.tar import Limit
from kit.artifacts.tree import Tree
from kit.compat import image as probing
from kit.console import visible
from kit.digest import Digest
from kit.errors import KitError, content_error, environment_error, usage_error
from kit.files import disk_errors, free_bytes, make_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kit.artifacts.tar import Member
    from kit.images.engine import Engine
    from kit.observation import Observation
    from kit.project import Project


_OBSERVATIONS_LIMIT = 50_000
"""Large images have some thousand; each takes a kilobyte until it is told."""


@dataclass(frozen=True, slots=True)
class ImageContents:
    """What was found in an image.

    Attributes:
        reference: as it was asked for.
        manifest_digest: None where nothing has one: `docker save`, images Docker built itself.
        image_id: the digest of the configuration.
        architecture: as images call it: `amd64`, `arm64`.
        os: `linux`.
        size: bytes of the layers, as they are stored.
        layers: how many.
        environment: the variables that steer what runs; no secrets.
        labels: of NVIDIA, of the OCI, of the kit.
        observations: what the probe says first, then configuration and layers; a component stands
            several times where several places name it.
        probed: the probe's answer, see `kit.compat.probe`; None if it did not run.
        unprobed: why not; empty otherwise.
    """

    reference: str
    manifest_digest: str | None
    image_id: str
    architecture: str
    os: str
    size: int
    layers: int
    environment: dict[str, str]
    labels: dict[str, str]
    observations: tuple[Observation, ...]
    probed: dict[str, Any] | None
    unprobed: str

    def versions(self, component: str) -> tuple[str, ...]:
        """The distinct versions of a component, the probe's first."""
        found = (item.version for item in self.observations if item.component == component)
        return tuple(dict.fromkeys(version for version in found if version is not None))

    def installs(self, component: str) -> tuple[Observation, ...]:
        """Its libraries that are real files, one for each folder: two are two installations."""
        found: dict[str, Observation] = {}
        for item in self.observations:
            if item.component == component and item.how.startswith(software.LIBRARY):
                found.setdefault(item.where.rpartition("/")[0], item)
        return tuple(found.values())


@dataclass(frozen=True, slots=True)
class _Opened:
    """An image that was found, its layers not yet read."""

    manifest_digest: Digest | None
    image_id: Digest
    config: dict[str, Any]
    size: int
    layers: tuple[Iterable[Member], ...]


def look(reference: str, project: Project, *, probe: bool = True) -> ImageContents:
    """Look into an image.

    Args:
        reference: an OCI layout's folder, an OCI or `docker save` archive, each also with `:NAME`
            or `@sha256:…` for one of several images in it; or an image that the engine has.
        project: whose home keeps the probe's answers, and has room for what an engine saves.
        probe: run the probe too, if the engine has the image; an earlier answer is used anyway.

    Raises:
        KitError: no such image (exit 2), no engine, no room, a compression that is not read
            (exit 3), damaged or hostile (exit 4).
    """
    with contextlib.ExitStack() as stack:
        limit = Limit()
        engine: Engine | None = None
        if (place := stored.split(reference)) is not None:
            opened = _from_disk(*place, limit)
        else:
            engine = _having(reference, project)
            opened = _from_engine(engine, reference, project, limit, stack)
        tree = Tree()
        for number, layer in enumerate(opened.layers, 1):
            tree.add_layer(layer, f"{reference}: layer {number}")
        found = [
            *settings.observations(opened.config),
            *map(_visible, _counted(software.observations(tree.entries()), reference)),
        ]
    architecture = bounded.text(opened.config, "architecture") or "unknown"
    probed, unprobed = _probed(opened, architecture, engine, project, reference, probe)
    return ImageContents(
        reference=reference,
        manifest_digest=str(opened.manifest_digest) if opened.manifest_digest else None,
        image_id=str(opened.image_id),
        architecture=architecture,
        os=bounded.text(opened.config, "os") or "unknown",
        size=opened.size,
        layers=len(opened.layers),
        environment=settings.environment(opened.config),
        labels=settings.labels(opened.config),
        observations=(*map(_visible, probing.observations(probed) if probed else ()), *found),
        probed=probed,
        unprobed=unprobed,
    )


def _counted(found: Iterable[Observation], where: str) -> Iterator[Observation]:
    for count, item in enumerate(found):
        if count >= _OBSERVATIONS_LIMIT:
            raise content_error(f"{where}: more than {_OBSERVATIONS_LIMIT} versions in one image")
        yield item


def _visible(item: Observation) -> Observation:
    version = None if item.version is None else visible(item.version)
    return replace(
        item,
        component=visible(item.component),
        version=version,
        where=visible(item.where),
    )


def _from_disk(path: Path, name: str | None, limit: Limit) -> _Opened:
    image = stored.look(path, name)
    return _Opened(image.manifest_digest, image.image_id, image.config, image.size,
                   tuple(_regions(image, str(path), limit)))  # fmt: skip


def _regions(image: stored.StoredImage, where: str, limit: Limit) -> Iterator[Iterable[Member]]:
    count = len(image.layers)
    for number, region in enumerate(image.layers, 1):
        yield layers.of_region(region, f"{where}: layer {number} of {count}", limit)


def _having(reference: str, project: Project) -> Engine:
    from kit.images import select

    if "/" in reference[:2] or reference.endswith((".tar", ".tar.gz", ".tgz")):
        raise usage_error(f"{reference}: there is no such file, and no layout in such a folder")
    engine = select(project.home)
    if reference.startswith("-") or not engine.has(reference):
        raise usage_error(
            f"{reference}: neither a file nor an image that {engine.name} has; kit pulls nothing",
            hint=f"{engine.name} images",
        )
    return engine


def _from_engine(
    engine: Engine, reference: str, project: Project, limit: Limit, stack: contextlib.ExitStack
) -> _Opened:
    inspected = engine.inspect(reference)
    folders = _overlay_folders(inspected)
    digest = _manifest_digest(inspected)
    if folders is None:
        saved = _save(engine, reference, inspected, project, stack)
        image = stored.look(saved, None)
        where = f"{engine.name}: {reference}"
        regions = tuple(_regions(image, where, limit))
        return _Opened(digest, image.image_id, image.config, image.size, regions)
    return _Opened(
        digest,
        Digest.parse(str(inspected["Id"])),
        {
            "architecture": inspected.get("Architecture"),
            "os": inspected.get("Os"),
            "config": inspected.get("Config"),
        },
        bounded.count(inspected, "Size") or 0,
        tuple(layers.of_folder(folder, limit) for folder in folders),
    )


def _manifest_digest(inspected: dict[str, Any]) -> Digest | None:
    """Podman says it; Docker knows it of images that came from a registry."""
    told = [bounded.text(inspected, "Digest") or ""]
    told += [text.rpartition("@")[2] for text in bounded.texts(inspected, "RepoDigests")]
    for text in told:
        with contextlib.suppress(ValueError):
            return Digest.parse(text)
    return None


def _overlay_folders(inspected: dict[str, Any]) -> list[Path] | None:
    """The layers' folders in the engine's storage, base first; None if they may not be read."""
    driver = bounded.mapping(inspected, "GraphDriver")
    data = bounded.mapping(driver, "Data")
    upper, lower = data.get("UpperDir"), data.get("LowerDir")
    if driver.get("Name") not in ("overlay", "overlay2") or not isinstance(upper, str):
        return None
    names = [upper, *(lower.split(":") if isinstance(lower, str) and lower else ())]
    folders = [Path(name) for name in reversed(names)]
    count = len(bounded.texts(inspected, "RootFS", "Layers"))
    can = all(os.access(folder, os.R_OK | os.X_OK) for folder in folders)
    # As another user than root, a folder inside may be closed, and would be passed over.
    return folders if can and len(folders) == count and os.geteuid() == 0 else None


def _save(
    engine: Engine,
    reference: str,
    inspected: dict[str, Any],
    project: Project,
    stack: contextlib.ExitStack,
) -> Path:
    """Let the engine save the image to a file without a name, which vanishes with the process."""
    make_folder(project.home)
    size = bounded.count(inspected, "Size") or 0
    if (free := free_bytes(project.home)) < size + size // 10:
        raise environment_error(
            f"{engine.name} has to save {reference} to be looked into: {console.size(size)} "
            f"needed below {project.home}, {console.size(free)} free",
            hint="export KIT_HOME=<a folder on a larger disk>",
        )
    console.note(f"{engine.name} saves {reference}, {console.size(size)}, to be looked into")
    with disk_errors(project.home):
        file = stack.enter_context(
            tempfile.TemporaryFile(dir=project.home)  # noqa: SIM115 - the stack closes it
        )
        for piece in engine.save(reference):
            file.write(piece)
        file.flush()
    return Path(f"/proc/self/fd/{file.fileno()}")


def _probed(
    opened: _Opened,
    architecture: str,
    engine: Engine | None,
    project: Project,
    reference: str,
    probe: bool,
) -> tuple[dict[str, Any] | None, str]:
    """The probe's answer, or the reason why there is none."""
    key = opened.manifest_digest or opened.image_id
    if (known := probing.cached(project, key)) is not None:
        return known, ""
    if not probe:
        return None, "it was not asked for"
    if architecture != stored.host_architecture():
        return None, f"the image is for {architecture}, this host is {stored.host_architecture()}"
    try:
        if engine is None:
            engine, reference = _loaded_into(project, opened.image_id)
        return probing.ask(project, engine, reference, key), ""
    except KitError as error:
        return None, str(error)


def _loaded_into(project: Project, image_id: Digest) -> tuple[Engine, str]:
    """The engine that has an image of the disk already: to load 15 GB for a question is too much.

    Raises:
        KitError: there is no engine, or it does not have the image (exit 3).
    """
    from kit.images import select

    engine = select(project.home)
    if not engine.has(image_id.hex):
        raise environment_error(
            f"{engine.name} does not have the image, and was not asked to load it"
        )
    return engine, image_id.hex
