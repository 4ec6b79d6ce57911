"""Objectives: the swap model's losses, discriminator and distillation."""
