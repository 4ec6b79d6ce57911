"""Swaps made during training, exactly as users get them, and their identity, pose and detection rate."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import nn

from faceswap_diffusion.faces.analyzer import MeshFaceAnalyzer
from faceswap_diffusion.faces.mesh_topology import dlib68
from faceswap_diffusion.faces.selection import select_face
from faceswap_diffusion.masks.parsing import LABELS
from faceswap_diffusion.metrics.faces import pose_errors
from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.swapping.aligned_face import AlignedFace
from faceswap_diffusion.swapping.options import SwapOptions
from faceswap_diffusion.swapping.painted import PaintedMasks
from faceswap_diffusion.swapping.pasting import paste_faces
from faceswap_diffusion.swapping.source_identity import average_identities
from faceswap_diffusion.swapping.swapper import FaceSwapper
from faceswap_diffusion.training.data.dataset import FaceRecord

IN_PLACE = np.eye(2, 3)
"""A validation face is a photo of nothing but its crop."""

REGION = "face"
MAX_SIDE = 256
"""Pixels of a face in the picture."""


@dataclass(frozen=True)
class ValidationResult:
    """Results of validation swaps.

    Args:
        values (`dict[str, float]`): Means over the swaps, named as in the evaluation: `cosine_to_source` and
            `cosine_to_target` of the pipeline's own recogniser, `closer_to_source` (share), `detected` (share), and
            `pose_error` (degrees, of those detected).
        picture (`PIL.Image.Image`): A row each of sources, targets and swaps.
    """

    values: dict[str, float]
    picture: Image.Image


@torch.no_grad()
def validate(
    pipeline: FaceSwapInpaintPipeline,
    faces: Sequence[FaceRecord],
    label_names: Sequence[str] = LABELS,
    num_inference_steps: int | None = None,
    seed: int = 0,
) -> ValidationResult:
    """Gives every face the identity of the next one of another person, by the steps of [`FaceSwapper`].

    Args:
        pipeline (`FaceSwapInpaintPipeline`): With the weights to judge; its networks keep their mode.
        faces (`Sequence[FaceRecord]`): Of two people at least, at the pipeline's `crop_size`.
        label_names (`Sequence[str]`): What the faces' labels mean: those of our parser if left out.
        num_inference_steps (`int`, *optional*): Denoising steps; the pipeline's default if left out.
        seed (`int`): Of each face's noise.

    Returns:
        [`ValidationResult`]: Numbers and a picture.

    Raises:
        ValueError: If all faces are of one person.
    """
    sources = next_person([face.identity for face in faces])
    swapper = FaceSwapper(pipeline)
    with evaluating(part for part in pipeline.components.values() if isinstance(part, nn.Module)):
        aligned = [align(swapper, face, label_names) for face in faces]
        people = [average_identities([swapper.encode_face(face.pixels, face, REGION)]) for face in aligned]
        chosen = [people[source] for source in sources]
        options = SwapOptions(region=REGION)
        masks = [
            PaintedMasks().wanted(face, options, person.bearded) for face, person in zip(aligned, chosen, strict=True)
        ]
        references = [swapper.draw_reference(face, person) for face, person in zip(aligned, chosen, strict=True)]
        masked = swapper.masked_images(aligned, masks, references)
        crops = swapper.repaint(aligned, masks, chosen, masked, seed, num_inference_steps=num_inference_steps)
        shown = swapper.shown_references(aligned, masked, chosen)
        guides = [swapper.identity_guide(*parts, scale=None) for parts in zip(aligned, shown, chosen, strict=True)]
        swaps = [
            paste_faces(
                face.pixels,
                [face],
                [mask],
                [face.free()],
                [crop],
                [detail],
                color_match=True,
                skin_texture=False,
                guides=[guide],
            )[0]
            for face, mask, crop, detail, guide in zip(aligned, masks, crops, shown, guides, strict=True)
        ]
        embeds = pipeline.encode_identity(swaps, masks).float().cpu()
    known = torch.cat([person.identity_embeds for person in people]).float().cpu()
    to_source, to_target = (embeds * known[sources]).sum(1), (embeds * known).sum(1)
    values = {
        "cosine_to_source": float(to_source.mean()),
        "cosine_to_target": float(to_target.mean()),
        "closer_to_source": float((to_source > to_target).float().mean()),
        **pose_values(swaps, [face.head_pose for face in faces]),
    }
    originals = [face.pixels for face in aligned]
    return ValidationResult(values, grid([[originals[source] for source in sources], originals, swaps]))


def choose_rows(identities: Sequence[str], count: int) -> list[int]:
    """Chooses faces for validation: of as many people as there are, one of each before a second one of anybody.

    Args:
        identities (`Sequence[str]`): The person of each row.
        count (`int`): How many, if there are so many.

    Returns:
        `list[int]`: Rows in order.

    Raises:
        ValueError: If all are of one person.
    """
    next_person(identities)
    seen: Counter[str] = Counter()
    turns = []
    for identity in identities:
        turns.append(seen[identity])
        seen[identity] += 1
    return sorted(sorted(range(len(identities)), key=lambda row: turns[row])[:count])


def next_person(identities: Sequence[str]) -> list[int]:
    """For each face the position of the next one, in a circle, that shows another person.

    Raises:
        ValueError: If there is none.
    """
    count = len(identities)
    if len(set(identities)) < 2:
        raise ValueError(
            f"validation got {count} face(s) of one person: swaps need two people, add faces to --validation_data_dir"
        )
    circles = ([(row + step) % count for step in range(1, count)] for row in range(count))
    return [
        next(other for other in circle if identities[other] != identities[row]) for row, circle in enumerate(circles)
    ]


def align(swapper: FaceSwapper, face: FaceRecord, label_names: Sequence[str]) -> AlignedFace:
    """A prepared face as the swapper has it."""
    landmarks68 = dlib68(face.landmarks)
    return AlignedFace(
        pixels=face.pixels.permute(1, 2, 0).numpy(),
        matrix=IN_PLACE,
        labels=face.labels,
        label_names=tuple(label_names),
        landmarks=face.landmarks,
        landmarks68=landmarks68,
        geometry=swapper.own_geometry(landmarks68, face.head_pose, face.blendshapes),
        depth=face.depth,
    )


def pose_values(swaps: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> dict[str, float]:
    """Share of pictures (S, S, 3) in which a face is found, and the mean error of its pose; none if none is found."""
    analyzer = MeshFaceAnalyzer()
    found = [analyzer.analyze(swap) for swap in swaps]
    poses = [(select_face(faces).head_pose, pose) for faces, pose in zip(found, wanted, strict=True) if faces]
    values = {"detected": len(poses) / len(swaps)}
    if poses:
        values["pose_error"] = float(pose_errors(*map(np.stack, zip(*poses, strict=True))).mean())
    return values


@contextmanager
def evaluating(networks: Iterable[nn.Module]) -> Iterator[None]:
    """Puts networks into evaluation mode, and each of their modules back into its own."""
    modes = {module: module.training for network in networks for module in network.modules()}
    for module in modes:
        module.training = False
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def grid(rows: Sequence[Sequence[np.ndarray]]) -> Image.Image:
    """Rows of pictures (S, S, 3) uint8 RGB, one below the other; large ones are reduced to `MAX_SIDE`."""
    picture = Image.fromarray(np.concatenate([np.concatenate(row, axis=1) for row in rows]))
    return picture.reduce(max(1, rows[0][0].shape[0] // MAX_SIDE))
