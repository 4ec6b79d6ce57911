"""Putting a swapped crop back into the photo: its colours, its fine detail, inverse warp, blend."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from faceswap_diffusion.conditioning.reference import Reference
from faceswap_diffusion.conditioning.tone import LAB_RANGE, Tone, lightness_share, unchanged
from faceswap_diffusion.faces.alignment import invert, transform_points, uncrop
from faceswap_diffusion.faces.lighting import face_light, shading
from faceswap_diffusion.faces.surface import NOTHING, face_surface, interpolate, rasterize, vertex_normals
from faceswap_diffusion.faces.texture import (
    blur_known,
    gaussian_blur,
    largest_channel,
    scale_lightness,
    smoothstep,
)
from faceswap_diffusion.pipelines.inputs import close_holes

SMALLEST_SAMPLE = 64
"""Weighted pixels below which the colour statistics of a mask mean nothing."""

CONTRAST_RANGE = (0.75, 1.33)
"""Limits of the factor on the spread of a Lab channel: colours are matched, shading is not flattened or blown up."""

LIGHT_RANGE = (0.75, 1.33)
"""Limits of the factor that brings a swap's shading to the target's: more would be no light."""

LIGHT_SHARE = 0.5
"""Share of the difference, in logarithms, that is corrected: shading is shape as well, by which a person is known."""

LIGHT_SIGMA = 0.03
"""How softly that factor ends beyond the mesh, as a share of the crop's side."""

SURROUNDINGS_SIGMA = 0.02
"""Smoothness of what is carried on from around the mask, as a share of the crop's side."""

BORDER_REACH = 0.08
"""Width of the band inside the mask that is brought to the target's tone, as a share of the crop's side."""

BORDER_SIGMA = 0.025
"""As a share of the crop's side: what is narrower is structure."""

BORDER_LIMIT = 25.0
"""Of 255: a larger difference is no tone, but a beard or a shadow."""

AGREEMENT = (14.0, 28.0)
"""CIELAB distances of structure up to which a crop wholly, and from which on not at all, shows its reference."""

INVENTED = (3.0, 6.0)
"""L* of structure in a crop's skin that neither reference nor target has: up to the first it may stay."""

TONE_SIGMA, STRUCTURE_SIGMA = 0.06, 0.012
"""As shares of the crop's side: what is wider is tone, what is narrower is noise."""

DETAIL_SIGMA, COLOR_SIGMA = 0.03, 0.1
"""As shares of the crop's side: what is finer in brightness and colour is the source's where crop and reference agree.

Colours are kept over a wider range: a reference has them from source and target, and the model tints shadows.
"""

FINE_INSET = 0.012
"""Width of the border of a drawn face that has no detail to give, but its own edge, as a share of the crop's side."""

SPECK = 45.0
"""Of 255: by how much a pixel that is no detail differs from the median of its neighbours."""

INVISIBLE = 1 / 512
"""Mask values below this cannot change an 8-bit pixel, and are taken as 0."""


