"""One real run and its reproduction a layout of checkpoints; tests damage copies of the record."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from kit.digest import Digest
from kit.manifests import record
from kit.reproduce import again, inputs, side
from kit.reproduce.compare import compare
from tests.unit.examples.local import Site

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kit.reproduce.ladder import Difference, Ladder


@dataclass
class Pair:
    """A recorded run, which a test may change, and the run that was made of it before that."""

    site: Site
    folder: Path
    found: again.Reproduction

    @property
    def path(self) -> Path:
        return self.folder / record.FILE

    def copy(self, folder: Path) -> Pair:
        shutil.copytree(self.folder, folder)
        return Pair(self.site, folder, self.found)

    def change_file(
        self, path: str, change: Callable[[bytearray], Any], *, told: bool = True
    ) -> None:
        """Change a recorded file, by default with a record that vouches for the change."""
        file = self.folder / path
        content = bytearray(file.read_bytes())
        change(content)
        file.chmod(0o644)
        file.write_bytes(content)
        if told:
            digest = Digest.of_bytes(bytes(content)).hex

            def vouch(document: dict[str, Any]) -> None:
                for item in document["artifacts"]:
                    if item["path"] == path:
                        item |= {"sha256": digest, "size": len(content)}

            self.change_record(vouch)

    def change_json(self, path: str, change: Callable[[dict[str, Any]], Any]) -> None:
        """Change a recorded JSON file."""

        def replace(content: bytearray) -> None:
            document = json.loads(content)
            change(document)
            content[:] = json.dumps(document, indent=4).encode()

        self.change_file(path, replace)

    def change_record(self, change: Callable[[dict[str, Any]], Any]) -> None:
        """Change the manifest itself."""
        document = json.loads(self.path.read_bytes())
        change(document)
        self.path.write_text(json.dumps(document))

    def ladder(self, change_again: Callable[[dict[str, Any]], Any] = lambda _: None) -> Ladder:
        """Hold the record, as it now is, against the run that was made again."""
        assert self.found.again is not None
        assert self.found.again_path is not None
        document = json.loads(json.dumps(self.found.again.to_dict()))
        change_again(document)
        manifest = record.read(self.path)
        return compare(
            side.of_run(manifest, self.folder),
            side.of_run(record.parse(document, "again"), self.found.again_path.parent),
            inputs.of_site(self.site.project, manifest, self.site.image.manifest_digest),
        )


def only(ladder: Ladder, number: int) -> Difference:
    """The one difference that counts on a level."""
    (found,) = [item for item in ladder.rungs[number].differences if item.counts]
    return found


def _pair(folder: Path, release: str) -> Pair:
    site = Site.make(folder)
    path = site.run(release=release)
    example = again.example_of(record.read(path), None, None, None)
    found = again.reproduce(site.project, site.engine, site.image, path, example)
    return Pair(site, path.parent, found)


@pytest.fixture(scope="session")
def unified(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return _pair(tmp_path_factory.mktemp("unified"), "0.16.0")


@pytest.fixture(scope="session")
def old(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return _pair(tmp_path_factory.mktemp("old"), "0.5.0")


@pytest.fixture
def pair(unified: Pair, tmp_path: Path) -> Pair:
    return unified.copy(tmp_path / "record")
