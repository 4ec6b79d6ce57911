"""Swaps the pairs of a set and measures every swap."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from faceswap_diffusion.evaluation import metrics
from faceswap_diffusion.evaluation.protocol import Pair
from faceswap_diffusion.evaluation.recognizers import Recognizer, align_to_template
from faceswap_diffusion.faces.alignment import crop, ffhq_matrix
from faceswap_diffusion.faces.analyzer import FaceAnalyzer
from faceswap_diffusion.faces.selection import NoFaceFoundError, select_face
from faceswap_diffusion.photos import load_photo
from faceswap_diffusion.swapper import FaceSwapper, SwapResult


@dataclass(frozen=True)
class FaceFeatures:
    """What is compared of a face.

    Args:
        embeddings (`dict[str, np.ndarray]`): (D,) for each recogniser.
        head_pose (`np.ndarray`): (3,) yaw, pitch, roll in degrees.
        blendshapes (`np.ndarray`): (52,) in [0, 1].
        landmarks68 (`np.ndarray`): (68, 2) pixels.
    """

    embeddings: dict[str, np.ndarray]
    head_pose: np.ndarray
    blendshapes: np.ndarray
    landmarks68: np.ndarray


@dataclass(frozen=True)
class SwapMeasurement:
    """What was measured of one swap. The ratios are swap over target.

    Args:
        pair (`Pair`): Which pictures.
        swap, source, target (`FaceFeatures`, *optional*): `None` where no face was found.
        sharpness_crop, sharpness_photo (`float`): Ratio of the variances of the Laplacian inside the mask, at the
            pipeline's crop resolution and at the photo's.
        border_step (`float`): Ratio of the colour steps across a 5 px band at the mask's border.
        seconds (`float`): Of the swap, from path to picture.
    """

    pair: Pair
    swap: FaceFeatures | None
    source: FaceFeatures | None
    target: FaceFeatures | None
    sharpness_crop: float
    sharpness_photo: float
    border_step: float
    seconds: float


class FaceMeasurer:
    """Describes the largest face of a picture; of files it remembers the answer.

    Args:
        recognizers (`dict[str, Recognizer]`): By name.
        analyzer (`FaceAnalyzer`): One that gives head pose and blendshapes.
    """

    def __init__(self, recognizers: dict[str, Recognizer], analyzer: FaceAnalyzer):
        self.recognizers = recognizers
        self.analyzer = analyzer
        self._of_files: dict[Path, FaceFeatures | None] = {}

    def measure(self, image: np.ndarray) -> FaceFeatures | None:
        """Describes the largest face of a photo (H, W, 3), uint8 RGB; `None` if there is none."""
        faces = self.analyzer.analyze(image)
        if not faces:
            return None
        face = select_face(faces)
        if face.head_pose is None or face.blendshapes is None:
            raise ValueError(f"{type(self.analyzer).__name__} gives no head pose or expression: use MeshFaceAnalyzer")
        aligned = align_to_template(image, face.keypoints)
        embeddings = {name: recognizer(aligned) for name, recognizer in self.recognizers.items()}
        return FaceFeatures(embeddings, face.head_pose, face.blendshapes, face.landmarks68)

    def measure_file(self, path: Path) -> FaceFeatures | None:
        """Describes the largest face of a file."""
        if path not in self._of_files:
            self._of_files[path] = self.measure(load_photo(path).rgb)
        return self._of_files[path]


def measure_swaps(
    swapper: FaceSwapper,
    measurer: FaceMeasurer,
    pairs: Iterable[Pair],
    seed: int,
    on_swap: Callable[[Pair, Image.Image], None] | None = None,
) -> list[SwapMeasurement]:
    """Swaps and measures pair by pair.

    Args:
        swapper (`FaceSwapper`): What is measured, at its checkpoint's own settings.
        measurer (`FaceMeasurer`): What measures.
        pairs (`Iterable[Pair]`): Which pictures.
        seed (`int`): Every swap's.
        on_swap (`Callable`, *optional*): Called with each pair and its result.
    """
    measurements = []
    for pair in pairs:
        started = time.perf_counter()
        try:
            result = swapper.swap(pair.source, pair.target, seed=seed)
        except NoFaceFoundError:
            measurements.append(failed_swap(measurer, pair))
            continue
        seconds = time.perf_counter() - started
        measurements.append(measure_swap(measurer, pair, result, swapper.pipeline.config["crop_size"], seconds))
        if on_swap is not None:
            on_swap(pair, result.image)
    return measurements


def failed_swap(measurer: FaceMeasurer, pair: Pair) -> SwapMeasurement:
    """A pair in whose pictures the swapper found no face: nothing is known, which counts as a failure everywhere."""
    nan = float("nan")
    source, target = measurer.measure_file(pair.source), measurer.measure_file(pair.target)
    return SwapMeasurement(pair, None, source, target, nan, nan, nan, nan)


def measure_swap(
    measurer: FaceMeasurer, pair: Pair, result: SwapResult, crop_size: int, seconds: float
) -> SwapMeasurement:
    """Measures one swap against the pictures that it was made from."""
    swap, target = np.asarray(result.image.convert("RGB")), load_photo(pair.target).rgb
    mask = np.asarray(result.mask, np.float32) / 255
    matrix = ffhq_matrix(result.faces[result.swapped[0]].landmarks68, crop_size)
    crops = [crop(picture, matrix, crop_size) for picture in (swap, target, mask)]
    return SwapMeasurement(
        pair=pair,
        swap=measurer.measure(swap),
        source=measurer.measure_file(pair.source),
        target=measurer.measure_file(pair.target),
        sharpness_crop=metrics.sharpness(crops[0], crops[2]) / metrics.sharpness(crops[1], crops[2]),
        sharpness_photo=metrics.sharpness(swap, mask) / metrics.sharpness(target, mask),
        border_step=metrics.border_colour_step(swap, mask) / metrics.border_colour_step(target, mask),
        seconds=seconds,
    )