def match_color(swap: np.ndarray, target: np.ndarray, mask: np.ndarray, tone: Tone = unchanged) -> np.ndarray:
    """Gives a swapped crop the colours of the target's skin (Reinhard et al. 2001, eq. 10 and 11, in CIE Lab).

    Means and standard deviations are taken inside the mask only, and the contrast factor is limited.

    Args:
        swap (`np.ndarray`): (H, W, 3) uint8 RGB, the swapped crop.
        target (`np.ndarray`): (H, W, 3) uint8 RGB, the crop before the swap.
        mask (`np.ndarray`): (H, W) float in [0, 1], where both show skin.
        tone (`Callable`): See `conditioning.tone.Tone`.

    Returns:
        `np.ndarray`: (H, W, 3) uint8 RGB; `swap` itself where the mask is too small to tell.
    """
    if mask.sum() < SMALLEST_SAMPLE:
        return swap
    swap_lab, target_lab = _to_lab(swap), _to_lab(target)
    statistics = np.stack([_weighted_statistics(view, mask) for view in (swap_lab, target_lab)])
    (swap_mean, swap_std), (target_mean, target_std) = tone("statistics", statistics, LAB_RANGE)
    contrast = np.clip((target_std + 1e-3) / (swap_std + 1e-3), *CONTRAST_RANGE)
    matched = ((swap_lab - swap_mean) * contrast + target_mean).astype(np.float32)
    rgb = cv2.cvtColor(matched, cv2.COLOR_Lab2RGB)
    return np.round(np.clip(rgb, 0, 1) * 255).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class ShownReference:
    """What a pipeline was shown where a face is hidden, and what of it its latents could hold.

    Args:
        filled (`np.ndarray`): (S, S, 3) float32 RGB in [0, 255], the target with the reference in it.
        rebuilt (`np.ndarray`): (S, S, 3) float32 RGB, the same through the autoencoder.
        coverage (`np.ndarray`): (S, S) float32 in [0, 1], where the reference is shown.
        fine ([`Reference`], *optional*): (F, F), the source's face on the target's mesh, as fine as the photo; `None`
            where that is no finer than the crop.
    """

    filled: np.ndarray
    rebuilt: np.ndarray
    coverage: np.ndarray
    fine: Reference | None


def continue_surroundings(
    pixels: np.ndarray, target: np.ndarray, mask: np.ndarray, tone: Tone = unchanged
) -> np.ndarray:
    """Takes out of a repainted crop by what it differs from the target around the mask.

    Autoencoder and model shift colours a little. What they did to the surroundings, which nobody asked them to change,
    is carried on smoothly into the mask, so that there is no step at its border.

    Args:
        pixels (`np.ndarray`): (S, S, 3) float32 RGB in [0, 255], the repainted crop with its surroundings.
        target (`np.ndarray`): (S, S, 3) uint8 RGB, the crop before it was repainted.
        mask (`np.ndarray`): (S, S) float in [0, 1], 1 = repainted.
        tone (`Callable`): See `conditioning.tone.Tone`.

    Returns:
        `np.ndarray`: (S, S, 3) float32 RGB.
    """
    known = torch.from_numpy(1 - mask.astype(np.float32))[None, None]
    difference = torch.from_numpy(target.astype(np.float32) - pixels).permute(2, 0, 1)[None]
    carried = close_holes(difference * known, known)[0].permute(1, 2, 0).numpy()
    carried = cv2.GaussianBlur(carried, (0, 0), SURROUNDINGS_SIGMA * len(mask))
    return pixels + tone("surroundings", carried, 255.0)


def match_light(
    pixels: np.ndarray,
    target: np.ndarray,
    landmarks: np.ndarray,
    depth: np.ndarray,
    skin: np.ndarray,
    tone: Tone = unchanged,
) -> np.ndarray:
    """Shades a repainted crop as the target is shaded: by the ratio of the two lights' shading of the mesh.

    Both lights are fitted to the pixels, with a penalty, and `LIGHT_SHARE` of what differs is corrected: a darker chin
    may be the person's own.

    Args:
        pixels (`np.ndarray`): (S, S, 3) float32 RGB in [0, 255], the repainted crop.
        target (`np.ndarray`): (S, S, 3) uint8 RGB, the crop before it was repainted.
        landmarks (`np.ndarray`): (478, 2), the target's mesh in crop pixels.
        depth (`np.ndarray`): (478,), in crop pixels, smaller is nearer.
        skin (`np.ndarray`): (S, S) float in [0, 1], where both show bare skin.
        tone (`Callable`): See `conditioning.tone.Tone`.

    Returns:
        `np.ndarray`: (S, S, 3) float32 RGB; `pixels` itself where too little skin is seen to tell.
    """
    size, surface = len(pixels), face_surface()
    given, wanted = (face_light(np.clip(view, 0, 255), landmarks, depth, skin) for view in (pixels, target))
    if np.isnan(given).any() or np.isnan(wanted).any():
        return pixels
    given, wanted = tone("lights", np.stack([given, wanted]), 1.0)
    normals = vertex_normals(np.column_stack([landmarks, depth]), surface.triangles)
    factor = np.clip(shading(wanted, normals) / shading(given, normals), *LIGHT_RANGE)
    seen = rasterize(landmarks, surface.triangles, (size, size), depth)
    drawn = interpolate(seen, landmarks, surface.triangles, LIGHT_SHARE * np.log(factor)[:, None])
    spread = blur_known(drawn, (seen != NOTHING).astype(np.float32), LIGHT_SIGMA * size, doubt=0.005)
    return scale_lightness(pixels, np.exp(cv2.resize(spread, (size, size), interpolation=cv2.INTER_LINEAR)))


