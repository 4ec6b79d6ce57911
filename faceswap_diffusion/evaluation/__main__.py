"""`python -m faceswap_diffusion.evaluation`, for `accelerate launch -m`."""

import sys

from faceswap_diffusion.evaluation.command import main

if __name__ == "__main__":
    sys.exit(main())
