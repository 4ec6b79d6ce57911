"""Metrics for training and evaluation: recognisers, LPIPS, Fréchet distance, face metrics, statistics."""
