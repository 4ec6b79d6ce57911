"""Who to become: what photos of a source come to, which a file keeps."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike

import cv2
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch.nn.functional import normalize

from faceswap_diffusion.conditioning.reference import SourceHead, ring_reach, shown_around
from faceswap_diffusion.faces.alignment import crop, resized_matrix
from faceswap_diffusion.faces.texture import FaceTexture, extract_texture, merge_textures
from faceswap_diffusion.faces.texture_cleaning import clean_texture, complete_texture, unlike_skin, without_brows
from faceswap_diffusion.faces.texture_folds import find_folds
from faceswap_diffusion.faces.texture_lenses import clear_lenses
from faceswap_diffusion.masks.outlines import around_eyes
from faceswap_diffusion.masks.parsing import LABELS
from faceswap_diffusion.masks.regions import has_beard, region_mask, repaint_mask
from faceswap_diffusion.provenance.save import replace_file
from faceswap_diffusion.swapping.aligned_face import AlignedFace, native_size, within_photo
from faceswap_diffusion.swapping.exposure import brighten
from faceswap_diffusion.swapping.identity_files import check_identity_output
from faceswap_diffusion.swapping.uncovering import share_within, uncover

FINEST_TEXTURE, TEXTURE_STEP = 1024, 128  # largest side in texels, and what sides are multiples of
TEXELS = 1.25  # per pixel of the crop, half of which the face fills
EYES_HIDDEN = 0.1  # share of eyes and brows from which on a target keeps its own where the source's are not seen

FLAGS = ("eyes_hidden", "bearded")  # attributes of an identity that hold if they hold of all its photos
TEXTURE_NUMBERS = ("shown", "mouth_opening", "mouth_width")  # of its attributes

FORMAT = "faceswap-diffusion source identity 1"
SAME_NETWORKS = 0.1  # distance of fingerprints, up to which precision explains it
ANEW = "write it anew with `faceswap-diffusion identity`"


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
        eyes_hidden (`bool`): Whether glasses or other things cover eyes or brows in all photos; a target keeps its own
            then.
        bearded (`bool`): Whether chin and jaw have a beard in all photos; a target's beard below the jaw stays then.
        region (`str`): What is to be repainted, so that it was encoded what the source shows of it.
        fingerprint (`torch.Tensor`, *optional*): (F,), tells the networks that it was encoded with, see
            `SwapSteps.fingerprint`; `None` for an identity that serves its own swapper only.
        name (`str`): What to call it in messages: the names of the photos, or of the file.
    """

    identity_embeds: torch.Tensor
    source_clip_embeds: torch.Tensor
    geometry: torch.Tensor | None = None
    texture: FaceTexture | None = None
    head: SourceHead | None = None
    eyes_hidden: bool = False
    bearded: bool = False
    region: str = "face"
    fingerprint: torch.Tensor | None = None
    name: str = "source"

    def save(self, path: str | PathLike) -> None:
        """Saves it whole or not at all, to be used without its photos.

        Args:
            path (`str | PathLike`): Ends in .safetensors; a file that is there is replaced.

        Raises:
            ValueError: If it cannot be saved there, or has no `fingerprint`.
        """
        path = check_identity_output(path)
        if self.fingerprint is None:
            raise ValueError(f"the identity of {self.name} has no fingerprint of networks: save one of encode_source")
        tensors, facts = _taken_apart(self)
        facts = {"sha256": _digest(tensors, facts), **facts}
        # One entry: the order of several differs from file to file.
        replace_file(path, save(tensors, {FORMAT: json.dumps(facts)}))

    def digest(self) -> str:
        """SHA-256 of all that a file of it would say."""
        return _digest(*_taken_apart(self))

    def check_networks(self, fingerprint: torch.Tensor) -> None:
        """Checks that it was encoded with networks of a fingerprint (F,).

        Raises:
            ValueError: If its own fingerprint is another one.
        """
        theirs = self.fingerprint
        if theirs is None or theirs.shape != fingerprint.shape or torch.dist(theirs, fingerprint) > SAME_NETWORKS:
            raise ValueError(
                f"{self.name} was encoded with another recogniser or image encoder than this checkpoint's: {ANEW} "
                "and this checkpoint"
            )

    @classmethod
    def load(cls, path: str | PathLike) -> "SourceIdentity":
        """Reads what `save` wrote.

        Raises:
            ValueError: If the file is missing, damaged, or something else; nothing that is pickled is read.
        """
        try:
            with safe_open(path, "pt") as file:
                described = (file.metadata() or {}).get(FORMAT)
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        except FileNotFoundError:
            raise ValueError(f"cannot read {path}: there is no such file; check the path") from None
        except (SafetensorError, OSError) as error:
            raise ValueError(f"cannot read {path}: it is damaged or no safetensors file ({error}); {ANEW}") from None
        if described is None:
            raise ValueError(f"cannot read {path}: it holds no source identity; {ANEW}")
        facts = json.loads(described)
        if facts.pop("sha256", None) != _digest(tensors, facts):
            raise ValueError(f"cannot read {path}: it is damaged; {ANEW}")
        return _put_together(tensors, facts, str(path))


def fingerprint_picture(size: int) -> np.ndarray:
    """A picture (size, size, 3) uint8 RGB that is the same everywhere: waves of all directions."""
    y, x = np.mgrid[:size, :size] / size
    waves = [np.sin(2 * np.pi * (a * x + b * y)) for a, b in ((1, 2), (3, -1), (2, 5))]
    return np.round(127.5 + 127.5 * np.stack(waves, axis=-1)).astype(np.uint8)


