"""The texture of a face: its surface as shown by a photo, laid out flat, to be drawn in another pose and light."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, reduce

import cv2
import numpy as np

from faceswap_diffusion.faces.alignment import crop, transform_points
from faceswap_diffusion.faces.lighting import face_light, shading
from faceswap_diffusion.faces.surface import (
    NOTHING,
    face_surface,
    interpolate,
    rasterize,
    vertex_normals,
)

HIDDEN_BEHIND = 0.06
"""A texel is hidden if the visible surface is nearer by more than this share of the mesh's height."""

MIRRORED_CONFIDENCE = 0.3
"""Factor on the confidence of a mirrored texel: faces are not quite symmetric."""

SEAM, SEAM_SIGMA = 0.04, 0.05
"""Shares of the texture's side: how softly a half passes into its mirror image, whose tone is matched at the seam."""

LEAST_CONFIDENCE = 0.05
"""Texels below it are holes: the photo shows them at an angle of less than 3 degrees."""

BORDER = 0.012
"""Share of the mesh's height: pixels this close to something in front may contain some of its colour."""

REACH = 11
"""Width in pixels of the neighbourhood that interpolation uses, with a margin."""

HOLE_WEIGHT = np.float32(1e-4)
"""Weight of the colour of a hole: negligible, but not zero, so that every texel has a colour."""

DARK = 0.5
"""Skin darker than this share of the median is a beard or a cast shadow, and not used to fit the light."""

HAIRY = (0.5, 0.8)
"""L* relative to the skin's, up to which something is hair or in deep shadow, and from which on it is skin."""

BROAD = 7.0
"""Standard deviation in pixels from which on `gaussian_blur` needs no full resolution."""

SHADING_RANGE = (0.5, 2.0)
"""Limits of the factor by which shading is removed from or applied to a texture."""


@dataclass(frozen=True, eq=False)
class FaceTexture:
    """The known part of a face's surface.

    Args:
        pixels (`np.ndarray` of shape `(T, T, 3)`, float32): RGB in [0, 255], without the photo's shading.
        confidence (`np.ndarray` of shape `(T, T)`, float32): In [0, 1], the cosine of normal and view, and so the
            resolution of the photo in that texel; 0 is a hole.
        shown (`float`): Share of the face's texels that the photos show, without mirrored ones.
        eye_opening (`np.ndarray` of shape `(2,)`): Height over width of the viewer's left and right eye.
        mouth_opening (`float`): Gap between the inner lips over the mouth's width.
        skin (`np.ndarray` of shape `(S, S, 4)`, float32, *optional*): The smooth colour of the skin, RGB in [0, 255],
            coarser than `pixels`, and in [0, 1] where holes are drawn with it, see [`texture_cleaning.add_skin`].
        mouth_width (`float`): Width of the mouth over the distance of the eyes, see `mouth_width`.
        folds (`np.ndarray` of shape `(T, T, 3)`, float32, *optional*): What to add in CIELAB to take off the folds of
            a smile, see [`texture_folds.find_folds`].
    """

    pixels: np.ndarray
    confidence: np.ndarray
    shown: float
    eye_opening: np.ndarray
    mouth_opening: float
    skin: np.ndarray | None = None
    mouth_width: float = 0.0
    folds: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class TextureRaster:
    """The triangle that each texel belongs to.

    Args:
        seen (`np.ndarray` of shape `(T, T)`, int32): From `rasterize`.
        points (`np.ndarray` of shape `(478, 2)`): Texture coordinates in texels.
    """

    seen: np.ndarray
    points: np.ndarray


@lru_cache(maxsize=8)
def texture_raster(size: int) -> TextureRaster:
    """The raster of a texture of `size` x `size` texels, which is the same for all faces.

    It extends slightly beyond the mesh's outline, so that a texture can be interpolated there.
    """
    surface = face_surface()
    points = surface.uv * size - 0.5
    seen = rasterize(points, surface.triangles, (size, size))
    around = cv2.dilate(seen.astype(np.float32), np.ones((5, 5))).astype(np.int32)
    return TextureRaster(np.where(seen == NOTHING, around, seen), points)


