"""Aligned face crops, held in memory: a small model sees each of them many times."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from tqdm.auto import tqdm

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def find_images(folders: list[str]) -> list[Path]:
    """Lists the pictures below some folders, sorted by path, so that an index always means the same picture.

    Args:
        folders (`list[str]`): Folders, searched with their subfolders.

    Raises:
        ValueError: If there is none.
    """
    paths = sorted(
        path for folder in folders for path in Path(folder).rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES
    )
    if not paths:
        raise ValueError(f"no picture found in {folders}: expected files ending in {sorted(IMAGE_SUFFIXES)}")
    return paths


class AlignedFaces(Dataset):
    """FFHQ-aligned face crops as RGB tensors in [-1, 1], decoded once and kept as bytes.

    Args:
        paths (`list[Path]`): Square pictures.
        resolution (`int`): Side length in pixels; pictures of another size are resized (Lanczos).
    """

    def __init__(self, paths: list[Path], resolution: int):
        self.paths = paths
        self.pixels = np.empty((len(paths), resolution, resolution, 3), np.uint8)
        for index, path in enumerate(tqdm(paths, desc="reading faces")):
            with Image.open(path) as picture:
                picture.draft("RGB", (resolution, resolution))
                self.pixels[index] = picture.convert("RGB").resize((resolution, resolution), Image.Resampling.LANCZOS)

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        """Returns picture `index` as a float tensor (3, H, W) in [-1, 1], RGB."""
        return torch.from_numpy(self.pixels[index]).permute(2, 0, 1).float() / 127.5 - 1
