"""Base images with a Python and a pip of Debian's, and what a test puts on top."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kit.images import base
from kit.images.oci import Layer, Layout
from kit.locks import lock as locks
from kit.locks.lock import Input
from kit.store import Store
from tests.stand_in.distributions import metadata

if TYPE_CHECKING:
    from collections.abc import Mapping

EPOCH = 1_700_000_000
SITE = "usr/lib/python3/dist-packages"
_ROOT = Path(__file__).resolve().parent.parent.parent
_PACKAGES = "base-files dash libc-bin coreutils python3 python3-pip"
_INTENT = f"""\
schema: kit.intent/1
stack: python-base
family: python-base
platform: linux/amd64
epoch: {EPOCH}
debian:
  suite: bookworm
  components: [main]
  groups:
    base: [{", ".join(_PACKAGES.split())}]
"""
_FAMILY = """\
schema: kit.family/1
context: {}
environment:
  PATH: /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exclude: [usr/share/doc, usr/share/info, usr/share/locale, usr/share/man, usr/lib/python3.11/test]
keep: [copyright]
groups:
  - name: base
    directories: [home, mnt, opt, proc, root, run, srv, sys]
    sticky: [tmp, var/tmp]
    links: {}
    files:
      etc/passwd: |
        root:x:0:0:root:/root:/bin/sh
      etc/group: |
        root:x:0:
"""


@dataclass
class PythonBase:
    """Makes images; the Debian layer is locked, fetched and assembled once.

    `folder` keeps it; `image` writes an image's blobs into a store.
    """

    folder: Path
    _layer: Layer | None = field(default=None, init=False)

    def image(
        self,
        store: Store,
        *,
        installed: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        without: tuple[str, ...] = (),
        group: str = "base",
    ) -> list[Input]:
        """The inputs of an image in a lock, all of them in the store.

        Args:
            store: where the blobs go.
            installed: distributions that pip finds there, name → version.
            files: more files, path → text.
            environment: variables of the image's configuration.
            without: paths that are taken out again.
            group: the image's name in the intent.
        """
        more = dict(files or {})
        for name, version in (installed or {}).items():
            stem = f"{SITE}/{name.replace('-', '_')}-{version}.dist-info"
            more[f"{stem}/METADATA"] = metadata(name, version).decode()
            more[f"{stem}/INSTALLER"] = "pip\n"
            more[f"{stem}/RECORD"] = ""
        for path in without:
            parent, _, name = path.rpartition("/")
            more[f"{parent}/.wh.{name}"] = ""
        first = self._debian()
        layout = Layout(self.folder / "layout")
        image = layout.write_image(
            name="localhost/python-base",
            layers=(first, _top(layout, more)),
            settings={
                "Env": [
                    f"{key}={value}"
                    for key, value in {
                        "PATH": "/usr/local/bin:/usr/bin:/bin",
                        **(environment or {}),
                    }.items()
                ]
            },
            history=("debian", "test"),
            platform="linux/amd64",
            epoch=EPOCH,
        )
        digests = [image.manifest_digest, image.image_id, *(one.digest for one in image.layers)]
        for digest in digests:
            store.add_file(layout.blob(digest))
        return [
            Input(
                kind="oci",
                group=group,
                name="registry.example/python-base",
                version=str(image.manifest_digest),
                file=f"blobs/sha256/{digest.hex}",
                location="oci:registry.example/python-base",
                sha256=digest,
                size=layout.blob(digest).stat().st_size,
            )
            for digest in digests
        ]

    def _debian(self) -> Layer:
        if self._layer is None:
            root, home = self.folder / "project", self.folder / "home"
            (root / "dockerfiles" / "python-base").mkdir(parents=True)
            (root / "lockfiles").mkdir()
            (root / "lockfiles" / "python-base.yaml").write_text(_INTENT)
            family = root / "dockerfiles" / "python-base" / "family.yaml"
            family.write_text(_FAMILY)
            for command in ("lock", "fetch"):
                subprocess.run(
                    [sys.executable, "-m", "kit", command, "python-base"],
                    cwd=_ROOT,
                    env={**os.environ, "KIT_ROOT": str(root), "KIT_HOME": str(home)},
                    check=True,
                    stdout=subprocess.DEVNULL,
                )
            lock, store = (
                locks.load(root / "lockfiles" / "python-base.lock.yaml"),
                Store(home / "store"),
            )
            debs = {item.file: store.path(item.sha256) for item in lock.select(kind="deb")}
            (image,) = base.assemble(
                Layout(self.folder / "layout"),
                base.load_family(family),
                {"base": debs},
                platform="linux/amd64",
                epoch=EPOCH,
                name=lambda group: f"localhost/{group}",
            )
            (self._layer,) = image.layers
        return self._layer


def _top(layout: Layout, files: Mapping[str, str]) -> Layer:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        made = set()
        for path, text in sorted(files.items()):
            for parent in reversed(Path(path).parents[:-1]):
                if str(parent) not in made:
                    made.add(str(parent))
                    folder = tarfile.TarInfo(str(parent))
                    folder.type, folder.mode, folder.mtime = tarfile.DIRTYPE, 0o755, EPOCH
                    archive.addfile(folder)
            member = tarfile.TarInfo(path)
            content = text.encode()
            member.size, member.mtime = len(content), EPOCH
            archive.addfile(member, io.BytesIO(content))
    content = stream.getvalue()
    return Layer(layout.put(content), len(content))
