"""What a source's photo shows of a face that has something in front of it."""

from dataclasses import dataclass

import numpy as np

from faceswap_diffusion.masks.occlusion import mend_thin
from faceswap_diffusion.masks.outlines import around_eyes, brow_masks, dilate, eye_masks
from faceswap_diffusion.swapping.aligned_face import AlignedFace

EYES_LOST = 0.5  # share of eyes and brows from which on nothing of them is taken from the source
FRAMED = 0.05  # the same share, taken by thin things, from which on they are glasses
BROW_HIDDEN, EYE_HIDDEN = 0.3, 0.4  # shares behind a frame, from which on a brow, or both eyes, are not taken
EYE_MARGIN = 0.015  # share of the crop's side: a frame closer than this to an eye is mended, and leaves no hole
FRAME = 0.5  # certainty from which on something thin is a frame
FRAME_MARGIN = 0.004  # share of the crop's side: how far around a frame its edge reaches
SHADE = 0.025  # share of the crop's side: how far around sunglasses their shadow is not taken either


@dataclass(frozen=True)
class UncoveredFace:
    """A face without what is in front of it.

    Args:
        mended (`np.ndarray`): (S, S, 3) uint8, RGB: the crop, filled in behind thin things.
        thin (`np.ndarray`): (S, S) float32 in [0, 1], where it is filled in.
        visible (`np.ndarray`): (S, S) float32 in [0, 1], where it is seen, or mended.
        framed (`np.ndarray`): (S, S) float32 in [0, 1], where the frame of glasses was: what is mended there looks
            like neither skin nor brow.
        hidden_brows (`tuple[bool, bool]`): Which brows are behind a frame.
        has_lenses (`bool`): Whether eyes are seen through glasses.
    """

    mended: np.ndarray
    thin: np.ndarray
    visible: np.ndarray
    framed: np.ndarray
    hidden_brows: tuple[bool, bool] = (False, False)
    has_lenses: bool = False


def uncover(face: AlignedFace) -> UncoveredFace:
    """Looks behind frames, hairs and other thin things, and tells what broad things hide.

    Frames close to the eyes are mended like other thin things: eyes cannot be filled in. Where a frame crosses the
    eyes, and where sunglasses hide them, nothing around the eyes is seen.
    """
    size = len(face.pixels)
    if face.covered is None:
        nothing = np.zeros((size, size), np.float32)
        return UncoveredFace(face.pixels, nothing, 1 - nothing, nothing)
    mended, thin, broad = mend_thin(face.pixels, face.covered)
    visible, framed = 1 - broad, np.zeros_like(thin)
    around, eyes = around_eyes(face.landmarks, size), eye_masks(face.landmarks, size, EYE_MARGIN * size)
    has_lenses = share_within(around, thin) > FRAMED
    eyes_lost = share_within(around, broad) > EYES_LOST
    if has_lenses:
        frame = dilate((face.covered > FRAME).astype(np.float32), FRAME_MARGIN * size)
        framed = frame * visible * (1 - np.maximum(*eyes))
        eyes_lost = eyes_lost or max(share_within(eye, thin) for eye in eyes) > EYE_HIDDEN
    if eyes_lost:  # what is seen beside them would not fit the target's
        hidden = np.maximum(around, broad > 0.5).astype(np.float32)
        visible = visible * (1 - dilate(hidden, SHADE * size))
    left, right = (share_within(brow, thin) > BROW_HIDDEN for brow in brow_masks(face.landmarks, size))
    return UncoveredFace(mended, thin, visible, framed, (left, right), has_lenses)


def share_within(mask: np.ndarray, covered: np.ndarray) -> float:
    """Share of a mask (S, S) that is covered, (S, S) in [0, 1]."""
    return float((mask * covered).sum() / max(mask.sum(), 1))
