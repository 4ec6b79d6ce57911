"""The reference: the source's face drawn on the target's mesh, in the target's light, for the hidden part to show.

It says in pixels what an embedding can only hint at. What a source does not show stays uncovered, for the model to
paint.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from faceswap_diffusion.faces.alignment import sample_bilinear
from faceswap_diffusion.faces.lighting import face_light, shading
from faceswap_diffusion.faces.mesh_topology import INNER_LIPS_478
from faceswap_diffusion.faces.surface import (
    NOTHING,
    face_surface,
    interpolate,
    rasterize,
    signed_areas,
    surrounding_ring,
    vertex_normals,
)
from faceswap_diffusion.faces.texture import (
    HOLE_WEIGHT,
    FaceTexture,
    blur_known,
    evenly_lit_skin,
    eye_openings,
    mouth_opening,
    resize_texture,
    scale_lightness,
    smoothstep,
)
from faceswap_diffusion.masks.parsing import LABELS
from faceswap_diffusion.masks.regions import REGIONS, repaint_mask

RESOLUTION_RANGE = (0.15, 0.4)
"""Pixels that a source had for one of the target's, from which on that is covered a little, and wholly."""

LEAST_FACING = 0.15  # cosine: at the outline of a head any source is good enough

UPPER_FACE = 0.6
"""Texture coordinate v of the lower end of the part whose skin beards leave free."""

CLOSED_MOUTH = 0.03
"""A mouth that is less open than this, by `mouth_opening`, shows nothing of its inside."""

SIMILAR_OPENING = 0.6
"""Ratio of two openings, the smaller over the larger, from which on one mouth's inside may stand for the other's."""

CLOSED_EYE = 0.5
"""A texture's eye that is less open than this share of the target's is left to the model."""

CHROMA_RANGE = (0.5, 1.8)
"""Limits of the factor on CIELAB a* and b*."""

RESIDUAL_LIMIT = np.array([14.0, 6.0, 6.0], np.float32)
"""Of what is left between two skins after their statistics agree, how much may count as light: L*, a*, b*."""

FACE_REACH, HEAD_REACH = 1.4, 2.0
"""How far around the mesh the source's head is carried over, as a multiple of the mesh's own reach."""

RING_INSET = 0.04
"""How far inside the mesh's outline, as a share of the way to its middle, the tones of face and ring are compared."""

RESIDUAL_SIGMA = 0.10  # of the crop's side: cast shadows are wider, features narrower
LIP_SIGMA = 0.004  # of the crop's side: how softly lips end
SMALLEST_SAMPLE = 64
"""Pixels of skin below which statistics mean nothing."""


@dataclass(frozen=True, eq=False)
class Reference:
    """What the hidden part of a target is to show.

    Args:
        pixels (`np.ndarray` of shape `(H, W, 3)`, float32): RGB in [0, 255].
        coverage (`np.ndarray` of shape `(H, W)`, float32): In [0, 1]; 0 where nothing is known.
    """

    pixels: np.ndarray
    coverage: np.ndarray


@dataclass(frozen=True, eq=False)
class SourceHead:
    """The photo of a source, for what its mesh does not hold.

    Args:
        image (`np.ndarray` of shape `(H, W, 3)`, uint8): RGB.
        landmarks (`np.ndarray` of shape `(478, 2)`): Mesh points in pixels.
        shown (`np.ndarray` of shape `(H, W)`, float): In [0, 1], which pixels belong to what is repainted.
        reach (`float`): How far around the mesh, see [`surface.surrounding_ring`].
    """

    image: np.ndarray
    landmarks: np.ndarray
    shown: np.ndarray
    reach: float