def _taken_apart(identity: SourceIdentity) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """All of an identity as named tensors, and its numbers and words as text."""
    parts: dict[str, torch.Tensor | np.ndarray | None] = {
        "identity_embeds": identity.identity_embeds,
        "source_clip_embeds": identity.source_clip_embeds,
        "fingerprint": identity.fingerprint,
        "geometry": identity.geometry,
    }
    facts = {"region": identity.region, **{name: str(getattr(identity, name)) for name in FLAGS}}
    texture, head = identity.texture, identity.head
    if texture is not None:
        arrays = ("pixels", "confidence", "eye_opening", "skin")
        parts |= {f"texture.{name}": getattr(texture, name) for name in arrays}
        facts |= {f"texture.{name}": repr(float(getattr(texture, name))) for name in TEXTURE_NUMBERS}
    if head is not None:
        parts |= {f"head.{name}": getattr(head, name) for name in ("image", "landmarks", "shown")}
        facts["head.reach"] = repr(float(head.reach))
    tensors = {name: torch.as_tensor(part).cpu().contiguous() for name, part in parts.items() if part is not None}
    return tensors, facts


def _put_together(tensors: Mapping[str, torch.Tensor], facts: Mapping[str, str], name: str) -> SourceIdentity:
    """Undoes `_taken_apart`."""
    groups: dict[str, dict] = {"": {}, "texture": {}, "head": {}}
    for key, tensor in tensors.items():
        group, _, part = key.rpartition(".")
        groups[group][part] = tensor.numpy() if group else tensor
    for key, value in facts.items():
        group, _, part = key.rpartition(".")
        groups[group][part] = float(value) if group else value
    groups[""] |= {name: groups[""].get(name) == str(True) for name in FLAGS}
    texture = find_folds(FaceTexture(**groups["texture"])) if groups["texture"] else None
    head = SourceHead(**groups["head"]) if groups["head"] else None
    return SourceIdentity(**groups[""], texture=texture, head=head, name=name)


def _digest(tensors: Mapping[str, torch.Tensor], facts: Mapping[str, str]) -> str:
    """SHA-256 over all that a file says."""
    digest = hashlib.sha256(repr(sorted(facts.items())).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


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
        **{name: all(getattr(look, name) for look in looks) for name in FLAGS},
    )
    textures = [look.texture for look in looks if look.texture is not None]
    if len(textures) < len(looks):
        return identity
    best = looks[int(np.argmax([texture.shown for texture in textures]))]
    return replace(identity, texture=complete_texture(merge_textures(textures)), head=best.head)


def hides_eyes(face: AlignedFace) -> bool:
    """Whether things in front of a face hide more of its eyes and brows than `EYES_HIDDEN`."""
    return share_within(around_eyes(face.landmarks, len(face.pixels)), 1 - face.free()) > EYES_HIDDEN


def shows_beard(face: AlignedFace) -> bool:
    """Whether a face has a beard on chin and jaw; labels of other parsers do not tell."""
    return face.label_names == LABELS and has_beard(face.labels, face.landmarks, face.pixels)


def take_texture(rgb: np.ndarray, face: AlignedFace) -> FaceTexture:
    """Takes the texture of a face from its photo, as fine as that is, without what is in front of the face.

    Args:
        rgb (`np.ndarray`): (H, W, 3) uint8.
        face ([`AlignedFace`]): Cut out of it, with depth.
    """
    coarse = len(face.pixels)
    size = native_size(face.matrix, coarse)
    matrix, scale = resized_matrix(face.matrix, coarse, size), size / coarse
    visible = repaint_mask(face.labels, face.landmarks, "face", face.label_names)
    shown = uncover(face)
    visible = visible * shown.visible
    pixels = brighten(crop(rgb, matrix, size), face.exposure)
    if shown.thin.any():
        mended, share = (
            cv2.resize(plane, (size, size), interpolation=cv2.INTER_LINEAR) for plane in (shown.mended, shown.thin)
        )
        pixels = np.round(pixels + share[..., None] * (mended - pixels.astype(np.float32))).astype(np.uint8)
    visible = cv2.resize(visible, (size, size), interpolation=cv2.INTER_LINEAR) * within_photo(rgb, matrix, size)
    framed = cv2.resize(shown.framed, (size, size), interpolation=cv2.INTER_LINEAR)
    assert face.depth is not None  # only meshes have textures
    landmarks, depth = (face.landmarks + 0.5) * scale - 0.5, face.depth * scale
    texels = min(FINEST_TEXTURE, TEXTURE_STEP * int(np.ceil(TEXELS * size / TEXTURE_STEP)))
    texture = extract_texture(pixels, landmarks, depth, visible, texels, unusable=framed)
    if any(shown.hidden_brows):  # skin would be mended there, not hair
        texture = without_brows(texture, shown.hidden_brows)
    return clean_texture(clear_lenses(texture) if shown.has_lenses else texture)


def source_head(rgb: np.ndarray, face: AlignedFace, region: str) -> SourceHead:
    """What a source's photo (H, W, 3) uint8 shows around the mesh of its face, for a region to be repainted."""
    shown = shown_around(face.labels, face.landmarks, region, face.label_names)
    shown = shown * face.free(region) * within_photo(rgb, face.matrix, len(face.pixels))
    skin = region_mask(face.labels, "skin", face.label_names)
    shown = shown * (1 - skin * unlike_skin(face.pixels, skin))
    return SourceHead(face.pixels, face.landmarks, shown, ring_reach(region))
