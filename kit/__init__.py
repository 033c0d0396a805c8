"""kit: reproducible builds of TensorRT-LLM engines, with the network off."""

__version__ = "0.1.0"
