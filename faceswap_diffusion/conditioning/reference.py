"""The reference: the source's face, drawn on the target's mesh and in the target's light, shown in the hidden part.

It contains details that an identity embedding does not have. Parts that the source does not show are not covered, and
the model paints them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np

from faceswap_diffusion.conditioning.tone import LAB_RANGE, Tone, lightness_share, relight, unchanged
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
    evenly_lit_skin,
    eye_openings,
    mouth_opening,
    mouth_width,
    resize_texture,
    scale_lightness,
    smoothstep,
    texture_raster,
    to_lab,
    to_rgb,
)
from faceswap_diffusion.masks.parsing import LABELS
from faceswap_diffusion.masks.regions import region_labels, repaint_mask

RESOLUTION_RANGE = (0.15, 0.4)
"""Coverage rises from 0 to 1 between these numbers of source pixels per target pixel."""

LEAST_FACING = 0.15  # cosine of normal and view; at the outline of a head, any source is good enough

CLOSED_MOUTH = 0.03
"""A mouth with a smaller `mouth_opening` does not show its inside."""

SIMILAR_OPENING = 0.6
"""If the smaller of two openings exceeds this share of the larger, one mouth's inside can replace the other's."""

FEWER_TEETH = 8.0
"""The inside of a mouth that is darker by more than this, in L*, shows fewer teeth."""

CHEEKS = (0.55, 0.85)
"""Texture coordinates v of the skin beside the mouth."""

LEAST_CHEEK = 0.05  # mean cosine of normal and view; less says no more of the side
SMALL_TEXTURE = 64  # texels of a side, enough for means over the cheeks

OTHER_SIDE = 0.8
"""Difference in the log of left over right cheek, in how far they face the viewer, above which teeth do not match.
It is that of about 20 degrees of yaw. Teeth lie behind the lips, and move against these as a head turns."""

CLOSED_EYE = 0.5
"""An eye of the texture that is less open than this share of the target's eye is not drawn."""

LESS_SMILE = (0.08, 0.18)
"""Differences of `mouth_width` from which on the folds of the texture's smile begin to go, and are gone."""

FACE_REACH, HEAD_REACH = 1.4, 2.0
"""How far around the mesh the source's head is copied, relative to the mesh's outline."""

SHRED = 0.035
"""Share of a crop's side: narrower parts of a source's head are not copied."""

HAIRLINE = 0.01
"""Share of a crop's side: this close to hair and background, skin has some of their colour, and is not copied."""

RING_INSET = 0.04
"""Tones of face and ring are compared this far inside the outline, as a share of the distance to its middle."""

LIP_SIGMA = 0.004  # share of the crop's side: softness of the edge of the lips


@dataclass(frozen=True, eq=False)
class Reference:
    """What the hidden part of a target shows.

    Args:
        pixels (`np.ndarray` of shape `(H, W, 3)`, float32): RGB in [0, 255].
        coverage (`np.ndarray` of shape `(H, W)`, float32): In [0, 1]; 0 where the source shows
            nothing.
    """

    pixels: np.ndarray
    coverage: np.ndarray


