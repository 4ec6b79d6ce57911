"""High dynamic range to standard: what the networks know, and what every player shows.

Formulas: ITU-R BT.2100-2 (PQ, HLG), BT.2087 (primaries), BT.2408 (reference white at 203 cd/m2), BT.1886 (display).
"""

from functools import lru_cache

import numpy as np

PQ, HLG = 16, 18
REFERENCE_WHITE = 203.0  # cd/m2
PEAK_OF_HLG = 1000.0  # cd/m2, of the display that it is meant for
KNEE = 0.75
"""Share of the standard range up to which light stays as it is, skin included; above it, highlights are compressed."""

LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)
TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)  # fmt: skip


def to_standard_range(rgb: np.ndarray, transfer: int) -> np.ndarray:
    """Converts pixels of BT.2020 in PQ or HLG to BT.709.

    Args:
        rgb (`np.ndarray`): (H, W, 3) uint16, 65535 being the full signal.
        transfer (`int`): 16 for PQ, 18 for HLG.

    Returns:
        `np.ndarray`: (H, W, 3) uint8 RGB.
    """
    light = _light_of_signal(transfer)[rgb]
    if transfer == HLG:  # the eye of the display: BT.2100, table 5, with a gamma of 1.2
        brightness = np.maximum(light @ LUMINANCE, 1e-6)[..., None]
        light = light * brightness**0.2 * (PEAK_OF_HLG / REFERENCE_WHITE)
    light = np.clip(light @ TO_BT709.T, 0, None)
    return np.round(255 * compress(light) ** (1 / 2.4)).astype(np.uint8)


def compress(light: np.ndarray) -> np.ndarray:
    """Brings light, 1 being reference white, into [0, 1]: the same up to the knee, and smoothly less above it."""
    above = np.maximum(light - KNEE, 0) / (1 - KNEE)
    return np.minimum(light, KNEE) + (1 - KNEE) * (1 - np.exp(-above))


@lru_cache
def _light_of_signal(transfer: int) -> np.ndarray:
    """For each of 65536 signals the light: of PQ in reference whites, of HLG in [0, 1] before the display."""
    signal = np.arange(65536) / 65535
    if transfer == PQ:
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        power = signal ** (1 / m2)
        light = 10_000 / REFERENCE_WHITE * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)
    else:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return light.astype(np.float32)
