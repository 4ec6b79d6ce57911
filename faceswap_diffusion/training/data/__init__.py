"""What the swap model is trained on: samples, and the references that they show."""
