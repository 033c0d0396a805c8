"""`trtllm-build` of the release that this stands for."""

from tensorrt_llm.reference.commands import main as command
from tensorrt_llm.version import __version__


def main():
    return command(__version__.partition("+")[0], "trtllm-build")
