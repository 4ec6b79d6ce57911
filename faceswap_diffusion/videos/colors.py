"""Frames to upright RGB pixels and back. What was not changed keeps the numbers that it has in the video."""

from dataclasses import replace

import av
import numpy as np

from faceswap_diffusion.videos.frames import Colors, VideoFacts
from faceswap_diffusion.videos.tone_mapping import to_standard_range

ACCURATE = 0x4 | 0x2000 | 0x4000 | 0x40000
"""BICUBIC, FULL_CHR_H_INT, FULL_CHR_H_INP and ACCURATE_RND of FFmpeg's scaler, for which PyAV 17 has not all names."""

LIMITED, FULL = 1, 2
BT709 = Colors(matrix=1, range=1, primaries=1, transfer=1)
"""What a video of high dynamic range becomes."""

BT2020 = 9
"""Of BT.2020, for FFmpeg's scaler and in ITU-T H.273."""

MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: BT2020, 10: BT2020}
"""The number that FFmpeg's scaler has for a matrix, by that of ITU-T H.273."""

HIGH_DEFINITION = (1280, 577)
"""Width or height from which on players take a video that does not say its matrix for BT.709, and not for BT.601."""


class FrameColors:
    """Converts the frames of one video.

    Args:
        facts ([`VideoFacts`]): Of the video.
        pixel_format (`str`): FFmpeg's name of the planar YUV format to go back to.
    """

    def __init__(self, facts: VideoFacts, pixel_format: str):
        source = av.VideoFormat(facts.pixel_format, 16, 16)
        self.pixel_format = pixel_format
        self.has_alpha = any(component.is_alpha for component in source.components)
        self.is_rgb = source.is_rgb or source.has_palette or facts.colors.matrix == 0
        self.bits = max(component.bits for component in av.VideoFormat(pixel_format, 16, 16).components)
        self.hdr = facts.colors.transfer if facts.colors.is_hdr else None
        self.matrix = _matrix(facts)
        self.output_matrix = self.matrix if self.hdr is None else BT709.matrix
        full = facts.colors.range == FULL or facts.pixel_format.startswith("yuvj")
        self.source_range = FULL if full or self.is_rgb else LIMITED
        self.output_range = LIMITED if self.is_rgb or self.hdr is not None else self.source_range
        self.turn = Turn(facts.matrix)

    def output_colors(self, colors: Colors) -> Colors:
        """What the new video says of its colours, given what the old one says."""
        if self.hdr is not None:
            return BT709
        if self.is_rgb:
            return replace(colors, matrix=self.matrix, range=LIMITED)
        return replace(colors, range=FULL) if self.output_range == FULL else colors

    def rgb(self, picture: av.VideoFrame) -> np.ndarray:
        """The pixels of a frame, upright, (H, W, 3) uint8 RGB; what is transparent becomes white."""
        return self.turn.upright(self._stored_rgb(picture))

    def unchanged(self, picture: av.VideoFrame) -> av.VideoFrame:
        """A frame in the format to go back to."""
        if self.has_alpha or self.hdr is not None:
            return self._from_rgb(self._stored_rgb(picture))
        return picture.reformat(
            format=self.pixel_format,
            src_colorspace=self.matrix,
            dst_colorspace=self.matrix,
            src_color_range=self.source_range,
            dst_color_range=self.output_range,
            interpolation=ACCURATE,
        )

    def changed(self, picture: av.VideoFrame, rgb: np.ndarray, mask: np.ndarray) -> av.VideoFrame:
        """A frame with new pixels where it was changed, and its own numbers elsewhere.

        Args:
            picture (`av.VideoFrame`): As it was.
            rgb (`np.ndarray`): (H, W, 3) uint8 RGB, upright.
            mask (`np.ndarray`): (H, W), upright; where it is 0, the frame keeps its numbers.

        Returns:
            `av.VideoFrame`: Not turned, in the format to go back to.
        """
        new = self._from_rgb(self.turn.back(rgb))
        kept = _planes(self.unchanged(picture), self.bits)
        where = self.turn.back(mask) > 0
        for plane, old in zip(_planes(new, self.bits), kept, strict=True):
            np.copyto(plane, old, where=~_reduced(where, plane.shape))
        return new

    def _stored_rgb(self, picture: av.VideoFrame) -> np.ndarray:
        converted = picture.reformat(
            format="rgba" if self.has_alpha else "rgb24" if self.hdr is None else "rgb48le",
            src_colorspace=self.matrix,
            src_color_range=self.source_range,
            dst_color_range=FULL,
            interpolation=ACCURATE,
        )
        pixels = converted.to_ndarray()
        if self.hdr is not None:
            return to_standard_range(pixels, self.hdr)
        return _on_white(pixels) if self.has_alpha else pixels

    def _from_rgb(self, rgb: np.ndarray) -> av.VideoFrame:
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        if self.output_matrix == BT2020:
            picture.colorspace = BT2020  # PyAV 17 knows it as the picture's own, and not as an argument
        return picture.reformat(
            format=self.pixel_format,
            dst_colorspace=self.output_matrix,
            src_color_range=FULL,
            dst_color_range=self.output_range,
            interpolation=ACCURATE,
        )


class Turn:
    """Turns pixels as a display matrix says, by right angles and mirroring.

    Args:
        matrix (`tuple[int, ...]`, *optional*): Nine numbers, see [`VideoFacts`]; `None` if frames are upright.
    """

    def __init__(self, matrix: tuple[int, ...] | None):
        a, b, _, c, d = (matrix or (1, 0, 0, 0, 1))[:5]
        self.transposed = abs(b) > abs(a)
        self.mirrored, self.flipped = (c < 0, b < 0) if self.transposed else (a < 0, d < 0)

    def upright(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels (H, W, ...) as they are shown."""
        pixels = pixels.swapaxes(0, 1) if self.transposed else pixels
        return np.ascontiguousarray(self._mirror(pixels))

    def back(self, pixels: np.ndarray) -> np.ndarray:
        """Undoes `upright`."""
        pixels = self._mirror(pixels)
        return np.ascontiguousarray(pixels.swapaxes(0, 1) if self.transposed else pixels)

    def _mirror(self, pixels: np.ndarray) -> np.ndarray:
        pixels = pixels[:, ::-1] if self.mirrored else pixels
        return pixels[::-1] if self.flipped else pixels


def _matrix(facts: VideoFacts) -> int:
    known = MATRICES.get(facts.colors.matrix)
    if known is not None:
        return known
    (width, height), (least_width, least_height) = facts.size, HIGH_DEFINITION
    return 1 if width >= least_width or height >= least_height else 5


def _planes(picture: av.VideoFrame, bits: int) -> list[np.ndarray]:
    """The planes of a frame, each (h, w), to be read or written."""
    dtype = np.dtype(np.uint8 if bits == 8 else np.uint16)
    return [
        np.frombuffer(memoryview(plane), dtype).reshape(plane.height, -1)[:, : plane.width] for plane in picture.planes
    ]


def _reduced(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A mask (H, W) bool for a plane of fewer pixels: whether any pixel under one of them is set."""
    height, width = shape
    down, across = -(-mask.shape[0] // height), -(-mask.shape[1] // width)
    padded = np.zeros((height * down, width * across), bool)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    return np.any(padded.reshape(height, down, width, across), axis=(1, 3))


def _on_white(rgba: np.ndarray) -> np.ndarray:
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return np.round(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
