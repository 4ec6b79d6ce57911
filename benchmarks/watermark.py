"""Measures the invisible mark: how often it is found after a picture was changed, and how often where there is none.

    python benchmarks/watermark.py PHOTOS

The mark does not care who painted a face: it is laid into the faces of the photos themselves, or with --swaps into
swaps of them. False alarms are looked for in the unmarked photos, with the mark's key and with others, which makes of
each photo as many trials.
"""

import argparse
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from faceswap_diffusion.faces.alignment import ffhq_matrix
from faceswap_diffusion.faces.analyzer import Face, MeshFaceAnalyzer
from faceswap_diffusion.faces.mesh_topology import FACE_OVAL_478
from faceswap_diffusion.photos.folders import pictures_in
from faceswap_diffusion.photos.loading import load_photo
from faceswap_diffusion.provenance.verify import face_finder
from faceswap_diffusion.provenance.watermark import (
    FALSE_ALARMS,
    SIZE,
    aligned_spectra,
    carriers,
    false_alarm_rate,
    find_mark,
    lay_mark,
    peak,
)

PAYLOAD = 0xB38B
FEATHER = 0.03  # of the mask, as a share of the face's width
FACE_MARGIN = 0.3  # of a crop to the face, as a share of its box


def jpeg(rgb: np.ndarray, quality: int) -> np.ndarray:
    """Saved as JPEG and read again."""
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def halve(rgb: np.ndarray) -> np.ndarray:
    """Half as wide and high."""
    image = Image.fromarray(rgb)
    return np.asarray(image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS))


def crop_to_face(rgb: np.ndarray, face: Face) -> np.ndarray:
    """The face's box with `FACE_MARGIN` around it."""
    left, top, right, bottom = face.bbox
    x, y = FACE_MARGIN * (right - left), FACE_MARGIN * (bottom - top)
    left, top = np.maximum(np.round([left - x, top - y]), 0).astype(int)
    right, bottom = np.round([right + x, bottom + y]).astype(int)
    return np.ascontiguousarray(rgb[top:bottom, left:right])


def turn(rgb: np.ndarray, degrees: float) -> np.ndarray:
    """Turned about its middle."""
    return np.asarray(Image.fromarray(rgb).rotate(degrees, Image.Resampling.BICUBIC))


ATTACKS: dict[str, Callable[[np.ndarray, Face], np.ndarray]] = {
    "none": lambda rgb, face: rgb,
    "JPEG 85": lambda rgb, face: jpeg(rgb, 85),
    "JPEG 75": lambda rgb, face: jpeg(rgb, 75),
    "half the size, JPEG 85": lambda rgb, face: jpeg(halve(rgb), 85),
    "cropped to the face": crop_to_face,
    "cropped, half the size, JPEG 85": lambda rgb, face: jpeg(halve(crop_to_face(rgb, face)), 85),
    "turned by 5 degrees, JPEG 85": lambda rgb, face: jpeg(turn(rgb, 5), 85),
}


def face_mask(rgb: np.ndarray, face: Face) -> np.ndarray:
    """What a swap would repaint, (H, W) float32: the oval of the mesh with a soft border."""
    mask = np.zeros(rgb.shape[:2], np.uint8)
    oval = cv2.convexHull(face.landmarks[list(FACE_OVAL_478)].astype(np.float32)).round().astype(np.int32)
    cv2.fillConvexPoly(mask, oval, 255)
    return cv2.GaussianBlur(mask, (0, 0), FEATHER * float(np.ptp(oval[..., 0]))).astype(np.float32) / 255


def only_face(analyzer: MeshFaceAnalyzer, rgb: np.ndarray) -> Face | None:
    """The face of a picture that shows one person."""
    faces = analyzer.analyze(rgb)
    return faces[0] if len(faces) == 1 else None


