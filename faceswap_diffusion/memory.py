"""Peak memory of this process."""

import sys
from pathlib import Path

import torch


def peak_memory(device: torch.device) -> int:
    """Peak memory in bytes: allocated on a CUDA device, otherwise resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset
    if sys.platform == "darwin":
        import resource  # not on Windows

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Unlike getrusage, this does not include memory of the parent process before a fork.
    lines = Path("/proc/self/status").read_text().splitlines()
    (kilobytes,) = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(kilobytes) * 1024
