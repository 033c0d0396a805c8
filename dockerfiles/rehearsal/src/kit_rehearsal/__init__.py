"""Reference backend of the rehearsal: TensorRT-LLM's command lines, computed in NumPy.

It is not TensorRT-LLM and never says so: its version, its engines and their configuration carry
the label `rehearsal`.
"""

BACKEND = "kit-rehearsal"
VERSION = "0.1.0+rehearsal"
