"""An invisible mark in a swapped face, which stays when metadata are lost.

It is spread-spectrum (Cox and others 1997): a pattern of pseudo-random phases, added to the brightness of the
repainted pixels and found again by correlation. The pattern lies in the coordinates of the aligned face, so that
wherever a picture is cropped to or scaled to, aligning the face leads to it. A pilot says that there is a mark and
where exactly; sixteen further patterns carry a bit each by their sign.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from faceswap_diffusion.faces.alignment import crop, invert, transform_points, uncrop

KEY = b"faceswap-diffusion mark 1"
PAYLOAD_BITS = 16

SIZE = 128
"""Side in pixels of the aligned crop (`faces.alignment.ffhq_matrix`) in which the mark lies."""

SMALLEST = 64
"""Side of the aligned square in pixels of the photo below which a face is too small for the mark."""

BAND = (24.0, 56.0)
"""Cycles per crop: below, faces hide a mark too well; above, halving a small picture takes it away."""

PILOT_SHARE = 0.6
"""Of the mark's energy."""

STRENGTH = 1.5
"""Root mean square of what is added, of 255: a PSNR of 44.6 dB."""

SHAPING = 0.3
"""Exponent of the local contrast in the mark's amplitude: 0 for the same everywhere."""

CENTRE, RADII = (63.5, 70.0), (34.0, 44.0)
"""Of the ellipse of the crop in which the mark is laid and looked for: x, y in pixels of the crop."""

FINE, LOCAL, FLOOR, MOST = 1.2, 1.2, 0.5, 2.5
"""How a crop is evened out: blur that is taken away, that of the contrast, least contrast, greatest value."""

SCALES = np.linspace(0.94, 1.06, 13)
ANGLES = np.linspace(-1.6, 1.6, 5)  # degrees
REACH = 3  # pixels of the crop
"""Search for the mark: landmarks are not found quite in the same place again, least of all after a swap."""

FALSE_ALARM_LOCATION, FALSE_ALARM_SCALE = 3.07, 0.33
"""Gumbel distribution of the score of faces without a mark, see docs/concepts/watermark.md."""

FALSE_ALARMS = 0.001
"""Share of faces without a mark for which one is reported."""


@dataclass(frozen=True)
class Mark:
    """What was found of a mark in a face.

    Args:
        score (`float`): Height of the correlation's peak in standard deviations.
        probability (`float`): 1 less the share of faces without a mark that have such a score.
        payload (`int`): 16 bits; they mean nothing unless `found`.
        payload_probability (`float`): That all bits are right if there is a mark.
    """

    score: float
    probability: float
    payload: int
    payload_probability: float

    @property
    def found(self) -> bool:
        """Whether there is a mark, with at most `FALSE_ALARMS` false alarms."""
        return self.probability >= 1 - FALSE_ALARMS


def payload_of(checkpoint: str) -> int:
    """16 bits that stand for the last part of a checkpoint's name, which its folder and its Hub id have in common."""
    return int.from_bytes(hashlib.sha256(checkpoint.rpartition("/")[2].encode()).digest()[:2], "big")


def lay_mark(rgb: np.ndarray, mask: np.ndarray, matrix: np.ndarray, payload: int) -> np.ndarray:
    """Lays a mark into the repainted pixels of a face.

    Args:
        rgb (`np.ndarray`): (H, W, 3) uint8 RGB.
        mask (`np.ndarray`): (H, W) float in [0, 1], how far pixels were repainted; where it is 0 nothing changes.
        matrix (`np.ndarray`): (2, 3), photo pixels to pixels of the aligned crop of side `SIZE`, see `ffhq_matrix`.
        payload (`int`): 16 bits.

    Returns:
        `np.ndarray`: (H, W, 3) uint8 RGB.
    """
    left, top, right, bottom = _footprint(matrix, rgb.shape[1], rgb.shape[0])
    window = np.s_[top:bottom, left:right]
    inside = mask[window]
    if SIZE / _scale(matrix) < SMALLEST or not (inside > 0.5).any():
        return rgb
    matrix = np.column_stack([matrix[:, :2], matrix[:, :2] @ (left, top) + matrix[:, 2]])
    pixels = rgb[window]
    gain = np.maximum(_contrast(crop(_luma(pixels), matrix, SIZE)), 1) ** SHAPING
    drawn = uncrop(_pattern(payload) * gain * np.minimum(3 * _window(), 1), matrix, (right - left, bottom - top))
    added = drawn * inside
    measured = added[(inside > 0.5) & (drawn != 0)]
    if not measured.any():
        return rgb
    added *= STRENGTH / np.sqrt(np.mean(measured**2))
    marked = rgb.copy()
    # Not to the nearest even number: the colours of a pixel would change by different amounts.
    marked[window] = np.floor(np.clip(pixels + added[..., None], 0, 255) + 0.5).astype(np.uint8)
    return marked


