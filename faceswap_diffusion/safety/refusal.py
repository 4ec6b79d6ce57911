"""What the safety checker raises; without PyTorch."""


class RefusedError(ValueError):
    """The safety checker refuses a picture."""