def match_border_tone(
    pixels: np.ndarray,
    target: np.ndarray,
    mask: np.ndarray,
    skin: np.ndarray,
    tone: Tone = unchanged,
    name: str = "border",
    sigma: float = BORDER_SIGMA,
) -> np.ndarray:
    """Brings a repainted crop to the target's tone near the mask's border, where both show skin.

    Broad differences are blended over a wide band and fine ones over the mask's own narrow edge, as in multiresolution
    blending (Burt and Adelson 1983): no seam, and no ghost of the target's features. What is darker than the target's
    skin changes less: a beard stays as dark as it is.

    Args:
        pixels (`np.ndarray`): (S, S, 3) float32 RGB in [0, 255], the repainted crop.
        target (`np.ndarray`): (S, S, 3) uint8 RGB, the crop before it was repainted.
        mask (`np.ndarray`): (S, S) float in [0, 1], 1 = repainted.
        skin (`np.ndarray`): (S, S) float in [0, 1], where the target shows bare skin.
        tone (`Callable`): See `conditioning.tone.Tone`.
        name (`str`): Of the border, for `tone`.
        sigma (`float`): What is narrower than this share of the crop's side is structure, and stays the swap's.

    Returns:
        `np.ndarray`: (S, S, 3) float32 RGB.
    """
    size, inside = len(mask), np.pad((mask > 0.5).astype(np.uint8), 1, constant_values=1)
    from_border = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_5)[1:-1, 1:-1] / size
    near = mask * skin * (from_border < BORDER_REACH / 2)
    lacking = np.clip(blur_known(target - pixels, near, sigma * size, doubt=0.05), -BORDER_LIMIT, BORDER_LIMIT)
    lacking = tone(name, lacking, 255.0)
    share = (1 - smoothstep(from_border, 0, BORDER_REACH))[..., None]
    if (near > 0.5).any():  # beards are no skin
        share = share * lightness_share(_to_lab(pixels), float(np.median(_to_lab(target)[near > 0.5][:, 0])))
    return pixels + share * cv2.resize(lacking, (size, size), interpolation=cv2.INTER_LINEAR)


