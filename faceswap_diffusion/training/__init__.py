"""Training parts of their own right: data, losses and the sampling that a training step needs."""