def render_texture(
    texture: FaceTexture,
    landmarks: np.ndarray,
    depth: np.ndarray,
    size: tuple[int, int],
    light: np.ndarray | None = None,
) -> Reference:
    """Draws a texture on a mesh.

    Args:
        texture ([`FaceTexture`]): Of the source.
        landmarks (`np.ndarray` of shape `(478, 2)`): Mesh points of the target in pixels.
        depth (`np.ndarray` of shape `(478,)`): In pixels, smaller is nearer.
        size (`tuple[int, int]`): Width and height of the picture.
        light (`np.ndarray` of shape `(9,)`, *optional*): Shades the face, see [`lighting.face_light`].

    Returns:
        [`Reference`]: Without what closed eyes and a mouth of another opening cannot show.
    """
    surface = face_surface()
    texture = resize_texture(texture, len(texture.confidence) // _texels_per_pixel(texture, landmarks))
    seen = rasterize(landmarks, surface.triangles, size, depth)
    normals = vertex_normals(np.column_stack([landmarks, depth]), surface.triangles)
    brightness = np.ones(len(normals)) if light is None else shading(light, normals)
    texels = surface.uv * len(texture.confidence) - 0.5
    facing = np.maximum(normals[:, 2], LEAST_FACING)
    drawn = interpolate(seen, landmarks, surface.triangles, np.column_stack([texels, brightness, facing]))
    x, y = np.ascontiguousarray(drawn[..., 0]), np.ascontiguousarray(drawn[..., 1])
    pixels, confidence = _sample(texture, x, y)
    left_out = _unlike_openings(texture, landmarks)
    confidence[(seen == NOTHING) | left_out[np.maximum(seen, 0)]] = 0
    if light is not None:
        pixels = scale_lightness(pixels, np.where(seen != NOTHING, drawn[..., 2], 1))
    coverage = smoothstep(confidence / np.maximum(drawn[..., 3], LEAST_FACING), *RESOLUTION_RANGE)
    return Reference(pixels, coverage.astype(np.float32))


def _texels_per_pixel(texture: FaceTexture, landmarks: np.ndarray) -> int:
    """How many texels, side by side, are one for a drawing: a power of two that leaves it 1.5 a pixel or more."""
    surface, size = face_surface(), len(texture.confidence)
    areas = signed_areas(landmarks[surface.triangles])
    in_texture = signed_areas(surface.uv[surface.triangles])[areas < 0].sum() * size**2
    ratio = np.sqrt(in_texture / areas[areas < 0].sum())
    return 2 ** int(np.clip(np.log2(ratio / 1.5), 0, np.log2(size)))


def _sample(texture: FaceTexture, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (H, W, 3) and confidence (H, W) of a texture between texels; the colour of holes runs into nothing."""
    weights = texture.confidence[..., None] + HOLE_WEIGHT
    weighted = np.concatenate([texture.pixels * weights, weights], axis=2)
    drawn = cv2.remap(weighted, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    sharp = cv2.remap(texture.pixels, x, y, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE)
    whole = cv2.erode((texture.confidence > 0).astype(np.float32), np.ones((9, 9)))
    away_from_holes = cv2.remap(whole, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)[..., None] > 0
    return np.where(away_from_holes, sharp, drawn[..., :3] / drawn[..., 3:]), drawn[..., 3] - HOLE_WEIGHT


def lacks_open_mouth(texture: FaceTexture, landmarks: np.ndarray) -> bool:
    """Whether a mesh (478, 2) opens its mouth, and a texture cannot show what is inside."""
    wanted, shown = mouth_opening(landmarks), texture.mouth_opening
    similar = min(wanted, shown) > SIMILAR_OPENING * max(wanted, shown) and shown > CLOSED_MOUTH
    return wanted > CLOSED_MOUTH and not similar


def inside_mouth(target: np.ndarray, landmarks: np.ndarray) -> Reference:
    """The target's own teeth and tongue, between the lips of its mesh.

    Args:
        target (`np.ndarray` of shape `(H, W, 3)`, uint8): RGB.
        landmarks (`np.ndarray` of shape `(478, 2)`): Its mesh points in pixels.

    Returns:
        [`Reference`]: Of the target's size, with a soft edge.
    """
    coverage = np.zeros(target.shape[:2], np.float32)
    lips = np.round(landmarks[list(INNER_LIPS_478)]).astype(np.int32)
    cv2.fillPoly(coverage, [lips], 1.0)
    width = 2 * round(LIP_SIGMA * len(target)) + 1  # no gap to the lips of the source
    coverage = cv2.dilate(coverage, np.ones((width, width)))
    return Reference(target.astype(np.float32), cv2.GaussianBlur(coverage, (0, 0), LIP_SIGMA * len(target)))


def _unlike_openings(texture: FaceTexture, landmarks: np.ndarray) -> np.ndarray:
    """Triangles (T,) of the mouth's inside and of eyes that the texture cannot show as open as they are to be."""
    surface = face_surface()
    left_out = surface.mouth & lacks_open_mouth(texture, landmarks)
    on_left = surface.uv[surface.triangles].mean(axis=1)[:, 0] < 0.5
    left_closed, right_closed = texture.eye_opening < CLOSED_EYE * eye_openings(landmarks)
    return left_out | (surface.eyes & np.where(on_left, left_closed, right_closed))


def ring_reach(region: str) -> float:
    """How far around the mesh a region goes, see [`surface.surrounding_ring`]."""
    return HEAD_REACH if "hair" in REGIONS.get(region, ()) else FACE_REACH


def shown_around(
    labels: np.ndarray, landmarks: np.ndarray, region: str, label_names: Sequence[str] = LABELS
) -> np.ndarray:
    """What of a source's head is shown around the mesh: bare skin and ears, with its hair if the region has hair.

    Args:
        labels (`np.ndarray`): (S, S) uint8, indices into `label_names`.
        landmarks (`np.ndarray`): (478, 2), x, y in crop pixels.
        region (`str`): What is repainted, a key of `masks.regions.REGIONS`.
        label_names (`Sequence[str]`): What the labels mean: those of our parser if left out.

    Returns:
        `np.ndarray`: (S, S) float32, 1 where it is shown.
    """
    shown = repaint_mask(labels, landmarks, "head" if ring_reach(region) == HEAD_REACH else "face", label_names)
    return cv2.erode(shown, np.ones((3, 3)))


def render_surroundings(head: SourceHead, face: Reference, landmarks: np.ndarray) -> Reference:
    """Carries the source's head over that lies around the mesh: forehead and ears, or hair as well.

    It gets the tone that the face got, so that the forehead goes on without an edge.

    Args:
        head ([`SourceHead`]): The source.
        face ([`Reference`]): Its face, drawn on the target's mesh.
        landmarks (`np.ndarray` of shape `(478, 2)`): That mesh, in pixels.

    Returns:
        [`Reference`]: The ring around the target's mesh, filled.
    """
    points, triangles = surrounding_ring(landmarks, head.reach)
    source_points, _ = surrounding_ring(head.landmarks, head.reach)
    change = _tone_change(head, face, landmarks)
    seen = rasterize(points, triangles, face.coverage.shape[::-1])
    values = np.column_stack([source_points, np.concatenate([change, change])])
    drawn = interpolate(seen, points, triangles, values)
    x, y = np.ascontiguousarray(drawn[..., 0]), np.ascontiguousarray(drawn[..., 1])
    pixels = cv2.remap(head.image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    coverage = cv2.remap(head.shown.astype(np.float32), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    coverage[seen == NOTHING] = 0
    return Reference(_to_rgb(_to_lab(pixels) + drawn[..., 2:]), coverage)


def _tone_change(head: SourceHead, face: Reference, landmarks: np.ndarray) -> np.ndarray:
    """What drawing changed of the face's tone just inside its outline: CIELAB differences (36, 3)."""
    inset, source_inset = (_outline(mesh, 1 - RING_INSET) for mesh in (landmarks, head.landmarks))
    size, source_size = (np.array(plane.shape[1::-1]) - 1 for plane in (face.coverage, head.image))
    known = sample_bilinear(face.coverage[..., None], np.clip(inset, 0, size))
    wanted = sample_bilinear(_to_lab(face.pixels), np.clip(inset, 0, size))
    shown = sample_bilinear(_to_lab(head.image), np.clip(source_inset, 0, source_size))
    is_shown = sample_bilinear(head.shown[..., None], np.clip(source_inset, 0, source_size))
    return _smooth_around(wanted - shown, known * is_shown)


def _outline(landmarks: np.ndarray, reach: float) -> np.ndarray:
    """The mesh's outline (36, 2), scaled about its middle."""
    points, _ = surrounding_ring(landmarks, reach)
    return points[len(points) // 2 :]


def _smooth_around(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Averages values (N, C) with their neighbours on a closed line, weighted by (N, 1)."""
    offsets = np.arange(len(values)) - len(values) // 2
    kernel = np.fft.ifftshift(np.exp(-0.5 * (offsets / 0.8) ** 2))
    around = np.stack([np.roll(kernel, shift) for shift in range(len(values))])
    return (around @ (weights * values)) / (around @ weights + 1e-3)


def lay_over(below: Reference, above: Reference) -> Reference:
    """Lays one reference over another (Porter and Duff 1984, "over", with colours that are not premultiplied)."""
    coverage = above.coverage + (1 - above.coverage) * below.coverage
    weight = np.divide(above.coverage, coverage, out=np.zeros_like(coverage), where=coverage > 0)[..., None]
    return Reference(weight * above.pixels + (1 - weight) * below.pixels, coverage)


def relight(reference: Reference, target: np.ndarray, skin: np.ndarray, beardless: np.ndarray) -> Reference:
    """Brings a reference to the tone of the target's skin, and then to its shadows.

    First the mean in CIELAB is matched over the skin that both show (Reinhard et al. 2001). Contrast is kept, unless
    the target is darker: then lips, brows and creases get darker and duller as the skin does. Chroma is half scaled
    and half shifted: a shift alone would tint glints, teeth and the white of eyes, a factor alone would stain shadows.
    Then what smoothly varies between the two is added, as far as it may be light.

    Args:
        reference ([`Reference`]): Drawn on the target's mesh.
        target (`np.ndarray` of shape `(H, W, 3)`, uint8): RGB.
        skin (`np.ndarray` of shape `(H, W)`, float): In [0, 1], plain skin of the target inside the mesh.
        beardless (`np.ndarray` of shape `(H, W)`, float): In [0, 1], the part of it whose tone is compared.

    Returns:
        [`Reference`]: Unchanged where they have too little skin in common.
    """
    weights = skin * reference.coverage
    compared = weights * beardless
    if (compared > 0.5).sum() < SMALLEST_SAMPLE:
        return reference
    drawn, wanted = _to_lab(reference.pixels), _to_lab(target)
    mean, wanted_mean = _mean_tone(drawn, compared), _mean_tone(wanted, compared)
    matched = (drawn - mean) * _contrast(mean, wanted_mean) + wanted_mean
    residual = blur_known(wanted - matched, weights, RESIDUAL_SIGMA * len(target), doubt=0.02)
    residual = cv2.resize(residual, weights.shape[::-1], interpolation=cv2.INTER_LINEAR)
    matched = matched + np.clip(residual, -RESIDUAL_LIMIT, RESIDUAL_LIMIT)
    return Reference(_to_rgb(matched), reference.coverage)


def _contrast(mean: np.ndarray, wanted_mean: np.ndarray) -> np.ndarray:
    """Factors (3,) on the differences from a mean tone in CIELAB, which becomes another.

    Darker skin, or less light, scales linear values; L* + 16, a* and b* go with cube roots of these (CIE 15:2004,
    equations 8.3 to 8.5). The reverse, more contrast, would turn glints into metal.
    """
    darker = min(1.0, (wanted_mean[0] + 16) / (mean[0] + 16))
    chroma = np.sqrt(np.clip(wanted_mean[1:] / np.maximum(mean[1:], 1), *CHROMA_RANGE))
    return darker * np.array([1, *(np.minimum(chroma, 1) if darker < 1 else chroma)])


def skin_of_mesh(landmarks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Where a mesh is plain skin, (height, width) float32: no brows, eyes or lips."""
    surface = face_surface()
    return (rasterize(landmarks, surface.triangles[surface.skin], size) != NOTHING).astype(np.float32)


def beardless_skin(landmarks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Where a mesh is plain skin of forehead, cheeks and nose, (height, width) float32."""
    surface = face_surface()
    plain = surface.skin & (surface.uv[surface.triangles][..., 1].max(axis=1) < UPPER_FACE)
    return (rasterize(landmarks, surface.triangles[plain], size) != NOTHING).astype(np.float32)


def draw_reference(
    texture: FaceTexture,
    target: np.ndarray,
    landmarks: np.ndarray,
    depth: np.ndarray,
    skin: np.ndarray,
    head: SourceHead | None = None,
    keep_mouth: bool = True,
) -> Reference:
    """The source's face as the target's photo would show it.

    Args:
        texture ([`FaceTexture`]): Of the source.
        target (`np.ndarray` of shape `(H, W, 3)`, uint8): RGB.
        landmarks (`np.ndarray` of shape `(478, 2)`): The mesh to draw it on, in pixels of the target.
        depth (`np.ndarray` of shape `(478,)`): In pixels, smaller is nearer.
        skin (`np.ndarray` of shape `(H, W)`, float): In [0, 1], where the target shows bare skin.
        head ([`SourceHead`], *optional*): Shows what lies around the mesh.
        keep_mouth (`bool`): Whether an open mouth shows the target's teeth, where the source shows none.

    Returns:
        [`Reference`]: Of the target's size.
    """
    size = (target.shape[1], target.shape[0])
    skin = evenly_lit_skin(target, skin)
    face = render_texture(texture, landmarks, depth, size, face_light(target, landmarks, depth, skin))
    face = relight(face, target, skin * skin_of_mesh(landmarks, size), beardless_skin(landmarks, size))
    if keep_mouth and lacks_open_mouth(texture, landmarks):
        face = lay_over(face, inside_mouth(target, landmarks))
    return face if head is None else lay_over(render_surroundings(head, face, landmarks), face)


def _to_lab(pixels: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(np.clip(pixels, 0, 255).astype(np.float32) / 255, cv2.COLOR_RGB2Lab)


def _to_rgb(lab: np.ndarray) -> np.ndarray:
    return np.clip(cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_Lab2RGB), 0, 1) * 255


def _mean_tone(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean (3,) of CIELAB pixels (H, W, 3), without the darkest and brightest tenth: glints and creases."""
    values = values[weights > 0.5]
    low, high = np.percentile(values[:, 0], (10, 90))
    return values[(values[:, 0] >= low) & (values[:, 0] <= high)].mean(axis=0)
