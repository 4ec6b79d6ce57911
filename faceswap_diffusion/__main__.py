"""Runs the command line: `python -m faceswap_diffusion`."""

import sys

from faceswap_diffusion.cli.main import main

sys.exit(main())
