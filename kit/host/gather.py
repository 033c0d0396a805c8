"""Look at this host: everything at the same time, nothing for longer than it takes to be useful."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kit
from kit.errors import ExitCode, KitError
from kit.host import (
    cluster,
    driver_library,
    engines,
    gpus,
    limits,
    links,
    privacy,
    programs,
    system,
    toolkit,
)
from kit.host.facts import SCHEMA, Driver, HostFacts, Kit, Unknown
from kit.host.variables import variables

if TYPE_CHECKING:
    from collections.abc import Callable

    from kit.host.facts import Disk, Engine, Gpu
    from kit.project import Project

PATIENCE = 2 * programs.SECONDS + 5
"""Seconds until what has not been found out is unknown: hung Docker daemons are asked twice."""
_CAPABILITY = ("uuid", "compute_cap")
_PLACES = {
    "capabilities": None,
    "libraries": None,
    "peers": "pairs",
    "links": "pairs",
    "fabric": "fabric.version",
}
"""Which fact a job is for, where they are called differently; None: what lacks is found later."""
_FABRIC_MANAGER = "nv-fabricmanager"


def gather(project: Project) -> HostFacts:
    """Everything about this host, and about the place where the project keeps things.

    Takes as long as the slowest program, which is given 10 seconds, and never fails: what was not
    found out stands in `unknown`.
    """
    smi = programs.find("nvidia-smi", gpus.SMI_FOLDER)
    jobs: dict[str, Callable[[], Any]] = {
        "system": system.system,
        "processor": system.processor,
        "memory": system.memory,
        "disks.home": partial(limits.disk, "home", project.home),
        "disks.tmp": partial(limits.disk, "tmp", Path(os.environ.get("TMPDIR") or "/tmp")),  # noqa: S108 - looked at only
        "disks.shm": partial(limits.disk, "shm", Path("/dev/shm")),  # noqa: S108
        "limits": limits.limits,
        "pci_gpus": gpus.on_pci,
        "driver": gpus.driver,
        "libraries": _libraries,
        "engines.podman": engines.podman,
        "engines.docker": engines.docker,
        "engines.default": partial(_default, project.home),
        "toolkit": toolkit.toolkit,
        "mpi": cluster.mpi,
        "slurm": cluster.slurm,
        "fabric": _fabric_manager,
    }
    if smi is not None:
        jobs["gpus"] = partial(programs.ask, [smi, "-q", "-x"])
        jobs["capabilities"] = partial(programs.ask, gpus.query_command(smi, _CAPABILITY))
        jobs["peers"] = partial(programs.ask, [smi, *links.PEERS])
        jobs["links"] = partial(programs.ask, [smi, *links.LINKS])
    try:
        found, failures = programs.together(jobs, PATIENCE)
        return _Host(found, failures).facts()
    finally:
        programs.end_all()


class _Host:
    """What was found, put together; `gaps` collects what was not."""

    def __init__(self, found: dict[str, Any], failures: dict[str, str]) -> None:
        self._found = found
        self._failures = failures
        self._gaps: dict[str, str] = {}

    def facts(self) -> HostFacts:
        """All of it."""
        driver, devices = self._driver()
        pairs = self._pairs() if len(devices) > 1 else ()
        switches = links.fabric(devices, self._get("fabric", None))
        known_engines = self._engines()
        slurm, gaps = self._get("slurm", (None, []))
        for name, reason in gaps:
            self._miss(name, reason)
        facts = HostFacts(
            schema=SCHEMA,
            created=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            kit=Kit(kit.__version__),
            # These three read a handful of the kernel's own files and have no way to fail.
            system=self._found["system"],
            processor=self._found["processor"],
            memory=self._found["memory"],
            disks=self._disks(),
            limits=self._found["limits"],
            pci_gpus=self._get("pci_gpus", None),
            driver=driver,
            gpus=tuple(devices),
            pairs=pairs,
            fabric=switches,
            engines=known_engines,
            toolkit=self._get("toolkit", None),
            mpi=self._get("mpi", ()),
            slurm=slurm,
            environment=variables(os.environ),
            unknown=tuple(
                Unknown(name, privacy.message(reason)) for name, reason in self._gaps.items()
            ),
        )
        return privacy.shown(facts)

    def _get(self, name: str, absent: Any) -> Any:
        place = _PLACES.get(name, name)
        if name in self._failures and place is not None:
            self._miss(place, self._failures[name])
        return self._found.get(name, absent)

    def _miss(self, name: str, reason: str) -> None:
        self._gaps.setdefault(name, reason)

    def _disks(self) -> tuple[Disk, ...]:
        names = ("disks.home", "disks.engine", "disks.tmp", "disks.shm")
        place = next(
            (root for engine, root, _ in self._answers() if engine.is_default and root), None
        )
        if place is None:
            self._miss("disks.engine", "the engine does not say where its storage is on this host")
        else:
            found, failures = programs.together(
                {"disks.engine": partial(limits.disk, "engine", place)}, 2
            )
            self._found |= found
            self._failures |= failures
        return tuple(disk for name in names if (disk := self._get(name, None)) is not None)

    def _engines(self) -> tuple[Engine, ...]:
        answers = self._answers()
        for engine, _, problem in answers:
            if problem is not None:
                self._miss(f"engines.{engine.name}", problem)
        return tuple(engine for engine, _, _ in answers)

    def _answers(self) -> list[tuple[Engine, Path | None, str | None]]:
        default = self._get("engines.default", None)
        answers = (
            self._get(f"engines.{name}", (None, None, None)) for name in ("podman", "docker")
        )
        return [
            (replace(engine, is_default=engine.name == default), root, problem)
            for engine, root, problem in answers
            if engine is not None
        ]

    def _pairs(self) -> tuple[Any, ...]:
        texts = {}
        for name in ("peers", "links"):
            said = self._get(name, None)
            texts[name] = said.out if said is not None else ""
            if said is not None and said.problem is not None:
                self._miss("pairs", said.problem)
        return links.pairs(texts["peers"], texts["links"])

    def _driver(self) -> tuple[Driver | None, list[Gpu]]:
        """The driver and its GPUs: nvidia-smi, else NVML, else /proc."""
        driver: Driver | None = self._get("driver", None)
        libraries: dict[str, Any] = self._get("libraries", None) or {}
        said = self._get("gpus", None)
        if said is None and driver is None and "gpus" not in self._failures:
            return None, []
        version, cuda, problem = None, None, None
        devices: list[Gpu] = []
        if said is None:
            problem = self._failures.get("gpus", "nvidia-smi: not found")
        elif said.problem is not None:
            problem = _smi_problem(said)
        else:
            try:
                version, cuda, devices = gpus.parse_xml(said.out)
            except ValueError as error:
                problem = str(error)
        devices = self._capabilities(devices, libraries)
        if not devices and problem is not None and libraries.get("gpus"):
            devices = gpus.from_nvml(libraries["gpus"])
        elif not devices and problem is not None:
            devices = gpus.from_proc()
        driver = driver or Driver(None, None, None, None, None, False, False, None)
        driver = replace(
            driver,
            version=version or libraries.get("driver") or driver.kernel_module,
            cuda=cuda or libraries.get("cuda"),
            # A host with the library alone, as one for building, has nothing that could answer.
            problem=privacy.message(problem) if problem and not libraries.get("gpus") else None,
        )
        self._driver_gaps(driver, devices, problem or libraries.get("problem"))
        return driver, devices

    def _capabilities(self, devices: list[Gpu], libraries: dict[str, Any]) -> list[Gpu]:
        said = self._get("capabilities", None)
        rows = gpus.parse_query(said.out, _CAPABILITY) if said and said.problem is None else []
        rows += [
            {"uuid": row["uuid"], "compute_cap": row["compute_capability"]}
            for row in libraries.get("gpus", [])
        ]
        known = {row["uuid"]: gpus.capability(row["compute_cap"]) for row in reversed(rows)}
        return gpus.with_capabilities(devices, {k: v for k, v in known.items() if v})

    def _driver_gaps(self, driver: Driver, devices: list[Gpu], problem: str | None) -> None:
        reason = problem or "the driver does not say"
        for name in ("version", "cuda"):
            if getattr(driver, name) is None:
                self._miss(f"driver.{name}", reason)
        if problem is not None and not devices:
            self._miss("gpus", reason)
        for gpu in devices:
            for name in ("compute_capability", "memory_bytes"):
                if getattr(gpu, name) is None:
                    self._miss(f"gpus[{gpu.index}].{name}", reason)


def _smi_problem(said: programs.Answer) -> str:
    """The line that tells: `Failed to initialize NVML: …` stands before others."""
    told = re.search(r"(Failed to initialize NVML.*|NVIDIA-SMI has failed.*)", said.text)
    return f"nvidia-smi: {told.group(1)}" if told else str(said.problem)


def _libraries() -> dict[str, Any] | None:
    """What NVML and libcuda say, asked in a process of their own; None without such a library."""
    if gpus.library() is None and not Path("/dev/nvidiactl").exists():
        return None
    folders = [f"/{folder}" for folder in gpus.LIBRARY_FOLDERS]
    asked = programs.ask([sys.executable, "-I", driver_library.__file__, *folders])
    if asked.problem is not None:
        raise RuntimeError(asked.problem)
    answer: dict[str, Any] = json.loads(asked.out)
    return answer


def _fabric_manager() -> str | None:
    program = programs.find(_FABRIC_MANAGER, "/usr/bin", "/usr/sbin")
    return links.manager_version(programs.ask([program, "--version"]).text) if program else None


def _default(home: Path) -> str | None:
    """The engine that the kit's commands would take now."""
    from kit.images import select

    try:
        return select(home).name
    except KitError as error:
        if error.exit_code == ExitCode.USAGE:  # KIT_ENGINE names no engine
            raise
        return None
