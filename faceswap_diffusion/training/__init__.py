"""Training: settings, data, losses, networks and the trainer."""
