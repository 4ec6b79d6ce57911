"""The tone of a source's face in a target's photo: the colour of its skin and eyes, and the target's soft shadows."""

from collections.abc import Callable

import cv2
import numpy as np

from faceswap_diffusion.faces.surface import NOTHING, face_surface, rasterize
from faceswap_diffusion.faces.texture import HAIRY, blur_known, smoothstep, to_lab, to_rgb

UPPER_FACE = 0.6
"""Texture coordinate v above which skin has no beard."""

LEAST_CHROMA = 0.5
"""Least ratio of two skins' a* and b* that counts; differences are reduced by its square root."""

RESIDUAL_LIMIT = np.array([14.0, 6.0, 6.0], np.float32)
"""Limits, in L*, a* and b*, of the smooth difference between two skins that is corrected as light."""

RESIDUAL_SIGMA = 0.10  # share of the crop's side: narrower than cast shadows, wider than features
SMALLEST_SAMPLE = 64  # pixels of skin that a statistic needs

HIGHLIGHT = (8.0, 28.0)
"""Differences from the skin's L* from which on a pixel is in part, and wholly, a reflection of the light, which does
not have the skin's colour (Shafer 1985, dichromatic reflection)."""

WHITES = 75
"""The pixels of two eyes whose L* is above this percentile are the white of the eyes."""

FEWEST_WHITES = 6
"""Pixels of the white of the eyes that a mean needs."""

DULL = (0.0, 10.0)
"""Differences in L* from which on the white of the eyes begins to take, and wholly takes, the target's tone."""

LESS_COLOR, SEEN, TINTED = (0.0, 4.0), (30.0, 45.0), (10.0, 25.0)
"""The same by what is seen: how much less chroma than skin, in both faces, and which L* in the target, for lightness
and for hue. Almost closed eyes, and those in deep shadow, do not tell the tone of their white."""

BRIGHTEST_WHITES = 1.6
"""Limit of the factor on the linear cube roots of the eyes' lightness."""

WHITE_SHARE = (0.4, 0.8)
"""Shares of the L* of the white of the eyes from which on a pixel begins to be, and wholly is, white: irises and
pupils are as dark in any light."""

EYE_SIGMA = 0.004  # share of the crop's side: softness of the edge of the eyes

Tone = Callable[[str, np.ndarray, float], np.ndarray]
"""Takes an estimate of light or colour (a name, vectors `(..., C)`, and what in their unit is a large difference) and
returns what to use in its place: in a video, one that is smooth in time."""

LAB_RANGE = 100.0  # a large difference in CIELAB
OFFSET = np.array([16, 0, 0], np.float32)  # L* + 16, a* and b* are proportional to cube roots of linear values


def unchanged(name: str, value: np.ndarray, unit: float) -> np.ndarray:
    """The `Tone` of a single picture."""
    return value


