"""Command lines of TensorRT-LLM: what a release says to them, and what they became.

Nothing here runs, imports or opens what a command line names: text is held against tables. Records
are named tuples, not dataclasses: importing those alone takes as long as a whole check.
"""
