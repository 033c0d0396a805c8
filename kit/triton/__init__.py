"""Triton over an engine: its model repository, the server, and what it answers."""