def relight(
    pixels: np.ndarray,
    coverage: np.ndarray,
    target: np.ndarray,
    landmarks: np.ndarray,
    skin: np.ndarray,
    tone: Tone = unchanged,
) -> np.ndarray:
    """Matches a drawn face to the tone of the target's skin, to its shadows and to the white of its eyes.

    First, the mean in CIELAB is matched over the skin that both show (Reinhard et al. 2001). Contrast is kept, unless
    the target is darker: then lips, brows and creases get darker and duller as the skin does. Differences in chroma
    are kept, or reduced if the target's skin has less: a larger factor would stain eyelids and nose. Highlights keep
    their colour. Then the smooth difference between the two is added, within limits. What is darker than skin is
    shifted less, and black not at all: hair and pupils are as dark on any skin.

    Args:
        pixels (`np.ndarray` of shape `(H, W, 3)`, float32): RGB in [0, 255], drawn on the target's mesh.
        coverage (`np.ndarray` of shape `(H, W)`, float): In [0, 1], where something is drawn.
        target (`np.ndarray` of shape `(H, W, 3)`, uint8): RGB.
        landmarks (`np.ndarray` of shape `(478, 2)`): The mesh in pixels.
        skin (`np.ndarray` of shape `(H, W)`, float): In [0, 1], where the target shows bare skin.
        tone (`Callable`): See `Tone`.

    Returns:
        `np.ndarray` of shape `(H, W, 3)`, float32: RGB in [0, 255]; `pixels` itself if both have too little skin in
        common.
    """
    size = (target.shape[1], target.shape[0])
    weights = skin * skin_of_mesh(landmarks, size) * coverage
    compared = weights * beardless_skin(landmarks, size)
    if (compared > 0.5).sum() < SMALLEST_SAMPLE:
        return pixels
    drawn, wanted = to_lab(pixels), to_lab(target)
    means = np.stack([_mean_tone(drawn, compared), _mean_tone(wanted, compared)])
    mean, wanted_mean = tone("mean", means, LAB_RANGE)
    matched = _with_tone(drawn, mean, wanted_mean, _contrast(mean, wanted_mean))
    share = lightness_share(drawn, mean[0])
    bare = weights * smoothstep(share[..., 0], *HAIRY)
    residual = blur_known(wanted - matched, bare, RESIDUAL_SIGMA * len(target), doubt=0.02)
    residual = tone("residual", residual, LAB_RANGE)
    residual = cv2.resize(residual, size, interpolation=cv2.INTER_LINEAR)
    matched = matched + share * np.clip(residual, -RESIDUAL_LIMIT, RESIDUAL_LIMIT)
    return to_rgb(_match_eyes(matched, drawn, wanted, (mean, wanted_mean), coverage, landmarks, tone))


def _contrast(mean: np.ndarray, wanted_mean: np.ndarray) -> np.ndarray:
    """Factors (3,) on CIELAB pixels whose mean tone is replaced by another tone.

    Darker skin, or less light, scales linear values; L* + 16, a* and b* are linear in cube roots of these (CIE
    15:2004, equations 8.3 to 8.5). Contrast is never increased, because highlights would look metallic.
    """
    darker = min(1.0, (wanted_mean[0] + 16) / (mean[0] + 16))
    duller = np.sqrt(np.clip(wanted_mean[1:] / np.maximum(mean[1:], 1), LEAST_CHROMA, 1))
    return darker * np.array([1, *duller])


def _with_tone(lab: np.ndarray, mean: np.ndarray, wanted: np.ndarray, contrast: np.ndarray) -> np.ndarray:
    """Scales CIELAB pixels (H, W, 3), and shifts them so that a tone (3,) becomes another; the darker, the less."""
    scaled = (lab + OFFSET) * contrast - OFFSET
    share = lightness_share(lab, mean[0]) * np.ones(3, np.float32)
    share[..., 1:] *= 1 - smoothstep(lab[..., :1] - mean[0], *HIGHLIGHT)
    return scaled + share * (wanted - (mean + OFFSET) * contrast + OFFSET)


def _match_eyes(
    matched: np.ndarray,
    drawn: np.ndarray,
    wanted: np.ndarray,
    skins: tuple[np.ndarray, np.ndarray],
    coverage: np.ndarray,
    landmarks: np.ndarray,
    tone: Tone,
) -> np.ndarray:
    """Gives eyes the change of tone of the white of the eyes, in place of that of the skin.

    The white of the eyes has the same colour in people of any skin, and eyes are as dark on any skin.

    Args:
        matched (`np.ndarray`): (H, W, 3), CIELAB, a face with the tone of the target's skin.
        drawn (`np.ndarray`): (H, W, 3), CIELAB, the same before it had that tone.
        wanted (`np.ndarray`): (H, W, 3), CIELAB, the target.
        skins (`tuple[np.ndarray, np.ndarray]`): (3,), CIELAB, the tones of the skin of `drawn` and `wanted`.
        coverage (`np.ndarray`): (H, W) in [0, 1], where something is drawn.
        landmarks (`np.ndarray`): (478, 2), the mesh in pixels.
        tone (`Callable`): See `Tone`.
    """
    surface = face_surface()
    eyes = rasterize(landmarks, surface.triangles[surface.eyes], coverage.shape[::-1]) != NOTHING
    inside = (cv2.erode(eyes.astype(np.uint8), np.ones((3, 3))) > 0) & (coverage > 0.5)
    if inside.sum() * (1 - WHITES / 100) < FEWEST_WHITES:
        return matched
    whites = np.stack([_mean_white(view[inside]) for view in (drawn, matched, wanted)])
    white, matched_white, wanted_white = tone("whites", whites, LAB_RANGE)
    soft = cv2.GaussianBlur(eyes.astype(np.float32), (0, 0), EYE_SIGMA * len(eyes))
    told = _less_colorful(white, skins[0]) * _told_by_whites(wanted_white, matched_white, skins[1])
    share = told * soft[..., None]
    return matched + share * (_whitened(drawn, white, wanted_white) - matched)


