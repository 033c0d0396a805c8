"""Readers of what a delivery is made of: engines, checkpoints, images, wheels; nothing runs."""
