"""A Slurm of the test's own: munge, a controller, two nodes on this machine, each with storage.

Needs root, as slurmd does. Every daemon keeps to one folder and to ports of its own.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

NODES = ("kit1", "kit2")
PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scancel", "scontrol", "squeue")
_CORES = 8


def lacking():
    """What of it is not installed."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


class Slurm:
    """The daemons; `environment` is what a client needs."""

    def __init__(self, folder):
        self.folder = folder
        self.configuration = folder / "slurm.conf"
        self.environment = {"SLURM_CONF": str(self.configuration)}
        self._daemons = {}

    def start(self):
        for name in ("state", "spool", "log", "munge", *(f"tmp/{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True)
        for path in (self.folder, self.folder / "munge"):
            path.chmod(0o755)  # munged refuses a socket that others might replace
        key = self.folder / "munge" / "key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        options = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log"}
        options["seed-file"] = "seed"
        argv = [f"--{name}={self.folder}/munge/{file}" for name, file in options.items()]
        # In a folder of a test's own munged finds others that may write above it: not its business.
        self._daemon("munged", ["munged", "--foreground", "--force", *argv])
        self._wait((self.folder / "munge" / "socket").exists)
        self._configure()
        self._daemon("slurmctld", ["slurmctld", "-D", "-f", str(self.configuration)])
        for node in NODES:
            self.start_node(node)
        self._wait(lambda: self.states() == {"idle"})

    def start_node(self, node):
        self._daemon(node, ["slurmd", "-D", "-f", str(self.configuration), "-N", node])

    def states(self):
        done = self.ask("sinfo", "--noheader", "--Node", "--format=%T")
        return set(done.stdout.split())

    def ask(self, *argv):
        """What a client says."""
        return subprocess.run(
            argv,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def job(self, number):
        """`KEY=value` of `scontrol show job`."""
        said = self.ask("scontrol", "show", "job", str(number)).stdout
        return dict(word.split("=", 1) for word in said.split() if "=" in word)

    def ended(self, number, seconds=90):
        """Wait for a job; its state, and `CODE:SIGNAL` that its script ended with."""
        alive = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING"}
        self._wait(lambda: self.job(number)["JobState"] not in alive, seconds)
        found = self.job(number)
        return found["JobState"], found["ExitCode"]

    def processes(self, node):
        """Everything that a node has started for steps, and its daemon."""
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                environment = place.joinpath("environ").read_bytes().split(b"\0")
                files = [str(link.readlink()) for link in place.joinpath("fd").iterdir()]
            except OSError:
                continue
            is_task = f"SLURMD_NODENAME={node}".encode() in environment
            is_task &= f"SLURM_CONF={self.configuration}".encode() in environment
            if is_task or str(self.folder / "log" / node) in files:
                found.append(int(place.name))
        return found

    def lose(self, node):
        """All of a node dies at once, as when its power fails; its containers are not Slurm's."""
        self._kill(node)
        self._daemons.pop(node).wait(10)

    def restore(self, node):
        """The node is there again."""
        self.start_node(node)
        self.ask("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
        self.ask("scontrol", "update", f"nodename={node}", "state=resume")
        self._wait(lambda: self.states() == {"idle"})

    def stop(self):
        self.ask("scancel", "--user=root")
        for name in (*NODES, "slurmctld", "munged"):
            daemon = self._daemons.pop(name, None)
            if daemon is None:
                continue
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for node in NODES:
            self._kill(node)

    def _kill(self, node):
        for number in self.processes(node):
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)

    def _daemon(self, name, argv):
        # On PATH as root has it: Debian's daemons stand in /usr/sbin.
        with (self.folder / "log" / f"{name}.out").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def _wait(self, condition, seconds=30):
        limit = time.monotonic() + seconds
        while not condition():
            for name, daemon in self._daemons.items():
                assert daemon.poll() is None, f"{name} has ended: {self._said(name)}"
            assert time.monotonic() < limit, "\n".join(map(self._said, self._daemons))
            time.sleep(0.1)

    def _said(self, name):
        return (self.folder / "log" / f"{name}.out").read_text(errors="replace")[-2000:]

    def _configure(self):
        host = socket.gethostname().partition(".")[0]
        controller, *ports = _free_ports(1 + len(NODES))
        lines = [
            "ClusterName=kit",
            f"SlurmctldHost={host}(127.0.0.1)",
            f"SlurmctldPort={controller}",
            "SlurmUser=root",
            "AuthType=auth/munge",
            f"AuthInfo=socket={self.folder}/munge/socket",
            f"StateSaveLocation={self.folder}/state",
            f"SlurmdSpoolDir={self.folder}/spool/%n",
            f"SlurmctldPidFile={self.folder}/slurmctld.pid",
            f"SlurmdPidFile={self.folder}/slurmd-%n.pid",
            f"SlurmdLogFile={self.folder}/log/%n",
            f"TmpFS={self.folder}/tmp/%n",
            "MailProg=/bin/true",
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_Core",
            "ReturnToService=2",
            # More cores than there are: the kernel does not mind.
            "SlurmdParameters=config_overrides",
            # A test does not wait for what a cluster of a thousand users needs.
            "SchedulerParameters=batch_sched_delay=0,sched_min_interval=1000,bf_interval=1",
            "PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP",
        ]
        lines += [
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={_CORES}"
            for node, port in zip(NODES, ports, strict=True)
        ]
        self.configuration.write_text("\n".join(lines) + "\n")


def _free_ports(count):
    taken = [socket.socket() for _ in range(count)]
    try:
        for item in taken:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in taken]
    finally:
        for item in taken:
            item.close()
