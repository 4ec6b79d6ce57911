"""Runs the command line: `python -m faceswap_diffusion`."""

import sys

from faceswap_diffusion.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
