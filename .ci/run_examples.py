"""Runs every file in examples/ in a process of its own, forked from this one, which has imported slow libraries."""

import multiprocessing
import runpy
import sys
from pathlib import Path

import cv2  # noqa: F401
import diffusers.models.autoencoders.autoencoder_kl
import diffusers.models.unets.unet_2d_condition
import diffusers.pipelines.pipeline_utils  # noqa: F401
import transformers.models.clip.modeling_clip  # noqa: F401

EXAMPLES = Path(__file__).parents[1] / "examples"

for example in sorted(EXAMPLES.glob("*.py")):
    print(f"== {example.relative_to(EXAMPLES.parent)}", flush=True)
    run = {"target": runpy.run_path, "args": (str(example),), "kwargs": {"run_name": "__main__"}}
    process = multiprocessing.get_context("fork").Process(**run)
    process.start()
    process.join()
    if process.exitcode != 0:
        sys.exit(1)
