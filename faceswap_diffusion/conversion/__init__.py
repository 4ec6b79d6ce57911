"""Converts checkpoints in other layouts to Diffusers folders and back."""
