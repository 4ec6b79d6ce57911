"""References for training without pairs: a face's own texture, made wrong in the ways in which a swap's is.

A model that is shown true references learns to copy, and one that is shown worse ones than a swap's learns to distrust
them. Each fault has a switch of its own, and `train/measure_references.py` compares how alike the references of
training and of true pairs are to what they stand for.
"""

from dataclasses import replace

import cv2
import numpy as np
import torch

from faceswap_diffusion.conditioning.geometry import move_mesh
from faceswap_diffusion.conditioning.reference import (
    Reference,
    SourceHead,
    draw_reference,
    render_texture,
    ring_reach,
    shown_around,
)
from faceswap_diffusion.faces.surface import face_surface
from faceswap_diffusion.faces.texture import (
    FaceTexture,
    extract_texture,
    smoothstep,
)
from faceswap_diffusion.faces.texture_cleaning import clean_texture, complete_texture
from faceswap_diffusion.masks.regions import region_mask, repaint_mask
from faceswap_diffusion.training.config import ReferenceConfig
from faceswap_diffusion.training.data.dataset import FaceRecord, PreparedFaces
from faceswap_diffusion.training.data.occluders import draw_occluder

TEXTURE_SIZE = 256  # that of the crops: a finer one would be interpolated


class TrainingReferences:
    """Draws the references of training samples.

    Args:
        faces (`PreparedFaces`): At the checkpoint's crop size.
        faults (`ReferenceConfig`): What is wrong with them.
    """

    def __init__(self, faces: PreparedFaces, faults: ReferenceConfig):
        self.faces, self.faults = faces, faults

    def draw(
        self,
        target: FaceRecord,
        source: FaceRecord,
        region: str,
        generator: torch.Generator,
        shape: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Draws the reference of a sample.

        Args:
            target (`FaceRecord`): Whose mesh and light it gets.
            source (`FaceRecord`): Whose face it shows: the target itself, another picture of the same person, or
                somebody else.
            region (`str`): What is repainted, a key of `masks.regions.REGIONS`.
            generator (`torch.Generator`): The sample's.
            shape (`torch.Tensor`, *optional*): (68, 2), by how many pixels the source's facial shape moves the
                target's landmarks.

        Returns:
            `torch.Tensor`: (4, S, S), RGB in [-1, 1], and the coverage in [0, 1].
        """
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        texture = self.wrong_texture(source, same_photo=source is target, rng=rng)
        head = None if rng.random() < self.faults.bare else self._head(source, region, rng)
        target_rgb, size = to_rgb(target), self.faces.resolution
        mesh = target.landmarks if shape is None else move_mesh(target.landmarks, shape.numpy())
        landmarks = misalign(mesh, self.faults.misaligned * size, rng)
        skin = region_mask(target.labels, "skin", self.faces.label_names)
        reference = draw_reference(
            texture, target_rgb, landmarks, target.depth, skin, head, keep_mouth=rng.random() >= self.faults.toothless
        )
        reference = self.spoil(reference, rng)
        pixels = torch.from_numpy(reference.pixels).permute(2, 0, 1) / 127.5 - 1
        return torch.cat([pixels, torch.from_numpy(reference.coverage)[None]]).float()

    def wrong_texture(self, source: FaceRecord, same_photo: bool, rng: np.random.Generator) -> FaceTexture:
        """The source's texture; of the target's own photo it may be taken from a drawing in another pose."""
        shown = repaint_mask(source.labels, source.landmarks, "face", self.faces.label_names)
        rgb = to_rgb(source)
        if rng.random() < self.faults.occluded:
            rgb = draw_occluder(source.landmarks, to_rgb(self._anybody(rng)), rng).over(rgb)
        texture = clean_texture(extract_texture(rgb, source.landmarks, source.depth, shown, TEXTURE_SIZE))
        if same_photo and rng.random() < self.faults.cycled:
            texture = self._seen_elsewhere(complete_texture(texture), rng)
        return complete_texture(self._shade(texture, rng))

    def _seen_elsewhere(self, texture: FaceTexture, rng: np.random.Generator) -> FaceTexture:
        other, size = self._anybody(rng), self.faces.resolution
        drawn = render_texture(texture, other.landmarks, other.depth, (size, size))
        pixels = np.clip(np.round(drawn.pixels), 0, 255).astype(np.uint8)
        landmarks = misalign(other.landmarks, self.faults.misaligned * size, rng)
        seen = extract_texture(pixels, landmarks, other.depth, drawn.coverage, TEXTURE_SIZE, remove_light=False)
        # A mouth that was open on the way there and back shows its inside only if it was open at all.
        return replace(seen, mouth_opening=min(seen.mouth_opening, texture.mouth_opening))

    def _anybody(self, rng: np.random.Generator) -> FaceRecord:
        return self.faces[int(rng.integers(len(self.faces)))]

    def _shade(self, texture: FaceTexture, rng: np.random.Generator) -> FaceTexture:
        """Leaves some light of the source on a texture, and shifts its tone."""
        size = len(texture.confidence)
        coarse = rng.normal(size=(3, 3)).astype(np.float32) * self.faults.shaded
        shade = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
        lab = cv2.cvtColor(texture.pixels / 255, cv2.COLOR_RGB2Lab)
        tone = rng.normal(size=3).astype(np.float32) * self.faults.toned
        lab = lab * (1 + shade[..., None] * np.array([1.0, 0.5, 0.5], np.float32)) + tone
        return replace(texture, pixels=np.clip(cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_Lab2RGB), 0, 1) * 255)

    def _head(self, source: FaceRecord, region: str, rng: np.random.Generator) -> SourceHead:
        shown = shown_around(source.labels, source.landmarks, region, self.faces.label_names)
        landmarks = misalign(source.landmarks, self.faults.misaligned * self.faces.resolution, rng)
        return SourceHead(to_rgb(source), landmarks, shown, ring_reach(region))

    def spoil(self, reference: Reference, rng: np.random.Generator) -> Reference:
        """Lowers the resolution of some references, and takes pieces out of some."""
        if rng.random() < self.faults.blurred:
            pixels = cv2.GaussianBlur(
                reference.pixels, (0, 0), float(rng.uniform(0.3, 1.6)) * len(reference.pixels) / 256
            )
            reference = replace(reference, pixels=pixels)
        if rng.random() < self.faults.holed:
            coarse = rng.normal(size=(5, 5)).astype(np.float32)
            height = cv2.resize(coarse, reference.coverage.shape[::-1], interpolation=cv2.INTER_CUBIC)
            kept = 1 - smoothstep(height, 1.0, 1.2)
            reference = replace(reference, coverage=(reference.coverage * kept).astype(np.float32))
        return reference


def misalign(landmarks: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Moves mesh points: all of them alike, and smoothly over the texture's plane.

    Args:
        landmarks (`np.ndarray`): (478, 2) in pixels.
        sigma (`float`): Standard deviation of the movement in pixels.
        rng (`np.random.Generator`): What is random.

    Returns:
        `np.ndarray`: (478, 2).
    """
    whole = rng.normal(size=2) * sigma / np.sqrt(2)
    coarse = (rng.normal(size=(5, 5, 2)) * sigma / np.sqrt(2)).astype(np.float32)
    field = cv2.resize(coarse, (64, 64), interpolation=cv2.INTER_CUBIC)
    x, y = np.clip(np.round(face_surface().uv * 63), 0, 63).astype(int).T
    return landmarks + whole + field[y, x]


def to_rgb(face: FaceRecord) -> np.ndarray:
    """Pixels of a face, (S, S, 3) uint8."""
    return np.ascontiguousarray(face.pixels.permute(1, 2, 0).numpy())