def find_mark(rgb: np.ndarray, matrix: np.ndarray) -> Mark:
    """Looks for a mark in a face.

    Args:
        rgb (`np.ndarray`): (H, W, 3) uint8 RGB.
        matrix (`np.ndarray`): (2, 3), as for [`lay_mark`].
    """
    evidence = look_for_mark(rgb, matrix)
    return Mark(evidence.score, 1 - false_alarm_rate(evidence.score), *read_bits(evidence.bits))


@dataclass(frozen=True, eq=False)
class Evidence:
    """What there is in a face that speaks for a mark.

    Args:
        score (`float`): Height of the pilot's peak, see [`Mark`].
        bits (`np.ndarray`): (16,), what the pattern of each bit gives there, in standard deviations.
        others (`np.ndarray`): (K,), what `score` is for other pilots, with which nobody has laid a mark.
    """

    score: float
    bits: np.ndarray
    others: np.ndarray


def look_for_mark(rgb: np.ndarray, matrix: np.ndarray, other_pilots: np.ndarray | None = None) -> Evidence:
    """Searches a face for the place where the pilot fits best.

    Args:
        rgb (`np.ndarray`): (H, W, 3) uint8 RGB.
        matrix (`np.ndarray`): (2, 3), as for [`lay_mark`].
        other_pilots (`np.ndarray`, *optional*): (K, SIZE, SIZE) spectra of pilots to compare with, see [`carriers`].
    """
    (pilot, *patterns), score, bits = carriers(KEY), -np.inf, np.zeros(PAYLOAD_BITS)
    pilots = banded(pilot[None] if other_pilots is None else np.concatenate([pilot[None], other_pilots]))
    others = np.full(len(pilots) - 1, -np.inf)
    for spectrum in aligned_spectra(rgb, matrix):
        height, *of_others = heights(spectrum, pilots)
        others = np.maximum(others, of_others)
        if height > score:
            _, (dy, dx), spread = peak(spectrum, pilot)
            shift = np.exp(2j * np.pi * (np.fft.fftfreq(SIZE)[:, None] * dy + np.fft.fftfreq(SIZE) * dx))
            moved = spectrum * shift
            score, bits = height, np.array([np.vdot(bit, moved).real for bit in patterns]) / (SIZE**2 * spread)
    return Evidence(float(score), bits, others)


def read_bits(bits: np.ndarray) -> tuple[int, float]:
    """The payload that the patterns of its bits (16,) in standard deviations give, and how certain it is."""
    expected = np.abs(bits).mean()
    certain = np.prod(1 / (1 + np.exp(-2 * expected * np.abs(bits))))
    return int("".join("1" if value > 0 else "0" for value in bits), 2), float(certain)


def false_alarm_rate(score: float, location: float = FALSE_ALARM_LOCATION, scale: float = FALSE_ALARM_SCALE) -> float:
    """Share of faces without a mark that have at least such a score, by a Gumbel distribution."""
    return float(-np.expm1(-np.exp(-(score - location) / scale)))


def aligned_spectra(rgb: np.ndarray, matrix: np.ndarray) -> Iterator[np.ndarray]:
    """Spectra (SIZE, SIZE) of the evened out crop of a face, at each scale and angle of the search."""
    left, top, right, bottom = _footprint(matrix, rgb.shape[1], rgb.shape[0])
    matrix = np.column_stack([matrix[:, :2], matrix[:, :2] @ (left, top) + matrix[:, 2]])
    brightness = _luma(rgb[top:bottom, left:right])
    for turn in _turns():
        turned = np.column_stack([turn[:, :2] @ matrix[:, :2], turn[:, :2] @ matrix[:, 2] + turn[:, 2]])
        fine = _fine(crop(brightness, turned, SIZE))
        even = np.clip(fine / np.maximum(_contrast_of(fine), FLOOR), -MOST, MOST) * _window()
        yield _whitened(np.fft.fft2(even))


def peak(spectrum: np.ndarray, pilot: np.ndarray) -> tuple[float, tuple[int, int], float]:
    """The highest correlation with a pilot within `REACH`: its height in standard deviations, its shift, and those."""
    correlation = np.fft.ifft2(spectrum * np.conj(pilot)).real
    spread = float(correlation.std())
    near = np.roll(correlation, (REACH, REACH), (0, 1))[: 2 * REACH + 1, : 2 * REACH + 1]
    row, column = np.unravel_index(near.argmax(), near.shape)
    return float(near[row, column] / spread), (int(row) - REACH, int(column) - REACH), spread


def heights(spectrum: np.ndarray, pilots: np.ndarray) -> np.ndarray:
    """What `peak` gives as height for each of several pilots (K, N), see `banded`: (K,)."""
    half, shifts = _shifts()
    inside = spectrum[half]
    near = np.real((inside * np.conj(pilots)) @ shifts)
    return near.max(1) * np.sqrt(2) / np.linalg.norm(inside)


