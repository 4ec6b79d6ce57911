"""What is known of every training face before training begins: measured once, kept in one safetensors file."""

from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm

from faceswap_diffusion.conditioning.identity import SFace
from faceswap_diffusion.faces.analyzer import MeshFaceAnalyzer
from faceswap_diffusion.faces.landmarks import BLENDSHAPE_NAMES
from faceswap_diffusion.faces.selection import select_face
from faceswap_diffusion.masks.parsing import load_face_parser
from faceswap_diffusion.masks.regions import repaint_mask

LIGHT_POINTS = (151, 50, 280, 4, 199)
"""Mesh points where the light is read: forehead, cheeks (left and right in the picture), nose tip, chin."""

MIRRORED_DLIB68 = np.array(
    [
        *range(16, -1, -1),  # jaw
        *range(26, 16, -1),  # brows
        *range(27, 31),  # bridge of the nose
        *range(35, 30, -1),  # its lower edge
        *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),  # eyes
        *(*range(54, 47, -1), *range(59, 54, -1)),  # outer lips
        *(*range(64, 59, -1), 67, 66, 65),  # inner lips
    ]
)
"""Where each of dlib's 68 points is found in the mirrored picture."""


def mirrored_blendshapes() -> list[int]:
    """Where each blendshape is found in the mirrored picture: left and right change places."""
    swapped = [name.replace("Left", "?").replace("Right", "Left").replace("?", "Right") for name in BLENDSHAPE_NAMES]
    return [BLENDSHAPE_NAMES.index(name) for name in swapped]


def light_samples(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Mean colour of a small patch around each of `LIGHT_POINTS`.

    Args:
        image (`np.ndarray`): (S, S, 3) uint8 RGB crop.
        landmarks (`np.ndarray`): (478, 2), x and y in pixels.

    Returns:
        `np.ndarray`: (5, 3) float32, RGB in [-1, 1].
    """
    radius = max(1, image.shape[0] // 25)
    blurred = cv2.blur(image, (2 * radius + 1, 2 * radius + 1))
    x, y = np.clip(np.round(landmarks[list(LIGHT_POINTS)]).astype(int), 0, image.shape[0] - 1).T
    return blurred[y, x].astype(np.float32) / 127.5 - 1


class FaceMeasurer:
    """Measures one aligned crop after another.

    Args:
        resolution (`int`): Side in pixels of the stored crops; landmarks and masks are in its pixels.
    """

    def __init__(self, resolution: int):
        self.resolution = resolution
        self.analyzer = MeshFaceAnalyzer()
        self.parser = load_face_parser()
        self.identity_network = SFace().eval()

    @torch.no_grad()
    def embed(self, small: np.ndarray) -> torch.Tensor:
        """SFace embeddings (2, 128) of a crop and of its mirror image, through the same window as in a swap."""
        both = torch.from_numpy(np.stack([small, small[:, ::-1]])).permute(0, 3, 1, 2).float() / 127.5 - 1
        return self.identity_network(self.identity_network.prepare(both))

    def measure(self, path: Path) -> dict[str, np.ndarray]:
        """Measures the largest face of a crop.

        Raises:
            NoFaceFoundError: If there is none.
        """
        with Image.open(path) as picture:
            image = np.asarray(picture.convert("RGB"))
        face = select_face(self.analyzer.analyze(image), where=str(path))
        size = self.resolution
        small = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
        landmarks = (face.landmarks + 0.5) * size / image.shape[0] - 0.5
        labels = self.parser.parse(image)
        labels = cv2.resize(labels, (size, size), interpolation=cv2.INTER_NEAREST)
        return {
            "pixels": small,
            "landmarks": ((face.landmarks68 + 0.5) * size / image.shape[0] - 0.5).astype(np.float32),
            "blendshapes": np.asarray(face.blendshapes, np.float32),
            "head_pose": np.asarray(face.head_pose, np.float32),
            "light": light_samples(small, landmarks),
            "identity_embeds": self.embed(small).numpy(),
            "face_mask": (repaint_mask(labels, landmarks, "face") * 255).astype(np.uint8),
            "head_mask": (repaint_mask(labels, landmarks, "head") * 255).astype(np.uint8),
        }


def measure_faces(paths: list[Path], cache: Path, resolution: int) -> dict[str, torch.Tensor]:
    """Measures faces, or reads what an earlier run measured.

    Args:
        paths (`list[Path]`): FFHQ-aligned crops. Those without a face that both nets see are left out.
        cache (`Path`): The safetensors file to write, or to read if it is there.
        resolution (`int`): Side of the stored crops in pixels.

    Returns:
        `dict[str, torch.Tensor]`: One row a face: `pixels` (N, S, S, 3) uint8, `landmarks` (N, 68, 2) in pixels,
        `blendshapes` (N, 52), `head_pose` (N, 3) degrees, `light` (N, 5, 3), `identity_embeds` (N, 2, 128) of the
        picture and of its mirror image, `face_mask` and `head_mask` (N, S, S) uint8, and `path_index` (N,).
    """
    if not cache.exists():
        measurer = FaceMeasurer(resolution)
        rows, kept = [], []
        for index, path in enumerate(tqdm(paths, desc="measuring faces", mininterval=10)):
            try:
                rows.append(measurer.measure(path))
                kept.append(index)
            except ValueError as error:
                tqdm.write(f"left out: {error}")
        stacked = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
        stacked["path_index"] = torch.tensor(kept)
        cache.parent.mkdir(parents=True, exist_ok=True)
        save_file(stacked, cache)
    return load_file(cache)
