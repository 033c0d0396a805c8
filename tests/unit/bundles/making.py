"""Small bundles for tests: a project of its own, folders of noise, a key."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path

from tqdm import tqdm

from kit.bundles import create, gather, load, verifier
from kit.project import Project


def project(folder):
    """A project without stacks, with a home of its own."""
    root = folder / "project"
    for name in ("lockfiles", "dockerfiles"):
        (root / name).mkdir(parents=True, exist_ok=True)
    return Project(root, folder / "home")


def noise(folder, sizes, seed=0):
    """Files of these sizes in two levels of folders."""
    chosen = random.Random(seed)
    for number, size in enumerate(sizes):
        path = folder / f"d{number % 3}" / f"file-{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chosen.randbytes(size))
    return folder


def key(folder, name="key"):
    """An Ed25519 key; returns the private file, the public one lies beside it."""
    path = folder / name
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path)]
    subprocess.run(words, check=True)
    return path


def blob(private):
    """The public key in the form that the verifier takes."""
    path = private.with_name(f"{private.name}.pub")
    return verifier.public_key(path.read_text(), str(path))


def make(place, out, *files, settings=None, **request):
    """Create a bundle of files; keyword arguments are those of the request."""
    wanted = gather.Request(files=tuple(map(Path, files)), own=False, **request)
    chosen = create.Settings("test", part_size=20_000, jobs=2)
    return create.create(place, gather.gather(place, wanted), out, settings or chosen)


def index_of(folder):
    """The index of a bundle."""
    return verifier.parse((folder / verifier.INDEX).read_bytes(), "bundle.json")


def content_of(folder):
    """Every file of a folder by its name: two bundles are the same if these are."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def tree(folder):
    """Every file below a folder by its path."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def killed(action, seconds):
    """Do something in a process of its own and kill that after so long; whether it was alive."""
    # tqdm's own lock is shared between processes, and stays with whoever is killed holding it.
    tqdm.set_lock(threading.RLock())
    child = os.fork()
    if child == 0:
        try:
            tqdm.set_lock(threading.RLock())
            action()
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


class Failed(Exception):
    """What `fail` raises."""


def fail(*arguments, **options):
    """Stands for something that does not get to its end."""
    raise Failed


def take(place, folder, *keys, **options):
    """Load a bundle."""
    return load.load(place, folder, list(keys), jobs=2, **options)