def banded(pilots: np.ndarray) -> np.ndarray:
    """Spectra (K, SIZE, SIZE) of real patterns in half of the band, (K, N); the other half says the same."""
    return pilots[:, _shifts()[0]]


@cache
def _shifts() -> tuple[np.ndarray, np.ndarray]:
    """Half of the band (SIZE, SIZE) bool, and for each place in it what moves it by each shift within `REACH`."""
    half = (_radius() >= BAND[0]) & (_radius() <= BAND[1])
    half[:, SIZE // 2 + 1 :] = False
    half[SIZE // 2 + 1 :, 0] = False
    rows, columns = (place * 2j * np.pi / SIZE for place in np.nonzero(half))
    dy, dx = (shift.ravel() for shift in np.mgrid[-REACH : REACH + 1, -REACH : REACH + 1])
    return half, np.exp(np.outer(rows, dy) + np.outer(columns, dx)).astype(np.complex64)


@cache
def carriers(key: bytes) -> np.ndarray:
    """Spectra (1 + 16, SIZE, SIZE) complex64 of the patterns, pilot first: random phases, 1 or 0 in magnitude."""
    seed = int.from_bytes(hashlib.sha256(key).digest()[:8], "little")
    noise = np.fft.fft2(np.random.default_rng(seed).standard_normal((1 + PAYLOAD_BITS, SIZE, SIZE)))
    in_band = (_radius() >= BAND[0]) & (_radius() <= BAND[1])
    return (noise / np.maximum(np.abs(noise), 1e-9) * in_band).astype(np.complex64)


def _pattern(payload: int) -> np.ndarray:
    """The mark of a payload (SIZE, SIZE) float32, with a root mean square of 1."""
    pilot, *bits = carriers(KEY)
    signs = [1 if payload >> place & 1 else -1 for place in reversed(range(PAYLOAD_BITS))]
    signed = np.tensordot(signs, np.stack(bits), 1)
    mixed = np.sqrt(PILOT_SHARE) * pilot + np.sqrt((1 - PILOT_SHARE) / PAYLOAD_BITS) * signed
    pattern = np.fft.ifft2(mixed).real
    return (pattern / pattern.std()).astype(np.float32)


@cache
def _radius() -> np.ndarray:
    """Cycles per crop of each place in a spectrum."""
    cycles = np.fft.fftfreq(SIZE) * SIZE
    return np.hypot(cycles[:, None], cycles)


@cache
def _window() -> np.ndarray:
    """Where the mark is, (SIZE, SIZE) float32 in [0, 1]."""
    y, x = np.mgrid[:SIZE, :SIZE]
    distance = ((x - CENTRE[0]) / RADII[0]) ** 2 + ((y - CENTRE[1]) / RADII[1]) ** 2
    return np.clip((1.25 - distance) / 0.5, 0, 1).astype(np.float32)


@cache
def _turns() -> Sequence[np.ndarray]:
    """Similarities (2, 3) about the centre of the face, of each scale and angle of the search."""
    turns = []
    for scale in SCALES:
        for angle in np.deg2rad(ANGLES):
            cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
            linear = np.array([[cosine, -sine], [sine, cosine]])
            turns.append(np.column_stack([linear, CENTRE - linear @ CENTRE]))
    return turns


def _whitened(spectrum: np.ndarray) -> np.ndarray:
    """A spectrum divided by its mean magnitude at each number of cycles."""
    rings = np.round(_radius()).astype(int)
    power = np.bincount(rings.ravel(), (np.abs(spectrum) ** 2).ravel()) / np.bincount(rings.ravel())
    return (spectrum / np.sqrt(power[rings] + 1e-6)).astype(np.complex64)


def _fine(brightness: np.ndarray) -> np.ndarray:
    return brightness - cv2.GaussianBlur(brightness, (0, 0), FINE)


def _contrast_of(fine: np.ndarray) -> np.ndarray:
    return np.sqrt(cv2.GaussianBlur(fine * fine, (0, 0), LOCAL))


def _contrast(brightness: np.ndarray) -> np.ndarray:
    """Local contrast of a crop (SIZE, SIZE), of 255."""
    return _contrast_of(_fine(brightness))


def _luma(rgb: np.ndarray) -> np.ndarray:
    """Brightness (H, W) float32 in [0, 255], as JPEG has it."""
    return rgb.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def _scale(matrix: np.ndarray) -> float:
    """Crop pixels per photo pixel."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))


def _footprint(matrix: np.ndarray, width: int, height: int) -> tuple[int, int, int, int]:
    """The rectangle (left, top, right, bottom) of a photo in which a crop lies."""
    corners = np.array([[x, y] for x in (0, SIZE) for y in (0, SIZE)], np.float64)
    corners = transform_points(corners, invert(matrix))
    left, top = np.clip(np.floor(corners.min(0)).astype(int), 0, (width - 1, height - 1))
    right, bottom = np.clip(np.ceil(corners.max(0)).astype(int) + 1, (left + 1, top + 1), (width, height))
    return int(left), int(top), int(right), int(bottom)