def unmarked(args: argparse.Namespace, analyzer: MeshFaceAnalyzer) -> Iterator[tuple[np.ndarray, np.ndarray, Face]]:
    """Pictures of one face each, with the mask of what is or could be repainted; the face is the target's."""
    photos = [load_photo(path) for path in pictures_in(args.photos)[args.skip : args.skip + args.limit]]
    if not args.swaps:
        for photo in photos:
            if (face := only_face(analyzer, photo.rgb)) is not None:
                yield photo.rgb, face_mask(photo.rgb, face), face
        return
    from faceswap_diffusion.swapping.swapper import FaceSwapper

    swapper = FaceSwapper.from_pretrained(analyzer=analyzer)
    swapper.pipeline.set_progress_bar_config(disable=True)
    for index, photo in enumerate(photos):
        if (face := only_face(analyzer, photo.rgb)) is not None:
            result = swapper.swap(photos[(index + len(photos) // 2) % len(photos)], photo, watermark=False)
            yield np.asarray(result.image.convert("RGB")), np.asarray(result.mask).astype(np.float32) / 255, face


def psnr(one: np.ndarray, other: np.ndarray, mask: np.ndarray) -> float:
    """Of two pictures where the mask is more than half, in dB."""
    error = np.mean((one.astype(np.float64) - other)[mask > 0.5] ** 2)
    return float(10 * np.log10(255**2 / error))


def measure(args: argparse.Namespace) -> dict:
    """Lays marks, changes pictures, and looks for marks in these and in pictures without."""
    analyzer, finder = MeshFaceAnalyzer(), face_finder()
    scores: dict[str, list[float]] = {name: [] for name in ATTACKS}
    payloads: dict[str, list[bool]] = {name: [] for name in ATTACKS}
    ratios, alarms, others = [], [], []
    keys = [carriers(b"another key %d" % number)[0] for number in range(args.keys)]
    for rgb, mask, face in unmarked(args, analyzer):
        matrix = ffhq_matrix(face.landmarks68, SIZE)
        marked = lay_mark(rgb, mask, matrix, PAYLOAD)
        ratios.append(psnr(rgb, marked, mask))
        for name, attack in ATTACKS.items():
            changed = attack(marked, face)
            found = [find_mark(changed, ffhq_matrix(one.landmarks68, SIZE)) for one in finder.analyze(changed)]
            best = max(found, key=lambda mark: mark.score, default=None)
            scores[name].append(best.score if best else 0.0)
            payloads[name].append(bool(best and best.payload == PAYLOAD))
        alarms.append(find_mark(rgb, matrix).score)
        if keys:
            peaks = [[peak(spectrum, key)[0] for key in keys] for spectrum in aligned_spectra(rgb, matrix)]
            others += np.max(peaks, axis=0).tolist()
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{len(ratios)} faces")
    return {"psnr": ratios, "scores": scores, "payloads": payloads, "alarms": alarms, "other_keys": others}


def format_table(figures: dict) -> str:
    """The figures as lines of Markdown."""
    count, least = len(figures["psnr"]), min(figures["psnr"])
    lines = ["| picture | found | payload read | median score | least score |", "| --- | --- | --- | --- | --- |"]
    for name, scores in figures["scores"].items():
        found = np.mean([false_alarm_rate(score) <= FALSE_ALARMS for score in scores])
        read = np.mean(figures["payloads"][name])
        lines.append(f"| {name} | {found:.1%} | {read:.1%} | {np.median(scores):.1f} | {min(scores):.1f} |")
    lines += [
        "",
        f"{count} faces, PSNR in the face {np.mean(figures['psnr']):.1f} dB on average, {least:.1f} at least",
    ]
    for name, trials in (("the mark's key", figures["alarms"]), ("other keys", figures["other_keys"])):
        if trials:
            false = sum(false_alarm_rate(score) <= FALSE_ALARMS for score in trials)
            lines.append(
                f"without a mark, {name}: {false} of {len(trials)} found; scores {np.mean(trials):.2f} on average, "
                f"standard deviation {np.std(trials):.2f}, at most {max(trials):.2f}"
            )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        prog="python benchmarks/watermark.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("photos", type=Path, help="folder of photos of one face each")
    parser.add_argument("--limit", type=int, default=100, help="number of photos (default: 100)")
    parser.add_argument("--skip", type=int, default=0, help="photos to leave out at the beginning (default: 0)")
    parser.add_argument("--keys", type=int, default=20, help="other keys to try on each face (default: 20)")
    parser.add_argument("--swaps", action="store_true", help="swap the faces with the package's model first")
    parser.add_argument("--output", type=Path, metavar="JSON", help="write the figures")
    args = parser.parse_args(arguments)
    figures = measure(args)
    sys.stdout.write(format_table(figures) + "\n")
    if args.output:
        args.output.write_text(json.dumps(figures) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
