"""What crosses the air gap: signed, in parts, verified before anything is imported (FORMAT.md)."""
