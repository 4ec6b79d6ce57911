"""The parser that ships, on real photos; and the network's contract."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from faceswap_diffusion.faces.alignment import crop, ffhq_matrix, transform_points
from faceswap_diffusion.faces.analyzer import MeshFaceAnalyzer
from faceswap_diffusion.masks.outlines import region_mask_from_landmarks
from faceswap_diffusion.masks.parsing import CHECKPOINT, LABELS, FaceParser, load_face_parser
from faceswap_diffusion.masks.regions import face_mask, head_mask
from faceswap_diffusion.photos.loading import load_photo

IMAGES = Path(__file__).parents[2] / "examples" / "images"
# One mesh point in the middle of each part: irises, nose, lips, cheeks and the space between the brows.
POINTS = {"eyes": (468, 473), "nose": (4, 195), "lips": (17, 0), "skin": (50, 280, 9), "brows": (105, 334)}


@pytest.fixture(scope="module")
def analyzer() -> MeshFaceAnalyzer:
    return MeshFaceAnalyzer()


def aligned(analyzer: MeshFaceAnalyzer, name: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest face of an example, cropped to `size`, and its 478 landmarks in the crop."""
    rgb = load_photo(IMAGES / name).rgb
    face = max(analyzer.analyze(rgb), key=lambda face: np.prod(face.bbox[2:] - face.bbox[:2]))
    matrix = ffhq_matrix(face.landmarks68, size)
    return crop(rgb, matrix, size), transform_points(face.landmarks, matrix)


def test_the_shipped_parser_is_small_float32_in_use_and_told_apart_by_labels():
    parser = load_face_parser()
    assert parser is load_face_parser()
    assert not parser.training
    assert {parameter.dtype for parameter in parser.parameters()} == {torch.float32}
    assert parser.config["num_labels"] == len(LABELS)
    assert sum(file.stat().st_size for file in CHECKPOINT.glob("*.safetensors")) < 3_000_000
    assert not list(CHECKPOINT.glob("*.bin"))


@pytest.mark.parametrize("size", [128, 256])
@pytest.mark.parametrize("name", ["p001_portrait.jpg", "p005_portrait.jpg", "p008_selfie.jpg", "p010_selfie.jpg"])
def test_parts_of_real_faces_get_their_labels(analyzer, name, size):
    picture, landmarks = aligned(analyzer, name, size)
    labels = load_face_parser().parse(picture)
    assert labels.shape == (size, size)
    assert labels.dtype == np.uint8
    for part, indices in POINTS.items():
        for index in indices:
            x, y = np.round(landmarks[index]).astype(int)
            reach = size // 64
            seen = {LABELS[label] for label in np.unique(labels[y - reach : y + reach + 1, x - reach : x + reach + 1])}
            assert part in seen, f"{part} at landmark {index}: {seen}"
    assert 0.03 < (labels == LABELS.index("hair")).mean() < 0.6


@pytest.mark.parametrize("name", ["p001_portrait.jpg", "p006_portrait.jpg", "p010_selfie.jpg"])
def test_face_and_head_of_real_faces(analyzer, name):
    picture, landmarks = aligned(analyzer, name, 128)
    labels = load_face_parser().parse(picture)
    hull = region_mask_from_landmarks(landmarks, 128) > 0
    face, head = face_mask(labels, landmarks) > 0, head_mask(labels, landmarks) > 0
    assert (hull & face).sum() / (hull | face).sum() > 0.85
    for index in (*POINTS["eyes"], *POINTS["brows"], *POINTS["nose"], *POINTS["lips"]):
        x, y = np.round(landmarks[index]).astype(int)
        assert face[y, x]
    assert (head >= face).all()
    assert head.sum() > 1.15 * face.sum()


@pytest.mark.parametrize("name", ["p001_portrait.jpg", "p006_portrait.jpg", "p010_selfie.jpg"])
def test_something_held_before_the_face_is_spared(analyzer, name):
    """A blue bar across the mouth of a real face: what the card says the parser can tell."""
    picture, landmarks = aligned(analyzer, name, 128)
    x, y = np.round(landmarks[13]).astype(int)
    held = picture.copy()
    cv2.ellipse(held, ((x + 14.0, y + 8.0), (56.0, 18.0), 20.0), (40, 80, 200), -1)
    parser = load_face_parser()
    before, mask = (face_mask(parser.parse(crop_array), landmarks) for crop_array in (picture, held))
    covered = (np.abs(held.astype(int) - picture).max(-1) > 0) & (before > 0)
    assert mask[covered].mean() < 0.4
    assert mask[(before > 0) & ~covered].mean() > 0.85


def test_parse_refuses_what_is_no_square_rgb_crop():
    for crop_array in (np.zeros((8, 9, 3), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3))):
        with pytest.raises(ValueError, match="square RGB crop"):
            load_face_parser().parse(crop_array)


def tiny() -> FaceParser:
    torch.manual_seed(0)
    return FaceParser(sample_size=32, block_out_channels=(4, 8, 8, 8), layers_per_block=1).eval()


def test_saving_and_loading_gives_the_same_logits(tmp_path):
    parser = tiny()
    parser.save_pretrained(tmp_path)
    pixel_values = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        logits = parser(pixel_values)
        assert logits.shape == (2, len(LABELS), 32, 32)
        assert torch.equal(FaceParser.from_pretrained(tmp_path).eval()(pixel_values), logits)
        assert torch.allclose(parser(pixel_values[:1]), logits[:1], atol=1e-5)
