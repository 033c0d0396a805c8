"""The backend of the rehearsal's server from its source folder."""

from __future__ import annotations

import sys

from tests.unit.rehearsal.conftest import ROOT, _elsewhere, pipeline, world  # noqa: F401 - fixtures

sys.path.insert(0, str(ROOT / "dockerfiles" / "rehearsal-triton" / "backend"))
