"""pip's own words, in whichever order its two streams bring them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kit.errors import ExitCode
from kit.locks.pip_messages import explained

if TYPE_CHECKING:
    from pathlib import Path

ERROR = [
    "ERROR: Cannot install alpha==1.0 and beta==1.0 because these package versions conflict.",
    "ERROR: ResolutionImpossible: for help visit a page",
]
CAUSE = [
    "",
    "The conflict is caused by:",
    "    alpha 1.0 depends on gamma<2",
    "    beta 1.0 depends on gamma>=2",
    "",
    "To fix this you could try to:",
    "1. loosen the range of package versions you've specified",
]


@pytest.mark.parametrize(
    "lines", [ERROR[:1] + CAUSE + ERROR[1:], CAUSE + ERROR, ERROR + CAUSE, CAUSE[:3] + ERROR]
)
def test_a_conflict_is_told_with_its_cause(lines: list[str], tmp_path: Path) -> None:
    told = explained(lines, "release", "base", "the index", tmp_path)
    assert told.exit_code == ExitCode.USAGE
    first, *rest = str(told).splitlines()
    assert first.startswith("requirements: release: the pip of image base: Cannot install alpha")
    assert rest[:2] == ["  | The conflict is caused by:", "  | alpha 1.0 depends on gamma<2"]
    assert "To fix this" not in str(told)
