"""Checkpoints in other layouts, into Diffusers folders and back."""