def extract_texture(
    image: np.ndarray,
    landmarks: np.ndarray,
    depth: np.ndarray,
    visible: np.ndarray | None = None,
    size: int = 512,
    remove_light: bool = True,
    unusable: np.ndarray | None = None,
) -> FaceTexture:
    """Extracts the texture of a face from a photo.

    The confidence of a texel is high if it faces the viewer, is not hidden by the face itself, and is `visible`.
    Shading by distant light is divided out (see `lighting`).

    Args:
        image (`np.ndarray` of shape `(H, W, 3)`, uint8): RGB.
        landmarks (`np.ndarray` of shape `(478, 2)`): Mesh points in pixels.
        depth (`np.ndarray` of shape `(478,)`): In pixels, smaller is nearer.
        visible (`np.ndarray` of shape `(H, W)`, float, *optional*): In [0, 1], where the photo shows the bare face,
            without glasses, hair or hands; everywhere if left out.
        size (`int`, defaults to 512): Side of the texture in texels.
        remove_light (`bool`): Whether shading is divided out.
        unusable (`np.ndarray` of shape `(H, W)`, float, *optional*): In [0, 1], where the photo was mended, so that
            it counts as shown, but looks unlike a face.

    Returns:
        [`FaceTexture`]: It has holes where the photo does not show the face.
    """
    if visible is not None:
        image = _without_hidden(image, visible)
    usable = None if unusable is None else 1 - unusable
    image, (visible, usable), landmarks, depth = _cut_out(image, (visible, usable), landmarks, depth, size)
    height = np.ptp(landmarks[:, 1])
    surface, raster = face_surface(), texture_raster(size)
    points = np.column_stack([landmarks, depth])
    normals = vertex_normals(points, surface.triangles)
    brightness = np.ones(len(points))
    if remove_light:
        brightness = shading(face_light(image, landmarks, depth, evenly_lit_skin(image, visible)), normals)
    per_point = np.column_stack([points, normals[:, 2], brightness])
    texels = interpolate(raster.seen, raster.points, surface.triangles, per_point)
    x, y = np.ascontiguousarray(texels[..., 0]), np.ascontiguousarray(texels[..., 1])
    pixels = cv2.remap(image, x, y, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    border = 2 * (round(BORDER * height) + 1) + 1
    visible = cv2.erode(visible, np.ones((border, border)), borderType=cv2.BORDER_REPLICATE)
    confidence = np.clip(texels[..., 3], 0, 1) * (raster.seen != NOTHING)
    confidence *= cv2.remap(visible, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    confidence *= texels[..., 2] < _nearest_depth(image.shape, points, x, y) + HIDDEN_BEHIND * height
    if remove_light:
        pixels = scale_lightness(pixels, 1 / np.where(texels[..., 4] > 0, texels[..., 4], 1))
    shown = float((confidence > LEAST_CONFIDENCE)[raster.seen != NOTHING].mean())
    if unusable is not None:
        confidence *= cv2.remap(usable, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return FaceTexture(
        pixels=pixels,
        confidence=np.where(confidence < LEAST_CONFIDENCE, 0, confidence).astype(np.float32),
        shown=shown,
        eye_opening=eye_openings(landmarks),
        mouth_opening=mouth_opening(landmarks),
        mouth_width=mouth_width(landmarks, depth),
    )


def merge_textures(textures: Sequence[FaceTexture]) -> FaceTexture:
    """Merges the textures of several photos of a person. The views that show a texel best have the most weight.

    Args:
        textures (`Sequence[FaceTexture]`): Of any sizes. Textures of coarser photos are smaller and have less
            weight.

    Returns:
        [`FaceTexture`]: Of the largest size. `eye_opening` and `mouth_opening` are those of the photo that shows most.
    """
    if len(textures) == 1:
        return textures[0]
    size = max(len(texture.confidence) for texture in textures)
    views = [resize_texture(texture, size) for texture in textures]
    best = max(views, key=lambda view: view.shown)
    fineness = np.array([len(texture.confidence) / size for texture in textures])[:, None, None]
    confidences = np.stack([view.confidence for view in views])
    weights = ((fineness * confidences) ** 4 + 1e-12) * (confidences > 0)
    total = weights.sum(axis=0)
    pixels = sum(weight[..., None] * view.pixels for weight, view in zip(weights, views, strict=True))
    confidence = confidences.max(axis=0)
    pixels = np.divide(pixels, total[..., None], out=best.pixels.copy(), where=total[..., None] > 0)
    face = texture_raster(size).seen != NOTHING
    return replace(best, pixels=pixels, confidence=confidence, shown=float((confidence > 0)[face].mean()))


def fill_by_mirror(texture: FaceTexture) -> FaceTexture:
    """Fills the holes of a texture from the other half of the face.

    Args:
        texture ([`FaceTexture`]): The texture.

    Returns:
        [`FaceTexture`]: Filled; `shown` does not change.
    """
    size = len(texture.confidence)
    mirrored, its_confidence = texture.pixels[:, ::-1], MIRRORED_CONFIDENCE * texture.confidence[:, ::-1]
    both = np.minimum(texture.confidence, texture.confidence[:, ::-1])
    tone = blur_known(texture.pixels - mirrored, both, SEAM_SIGMA * size, doubt=0.01)
    mirrored = mirrored + cv2.resize(tone, (size, size), interpolation=cv2.INTER_LINEAR)
    inside = cv2.distanceTransform((texture.confidence > 0).astype(np.uint8), cv2.DIST_L2, 5) / size
    share = smoothstep(texture.confidence, 0.0, MIRRORED_CONFIDENCE) * smoothstep(inside, 0.0, SEAM)
    share = np.where(its_confidence > 0, np.where(texture.confidence > 0, share, 0), 1)
    pixels = share[..., None] * texture.pixels + (1 - share[..., None]) * mirrored
    confidence = np.maximum(texture.confidence, its_confidence)
    return replace(texture, pixels=pixels.astype(np.float32), confidence=confidence.astype(np.float32))


@lru_cache(maxsize=8)
def resize_texture(texture: FaceTexture, size: int) -> FaceTexture:
    """Resizes a texture by averaging or interpolating, with texels weighted by confidence.

    Args:
        texture ([`FaceTexture`]): The texture.
        size (`int`): The new side in texels.

    Returns:
        [`FaceTexture`]: With the new size.
    """
    if size == len(texture.confidence):
        return texture
    weights = texture.confidence[..., None] + HOLE_WEIGHT
    weighted = np.concatenate([texture.pixels * weights, weights], axis=2)
    smaller = size < len(weights)
    resized = cv2.resize(weighted, (size, size), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    pixels, confidence = resized[..., :3] / resized[..., 3:], resized[..., 3] - HOLE_WEIGHT
    confidence = np.where(confidence < HOLE_WEIGHT, 0, confidence)
    folds = None if texture.folds is None else cv2.resize(texture.folds, (size, size), interpolation=cv2.INTER_AREA)
    return replace(texture, pixels=pixels, confidence=confidence, folds=folds)


def resized_plane(plane: np.ndarray, size: int, interpolation: int = cv2.INTER_LINEAR) -> np.ndarray:
    """A square plane (T, T) or (T, T, C) in another size, (size, size) or (size, size, C), float32."""
    return cv2.resize(plane.astype(np.float32), (size, size), interpolation=interpolation)


def lowered_confidence(texture: FaceTexture, factor: np.ndarray) -> np.ndarray:
    """The confidence (T, T) float32 of a texture times factors (T, T); 0 where too little is left."""
    confidence = texture.confidence * factor
    return np.where(confidence < LEAST_CONFIDENCE, 0, confidence).astype(np.float32)


def smoothstep(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, and a smooth cubic between them."""
    position = np.clip((values - low) / (high - low), 0, 1)
    return position * position * (3 - 2 * position)


def blur_known(values: np.ndarray, weights: np.ndarray, sigma: float, doubt: float) -> np.ndarray:
    """Normalised Gaussian blur of values with weights; fades to 0 far from all weight.

    It runs at a quarter of the size, which makes no visible difference for a blur over many pixels.

    Args:
        values (`np.ndarray` of shape `(H, W, C)`): The values.
        weights (`np.ndarray` of shape `(H, W)`): Weight of each value, 0 if unknown.
        sigma (`float`): Standard deviation of the blur in pixels.
        doubt (`float`): Blurred weight at which the result is half of the weighted mean.

    Returns:
        `np.ndarray` of shape `(H // 4, W // 4, C)`, float32: At a quarter of the size.
    """
    small = tuple(max(1, side // 4) for side in weights.shape[::-1])
    both = np.concatenate([values * weights[..., None], weights[..., None]], axis=2).astype(np.float32)
    both = cv2.resize(both, small, interpolation=cv2.INTER_AREA)
    both = cv2.GaussianBlur(both, (0, 0), sigma / 4, borderType=cv2.BORDER_CONSTANT)
    return both[..., :-1] / (both[..., -1:] + doubt)


def gaussian_blur(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of a picture; a broad one is made at a quarter of its size, which makes no visible difference.

    Args:
        pixels (`np.ndarray` of shape `(H, W, C)`, float32): The picture.
        sigma (`float`): Standard deviation in pixels.

    Returns:
        `np.ndarray` of shape `(H, W, C)`, float32: The picture, blurred.
    """
    if sigma < BROAD:
        return cv2.GaussianBlur(pixels, (0, 0), sigma).reshape(pixels.shape)
    height, width = pixels.shape[:2]
    small = cv2.resize(pixels, (max(1, width // 4), max(1, height // 4)), interpolation=cv2.INTER_AREA)
    # Means over 4 pixels and linear interpolation blur as well, with variances of (4^2 - 1) / 12 and 4^2 / 6.
    small = cv2.GaussianBlur(small, (0, 0), np.sqrt(sigma**2 - 15 / 12 - 16 / 6) / 4)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR).reshape(pixels.shape)


def largest_channel(pixels: np.ndarray) -> np.ndarray:
    """The largest of the channels of each pixel of (H, W, C); NumPy takes ten times as long along a short axis."""
    return reduce(np.maximum, np.moveaxis(pixels, 2, 0))


def to_lab(pixels: np.ndarray) -> np.ndarray:
    """CIELAB (H, W, 3) float32 of RGB pixels in [0, 255]."""
    return cv2.cvtColor(np.clip(pixels, 0, 255).astype(np.float32) / 255, cv2.COLOR_RGB2Lab)


def to_rgb(lab: np.ndarray) -> np.ndarray:
    """RGB (H, W, 3) float32 in [0, 255] of CIELAB pixels; what RGB cannot show is clipped."""
    return np.clip(cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_Lab2RGB), 0, 1) * 255


def scale_lightness(pixels: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Scales linear RGB, as stronger or weaker light does.

    L* + 16, a* and b* are linear in cube roots of linear values (CIE 15:2004, equations 8.3 to 8.5), so they scale
    with the cube root of the factor.

    Args:
        pixels (`np.ndarray` of shape `(H, W, 3)`, float32): RGB in [0, 255].
        factor (`np.ndarray` of shape `(H, W)`): The factor; it is clipped to `SHADING_RANGE`.

    Returns:
        `np.ndarray` of shape `(H, W, 3)`, float32: RGB in [0, 255].
    """
    lab = to_lab(pixels)
    root = np.cbrt(np.clip(factor, *SHADING_RANGE)).astype(np.float32)[..., None]
    offset = np.array([16, 0, 0], np.float32)
    lab = (lab + offset) * root - offset
    return to_rgb(lab)


def evenly_lit_skin(image: np.ndarray, skin: np.ndarray) -> np.ndarray:
    """Removes pixels from a skin mask that are too dark for lit skin: beards, brows, cast shadows.

    Args:
        image (`np.ndarray` of shape `(H, W, 3)`, uint8): RGB.
        skin (`np.ndarray` of shape `(H, W)`, float): In [0, 1].

    Returns:
        `np.ndarray` of shape `(H, W)`, float32.
    """
    brightness = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) ** 2.2
    inside = skin > 0.5
    return (skin * (brightness > DARK * np.median(brightness[inside]))).astype(np.float32) if inside.any() else skin


def eye_openings(landmarks: np.ndarray) -> np.ndarray:
    """Height over width of both eyes (2,), viewer's left first, from mesh points (478, 2)."""
    corners = landmarks[[33, 263]] - landmarks[[133, 362]]
    lids = landmarks[[159, 386]] - landmarks[[145, 374]]
    return np.linalg.norm(lids, axis=1) / np.maximum(np.linalg.norm(corners, axis=1), 1e-6)


def mouth_opening(landmarks: np.ndarray) -> float:
    """Gap between the inner lips relative to the mouth's width, from mesh points (478, 2)."""
    width = np.linalg.norm(landmarks[61] - landmarks[291])
    return float(np.linalg.norm(landmarks[13] - landmarks[14]) / max(width, 1e-6))


def mouth_width(landmarks: np.ndarray, depth: np.ndarray) -> float:
    """Width of the mouth over the distance of the eyes' outer corners, both in space: about 0.6, and 0.75 in a smile.

    Args:
        landmarks (`np.ndarray` of shape `(478, 2)`): Mesh points in pixels.
        depth (`np.ndarray` of shape `(478,)`): In pixels.
    """
    points = np.column_stack([landmarks, depth])
    mouth, eyes = (np.linalg.norm(points[left] - points[right]) for left, right in ((61, 291), (33, 263)))
    return float(mouth / max(eyes, 1e-6))


def _cut_out(
    image: np.ndarray, masks: Sequence[np.ndarray | None], landmarks: np.ndarray, depth: np.ndarray, size: int
) -> tuple[np.ndarray, list[np.ndarray], np.ndarray, np.ndarray]:
    """Crops photo and masks to the face, shrunk where the texture is coarser, and maps the mesh to the crop."""
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    margin = 0.1 * (high - low).max()
    side = (high - low).max() + 2 * margin
    scale = min(1.0, size * 1.2 / side)
    matrix = np.array([[scale, 0, 0], [0, scale, 0]]) + np.column_stack([np.zeros((2, 2)), scale * (margin - low)])
    pixels = int(np.ceil(side * scale))
    whole = np.ones(image.shape[:2], np.float32)
    planes = [whole if mask is None else mask.astype(np.float32) for mask in masks]
    cut = [np.clip(crop(plane, matrix, pixels, cv2.BORDER_CONSTANT), 0, 1) for plane in planes]
    image = crop(image, matrix, pixels, cv2.BORDER_REPLICATE)
    return image, cut, transform_points(landmarks, matrix), depth * scale


def _without_hidden(image: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Replaces invisible pixels by the colour of visible neighbours, so that interpolation does not mix them in."""
    shown = (visible > 0.5).astype(np.float32)
    if shown.all():
        return image
    around = cv2.blur(shown, (REACH, REACH))[..., None]
    beside = cv2.blur(image * shown[..., None], (REACH, REACH)) / np.maximum(around, 1e-6)
    return np.where((shown[..., None] > 0) | (around < 1e-6), image, beside).astype(image.dtype)


def _nearest_depth(shape: tuple[int, ...], points: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Depth of the nearest surface at the position of each texel in the picture; very large if there is none."""
    surface = face_surface()
    seen = rasterize(points[:, :2], surface.triangles, (shape[1], shape[0]), points[:, 2])
    depth = interpolate(seen, points[:, :2], surface.triangles, points[:, 2:])[..., 0]
    depth[seen == NOTHING] = 1e6
    return cv2.remap(depth, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=1e6)
