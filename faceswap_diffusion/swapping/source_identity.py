"""Who to become: what photos of a source come to, which a file keeps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch.nn.functional import normalize

from faceswap_diffusion.conditioning.reference import SourceHead, ring_reach, shown_around
from faceswap_diffusion.faces.alignment import crop, resized_matrix
from faceswap_diffusion.faces.texture import FaceTexture, extract_texture, fill_by_mirror, merge_textures
from faceswap_diffusion.masks.regions import repaint_mask
from faceswap_diffusion.swapping.aligned_face import AlignedFace, native_size, within_photo

FINEST_TEXTURE = 1024  # side in texels


@dataclass(frozen=True)
class SourceIdentity:
    """Who to become: the mean over one or more photos.

    Args:
        identity_embeds (`torch.Tensor`): (1, D), of unit length.
        source_clip_embeds (`torch.Tensor`): (1, C).
        geometry (`torch.Tensor`, *optional*): (1, 68, 2), see [`AlignedFace`].
        texture ([`FaceTexture`], *optional*): Of all photos; `None` if the checkpoint is shown no references, or a
            face has no mesh.
        head ([`SourceHead`], *optional*): Of the photo that shows most of the face.
    """

    identity_embeds: torch.Tensor
    source_clip_embeds: torch.Tensor
    geometry: torch.Tensor | None = None
    texture: FaceTexture | None = None
    head: SourceHead | None = None


def average_identities(looks: Sequence[SourceIdentity]) -> SourceIdentity:
    """One identity of what single photos show: means, and the texture of all of them.

    Args:
        looks (`Sequence[SourceIdentity]`): From `FaceSwapper.encode_face`.

    Returns:
        [`SourceIdentity`]: What no photo shows of the face comes from its mirror image, as far as that is shown.
    """
    identity_embeds = normalize(torch.cat([look.identity_embeds for look in looks]).mean(0, keepdim=True))
    source_clip_embeds = torch.cat([look.source_clip_embeds for look in looks]).mean(0, keepdim=True)
    shapes = [look.geometry for look in looks if look.geometry is not None]
    geometry = torch.stack(shapes).mean(0) if len(shapes) == len(looks) else None
    identity = replace(
        looks[0],
        identity_embeds=identity_embeds,
        source_clip_embeds=source_clip_embeds,
        geometry=geometry,
        texture=None,
        head=None,
    )
    textures = [look.texture for look in looks if look.texture is not None]
    if len(textures) < len(looks):
        return identity
    best = looks[int(np.argmax([texture.shown for texture in textures]))]
    return replace(identity, texture=fill_by_mirror(merge_textures(textures)), head=best.head)


def take_texture(rgb: np.ndarray, face: AlignedFace) -> FaceTexture:
    """Takes the texture of a face from its photo, as fine as that is.

    Args:
        rgb (`np.ndarray`): (H, W, 3) uint8.
        face ([`AlignedFace`]): Cut out of it, with depth.
    """
    coarse = len(face.pixels)
    size = native_size(face.matrix, coarse)
    matrix, scale = resized_matrix(face.matrix, coarse, size), size / coarse
    visible = repaint_mask(face.labels, face.landmarks, "face", face.label_names)
    visible = cv2.resize(visible, (size, size), interpolation=cv2.INTER_LINEAR) * within_photo(rgb, matrix, size)
    assert face.depth is not None  # only meshes have textures
    landmarks, depth = (face.landmarks + 0.5) * scale - 0.5, face.depth * scale
    texels = min(FINEST_TEXTURE, 2 ** int(np.ceil(np.log2(size)) + 1))  # the face fills half of the crop
    return extract_texture(crop(rgb, matrix, size), landmarks, depth, visible, texels)


def source_head(rgb: np.ndarray, face: AlignedFace, region: str) -> SourceHead:
    """What a source's photo (H, W, 3) uint8 shows around the mesh of its face, for a region to be repainted."""
    shown = shown_around(face.labels, face.landmarks, region, face.label_names)
    shown = shown * within_photo(rgb, face.matrix, len(face.pixels))
    return SourceHead(face.pixels, face.landmarks, shown, ring_reach(region))
