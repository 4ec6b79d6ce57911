"""The record of a picture's face: embeddings, pose, expression, landmarks, light, skin tone, mask, what hides it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from faceswap_diffusion.faces.alignment import crop, ffhq_matrix, transform_points, uncrop
from faceswap_diffusion.faces.analyzer import Face, MeshFaceAnalyzer
from faceswap_diffusion.faces.lighting import face_light
from faceswap_diffusion.faces.selection import NoFaceFoundError, select_face
from faceswap_diffusion.masks.occlusion import cover_mask, load_occlusion_network
from faceswap_diffusion.masks.outlines import region_mask_from_landmarks
from faceswap_diffusion.masks.parsing import load_face_parser
from faceswap_diffusion.masks.regions import region_mask, repaint_mask
from faceswap_diffusion.metrics import faces as metrics
from faceswap_diffusion.metrics.feature_networks import FEATURE_NETWORKS
from faceswap_diffusion.metrics.lpips import LPIPS
from faceswap_diffusion.metrics.onnx_networks import SixDRepNet
from faceswap_diffusion.metrics.recognizers import RECOGNIZERS, Recognizer
from faceswap_diffusion.weights.registry import MODEL_FILES, ModelFileError

CROP_SIZE = 256
HIDDEN = 127  # value of masked pixels: middle grey, which is 0 for networks with input in [-1, 1]

# (name in the report, model file)
NETWORK_FILES = {
    "sface": "sface",
    "w600k": "w600k_mbf",
    "dlib": "dlib_resnet",
    "ir_se50": "ir_se50",
    "6drepnet": "6drepnet360",
    "inception": "inception",
    "clip": "clip_vit_b32",
    "lpips": "lpips_vgg16",
}


@dataclass(frozen=True)
class Networks:
    """The networks that measure.

    Args:
        analyzer ([`MeshFaceAnalyzer`]): Finds faces, with mesh, head pose and blendshapes.
        recognizers (`dict[str, Recognizer]`): Recognisers by name.
        head_pose_network (`Callable`, *optional*): A head pose network that is independent of the mesh.
        feature_networks (`dict[str, Callable]`): "inception" and "clip".
        lpips (`Callable`, *optional*): Perceptual distance.
        unavailable (`dict[str, str]`): Names of missing networks, and how to get them.
    """

    analyzer: MeshFaceAnalyzer
    recognizers: dict[str, Recognizer]
    head_pose_network: Callable[[np.ndarray, Face], np.ndarray] | None = None
    feature_networks: dict[str, Callable[..., np.ndarray]] = field(default_factory=dict)
    lpips: Callable[..., np.ndarray] | None = None
    unavailable: dict[str, str] = field(default_factory=dict)

    def names(self) -> list[str]:
        """The names of the available networks, in the order of `NETWORK_FILES`."""
        optional = {"6drepnet": self.head_pose_network, "lpips": self.lpips}
        present = {*self.recognizers, *self.feature_networks, *(name for name, network in optional.items() if network)}
        return [name for name in NETWORK_FILES if name in present]

    def licences(self) -> list[dict[str, str]]:
        """Name, file, licence and origin of each network in use."""
        files = ["yunet", "face_landmarker", *(NETWORK_FILES[name] for name in self.names())]
        return [
            {"name": name, "file": entry.filename, "licence": entry.licence, "origin": entry.origin}
            for name, entry in ((name, MODEL_FILES[name]) for name in files)
        ]


def load_networks() -> Networks:
    """Loads every network whose file is available, and notes for the others how to get them."""
    makers: dict[str, Callable[[], Any]] = {
        **RECOGNIZERS, "6drepnet": SixDRepNet, **FEATURE_NETWORKS, "lpips": LPIPS
    }  # fmt: skip
    loaded, unavailable = {}, {}
    for name, make in makers.items():
        try:
            loaded[name] = make()
        except ModelFileError as error:
            unavailable[name] = str(error)
    return Networks(
        MeshFaceAnalyzer(),
        {name: loaded[name] for name in RECOGNIZERS if name in loaded},
        loaded.get("6drepnet"),
        {name: loaded[name] for name in FEATURE_NETWORKS if name in loaded},
        loaded.get("lpips"),
        unavailable,
    )


@dataclass(frozen=True)
class FaceMask:
    """The part of a photo that shows the face.

    Args:
        mask (`np.ndarray`): (256, 256) bool, in the FFHQ-aligned crop.
        matrix (`np.ndarray`): (2, 3), photo pixels to crop pixels.
    """

    mask: np.ndarray
    matrix: np.ndarray

    def on_photo(self, shape: tuple[int, ...], margin: int = 0) -> np.ndarray:
        """The mask (H, W) bool in a photo of `shape`, dilated by `margin` pixels of the crop."""
        mask = self.mask.astype(np.float32)
        if margin:
            mask = cv2.dilate(mask, np.ones((2 * margin + 1, 2 * margin + 1), np.uint8))
        return uncrop(mask, self.matrix, (shape[1], shape[0])) > 0.5


def find_face(networks: Networks, image: np.ndarray) -> Face | None:
    """The largest face of a photo (H, W, 3) uint8 RGB; `None` if there is none."""
    try:
        return select_face(networks.analyzer.analyze(image))
    except NoFaceFoundError:
        return None


def measure_face(networks: Networks, image: np.ndarray, mask: FaceMask | None = None) -> dict[str, Any]:
    """Measures the largest face of a photo.

    Args:
        networks ([`Networks`]): The networks that measure.
        image (`np.ndarray`): (H, W, 3) uint8 RGB.
        mask ([`FaceMask`], *optional*): What masked recognisers see; for a swap, the target's mask. If left out, the
            mask of the face itself.

    Returns:
        `dict[str, Any]`: `detected`; if it is true also `{recogniser}` and `{recogniser}_masked` (D,), `head_pose`
        (3,) degrees, `rotation` (3, 3), `blendshapes` (52,), `landmarks68` (68, 2) pixels, `light` (9,), `skin` (3,)
        CIELAB, `mask` and `matrix` of [`FaceMask`], and `covered`, the share of the face that something is in front
        of, as far as the package's network finds it.
    """
    face = find_face(networks, image)
    if face is None:
        return {"detected": False}
    matrix = ffhq_matrix(face.landmarks68, CROP_SIZE)
    aligned = crop(image, matrix, CROP_SIZE)
    labels = load_face_parser().parse(aligned)
    landmarks = transform_points(face.landmarks, matrix)
    own = FaceMask(repaint_mask(labels, landmarks, "face") > 0.5, matrix)
    masked = np.where((mask or own).on_photo(image.shape)[..., None], image, HIDDEN).astype(np.uint8)
    record = {
        "detected": True,
        "head_pose": face.head_pose,
        "blendshapes": face.blendshapes,
        "landmarks68": face.landmarks68,
        "light": face_light(image, face.landmarks, face.depth) if face.depth is not None else np.full(9, np.nan),
        "skin": metrics.mean_color(aligned, region_mask(labels, "skin")),
        "mask": own.mask,
        "matrix": own.matrix,
        "covered": covered_share(aligned, landmarks),
    }
    for name, recognizer in networks.recognizers.items():
        record |= {name: recognizer(image, face), f"{name}_masked": recognizer(masked, face)}
    if networks.head_pose_network is not None:
        record["rotation"] = networks.head_pose_network(image, face)
    return record


def covered_share(aligned: np.ndarray, landmarks: np.ndarray) -> float:
    """The share of a face, inside the outline of its mesh, that something is in front of.

    Args:
        aligned (`np.ndarray`): (S, S, 3) uint8 RGB, the FFHQ-aligned crop.
        landmarks (`np.ndarray`): (478, 2) or (68, 2), in its pixels.
    """
    face = region_mask_from_landmarks(landmarks, len(aligned)) > 0.5
    covered = cover_mask(load_occlusion_network().find(aligned, landmarks)) > 0.5
    return float(covered[face].mean()) if face.any() else float("nan")