def keep_reference(
    pixels: np.ndarray,
    reference: ShownReference,
    target: np.ndarray,
    skin: np.ndarray,
    eyes: np.ndarray | float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Gives a repainted crop the structure of its reference, where it shows the same.

    Neither the autoencoder nor the model keeps all the small things by which a person is known: what is fine in the
    reference replaces what is fine in the crop. Tone is the model's, but not that of the eyes, which it would tint.
    Where it shows something else, as in a mouth, at seams and in holes, all is the model's. In bare skin it may show
    what reference or target show, but no third thing.

    Args:
        pixels (`np.ndarray`): (S, S, 3) float32 RGB in [0, 255], the repainted crop.
        reference ([`ShownReference`]): See there.
        target (`np.ndarray`): (S, S, 3) uint8 RGB, the crop before it was repainted.
        skin (`np.ndarray`): (S, S) float in [0, 1], where the target shows bare skin.
        eyes (`np.ndarray` or `float`): (S, S) in [0, 1], where the tone is the reference's as well.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: The crop, (S, S, 3) float32 RGB, and the share of the reference in it, (S, S)
        float32 in [0, 1].
    """
    size, noise = len(pixels), STRUCTURE_SIGMA * len(pixels)
    # Tone may differ, structure may not.
    repainted, shown, own = (
        _finer(_to_lab(np.clip(view, 0, 255)), TONE_SIGMA * size) for view in (pixels, reference.rebuilt, target)
    )
    distance = cv2.GaussianBlur(np.linalg.norm(repainted - shown, axis=2), (0, 0), noise)
    lightness, *seen = (view[..., 0] for view in (repainted, shown, own))
    invented = cv2.GaussianBlur(
        np.abs(lightness - np.clip(lightness, np.minimum(*seen), np.maximum(*seen))), (0, 0), noise
    )
    agreed = np.maximum(1 - smoothstep(distance, *AGREEMENT), skin * smoothstep(invented, *INVENTED))
    share = reference.coverage * agreed
    lost = reference.filled - reference.rebuilt
    changed = (reference.rebuilt - pixels).astype(np.float32)
    brightness = cv2.cvtColor(changed, cv2.COLOR_RGB2GRAY)[..., None]
    kept = _finer(brightness, DETAIL_SIGMA * size) + _finer(changed - brightness, COLOR_SIGMA * size)
    kept += np.asarray(eyes, np.float32)[..., None] * (changed - kept)
    return pixels + share[..., None] * (lost + kept), share


def add_detail(
    pixels: np.ndarray,
    target: np.ndarray,
    fine_target: np.ndarray,
    skin: np.ndarray | None,
    fine: Reference | None,
    share: np.ndarray,
) -> np.ndarray:
    """Gives a repainted crop the detail that it is too coarse for, at the photo's resolution.

    Where it shows its reference, that is the source's; other skin gets the target's fine texture.

    Args:
        pixels (`np.ndarray`): (S, S, 3) float32 RGB in [0, 255], the repainted crop.
        target (`np.ndarray`): (S, S, 3) uint8 RGB, the crop before it was repainted.
        fine_target (`np.ndarray`): (F, F, 3) uint8 RGB, the same at the photo's resolution.
        skin (`np.ndarray`, *optional*): (S, S) float in [0, 1], where the target's texture may be put.
        fine ([`Reference`], *optional*): (F, F), see [`ShownReference`].
        share (`np.ndarray`): (S, S) float32 in [0, 1], where the crop shows its reference.

    Returns:
        `np.ndarray`: (F, F, 3) float32 RGB in [0, 255].
    """
    coarse, size = target.shape[1::-1], fine_target.shape[1::-1]
    detailed = cv2.resize(pixels.astype(np.float32), size, interpolation=cv2.INTER_LANCZOS4)
    if fine is not None:
        inside = _well_inside(fine.coverage, FINE_INSET * size[0])
        detailed += (inside * cv2.resize(share, size))[..., None] * _beyond(fine.pixels, coarse)
    if skin is not None and size != coarse:
        texture = fine_target - cv2.resize(target.astype(np.float32), size, interpolation=cv2.INTER_LANCZOS4)
        detailed += cv2.resize(skin * (1 - share), size)[..., None] * texture
    return np.clip(detailed, 0, 255)


def _finer(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """What a picture (S, S, C) has that a blur of `sigma` pixels takes away."""
    return pixels - gaussian_blur(pixels, sigma)


def _well_inside(coverage: np.ndarray, inset: float) -> np.ndarray:
    """Coverage (F, F) without a border of `inset` pixels, where a picture ends and its detail would be its edge."""
    width, ramp = 2 * round(inset) + 1, 2 * round(inset / 2) + 1
    eroded = cv2.erode(coverage, np.ones((width, width)), borderType=cv2.BORDER_REPLICATE)
    return cv2.blur(eroded, (ramp, ramp))


def _beyond(fine: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What a picture has beyond the resolution of `size` (width, height)."""
    fine = _without_specks(fine.astype(np.float32))
    coarse = cv2.resize(fine, size, interpolation=cv2.INTER_AREA)
    return fine - cv2.resize(coarse, fine.shape[1::-1], interpolation=cv2.INTER_CUBIC)


def _without_specks(pixels: np.ndarray) -> np.ndarray:
    """A drawing (F, F, 3) float32 without single pixels of another colour, where slivers of its mesh meet."""
    median = cv2.medianBlur(np.clip(pixels, 0, 255).astype(np.uint8), 3)
    is_speck = largest_channel(np.abs(pixels - median)) > SPECK
    return np.where(is_speck[..., None], median, pixels).astype(np.float32)


def paste_back(
    photo: np.ndarray, crop: np.ndarray, crop_mask: np.ndarray, matrix: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Warps a crop back onto the photo and blends it in by its mask; only the mask's own rectangle is computed.

    Args:
        photo (`np.ndarray`): (H, W, 3) uint8 RGB.
        crop (`np.ndarray`): (S, S, 3) uint8 or float32 RGB in [0, 255], the repainted crop.
        crop_mask (`np.ndarray`): (S, S) float in [0, 1], feathered; 1 = the crop, 0 = the photo.
        matrix (`np.ndarray`): (2, 3), maps photo pixels to crop pixels.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: The new photo (H, W, 3) uint8, and the mask (H, W) float32 on it. Where the
        mask is 0 the photo is unchanged to the byte.
    """
    result, photo_mask = photo.copy(), np.zeros(photo.shape[:2], np.float32)
    left, top, right, bottom = _mask_bounds(crop_mask, matrix, photo.shape[1], photo.shape[0])
    if left >= right or top >= bottom:
        return result, photo_mask
    window = np.s_[top:bottom, left:right]
    pixels, mask = _warp_to_window(crop, crop_mask, matrix, (left, top, right, bottom))
    mask[mask < INVISIBLE] = 0
    below = photo[window].astype(np.float32)
    blended = below + mask[..., None] * (pixels - below)
    result[window] = np.round(np.clip(blended, 0, 255)).astype(np.uint8)
    photo_mask[window] = mask
    return result, photo_mask


def _to_lab(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)


def _weighted_statistics(values: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (3,) of pixels (H, W, 3) weighted by a mask (H, W)."""
    weights = (mask / mask.sum())[..., None].astype(np.float64)
    mean = (weights * values).sum((0, 1))
    return mean, np.sqrt((weights * (values - mean) ** 2).sum((0, 1)))


def _mask_bounds(crop_mask: np.ndarray, matrix: np.ndarray, width: int, height: int) -> tuple[int, int, int, int]:
    """The rectangle (left, top, right, bottom) of the photo that holds every pixel with a mask value above 0."""
    rows, columns = np.nonzero(crop_mask.any(1))[0], np.nonzero(crop_mask.any(0))[0]
    if len(rows) == 0:
        return 0, 0, 0, 0
    margin = 2 + _filter_reach(matrix)
    x, y = (columns[0] - margin, columns[-1] + margin), (rows[0] - margin, rows[-1] + margin)
    corners = np.array([[x[0], y[0]], [x[1], y[0]], [x[0], y[1]], [x[1], y[1]]], np.float64)
    on_photo = transform_points(corners, invert(matrix))
    left, top = np.floor(on_photo.min(0)).astype(int)
    right, bottom = np.ceil(on_photo.max(0)).astype(int) + 1
    return max(left, 0), max(top, 0), min(right, width), min(bottom, height)


def _filter_reach(matrix: np.ndarray) -> int:
    """How far the filters of `uncrop` see, in crop pixels."""
    return int(np.ceil(4 * max(1.0, np.sqrt(abs(np.linalg.det(matrix[:, :2]))))))


def _warp_to_window(
    crop: np.ndarray, crop_mask: np.ndarray, matrix: np.ndarray, window: tuple[int, int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Crop and mask seen in a rectangle of the photo: pixels (h, w, 3) float32 and mask (h, w) float32."""
    left, top, right, bottom = window
    border = 2 + _filter_reach(matrix)  # repeated edge pixels: without them black would mix into the crop's rim
    shifted = np.asarray(matrix, np.float64).copy()
    shifted[:, 2] += shifted[:, :2] @ (left, top) + border
    crop = np.pad(crop.astype(np.float32), ((border, border), (border, border), (0, 0)), mode="edge")
    crop_mask = np.pad(crop_mask.astype(np.float32), border)
    pixels, mask = (uncrop(array, shifted, (right - left, bottom - top)) for array in (crop, crop_mask))
    return np.clip(pixels, 0, 255), np.clip(mask, 0, 1)
