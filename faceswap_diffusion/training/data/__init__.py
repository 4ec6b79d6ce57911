"""Training data of the swap model: samples, and the references that they show."""
