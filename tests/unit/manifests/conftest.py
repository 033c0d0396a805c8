from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from kit.project import Project
from tests.unit.examples.local import Site

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Recorded:
    """A project and the manifest of a run in it."""

    project: Project
    path: Path


@pytest.fixture(scope="session")
def one_run(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    site = Site.make(tmp_path_factory.mktemp("recorded"))
    return Recorded(site.project, site.run())


@pytest.fixture
def recorded(one_run: Recorded, tmp_path: Path) -> Recorded:
    """A copy of the project that a test may damage."""
    old = one_run.project.root
    shutil.copytree(old, tmp_path / "project")
    project = Project(tmp_path / "project", tmp_path / "home")
    return Recorded(project, project.root / one_run.path.relative_to(old))
