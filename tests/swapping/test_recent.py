"""Photos that come again are not looked at again."""

import threading
from pathlib import Path

import numpy as np
import pytest

from faceswap_diffusion.faces.analyzer import Face, MeshFaceAnalyzer
from faceswap_diffusion.photos.loading import load_photo
from faceswap_diffusion.swapping.recent import Recent, pixels_key
from faceswap_diffusion.swapping.swapper import FaceSwapper
from tests.tiny import tiny_pipeline

IMAGES = Path(__file__).parents[2] / "examples" / "images"
WOMAN, SELFIE = IMAGES / "p001_portrait.jpg", IMAGES / "p010_selfie.jpg"


class CountingAnalyzer(MeshFaceAnalyzer):
    """Counts the photos that it looks at."""

    looks = 0

    def analyze(self, image: np.ndarray) -> list[Face]:
        self.looks += 1
        return super().analyze(image)


@pytest.fixture
def swapper() -> FaceSwapper:
    return FaceSwapper(tiny_pipeline(crop_size=64, hidden_fill="reference"), CountingAnalyzer(), occlusion="off")


def test_the_one_asked_for_least_recently_is_given_up():
    recent, made = Recent(2), []

    def get(key: str) -> str:
        return recent.get(key, lambda: made.append(key) or key.upper())

    assert [get(key) for key in "abacab"] == list("ABACAB")
    assert made == ["a", "b", "c", "b"]


def test_threads_get_what_is_theirs():
    recent, got = Recent(3), []
    work = [
        threading.Thread(target=lambda n=n: got.append((n % 4, recent.get(n % 4, lambda: n % 4)))) for n in range(64)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert len(got) == 64
    assert all(asked == given for asked, given in got)


def test_pictures_of_the_same_bytes_and_another_shape_are_not_the_same():
    pixels = np.zeros((2, 6, 3), np.uint8)
    assert pixels_key(pixels) == pixels_key(pixels.copy())
    assert pixels_key(pixels) != pixels_key(pixels.reshape(6, 2, 3))
    assert pixels_key(pixels[:, ::2]) == pixels_key(np.zeros((2, 3, 3), np.uint8))


def test_a_swap_again_looks_at_nothing_and_gives_the_same(swapper: FaceSwapper):
    first = swapper.swap(WOMAN, SELFIE)
    assert swapper.analyzer.looks == 2
    again = swapper.swap(load_photo(WOMAN), load_photo(SELFIE).rgb.copy())
    assert swapper.analyzer.looks == 2
    np.testing.assert_array_equal(np.asarray(again.image), np.asarray(first.image))
    fresh = FaceSwapper(swapper.pipeline, occlusion="off").swap(WOMAN, SELFIE)
    np.testing.assert_array_equal(np.asarray(fresh.image), np.asarray(first.image))


def test_what_a_caller_does_to_the_faces_found_counts_for_nothing(swapper: FaceSwapper):
    swapper.find_faces(load_photo(SELFIE).rgb).clear()
    swapper.swap(WOMAN, SELFIE).faces.clear()
    assert len(swapper.swap(WOMAN, SELFIE).faces) == 1


def test_a_changed_photo_another_face_and_another_region_are_encoded_anew(swapper: FaceSwapper):
    rgb = load_photo(WOMAN).rgb.copy()
    before = swapper.encode_source([rgb])
    rgb[:] = rgb[:, ::-1]
    after = swapper.encode_source([rgb])
    assert swapper.analyzer.looks == 2
    assert (before.identity_embeds - after.identity_embeds).abs().max() > 1e-3
    assert swapper.encode_source([rgb], region="head").region == "head"
    assert swapper.analyzer.looks == 2
