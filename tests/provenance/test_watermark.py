"""The invisible mark: only where it may be, hardly to be seen, found again after what happens to pictures."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from faceswap_diffusion.faces.alignment import ffhq_matrix, invert
from faceswap_diffusion.faces.analyzer import MeshFaceAnalyzer
from faceswap_diffusion.faces.mesh_topology import FACE_OVAL_478
from faceswap_diffusion.photos.loading import load_photo
from faceswap_diffusion.provenance.watermark import (
    CENTRE,
    FALSE_ALARM_LOCATION,
    FALSE_ALARM_SCALE,
    SIZE,
    aligned_spectra,
    banded,
    carriers,
    false_alarm_rate,
    find_mark,
    heights,
    lay_mark,
    payload_of,
    peak,
)

PAYLOAD = 0xB38B


class Portrait:
    """A photo with its face, a mask of it, and the photo with a mark."""

    def __init__(self, path: Path):
        self.rgb = load_photo(path).rgb
        (face,) = MeshFaceAnalyzer().analyze(self.rgb)
        self.matrix = ffhq_matrix(face.landmarks68, SIZE)
        mask = np.zeros(self.rgb.shape[:2], np.uint8)
        cv2.fillConvexPoly(mask, face.landmarks[list(FACE_OVAL_478)].round().astype(np.int32), 255)
        self.mask = cv2.GaussianBlur(mask, (0, 0), 5).astype(np.float32) / 255
        self.marked = lay_mark(self.rgb, self.mask, self.matrix, PAYLOAD)


@pytest.fixture(scope="module")
def portrait(example_images: Path) -> Portrait:
    return Portrait(example_images / "p001_portrait.jpg")


def jpeg(rgb: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def test_only_repainted_pixels_change_and_by_little(portrait: Portrait):
    changed = (portrait.marked != portrait.rgb).any(-1)
    assert not changed[portrait.mask == 0].any()
    assert changed[portrait.mask == 1].mean() > 0.5
    error = np.mean((portrait.marked.astype(float) - portrait.rgb)[portrait.mask > 0.5] ** 2)
    assert 44 < 10 * np.log10(255**2 / error) < 46  # 20 log10(255 / STRENGTH) = 44.6
    difference = portrait.marked.astype(int) - portrait.rgb
    inside = (portrait.rgb > 20).all(-1) & (portrait.rgb < 235).all(-1)
    assert (difference[inside] == difference[inside][:, :1]).all()  # brightness, and no colour


def test_it_is_found_with_its_payload_and_nothing_where_there_is_none(portrait: Portrait):
    mark = find_mark(portrait.marked, portrait.matrix)
    assert mark.found
    assert mark.payload == PAYLOAD
    assert mark.probability > 0.999999
    assert mark.payload_probability > 0.7
    other = find_mark(lay_mark(portrait.rgb, portrait.mask, portrait.matrix, 0), portrait.matrix)
    assert other.found
    assert other.payload != PAYLOAD
    unmarked = find_mark(portrait.rgb, portrait.matrix)
    assert not unmarked.found
    assert unmarked.score < 5 < mark.score


def test_it_survives_jpeg_half_the_size_and_a_crop(portrait: Portrait):
    left, top = 100, 80
    cut = portrait.marked[top:, left:]
    half = np.asarray(Image.fromarray(cut).resize((cut.shape[1] // 2, cut.shape[0] // 2), Image.Resampling.LANCZOS))
    back = np.array([[2, 0, left + 0.5], [0, 2, top + 0.5]])  # pixels of `half` to those of the photo
    matrix = np.column_stack(
        [portrait.matrix[:, :2] @ back[:, :2], portrait.matrix[:, :2] @ back[:, 2] + portrait.matrix[:, 2]]
    )
    mark = find_mark(jpeg(half, 75), matrix)
    assert mark.found
    assert mark.payload == PAYLOAD


@pytest.mark.parametrize(("scale", "degrees", "shift"), [(1.05, 1.2, (2, -1)), (0.95, -1.4, (-2, 2))])
def test_landmarks_may_lie_elsewhere_than_when_it_was_laid(portrait: Portrait, scale, degrees, shift):
    turn = cv2.getRotationMatrix2D(CENTRE, degrees, scale)
    matrix = np.column_stack(
        [turn[:, :2] @ portrait.matrix[:, :2], turn[:, :2] @ portrait.matrix[:, 2] + turn[:, 2] + shift]
    )
    assert find_mark(portrait.marked, matrix).score > 7


def test_a_face_that_is_too_small_stays_as_it_is(portrait: Portrait):
    scale = SIZE / 40  # the aligned square takes 40 pixels of the photo
    matrix = np.array([[scale, 0, 0], [0, scale, 0]])
    assert lay_mark(portrait.rgb, portrait.mask, matrix, PAYLOAD) is portrait.rgb
    nothing = np.zeros_like(portrait.mask)
    assert lay_mark(portrait.rgb, nothing, portrait.matrix, PAYLOAD) is portrait.rgb


def test_a_face_at_the_edge_of_its_photo_is_marked(portrait: Portrait):
    middle = round(float((invert(portrait.matrix) @ [*CENTRE, 1])[0]))
    half = np.ascontiguousarray(portrait.rgb[:, middle:])
    matrix = np.column_stack([portrait.matrix[:, :2], portrait.matrix[:, :2] @ (middle, 0) + portrait.matrix[:, 2]])
    marked = lay_mark(half, portrait.mask[:, middle:], matrix, PAYLOAD)
    assert find_mark(marked, matrix).score > find_mark(half, matrix).score + 2


def test_the_rate_of_false_alarms_is_gumbels():
    at_location = 1 - np.exp(-1)  # of any Gumbel distribution
    assert false_alarm_rate(FALSE_ALARM_LOCATION) == pytest.approx(at_location)
    a_thousandth = FALSE_ALARM_LOCATION - FALSE_ALARM_SCALE * np.log(-np.log(1 - 1e-3))
    assert false_alarm_rate(a_thousandth) == pytest.approx(1e-3)


def test_a_payload_stands_for_a_text():
    assert payload_of("faceswap-small") == payload_of("faceswap-small") < 1 << 16
    assert payload_of("faceswap-small") != payload_of("faceswap-small/few_steps")


def test_several_pilots_at_once_are_as_high_as_each_alone(portrait: Portrait):
    spectrum = next(aligned_spectra(portrait.marked, portrait.matrix))
    pilots = carriers(b"another key")[:5]
    assert heights(spectrum, banded(pilots)) == pytest.approx([peak(spectrum, pilot)[0] for pilot in pilots], abs=1e-5)
