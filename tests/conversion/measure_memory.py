"""How much memory the conversion of a full-size checkpoint takes; Linux only.

    python -m tests.conversion.measure_memory [--dtype fp16] [--folder FOLDER]

writes a checkpoint of REFace's size (6.1 GB, nearly all of it holes in the file, which take no room on the disk),
converts it in a process of its own, and prints the peak of anonymous memory: what a process holds of its own, without
files that are mapped. The converted folder takes 5 GB, or 2.5 GB with `--dtype fp16`.
"""

import argparse
import json
import mmap
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from threading import Event, Thread
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from faceswap_diffusion.conversion.reface import convert_reface, stable_diffusion_scheduler
from faceswap_diffusion.conversion.weights import DTYPES
from tests.parity.synthetic_weights import synthetic_tensor

KEYS = Path(__file__).parents[1] / "parity" / "keys_full_size.json"
MEGABYTE = 1_000_000
FILLED = 200_000  # weights of no more values than this are filled, the larger ones are zero


def write_checkpoint(path: Path) -> None:
    """Writes a checkpoint of the published size: small weights as `synthetic_tensor` makes them, large ones zero."""
    listed = json.loads(KEYS.read_text())
    with FakeTensorMode():
        empty = {key: torch.empty(shape, dtype=getattr(torch, dtype)) for key, (dtype, shape) in listed.items()}
    with torch.serialization.skip_data(materialize_fake_tensors=True):
        torch.save({"state_dict": empty}, path)
    with torch.serialization.set_default_mmap_options(mmap.MAP_SHARED):
        weights = torch.load(path, mmap=True, weights_only=True)["state_dict"]
    for key, weight in weights.items():
        if weight.numel() <= FILLED:
            weight.copy_(synthetic_tensor(key, weight.shape))
    weights["alphas_cumprod"].copy_(stable_diffusion_scheduler().alphas_cumprod)


def anonymous_memory() -> int:
    """Bytes of this process's own memory at present."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))


def convert_and_measure(checkpoint: Path, folder: Path, dtype: str | None) -> dict[str, float]:
    """Converts, and returns seconds and bytes of anonymous memory: before, and at the peak."""
    before = peak = anonymous_memory()
    done = Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, anonymous_memory())

    watcher = Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    try:
        convert_reface(checkpoint, folder, dtype=DTYPES.get(dtype or ""))
    finally:
        done.set()
        watcher.join()
    return {"before": before, "peak": peak, "seconds": time.perf_counter() - started}


def measure(folder: Path, dtype: str | None, context: Any = None) -> dict[str, float]:
    """Measures in a new process; leaves the checkpoint and the converted folder in `folder`."""
    write_checkpoint(folder / "last.ckpt")
    with ProcessPoolExecutor(1, context or multiprocessing.get_context("spawn")) as pool:
        return pool.submit(convert_and_measure, folder / "last.ckpt", folder / "reface", dtype).result()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dtype", choices=DTYPES)
    parser.add_argument("--folder", type=Path, help="a folder to work in and leave the results in")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        measured = measure(args.folder or Path(temporary), args.dtype)
    print(
        f"{args.dtype or 'as it is'}: peak of anonymous memory {measured['peak'] / MEGABYTE:.0f} MB, "
        f"{measured['before'] / MEGABYTE:.0f} MB of it before the conversion; {measured['seconds']:.0f} s"
    )


if __name__ == "__main__":
    main()
