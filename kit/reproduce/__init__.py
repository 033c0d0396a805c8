"""Reproduction: the same run again with the network off, and how far the two agree."""
