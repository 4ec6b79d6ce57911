"""What networks are trained for: the swap's objective, its losses, discriminator and distillation."""
