"""Serves the demo as a Space of the Hugging Face Hub."""

import os
import sys

from faceswap_diffusion.cli.main import main


def arguments() -> list[str]:
    """What the command line is told; a Space listens on port 7860."""
    checkpoint = os.environ.get("CHECKPOINT")
    return ["demo", "--host", "0.0.0.0", "--port", "7860", *(["--checkpoint", checkpoint] if checkpoint else [])]


if __name__ == "__main__":
    sys.exit(main(arguments()))
