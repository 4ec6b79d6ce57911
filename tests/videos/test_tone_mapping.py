"""High dynamic range to standard: reference white, black and peak end where they should."""

import math

import numpy as np
import pytest

from faceswap_diffusion.videos.tone_mapping import HLG, KNEE, PQ, compress, to_standard_range


def grey(signal: float) -> np.ndarray:
    return np.full((1, 1, 3), round(65535 * signal), np.uint16)


# BT.2408: reference white, 203 cd/m2, is 58 % of PQ and 75 % of HLG. It is 1, and 1/4 above the knee.
WHITE = 255 * (0.75 + 0.25 * (1 - math.exp(-1))) ** (1 / 2.4)


@pytest.mark.parametrize(("transfer", "signal"), [(PQ, 0.5806), (HLG, 0.75)])
def test_reference_white_is_nearly_white(transfer: int, signal: float):
    assert to_standard_range(grey(signal), transfer)[0, 0].tolist() == pytest.approx([WHITE] * 3, abs=1)


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_black_and_peak(transfer: int):
    assert to_standard_range(grey(0), transfer).max() == 0
    assert to_standard_range(grey(1), transfer).min() == 255


def test_light_below_the_knee_stays():
    # 50.75 cd/m2 is a quarter of reference white, of which PQ has ((c1 + c2 y^m1) / (1 + c3 y^m1))^m2.
    y = (50.75 / 10_000) ** 0.1593017578125
    signal = ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375
    assert to_standard_range(grey(signal), PQ)[0, 0, 0] == round(255 * 0.25 ** (1 / 2.4))


def test_compression_is_smooth_and_grows():
    light = np.linspace(0, 50, 5001)
    made = compress(light)
    assert np.array_equal(made[light <= KNEE], light[light <= KNEE])
    assert (np.diff(made) >= 0).all()
    assert made.max() <= 1
    assert np.diff(made)[75] == pytest.approx(0.01, rel=0.05)  # no kink behind the knee
