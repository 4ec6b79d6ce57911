"""REFace's face parser against the original's output, its labels, and real faces where its file is at hand."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from faceswap_diffusion.conversion.bisenet import convert_bisenet
from faceswap_diffusion.faces.alignment import crop, ffhq_matrix, transform_points
from faceswap_diffusion.faces.analyzer import MeshFaceAnalyzer
from faceswap_diffusion.masks.bisenet import CELEBAMASK_LABELS, REDUCTION, REFACE_LABELS, BiSeNet
from faceswap_diffusion.masks.regions import region_mask, repaint_mask
from faceswap_diffusion.photos.loading import load_photo
from faceswap_diffusion.weights.registry import verify_file
from tests.parity.synthetic_weights import synthetic_tensor

IMAGES = Path(__file__).parents[2] / "examples" / "images"
FILE = os.environ.get("FACESWAP_BISENET")
needs_file = pytest.mark.skipif(
    FILE is None,
    reason="set FACESWAP_BISENET to 79999_iter.pth, which is for non-commercial use and not part of this repository",
)
# One mesh point in the middle of each part: irises, nose, lips, cheeks and the space between the brows.
POINTS = {"eyes": (468, 473), "nose": (4, 195), "lips": (17, 0), "skin": (50, 280, 9), "brows": (105, 334)}


def synthetic_file(path: Path, **changes: torch.Tensor) -> Path:
    """`79999_iter.pth` with synthetic weights, in the old format, with the outputs that only training uses."""
    shapes = {name: tuple(weight.shape) for name, weight in BiSeNet().state_dict().items()}
    heads = {"conv.conv.weight": (64, 128, 3, 3), "conv.bn.weight": (64,), "conv_out.weight": (19, 64, 1, 1)}
    shapes |= {f"conv_out{at}.{name}": shape for at in (16, 32) for name, shape in heads.items()}
    weights = {name: synthetic_tensor(name, shape) for name, shape in shapes.items()}
    torch.save({**weights, **changes}, path, _use_new_zipfile_serialization=False)
    return path


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> BiSeNet:
    folder = tmp_path_factory.mktemp("bisenet")
    convert_bisenet(synthetic_file(folder / "79999_iter.pth"), folder / "face_parser")
    return BiSeNet.from_pretrained(folder / "face_parser").eval()


@torch.no_grad()
def test_the_network_gives_the_originals_logits(converted: BiSeNet):
    golden = load_file(Path(__file__).parent / "bisenet_golden.safetensors")["logits"]
    logits = converted(synthetic_tensor("pixel_values", (1, 3, 96, 96)))
    assert logits.shape == (1, 19, 96, 96)
    assert (logits[..., ::4, ::4] - golden).norm() / golden.norm() <= 1e-5


def test_nineteen_labels_become_refaces_twelve():
    # In the network's order: background, skin, brows, eyes, glasses, ears, earring, nose, mouth, lips, neck,
    # necklace, cloth, hair, hat; in REFace's: 1 lip, 2 brows, 3 eyes, 4 hair, 5 nose, 6 skin, 7 ears, 8 neck, ...
    assert REDUCTION.tolist() == [0, 6, 2, 2, 3, 3, 10, 7, 7, 11, 5, 9, 1, 1, 8, 0, 0, 4, 0]
    assert (len(CELEBAMASK_LABELS), len(REFACE_LABELS)) == (19, 12)


@pytest.mark.parametrize(
    ("region", "indices"),
    [
        ("face", {1, 2, 3, 5, 6, 7, 9}),
        ("head", {1, 2, 3, 4, 5, 6, 7, 9, 10, 11}),
        ("hair", {4}),
        ("mouth", {1, 9}),
        ("features", {1, 2, 3, 5, 9}),
        ("accessories", {10, 11}),
    ],
)
def test_regions_are_refaces_sets_of_labels(region: str, indices: set[int]):
    labels = np.arange(12, dtype=np.uint8)[None]
    mask = repaint_mask(labels, np.zeros((478, 2)), region, REFACE_LABELS)
    assert set(np.nonzero(mask[0])[0]) == indices
    assert np.array_equal(mask, region_mask(labels, region, REFACE_LABELS))


def test_pictures_are_normalised_as_the_network_was_trained(converted: BiSeNet):
    picture = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    view = torch.from_numpy(((picture / 255 - mean) / std).astype(np.float32)).permute(2, 0, 1)[None]
    with torch.no_grad():
        wanted = converted(view)[0].argmax(0).numpy()
    labels = converted.parse_celebamask(picture)
    assert (labels == wanted).mean() > 0.999
    assert np.array_equal(converted.parse(picture), REDUCTION[labels])
    assert converted.parse(picture[:200, :200]).shape == (200, 200)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stowaway": torch.zeros(1)}, "is not the face parser 79999_iter.pth: 1 key is unknown, stowaway"),
        (
            {"conv_out.conv_out.weight": torch.zeros(11, 256, 1, 1)},
            r"conv_out\.conv_out\.weight \(is \(11, 256, 1, 1\)",
        ),
    ],
)
def test_another_parser_is_refused(tmp_path: Path, changes, message: str):
    with pytest.raises(ValueError, match=message):
        convert_bisenet(synthetic_file(tmp_path / "other.pth", **changes), tmp_path / "face_parser")
    assert not (tmp_path / "face_parser").exists()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> BiSeNet:
    folder = tmp_path_factory.mktemp("original") / "face_parser"
    convert_bisenet(verify_file(str(FILE), "bisenet_celebamask"), folder)
    return BiSeNet.from_pretrained(folder).eval()


@needs_file
@pytest.mark.parametrize("name", ["p001_portrait.jpg", "p005_portrait.jpg", "p008_selfie.jpg", "p010_selfie.jpg"])
def test_parts_of_real_faces_get_their_labels(original: BiSeNet, name: str):
    rgb = load_photo(IMAGES / name).rgb
    (face,) = MeshFaceAnalyzer().analyze(rgb)
    matrix = ffhq_matrix(face.landmarks68, 512)
    labels, landmarks = original.parse(crop(rgb, matrix, 512)), transform_points(face.landmarks, matrix)
    for part, indices in POINTS.items():
        for index in indices:
            x, y = np.round(landmarks[index]).astype(int)
            seen = {REFACE_LABELS[label] for label in np.unique(labels[y - 8 : y + 9, x - 8 : x + 9])}
            assert part in seen, f"{part} at landmark {index}: {seen}"
    face_share, head_share = (
        repaint_mask(labels, landmarks, region, REFACE_LABELS).mean() for region in ("face", "head")
    )
    assert 0.1 < face_share < head_share < 0.9
