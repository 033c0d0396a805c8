"""TensorRT-LLM's Triton backend of every version, over the reference backend.

Its tools take the options of theirs, its repository the parameters of theirs; what answers is the
server itself with `kit_rehearsal` behind it, and says so.
"""
