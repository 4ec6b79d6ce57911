"""Colours: what is not changed keeps its numbers, what is changed shows the colour that was meant."""

from fractions import Fraction

import av
import numpy as np
import pytest

from faceswap_diffusion.videos.colors import FrameColors, Turn
from faceswap_diffusion.videos.encoding import choose_pixel_format
from faceswap_diffusion.videos.frames import Colors, VideoFacts

UP, TURN_LEFT, HALF, MIRROR = (
    None,
    (0, -65536, 0, 65536, 0, 0, 0, 0, 1 << 30),
    (-65536, 0, 0, 0, -65536, 0, 0, 0, 1 << 30),
    (-65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30),
)


def facts(pixel_format: str, colors: Colors = Colors(1, 1, 1, 1), size=(32, 24), matrix=None) -> VideoFacts:  # noqa: B008
    return VideoFacts("v", size, Fraction(1, 25), Fraction(25), None, None, pixel_format, colors, matrix)


def random_frame(pixel_format: str, size=(32, 24)) -> av.VideoFrame:
    rng = np.random.default_rng(0)
    frame = av.VideoFrame(*size, pixel_format)
    for plane in frame.planes:
        bits = frame.format.components[0].bits
        values = np.frombuffer(memoryview(plane), np.uint8 if bits == 8 else np.uint16)
        values[:] = rng.integers(64 << (bits - 8), 160 << (bits - 8), len(values))
    return frame


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p10le", "yuv444p", "yuvj420p"])
def test_what_is_not_changed_keeps_its_numbers(pixel_format: str):
    target = choose_pixel_format("h264", facts(pixel_format))
    colors, frame = FrameColors(facts(pixel_format), target), random_frame(pixel_format)
    assert target == pixel_format.replace("j", "")
    rgb, mask = np.zeros((24, 32, 3), np.uint8), np.zeros((24, 32), np.float32)
    mask[8:16, 10:20] = 1
    kept = [np.array(plane) for plane in planes(colors.unchanged(frame))]
    made = planes(colors.changed(frame, rgb, mask))
    assert all(np.array_equal(a, b) for a, b in zip(kept, planes(frame), strict=True))
    for plane, old in zip(made, kept, strict=True):
        down, across = 24 // plane.shape[0], 32 // plane.shape[1]
        inside = np.zeros(plane.shape, bool)
        inside[8 // down : 16 // down, 10 // across : 20 // across] = True
        assert np.array_equal(plane[~inside], old[~inside])
        assert not np.array_equal(plane[inside], old[inside])


def planes(frame: av.VideoFrame) -> list[np.ndarray]:
    dtype = np.dtype(np.uint8 if frame.format.components[0].bits == 8 else np.uint16)
    return [
        np.frombuffer(memoryview(plane), dtype).reshape(plane.height, -1)[:, : plane.width] for plane in frame.planes
    ]


# Of a saturated red in 8 bits: Y = 16 + 219 Kr, Cb = 128 - 224 Kr / (2 (1 - Kb)), Cr = 240, and 255 Kr in full range.
@pytest.mark.parametrize(
    ("colors", "size", "expected"),
    [
        (Colors(1, 1, 1, 1), (32, 24), (63, 102, 240)),  # BT.709: Kr 0.2126, Kb 0.0722
        (Colors(6, 1, 6, 6), (32, 24), (81, 90, 240)),  # BT.601: Kr 0.299, Kb 0.114
        (Colors(1, 2, 1, 1), (32, 24), (54, 99, 255)),  # full range
        (Colors(9, 1, 9, 1), (32, 24), (74, 97, 240)),  # BT.2020: Kr 0.2627, Kb 0.0593
        (Colors(), (32, 24), (81, 90, 240)),  # nothing is said, and it is small
        (Colors(), (1280, 24), (63, 102, 240)),  # nothing is said, and it is large
    ],
)
def test_red_has_the_numbers_of_its_matrix_and_range(colors: Colors, size: tuple[int, int], expected):
    convert = FrameColors(facts("yuv420p", colors, size), "yuv420p")
    red = np.zeros((size[1], size[0], 3), np.uint8)
    red[..., 0] = 255
    made = convert.changed(random_frame("yuv420p", size), red, np.ones(red.shape[:2], np.float32))
    assert [int(plane[5, 5]) for plane in planes(made)] == pytest.approx(expected, abs=1)
    assert convert.rgb(made)[10, 10].tolist() == pytest.approx([255, 0, 0], abs=2)


def test_transparent_pixels_are_white():
    rgba = np.zeros((24, 32, 4), np.uint8)
    rgba[:, 16:] = (10, 20, 30, 255)
    convert = FrameColors(facts("rgba", Colors(0, 2, 1, 13)), "yuv444p")
    rgb = convert.rgb(av.VideoFrame.from_ndarray(rgba, format="rgba"))
    assert rgb[3, 3].tolist() == [255, 255, 255]
    assert rgb[3, 20].tolist() == [10, 20, 30]
    assert convert.output_colors(Colors(0, 2, 1, 13)) == Colors(5, 1, 1, 13)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (UP, [[0, 1, 2], [3, 4, 5]]),
        (TURN_LEFT, [[2, 5], [1, 4], [0, 3]]),  # FFmpeg calls it 90 degrees: counter-clockwise
        (HALF, [[5, 4, 3], [2, 1, 0]]),
        (MIRROR, [[2, 1, 0], [5, 4, 3]]),
    ],
)
def test_display_matrices_turn_pixels(matrix, expected):
    pixels = np.array([[0, 1, 2], [3, 4, 5]])
    assert Turn(matrix).upright(pixels).tolist() == expected
    assert np.array_equal(Turn(matrix).back(Turn(matrix).upright(pixels)), pixels)
