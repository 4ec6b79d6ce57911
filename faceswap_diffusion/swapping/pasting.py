"""Repainted crops back into their photo."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from faceswap_diffusion.faces.alignment import crop, resized_matrix
from faceswap_diffusion.masks.outlines import dilate, region_mask_from_landmarks
from faceswap_diffusion.masks.regions import feather, region_mask
from faceswap_diffusion.swapping.aligned_face import AlignedFace, native_size
from faceswap_diffusion.swapping.coherence import FaceState, independent
from faceswap_diffusion.swapping.compositing import (
    ShownReference,
    add_detail,
    continue_surroundings,
    keep_reference,
    match_border_tone,
    match_color,
    match_light,
    paste_back,
)
from faceswap_diffusion.swapping.exposure import brighten, darken

Guide = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From a crop (S, S, 3) float32 RGB in [0, 255], and what of it may change, (S, S) float in [0, 1], to a crop."""

EYE_ROOM, EYE_SIGMA = 0.006, 0.01  # how far lids reach around eyes, and softness, as shares of the crop's side
FEATHER = 0.015  # standard deviation of the seam, as a share of the crop's side


def paste_faces(
    rgb: np.ndarray,
    faces: Sequence[AlignedFace],
    masks: Sequence[np.ndarray],
    free: Sequence[np.ndarray],
    crops: Sequence[np.ndarray],
    shown: Sequence[ShownReference | None],
    color_match: bool,
    skin_texture: bool,
    states: Sequence[FaceState] | None = None,
    guides: Sequence[Guide | None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Puts repainted crops back into a photo, from back to front, as fine as the photo is.

    Args:
        rgb (`np.ndarray`): (H, W, 3) uint8.
        faces (`Sequence[AlignedFace]`): Of the photo.
        masks (`Sequence[np.ndarray]`): For each face (S, S) float in [0, 1], a region.
        free (`Sequence[np.ndarray]`): For each face (S, S) float in [0, 1], where nothing is in front of it.
        crops (`Sequence[np.ndarray]`): For each face (S, S, 3) uint8 RGB.
        shown (`Sequence[ShownReference | None]`): For each face the source of its fine detail, if there is one.
        color_match (`bool`): Whether to give new skin the colours of the target's, where there is no reference.
        skin_texture (`bool`): Whether skin without a reference gets the photo's own fine texture.
        states (`Sequence[FaceState]`, *optional*): For each face of a video what holds from frame to frame.
        guides (`Sequence[Guide | None]`, *optional*): For each face what changes it at the end, if anything does.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: The new photo (H, W, 3) uint8 RGB, and (H, W) float32 in [0, 1], which is 0
        where the photo is unchanged to the byte.
    """
    states, guides = states or [independent() for _ in faces], guides or [None] * len(faces)
    photo, changed = rgb, np.zeros(rgb.shape[:2], np.float32)
    parts = zip(faces, masks, free, crops, shown, states, guides, strict=True)
    ordered = sorted(parts, key=lambda part: part[0].score)  # see `overlap.in_front`
    for face, mask, bare, pixels, reference, state, guide in ordered:
        skin = mask * bare * state.mask("skin", region_mask(face.labels, "skin", face.label_names))
        fine, share = None, np.zeros(mask.shape, np.float32)
        if reference is not None:
            pixels = continue_surroundings(pixels.astype(np.float32), face.pixels, mask, state.tone)
            pixels, share = keep_reference(pixels, reference, face.pixels, skin, _soft_eyes(face))
            pixels = np.where((mask * bare)[..., None] > 0, pixels, face.pixels)  # the seam is softer than the mask
            fine = reference.fine
            assert face.depth is not None  # only meshes have references
            pixels = match_light(pixels, face.pixels, face.landmarks, face.depth, skin, state.tone)
            pixels = match_border_tone(pixels, face.pixels, mask, skin, state.tone)
        elif color_match:
            pixels = match_color(pixels, face.pixels, skin, state.tone)
        if guide is not None:
            pixels = guide(pixels.astype(np.float32), mask * bare)
        size = native_size(face.matrix, len(pixels))
        matrix = resized_matrix(face.matrix, len(pixels), size)
        fine_target = face.pixels if size == len(pixels) else brighten(crop(photo, matrix, size), face.exposure)
        detailed = add_detail(pixels, face.pixels, fine_target, skin if skin_texture else None, fine, share)
        landmarks = (face.landmarks + 0.5) * (size / len(pixels)) - 0.5
        detailed = state.pixels(detailed, fine_target, landmarks)
        # The region ends softly, things in front of it as sharply as they are.
        seam = state.strength * bare * feather(mask, FEATHER * len(mask))
        seam = cv2.resize(seam, (size, size), interpolation=cv2.INTER_LINEAR)
        rgb, seam = paste_back(rgb, darken(detailed, face.exposure), seam, matrix)
        changed = np.maximum(changed, seam)
    return rgb, changed


def _soft_eyes(face: AlignedFace) -> np.ndarray:
    """The eyes of a face and their lids, (S, S) float32 in [0, 1]."""
    size = len(face.pixels)
    eyes = dilate(region_mask_from_landmarks(face.landmarks, size, "eyes"), EYE_ROOM * size)
    return cv2.GaussianBlur(eyes, (0, 0), EYE_SIGMA * size)