@dataclass(frozen=True, eq=False)
class SourceHead:
    """The photo of a source, for the parts around its mesh.

    Args:
        image (`np.ndarray` of shape `(H, W, 3)`, uint8): RGB.
        landmarks (`np.ndarray` of shape `(478, 2)`): Mesh points in pixels.
        shown (`np.ndarray` of shape `(H, W)`, float): In [0, 1], which pixels belong to the repainted
            region.
        reach (`float`): Extent around the mesh, see [`surface.surrounding_ring`].
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
        light (`np.ndarray` of shape `(9,)`, *optional*): Light that shades the face, see [`lighting.face_light`].

    Returns:
        [`Reference`]: The drawing. Eyes and the inside of the mouth are left out where the texture cannot show them.
    """
    surface = face_surface()
    texture = resize_texture(texture, len(texture.confidence) // _texels_per_pixel(texture, landmarks))
    seen = rasterize(landmarks, surface.triangles, size, depth)
    normals = vertex_normals(np.column_stack([landmarks, depth]), surface.triangles)
    brightness = np.ones(len(normals)) if light is None else shading(light, normals)
    texels = surface.uv * len(texture.confidence) - 0.5
    facing = np.maximum(normals[:, 2], LEAST_FACING)
    window = _window_around(seen != NOTHING)
    seen, inside = seen[window], landmarks - [window[1].start, window[0].start]
    drawn = interpolate(seen, inside, surface.triangles, np.column_stack([texels, brightness, facing]))
    x, y = np.ascontiguousarray(drawn[..., 0]), np.ascontiguousarray(drawn[..., 1])
    pixels, confidence = _sample(texture, x, y)
    pixels = _without_folds(pixels, texture, x, y, mouth_width(landmarks, depth))
    left_out = _unlike_openings(texture, landmarks)
    confidence[(seen == NOTHING) | left_out[np.maximum(seen, 0)]] = 0
    coverage = smoothstep(confidence / np.maximum(drawn[..., 3], LEAST_FACING), *RESOLUTION_RANGE)
    face = Reference(pixels, coverage.astype(np.float32))
    if texture.skin is not None:
        face = lay_over(_sample_skin(texture, x, y), face)
    if light is not None:
        face = replace(face, pixels=scale_lightness(face.pixels, np.where(seen != NOTHING, drawn[..., 2], 1)))
    face = replace(face, coverage=np.where(seen != NOTHING, face.coverage, 0).astype(np.float32))
    return _in_frame(face, window, size)


def _window_around(shown: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of what is shown of a picture (H, W), bool, and of one pixel around it."""
    return _span(np.asarray(shown.any(axis=1))), _span(np.asarray(shown.any(axis=0)))


def _span(shown: np.ndarray) -> slice:
    places = np.nonzero(shown)[0]
    return slice(max(0, places[0] - 1), places[-1] + 2) if len(places) else slice(0, 1)


def _in_frame(drawn: Reference, window: tuple[slice, slice], size: tuple[int, int]) -> Reference:
    """A drawing in its place in a picture of a size (width, height); its first or last pixel's colour is around it."""
    corner = 0 if window[0].start or window[1].start else -1
    pixels = np.empty((size[1], size[0], 3), np.float32)
    pixels[:] = drawn.pixels[corner, corner]
    coverage = np.zeros((size[1], size[0]), np.float32)
    pixels[window], coverage[window] = drawn.pixels, drawn.coverage
    return Reference(pixels, coverage)


def _sample_skin(texture: FaceTexture, x: np.ndarray, y: np.ndarray) -> Reference:
    """Samples the smooth skin of a texture at texels x, y (H, W) of the texture itself."""
    assert texture.skin is not None
    scale = len(texture.skin) / len(texture.confidence)
    x, y = ((plane + 0.5) * scale - 0.5 for plane in (x, y))
    drawn = cv2.remap(texture.skin, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return Reference(drawn[..., :3], drawn[..., 3])


def _texels_per_pixel(texture: FaceTexture, landmarks: np.ndarray) -> int:
    """Factor by which a texture is shrunk for a drawing: a power of two that leaves at least 1.5 texels per pixel."""
    surface, size = face_surface(), len(texture.confidence)
    areas = signed_areas(landmarks[surface.triangles])
    in_texture = signed_areas(surface.uv[surface.triangles])[areas < 0].sum() * size**2
    ratio = np.sqrt(in_texture / areas[areas < 0].sum())
    return 2 ** int(np.clip(np.log2(ratio / 1.5), 0, np.log2(size)))


def _sample(texture: FaceTexture, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Samples pixels (H, W, 3) and confidence (H, W) of a texture; the colour of holes does not bleed."""
    weighted, whole = _weighted(texture)
    drawn = cv2.remap(weighted, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    sharp = cv2.remap(texture.pixels, x, y, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE)
    away_from_holes = cv2.remap(whole, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)[..., None] > 0
    return np.where(away_from_holes, sharp, drawn[..., :3] / drawn[..., 3:]), drawn[..., 3] - HOLE_WEIGHT


def _without_folds(
    pixels: np.ndarray, texture: FaceTexture, x: np.ndarray, y: np.ndarray, wanted_width: float
) -> np.ndarray:
    """Takes the folds of a smile off what `_sample` returned, as far as a mouth of the wanted width smiles less."""
    less_smile = smoothstep(np.array(texture.mouth_width - wanted_width), *LESS_SMILE)
    if texture.folds is None or less_smile == 0:
        return pixels
    folds = cv2.remap(texture.folds, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return to_rgb(to_lab(pixels) + less_smile * folds)


@lru_cache(maxsize=4)
def _weighted(texture: FaceTexture) -> tuple[np.ndarray, np.ndarray]:
    """Pixels times weights and these weights, (T, T, 4) float32, and where no hole is near, (T, T) uint8."""
    weights = texture.confidence[..., None] + HOLE_WEIGHT
    weighted = np.concatenate([texture.pixels * weights, weights], axis=2)
    return weighted, cv2.erode((texture.confidence > 0).astype(np.uint8), np.ones((9, 9)))


def lacks_open_mouth(texture: FaceTexture, landmarks: np.ndarray) -> bool:
    """Whether the mouth of a mesh (478, 2) is open, and the texture cannot show its inside."""
    wanted, shown = mouth_opening(landmarks), texture.mouth_opening
    similar = min(wanted, shown) > SIMILAR_OPENING * max(wanted, shown) and shown > CLOSED_MOUTH
    return wanted > CLOSED_MOUTH and not similar


def inside_mouth(target: np.ndarray, landmarks: np.ndarray) -> Reference:
    """The target's teeth and tongue, between the lips of its mesh.

    Args:
        target (`np.ndarray` of shape `(H, W, 3)`, uint8): RGB.
        landmarks (`np.ndarray` of shape `(478, 2)`): Its mesh points in pixels.

    Returns:
        [`Reference`]: Of the target's size, with a soft edge.
    """
    coverage = _between_lips(landmarks, target.shape[:2])
    width = 2 * round(LIP_SIGMA * len(target)) + 1  # leaves no gap to the lips of the source
    coverage = cv2.dilate(coverage, np.ones((width, width)))
    return Reference(target.astype(np.float32), cv2.GaussianBlur(coverage, (0, 0), LIP_SIGMA * len(target)))


def shows_fewer_teeth(face: Reference, target: np.ndarray, landmarks: np.ndarray) -> bool:
    """Whether the inside of a drawn mouth is darker than the target's, or partly unknown.

    Args:
        face ([`Reference`]): Drawn on the target's mesh and in its light.
        target (`np.ndarray` of shape `(H, W, 3)`, uint8): RGB.
        landmarks (`np.ndarray` of shape `(478, 2)`): The mesh in pixels.
    """
    inside = _between_lips(landmarks, target.shape[:2]) > 0
    if mouth_opening(landmarks) <= CLOSED_MOUTH or not inside.any():
        return False
    drawn, wanted = (to_lab(pixels)[..., 0] for pixels in (face.pixels, target))
    return bool(np.mean((wanted - face.coverage * drawn)[inside]) > FEWER_TEETH)


def _keeps_teeth(
    texture: FaceTexture, face: Reference, target: np.ndarray, landmarks: np.ndarray, depth: np.ndarray, tone: Tone
) -> bool:
    """Whether the inside of the target's mouth stays, see `draw_reference`."""
    if mouth_opening(landmarks) <= CLOSED_MOUTH:
        return False
    difference = tone("cheeks", np.array([difference_of_cheeks(texture, landmarks, depth)]), 1.0)
    return (
        lacks_open_mouth(texture, landmarks)
        or bool(abs(difference[0]) > OTHER_SIDE)
        or shows_fewer_teeth(face, target, landmarks)
    )


def difference_of_cheeks(texture: FaceTexture, landmarks: np.ndarray, depth: np.ndarray) -> float:
    """How much more a texture's photos show the left cheek than the right one, and the target does not.

    Args:
        texture ([`FaceTexture`]): Of the source.
        landmarks (`np.ndarray` of shape `(478, 2)`): The target's mesh in pixels.
        depth (`np.ndarray` of shape `(478,)`): In pixels, smaller is nearer.

    Returns:
        `float`: Difference in the log of left over right cheek, see `OTHER_SIDE`; 0 for two views from the same side.
    """
    surface, (triangles, texels) = face_surface(), _cheeks()
    facing = vertex_normals(np.column_stack([landmarks, depth]), surface.triangles)[surface.triangles, 2].mean(axis=1)
    seen = cv2.resize(texture.confidence, texels[0].shape, interpolation=cv2.INTER_AREA)
    shares = [
        [max(float(values[side].mean()), LEAST_CHEEK) for side in sides]
        for values, sides in ((np.clip(facing, 0, 1), triangles), (seen, texels))
    ]
    (wanted_left, wanted_right), (left, right) = shares
    return float(np.log(left / right) - np.log(wanted_left / wanted_right))


@lru_cache(maxsize=1)
def _cheeks() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The skin beside the mouth, left and right: triangles (T,), bool, and texels (S, S), bool."""
    surface, raster = face_surface(), texture_raster(SMALL_TEXTURE)
    u, v = surface.uv[surface.triangles].mean(axis=1).T
    beside = surface.skin & (v > CHEEKS[0]) & (v < CHEEKS[1])
    triangles = [beside & (u < 0.4), beside & (u > 0.6)]
    return triangles, [np.isin(raster.seen, np.flatnonzero(side)) for side in triangles]


def _between_lips(landmarks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Mask (height, width) float32 of what is between the lips of a mesh, with the edges of the lips."""
    mask = np.zeros(size, np.float32)
    cv2.fillPoly(mask, [np.round(landmarks[list(INNER_LIPS_478)]).astype(np.int32)], 1.0)
    return mask


def _unlike_openings(texture: FaceTexture, landmarks: np.ndarray) -> np.ndarray:
    """Triangles (T,) of the inside of the mouth and of eyes that the texture cannot show at the wanted opening."""
    surface = face_surface()
    left_out = surface.mouth & lacks_open_mouth(texture, landmarks)
    on_left = surface.uv[surface.triangles].mean(axis=1)[:, 0] < 0.5
    left_closed, right_closed = texture.eye_opening < CLOSED_EYE * eye_openings(landmarks)
    return left_out | (surface.eyes & np.where(on_left, left_closed, right_closed))


def ring_reach(region: str) -> float:
    """Extent of a region around the mesh, see [`surface.surrounding_ring`]."""
    return HEAD_REACH if "hair" in region_labels(region) else FACE_REACH


def shown_around(
    labels: np.ndarray, landmarks: np.ndarray, region: str, label_names: Sequence[str] = LABELS
) -> np.ndarray:
    """The part of a source's head that is copied around the mesh: skin and ears, and hair if the region has hair.

    Args:
        labels (`np.ndarray`): (S, S) uint8, indices into `label_names`.
        landmarks (`np.ndarray`): (478, 2), x, y in crop pixels.
        region (`str`): What is repainted, see `masks.regions.region_names`.
        label_names (`Sequence[str]`): Names of the labels; those of our parser if left out.

    Returns:
        `np.ndarray`: (S, S) float32, 1 where it is copied.
    """
    shown = repaint_mask(labels, landmarks, "head" if ring_reach(region) == HEAD_REACH else "face", label_names)
    # An opening: between strands of hair there are shreds of forehead.
    shred, edge = (2 * round(share * len(shown) / 2) + 1 for share in (SHRED, 2 * HAIRLINE))
    return cv2.erode(cv2.morphologyEx(shown, cv2.MORPH_OPEN, np.ones((shred, shred))), np.ones((edge, edge)))


def render_surroundings(head: SourceHead, face: Reference, landmarks: np.ndarray, tone: Tone = unchanged) -> Reference:
    """Copies the source's head around the mesh: forehead and ears, and hair as well if wanted.

    It gets the same change of tone as the face, so that there is no edge at the forehead.

    Args:
        head ([`SourceHead`]): The source.
        face ([`Reference`]): Its face, drawn on the target's mesh.
        landmarks (`np.ndarray` of shape `(478, 2)`): That mesh, in pixels.
        tone (`Callable`): See `Tone`.

    Returns:
        [`Reference`]: The ring around the target's mesh, filled.
    """
    points, triangles = surrounding_ring(landmarks, head.reach)
    source_points, _ = surrounding_ring(head.landmarks, head.reach)
    change = tone("ring", _tone_change(head, face, landmarks), LAB_RANGE)
    seen = rasterize(points, triangles, face.coverage.shape[::-1])
    values = np.column_stack([source_points, np.concatenate([change, change])])
    drawn = interpolate(seen, points, triangles, values)
    x, y = np.ascontiguousarray(drawn[..., 0]), np.ascontiguousarray(drawn[..., 1])
    pixels = cv2.remap(head.image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    coverage = cv2.remap(head.shown.astype(np.float32), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    coverage[seen == NOTHING] = 0
    lab = to_lab(pixels)
    return Reference(to_rgb(lab + lightness_share(lab, _lightness(head)) * drawn[..., 2:]), coverage)


def _tone_change(head: SourceHead, face: Reference, landmarks: np.ndarray) -> np.ndarray:
    """Change of the face's tone just inside its outline: CIELAB differences (36, 3)."""
    inset, source_inset = (_outline(mesh, 1 - RING_INSET) for mesh in (landmarks, head.landmarks))
    size, source_size = (np.array(plane.shape[1::-1]) - 1 for plane in (face.coverage, head.image))
    known = sample_bilinear(face.coverage[..., None], np.clip(inset, 0, size))
    wanted = sample_bilinear(to_lab(face.pixels), np.clip(inset, 0, size))
    shown = sample_bilinear(to_lab(head.image), np.clip(source_inset, 0, source_size))
    is_shown = sample_bilinear(head.shown[..., None], np.clip(source_inset, 0, source_size))
    return _smooth_around(wanted - shown, known * is_shown)


def _lightness(head: SourceHead) -> float:
    """Median L* of the source's face."""
    points = np.clip(head.landmarks, 0, np.array(head.image.shape[1::-1]) - 1)
    return float(np.median(to_lab(sample_bilinear(head.image, points)[None])[..., 0]))


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
    """Composites one reference over another (Porter and Duff 1984, "over", with non-premultiplied colours)."""
    coverage = above.coverage + (1 - above.coverage) * below.coverage
    weight = np.divide(above.coverage, coverage, out=np.zeros_like(coverage), where=coverage > 0)[..., None]
    return Reference(weight * above.pixels + (1 - weight) * below.pixels, coverage)


def draw_reference(
    texture: FaceTexture,
    target: np.ndarray,
    landmarks: np.ndarray,
    depth: np.ndarray,
    skin: np.ndarray,
    head: SourceHead | None = None,
    keep_mouth: bool = True,
    tone: Tone = unchanged,
) -> Reference:
    """Draws the source's face as the target's photo would show it.

    Args:
        texture ([`FaceTexture`]): Of the source.
        target (`np.ndarray` of shape `(H, W, 3)`, uint8): RGB.
        landmarks (`np.ndarray` of shape `(478, 2)`): The mesh to draw on, in pixels of the target.
        depth (`np.ndarray` of shape `(478,)`): In pixels, smaller is nearer.
        skin (`np.ndarray` of shape `(H, W)`, float): In [0, 1], where the target shows bare skin.
        head ([`SourceHead`], *optional*): Source photo for the surroundings of the mesh.
        keep_mouth (`bool`): Whether an open mouth keeps the target's teeth if the source shows none, or fewer, or
            shows them from another side.
        tone (`Callable`): See `Tone`.

    Returns:
        [`Reference`]: Of the target's size.
    """
    size = (target.shape[1], target.shape[0])
    skin = evenly_lit_skin(target, skin)
    light = tone("light", face_light(target, landmarks, depth, skin), 1.0)
    face = render_texture(texture, landmarks, depth, size, light)
    face = replace(face, pixels=relight(face.pixels, face.coverage, target, landmarks, skin, tone))
    if keep_mouth and _keeps_teeth(texture, face, target, landmarks, depth, tone):
        face = lay_over(face, inside_mouth(target, landmarks))
    return face if head is None else lay_over(render_surroundings(head, face, landmarks, tone), face)
