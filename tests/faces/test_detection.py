import numpy as np
import pytest
from PIL import Image

from faceswap_diffusion.faces.detection import Detection, FaceDetector, _suppress, _turn_back


@pytest.fixture(scope="module")
def detector():
    return FaceDetector()


@pytest.fixture(scope="module")
def portrait(example_images):
    return np.asarray(Image.open(example_images / "p001_portrait.jpg"))


def turned(image, turns):
    return np.ascontiguousarray(np.rot90(image, turns))


def test_portrait_has_one_face_with_its_keypoints_in_order(detector, portrait):
    (face,) = detector.detect(portrait)
    left_eye, right_eye, nose, left_mouth, right_mouth = face.keypoints
    assert face.score > 0.9
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < nose[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])
    assert np.all(face.keypoints > face.bbox[:2])
    assert np.all(face.keypoints < face.bbox[2:])


def test_faces_of_a_group_come_from_left_to_right(detector, example_images):
    faces = detector.detect(np.asarray(Image.open(example_images / "group.jpg")))
    assert len(faces) == 4
    middles = [(face.bbox[0] + face.bbox[2]) / 2 for face in faces]
    # The picture is four equal panels side by side.
    assert [int(middle // 256) for middle in middles] == [0, 1, 2, 3]


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("name", ["p001_portrait.jpg", "p008_selfie.jpg", "group.jpg"])
def test_turned_photos_give_the_same_faces(detector, example_images, name, turns):
    image = np.asarray(Image.open(example_images / name))
    height, width = image.shape[:2]
    upright = detector.detect(image)
    found = detector.detect(turned(image, turns))
    back = [_turn_back(face.keypoints, turns, width, height) for face in found]
    back.sort(key=lambda keypoints: keypoints[2, 0])
    assert len(back) == len(upright)
    for keypoints, face in zip(back, upright, strict=True):
        # The order follows the face: with left and right exchanged the points would be an eye distance apart.
        assert np.abs(keypoints - face.keypoints).max() < 0.02 * (face.bbox[2] - face.bbox[0]) + 1


@pytest.mark.parametrize("turns", range(4))
def test_turn_back_agrees_with_rot90(turns):
    image = np.arange(12).reshape(3, 4)
    for y, x in np.ndindex(turned(image, turns).shape):
        column, row = _turn_back(np.array([x, y]), turns, 4, 3).astype(int)
        assert image[row, column] == turned(image, turns)[y, x]


def test_faces_at_two_orientations_in_one_photo(detector, portrait):
    faces = detector.detect(np.hstack([portrait, turned(portrait, 1)]))
    assert len(faces) == 2
    upright, lying = (face.keypoints for face in faces)
    assert upright[0, 0] < upright[1, 0]
    assert lying[0, 1] > lying[1, 1]  # turned counter-clockwise, the viewer's left eye is the lower one


def test_very_wide_photo(detector, portrait):
    photo = np.full((1500, 12_000, 3), 120, dtype=np.uint8)
    places = [(700, 640), (5000, 320), (11_000, 160)]
    for x, size in places:
        photo[400 : 400 + size, x : x + size] = np.asarray(Image.fromarray(portrait).resize((size, size)))
    faces = detector.detect(photo)
    (reference,) = detector.detect(portrait)
    assert len(faces) == 3
    for face, (x, size) in zip(faces, places, strict=True):
        expected = reference.keypoints * (size / 640) + (x, 400)
        assert np.abs(face.keypoints - expected).max() < 0.04 * size


def test_keypoints_scale_with_the_photo(detector, portrait):
    (small,) = detector.detect(np.asarray(Image.fromarray(portrait).resize((160, 160))))
    (large,) = detector.detect(np.asarray(Image.fromarray(portrait).resize((1920, 1920))))
    assert np.abs((small.keypoints + 0.5) * 12 - (large.keypoints + 0.5)).max() < 0.02 * 1920


@pytest.mark.parametrize("shape", [(1, 1), (1, 640), (12_000, 1), (12_000, 3), (2, 3), (200, 300)])
def test_photos_without_a_face(detector, shape):
    assert detector.detect(np.full((*shape, 3), 90, dtype=np.uint8)) == []


def test_detection_repeats_exactly(detector, portrait):
    first, second = detector.detect(portrait), detector.detect(portrait)
    assert np.array_equal(first[0].keypoints, second[0].keypoints)
    assert isinstance(first[0], Detection)


def test_score_threshold(portrait):
    assert FaceDetector(score_threshold=0.99).detect(portrait) == []


def box_row(x0, y0, x1, y1, score):
    return np.concatenate([[x0, y0, x1, y1], np.zeros(10), [score, 0]])


def test_suppression_keeps_the_best_of_what_overlaps():
    inner, outer, apart = box_row(2, 2, 6, 6, 0.8), box_row(0, 0, 10, 10, 0.9), box_row(9, 0, 19, 10, 0.7)
    # `inner` lies wholly in `outer`; `apart` shares a tenth of its area with it.
    kept = _suppress(np.stack([inner, outer, apart]))
    assert kept[:, 14].tolist() == [0.9, 0.7]
    assert _suppress(np.zeros((0, 16))).shape == (0, 16)