def _whitened(lab: np.ndarray, white: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Eyes, CIELAB (H, W, 3), with another tone (3,) of their white; only the white gets brighter."""
    brighter = min((wanted[0] + 16) / (white[0] + 16), BRIGHTEST_WHITES)
    is_white = smoothstep(lab[..., :1] / max(white[0], 1), *WHITE_SHARE)
    contrast = np.full(lab.shape, min(brighter, 1.0), np.float32)
    contrast[..., :1] += is_white * max(brighter - 1, 0)
    return _with_tone(lab, white, wanted, contrast)


def _told_by_whites(white: np.ndarray, matched: np.ndarray, skin: np.ndarray) -> np.ndarray:
    """How surely a target tells L*, a* and b* of the white of the eyes, (3,) in [0, 1].

    Args:
        white (`np.ndarray`): (3,), CIELAB, of the target's eyes.
        matched (`np.ndarray`): (3,), CIELAB, that of eyes that have changed with the skin.
        skin (`np.ndarray`): (3,), CIELAB, of the target's skin.
    """
    seen, tinted = (_less_colorful(white, skin) * smoothstep(white[0], *limits) for limits in (SEEN, TINTED))
    return np.maximum([seen, tinted, tinted], smoothstep(white[0] - matched[0], *DULL))


def _less_colorful(white: np.ndarray, skin: np.ndarray) -> np.ndarray:
    """How surely a tone (3,), CIELAB, is that of the white of the eyes, in [0, 1]: narrow eyes show lids there."""
    return smoothstep(np.linalg.norm(skin[1:]) - np.linalg.norm(white[1:]), *LESS_COLOR)


def lightness_share(lab: np.ndarray, lightness: float) -> np.ndarray:
    """How much of a change of the skin's tone a pixel takes: all if it is as light as skin, and none if it is black.

    Args:
        lab (`np.ndarray` of shape `(H, W, 3)`, float32): CIELAB.
        lightness (`float`): L* of the skin.

    Returns:
        `np.ndarray` of shape `(H, W, 1)`, float32: In [0, 1].
    """
    return np.clip(lab[..., :1] / max(lightness, 1), 0, 1)


def skin_of_mesh(landmarks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Mask (height, width) float32 of a mesh's plain skin, without brows, eyes and lips."""
    surface = face_surface()
    return (rasterize(landmarks, surface.triangles[surface.skin], size) != NOTHING).astype(np.float32)


def beardless_skin(landmarks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Mask (height, width) float32 of a mesh's plain skin on forehead, cheeks and nose."""
    surface = face_surface()
    plain = surface.skin & (surface.uv[surface.triangles][..., 1].max(axis=1) < UPPER_FACE)
    return (rasterize(landmarks, surface.triangles[plain], size) != NOTHING).astype(np.float32)


def _mean_tone(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean (3,) of CIELAB pixels (H, W, 3), without the darkest and brightest tenth (creases and highlights)."""
    values = values[weights > 0.5]
    low, high = np.percentile(values[:, 0], (10, 90))
    return values[(values[:, 0] >= low) & (values[:, 0] <= high)].mean(axis=0)


def _mean_white(values: np.ndarray) -> np.ndarray:
    """Mean (3,) of the brightest of CIELAB pixels (N, 3)."""
    return values[values[:, 0] >= np.percentile(values[:, 0], WHITES)].mean(axis=0)
