"""Measures how well a checkpoint swaps faces."""
