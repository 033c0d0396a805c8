"""scripts/launch_triton_server.py of every version: a server for each rank, under one mpirun.

It returns as soon as they are started. The ranks after the first serve nobody: they load the
engine's model and follow the first.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kit_rehearsal.errors import BackendError, NotComputedError

from . import table

if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION_VARIABLE = "KIT_TRITON_BACKEND"
"""Tells the backend which version's script has started it: the server is the same for all."""
_ONE_MODEL = "0.8.0"
"""From then on the ranks after the first load the engine's model alone."""
_PORTS = ("grpc_port", "http_port", "metrics_port")
_NOT_COMPUTED = {
    "trtllm_llmapi_launch": "serving through the LLM API",
    "multimodal_gpu0_cuda_mem_pool_bytes": "models with images",
}


def main(version: str, argv: Sequence[str] | None = None, *, script: str = "") -> int:
    """Start the server; 0, or 1 with the reason on stderr.

    Args:
        version: of the backend.
        argv: the arguments.
        script: path of the script that was started.
    """
    args = _parser(version, Path(script).resolve().parent.parent).parse_args(argv)
    try:
        command, variables = planned(version, args)
        _refuse_second(args)
    except BackendError as error:
        sys.stderr.write(f"launch_triton_server.py: {error}\n")
        return 1
    print("+", " ".join(command), flush=True)
    subprocess.Popen(command, env={**os.environ, **variables})
    return 0


def planned(version: str, args: argparse.Namespace) -> tuple[list[str], dict[str, str]]:
    """The command that starts all ranks, and what it needs in the environment.

    Raises:
        BackendError: a world size that does not go with the rest, or what is not computed.
    """
    variables = {VERSION_VARIABLE: version}
    for name, what in _NOT_COMPUTED.items():
        if getattr(args, name, None):
            raise NotComputedError(what, f"--{name}")
    if args.world_size < 1:
        raise BackendError(f"--world_size {args.world_size}: expected 1 or more")
    if getattr(args, "multi_model", False):
        if args.world_size != 1:
            raise BackendError(f"--multi-model wants --world_size 1, not {args.world_size}")
        variables["TRTLLM_ORCHESTRATOR"] = "1"
        if getattr(args, "disable_spawn_processes", False):
            variables["TRTLLM_ORCHESTRATOR_SPAWN_PROCESSES"] = "0"
    if getattr(args, "no_mpi", False):
        if args.world_size != 1:
            raise BackendError(f"--no-mpi wants --world_size 1, not {args.world_size}")
        return _server(version, args, 0), variables
    command = ["mpirun", "--allow-run-as-root"]
    if getattr(args, "oversubscribe", False):
        command.append("--oversubscribe")
    for rank in range(args.world_size):
        command += ["-n", "1", *_server(version, args, rank), ":"]
    return command, variables


def _server(version: str, args: argparse.Namespace, rank: int) -> list[str]:
    command = [args.tritonserver, f"--model-repository={args.model_repo}"]
    command += [
        f"--{name.replace('_', '-')}={getattr(args, name)}"
        for name in _PORTS
        if hasattr(args, name)
    ]
    if rank and table.since(version, _ONE_MODEL):
        command.append("--model-control-mode=explicit")
        command.append(f"--load-model={args.tensorrt_llm_model_name}")
    if rank == 0 and getattr(args, "log", False):
        command += ["--log-verbose=3", f"--log-file={args.log_file}"]
    if getattr(args, "exit_timeout", None) is not None:
        command.append(f"--exit-timeout-secs={args.exit_timeout}")
    command.append("--disable-auto-complete-config")
    command.append(f"--backend-config=python,shm-region-prefix-name=prefix{rank}_")
    return command


def _refuse_second(args: argparse.Namespace) -> None:
    """Refuse to start beside another server, from the version on that has --force."""
    if getattr(args, "force", True):
        return
    for place in Path("/proc").glob("[0-9]*/comm"):
        name = ""
        with contextlib.suppress(OSError):  # ended meanwhile
            name = place.read_text().strip()
        if name == "tritonserver":
            raise BackendError(
                f"process {place.parent.name} is a tritonserver; --force starts another"
            )


def _parser(version: str, tree: Path) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="launch_triton_server.py")
    for row in table.rows("launch", version):
        if row["type"] == "bool":
            parser.add_argument(*row["flags"], action="store_true")
            continue
        default = row["default"]
        if row["flags"] == ["--model_repo"]:
            default = str(tree / "all_models" / "gpt")
        parser.add_argument(
            *row["flags"], type=int if row["type"] == "int" else str, default=default
        )
    return parser
