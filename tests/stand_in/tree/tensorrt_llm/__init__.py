"""A miniature that stands for TensorRT-LLM: its command lines, answered by a reference backend."""

from .version import __version__

__all__ = ["__version__"]
