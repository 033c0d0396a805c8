"""Write the tree of every version: `python -m kit_rehearsal_triton.install TARGET`.

TARGET/0.9.0 is then what /tensorrtllm_backend is in a container of that version, or /app in the
newer ones: all_models, tools, scripts.
"""

from __future__ import annotations

import sys
from pathlib import Path

from kit_rehearsal.files import write_text

from . import table, templates

_TOOLS = {"tools/fill_template.py": "fill_template", "scripts/launch_triton_server.py": "launch"}
_MODULES = {
    "preprocessing": "preprocessing",
    "postprocessing": "postprocessing",
    "tensorrt_llm": "engine_model",
    "tensorrt_llm_bls": "bls",
}
BACKEND = "from kit_rehearsal_triton.engine_model import TritonPythonModel  # noqa: F401\n"
"""The whole of the backend `tensorrtllm`: the server takes a Python file for one."""


def install(target: Path) -> list[Path]:
    """Write all trees, always with the same bytes; returns the paths of the files."""
    return [path for version in table.versions() for path in tree(target / version, version)]


def tree(target: Path, version: str) -> list[Path]:
    """Write that of one version."""
    written = []
    for place, module in _TOOLS.items():
        script = ", script=__file__" if module == "launch" else ""
        text = (
            f"#!/usr/bin/env python3\nfrom kit_rehearsal_triton.{module} import main\n"
            f'raise SystemExit(main("{version}"{script}))\n'
        )
        written.append(_write(target / place, text))
        written[-1].chmod(0o755)
    for row in table.rows("models", version):
        folder = target / "all_models" / table.FAMILY / row["name"]
        written.append(_write(folder / "config.pbtxt", templates.config(row["name"], version)))
        written.append(_write(folder / "1" / ".gitkeep", ""))
        for name in row["files"]:
            text = '"""Of the model beside it."""\n'
            if name == "1/model.py":
                module = _MODULES[row["name"]]
                text = (
                    f"from kit_rehearsal_triton.{module} import TritonPythonModel  # noqa: F401\n"
                )
            written.append(_write(folder / name, text))
    return written


def _write(path: Path, text: str) -> Path:
    write_text(path, text)
    return path


def main(argv: list[str]) -> int:
    """The command line: the folder of the trees, and the one of the server's backends."""
    if len(argv) != 2 or argv[0].startswith("-"):
        sys.stderr.write("usage: python -m kit_rehearsal_triton.install TREES BACKENDS\n")
        return 2
    install(Path(argv[0]))
    _write(Path(argv[1]) / "tensorrtllm" / "model.py", BACKEND)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
