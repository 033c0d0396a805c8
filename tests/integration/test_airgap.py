"""The main job whole: a delivery crosses the air gap and is made again where there is no route.

Connected side and site have nothing in common but the folder of the bundle: another KIT_HOME, other
storage of the engine, and a network namespace with nothing in it. With Podman the stack is the
sender's own, in a project that the site has not; with Docker it is one that both have. `make
airgap-test` keeps what the site has written, to be looked at.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from kit.locks import intent, lock
from tests.conftest import ROOT
from tests.integration.conftest import kit, private

pytestmark = pytest.mark.engine

KEPT = "KIT_AIRGAP_FOLDER"
OWN = "mine"
EXAMPLE, RELEASE = "gpt2-tiny-tp2", "0.9.0"


@dataclass
class Site:
    """The other side: what it has, and commands in its own network namespace."""

    folder: Path
    environment: dict

    def run(self, *argv):
        return subprocess.run(
            ["unshare", "--net", *argv],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **self.environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def kit(self, *arguments):
        return self.run(sys.executable, "-m", "kit", *map(str, arguments))


@pytest.fixture(scope="module")
def keys(scratch, selected, missing):
    """Key pairs of the sender and of the site."""
    if shutil.which("ssh-keygen") is None:
        missing("ssh-keygen is not installed")
    folder = scratch / f"keys-{selected['KIT_ENGINE']}"
    folder.mkdir()
    for name in ("sender", "site"):
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", folder / name]
        subprocess.run(argv, check=True)
    return folder


@pytest.fixture(scope="module")
def stack(selected):
    """What is sent."""
    return OWN if selected["KIT_ENGINE"] == "podman" else "rehearsal"


@pytest.fixture(scope="module")
def project(scratch, selected, stack):
    """The sender's: its own one has one stack, the rehearsal by another name, its family too."""
    if stack != OWN:
        return ROOT
    root = scratch / f"own-{selected['KIT_ENGINE']}"
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    shutil.copytree(ROOT / "dockerfiles" / "rehearsal", root / "dockerfiles" / OWN, ignore=ignored)
    for name in ("kit/data/cli.json", "kit/examples/models/gpt2-tiny"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, root / name)
    text = (ROOT / "lockfiles" / "rehearsal.yaml").read_text()
    for key in ("stack", "family"):
        text = text.replace(f"\n{key}: rehearsal", f"\n{key}: {OWN}", 1)
    path = root / "lockfiles" / f"{OWN}.yaml"
    path.parent.mkdir()
    path.write_text(text)
    known = lock.load(ROOT / "lockfiles" / "rehearsal.lock.yaml")
    renamed = replace(known, stack=OWN, intent=intent.load(path).digest)
    renamed.write(path.with_suffix(".lock.yaml"))
    return root


@pytest.fixture(scope="module")
def bundle(selected, home, scratch, keys, project, stack):
    """What the connected side sends: a stack with all its inputs, and a run."""
    environment = selected | {"KIT_HOME": str(home), "KIT_ROOT": str(project)}
    done = kit("build", stack, "--quiet", env=environment)
    assert done.returncode == 0, done.stderr
    runs = scratch / f"sent-{selected['KIT_ENGINE']}"
    arguments = ("--stack", stack, "--release", RELEASE, "--output", str(runs))
    done = kit("run", EXAMPLE, *arguments, env=environment)
    assert done.returncode == 0, done.stderr
    manifest = done.stdout.splitlines()[-1]
    out = scratch / f"bundle-{selected['KIT_ENGINE']}"
    arguments = ("--stack", stack, "--manifest", manifest, "--key", str(keys / "sender"))
    done = kit("bundle", "create", str(out), *arguments, "--without-kit", env=environment)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def site(selected, scratch, keys, bundle, missing):
    """Loaded from the bundle; the sender's key was pinned before it came."""
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        missing("no right to make a network namespace")
    name = selected["KIT_ENGINE"]
    folder = scratch / f"site-{name}"
    (folder / "home" / "trusted-keys").mkdir(parents=True)
    shutil.copy(keys / "sender.pub", folder / "home" / "trusted-keys")
    with private(name, scratch / f"site-storage-{name}") as engine:
        yield Site(folder, {**engine, "KIT_HOME": str(folder / "home")})


def test_a_delivery_crosses_the_gap_and_is_made_again(site, bundle, keys, stack, selected, home):
    assert site.run("ip", "route").stdout == ""
    assert site.run("ip", "-o", "link").stdout.count("\n") == 1  # its own loopback, down

    done = site.kit("bundle", "verify", bundle)
    assert done.returncode == 0, done.stderr
    assert "(pinned)" in done.stdout

    receipt, report = site.folder / "receipt.json", site.folder / "report.html"
    signing = ("--receipt", receipt, "--sign-with", keys / "site")
    done = site.kit("bundle", "load", bundle, *signing, "--json")
    assert done.returncode == 0, done.stderr
    assert (f"stack {stack} came with the bundle" in done.stderr) == (stack == OWN)
    contents = json.loads(done.stdout)["contents"]
    (run,) = [Path(row["path"]) for row in contents if row["kind"] == "run"]

    done = site.kit("manifest", "verify", run)
    assert done.returncode == 0, done.stdout

    # The image is what its stack would give here, too: nothing is left to be built.
    (image,) = [row["manifest"] for row in contents if row["kind"] == "image"]
    done = site.kit("build", stack, "--json")
    assert done.returncode == 0, done.stderr
    built = json.loads(done.stdout)
    assert (built["manifest_digest"], built["was_current"]) == (image, True)

    asked = ("--require", "L8", "--report", report, "--output", site.folder / "runs")
    done = site.kit("reproduce", run, *asked, *signing)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "reproduced to L8" in done.stdout
    print(f"\n{done.stdout}")

    done = site.kit("reproduce", run, "--receipt", receipt)
    assert done.returncode == 2  # before anything is run: nobody's signature is thrown away
    assert "signed again" in done.stderr

    # The receipt comes back, and says so to whoever has the site's key.
    found = json.loads(receipt.read_text())
    assert [(row["name"], row["level"]) for row in found["results"]] == [
        (f"reproduce {EXAMPLE} {RELEASE}", "L8")
    ]
    answer = kit("manifest", "verify", str(receipt), env=selected | {"KIT_HOME": str(home)})
    assert answer.returncode == 0, answer.stderr
    print(answer.stdout)

    if kept := os.environ.get(KEPT):
        folder = Path(kept) / selected["KIT_ENGINE"]
        folder.mkdir(parents=True, exist_ok=True)
        for name in (report, receipt, bundle / "transfer-sheet.html"):
            shutil.copy(name, folder)
        print(f"the site's report: {(folder / report.name).absolute()}")


def test_what_was_altered_on_the_way_is_refused(site, bundle, scratch, selected):
    """After the first delivery nothing of a second, damaged one comes in."""
    damaged = scratch / f"damaged-{selected['KIT_ENGINE']}"
    shutil.copytree(bundle, damaged)
    part = damaged / "part-0001"
    with part.open("r+b") as stream:
        stream.seek(part.stat().st_size // 2)
        byte = stream.read(1)
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte[0] ^ 1]))
    done = site.kit("bundle", "load", damaged)
    shutil.rmtree(damaged)
    assert done.returncode == 4, done.stdout
    assert "not verified" in done.stderr
    assert "part-0001" in done.stderr
