"""MPI launchers on PATH, and Slurm as far as a client can tell."""

from __future__ import annotations

import os
import re

from kit.host import privacy, programs
from kit.host.facts import Mpi, Slurm

_PLUGIN = re.compile(r"[\w+.-]+")


def mpi() -> tuple[Mpi, ...]:
    """Every `mpirun` on PATH, links to the same program once: two of them are a known trap.

    An Open MPI of the distribution beside the one that programs were built with ends in
    "opal_init failed" (TensorRT-LLM#1294).
    """
    found: dict[str, str] = {}
    for folder in os.get_exec_path():
        command = programs.find_in(folder, "mpirun")
        if command is not None:
            found.setdefault(os.path.realpath(command), command)
    return tuple(_mpi(command) for command in found.values())


def _mpi(command: str) -> Mpi:
    name, version = parse_mpi(programs.ask([command, "--version"]).text)
    return Mpi(name, privacy.path(command), version)


def parse_mpi(text: str) -> tuple[str, str | None]:
    """Name and version out of `mpirun --version` of Open MPI, Intel MPI, and Hydra (MPICH)."""
    known = (
        (r"\(Open MPI\) (\S+)", "Open MPI"),
        (r"Intel\(R\) MPI Library for Linux\* OS, Version (.+?) Build", "Intel MPI"),
        (r"HYDRA build details:(?s:.*?)Version:\s+(\S+)", "MPICH"),
    )
    for pattern, name in known:
        if found := re.search(pattern, text):
            return name, found.group(1)
    return "mpirun", None


def slurm() -> tuple[Slurm | None, list[tuple[str, str]]]:
    """The client, and what was not found out; None where there is no `srun`.

    Without a configuration every Slurm command ends before it says anything, its version too.
    """
    if programs.find("srun") is None:
        return None, []
    names = ("version", "plugins", "is_reachable")
    commands = (["srun", "--version"], ["srun", "--mpi=list"], ["sinfo", "--noheader"])
    jobs = {
        name: lambda argv=argv: programs.ask(argv)
        for name, argv in zip(names, commands, strict=True)
    }
    answers, failures = programs.together(jobs, programs.SECONDS + 1)
    gaps = [(f"slurm.{name}", why) for name, why in failures.items()]
    gaps += [(f"slurm.{name}", said.problem) for name, said in answers.items() if said.problem]
    version = answers.get("version")
    plugins = answers.get("plugins")
    partitions = answers.get("is_reachable")
    answered = partitions is not None and partitions.code is not None
    return Slurm(
        version=parse_slurm(version.text) if version else None,
        plugins=parse_plugins(plugins.text) if plugins and not plugins.problem else (),
        is_reachable=partitions.problem is None if answered and partitions else None,
        in_job="SLURM_JOB_ID" in os.environ,
    ), gaps


def parse_slurm(text: str) -> str | None:
    """`22.05.8` of `slurm-wlm 22.05.8`."""
    found = re.search(r"^slurm\S* (\d+\.\d+\S*)", text, re.MULTILINE)
    return found.group(1) if found else None


def parse_plugins(text: str) -> tuple[str, ...]:
    """The plugins that `srun --mpi=list` names, those with a version of PMIx too.

    From 21.08 on they stand on lines of their own that begin with a tab, versions of PMIx in one
    more line; before, each stands behind `srun: ` on standard error.
    """
    names: list[str] = []
    begun = False
    for line in text.splitlines():
        bare = line.removeprefix("srun: ").strip()
        if bare.startswith("MPI ") and bare.endswith("types are..."):
            begun = True
        elif bare.startswith("specific pmix plugin versions available:"):
            names += [name.strip() for name in bare.partition(":")[2].split(",")]
        elif begun and _PLUGIN.fullmatch(bare):
            names.append(bare)
    return tuple(dict.fromkeys(name for name in names if name))
