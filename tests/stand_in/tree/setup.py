"""The miniature as a wheel, with what `scripts/build_wheel.py` has put into the package."""

import json
import sys
from pathlib import Path

from setuptools import Distribution, find_packages, setup

ROOT = Path(__file__).resolve().parent
FACTS = json.loads((ROOT / "scripts" / "stand_in.json").read_text())


class Binary(Distribution):
    """Has a platform tag, where the release has one."""

    def has_ext_modules(self):
        return FACTS["platform_tag"]


def requirements():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith(("-", "#"))]


def version():
    found = {}
    exec((ROOT / "tensorrt_llm" / "version.py").read_text(), found)
    return found["__version__"]


if FACTS["wants_bindings_folder"] and not (ROOT / "tensorrt_llm" / "bindings").is_dir():
    sys.exit("tensorrt_llm/bindings was not generated")

setup(
    name="tensorrt_llm",
    version=version(),
    description="A miniature that stands for TensorRT-LLM in tests",
    packages=find_packages(include=["tensorrt_llm", "tensorrt_llm.*"]),
    package_data={
        "tensorrt_llm": ["libs/*.so", "bin/*", "*.so", "bindings/*.pyi", "reference/data/*.json"],
    },
    distclass=Binary,
    install_requires=requirements(),
    python_requires=FACTS["requires_python"],
    entry_points={"console_scripts": FACTS["console_scripts"]},
)
