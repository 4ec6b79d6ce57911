"""Protocol `occluded`: something is drawn in front of the targets, so that it is known what must stay."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
from PIL import Image

from faceswap_diffusion.evaluation.description import CROP_SIZE
from faceswap_diffusion.evaluation.methods import Swap
from faceswap_diffusion.evaluation.protocol import (
    NUM_SYNTHETIC_PAIRS,
    PROTOCOLS,
    KnownOcclusion,
    Pair,
    PairSet,
    opened_folder,
    photos_of_people,
    ring_of_pairs,
)
from faceswap_diffusion.faces.alignment import crop, ffhq_matrix, transform_points, uncrop
from faceswap_diffusion.faces.analyzer import MeshFaceAnalyzer
from faceswap_diffusion.faces.selection import select_face
from faceswap_diffusion.masks.occlusion import cover_mask
from faceswap_diffusion.masks.parsing import load_face_parser
from faceswap_diffusion.masks.regions import repaint_mask
from faceswap_diffusion.occluders.blobs import Occluder
from faceswap_diffusion.occluders.drawing import Scene
from faceswap_diffusion.occluders.kinds import KINDS, UNSEEN_KINDS
from faceswap_diffusion.photos.loading import load_photo
from faceswap_diffusion.provenance.save import save_image

NAME = "occluded"
NOTHING = "nothing"
"""Kind of the targets that stay bare."""

BARE_EVERY = 5
"""One of so many targets stays bare."""

SEED = 15
HIDDEN_RANGE = (0.01, 0.6)
"""Least and largest share of a face that a drawing hides; others are drawn anew."""

SAME = 4
"""Of 255: a pixel that differs by no more is as it was."""

NOTICED = 0.02
"""Covered share of a face from which on something is in front of it: the network errs by less on bare faces."""

EDGE = 0.015
"""Width of a face's edge that a soft mask leaves to the target, as a share of the crop's side."""


@contextmanager
def opened_set(name: str, path: Path, count: int | None = None) -> Iterator[PairSet]:
    """The pairs of a protocol, from a folder or tar file, as long as the context is open.

    Args:
        name (`str`): A key of `protocol.PROTOCOLS`, or "occluded".
        path (`Path`): The folder or tar file.
        count (`int`, *optional*): Only the first pairs; all if left out.
    """
    with opened_folder(path) as folder, TemporaryDirectory() as drawn:
        if name == NAME:
            yield occluded_pairs(folder, Path(drawn), count or NUM_SYNTHETIC_PAIRS)
        else:
            yield PROTOCOLS[name](folder).limited(count)


def occluded_pairs(folder: Path, drawn: Path, count: int = NUM_SYNTHETIC_PAIRS) -> PairSet:
    """Pairs whose targets have something drawn in front of them, the same in every run.

    The first photo of person i is the source for that of person i + 1. The kinds of things take turns, and every fifth
    target stays bare.

    Args:
        folder (`Path`): Square, FFHQ-aligned photos of bare faces, with a manifest as for `self_pairs`.
        drawn (`Path`): Folder for the drawn pictures.
        count (`int`): Number of pairs.
    """
    people = [photos[0] for photos in photos_of_people(folder).values()]
    bare = ring_of_pairs(NAME, people, people).limited(count)
    analyzer = MeshFaceAnalyzer()
    pairs = [_covered_pair(pair, kind, index, drawn, analyzer) for index, (pair, kind) in
             enumerate(zip(bare.pairs, kinds_in_turn(count), strict=False))]  # fmt: skip
    return replace(bare, pairs=pairs)


def kinds_in_turn(count: int) -> list[str]:
    """The kind of each target."""
    drawn = [*KINDS, *UNSEEN_KINDS]
    bare = [index % BARE_EVERY == BARE_EVERY - 1 for index in range(count)]
    return [
        NOTHING if is_bare else drawn[(index - sum(bare[:index])) % len(drawn)] for index, is_bare in enumerate(bare)
    ]


def _covered_pair(pair: Pair, kind: str, index: int, folder: Path, analyzer: MeshFaceAnalyzer) -> Pair:
    """Draws something in front of a pair's target, and writes that down."""
    target, source = load_photo(pair.target).rgb, load_photo(pair.source).rgb
    face = select_face(analyzer.analyze(target), where=str(pair.target))
    inside = face_region(target, face.landmarks, face.landmarks68)
    pixels, covered = cover(target, source, face.landmarks, inside, kind, np.random.default_rng([SEED, index]))
    stem = f"{kind.replace(' ', '_')}-{pair.target.stem}"
    paths = [folder / f"{stem}{suffix}.png" for suffix in ("", ".covered", ".face")]
    for path, plane in zip(paths, (pixels, _grey(covered), _grey(inside)), strict=True):
        save_image(Image.fromarray(plane), path, provenance=None)
    return replace(pair, target=paths[0], occlusion=KnownOcclusion(kind, *paths[1:]))


def _grey(mask: np.ndarray) -> np.ndarray:
    return np.round(255 * mask).astype(np.uint8)


def face_region(photo: np.ndarray, landmarks: np.ndarray, landmarks68: np.ndarray) -> np.ndarray:
    """The region "face" of a photo (H, W, 3) uint8 RGB whose face is known, (H, W) bool."""
    matrix = ffhq_matrix(landmarks68, CROP_SIZE)
    aligned = crop(photo, matrix, CROP_SIZE)
    mask = repaint_mask(load_face_parser().parse(aligned), transform_points(landmarks, matrix), pixels=aligned)
    return uncrop(mask, matrix, photo.shape[1::-1]) > 0.5


def cover(
    target: np.ndarray,
    other: np.ndarray,
    landmarks: np.ndarray,
    inside: np.ndarray,
    kind: str,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws something in front of a face.

    Args:
        target (`np.ndarray`): (S, S, 3) uint8 RGB.
        other (`np.ndarray`): (H, W, 3) uint8 RGB, somebody else, of whose skin and colours things are made.
        landmarks (`np.ndarray`): (478, 2), of the target, in pixels.
        inside (`np.ndarray`): (S, S) bool, the target's face.
        kind (`str`): A key of `KINDS` or `UNSEEN_KINDS`, or "nothing".
        rng (`np.random.Generator`): What is random.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: The picture (S, S, 3) uint8 RGB, and what is covered of it, (S, S) float32 in
        [0, 1].

    Raises:
        ValueError: If the target is not square.
    """
    height, width = target.shape[:2]
    if height != width:
        raise ValueError(f"got a photo of {width} x {height} pixels; {NAME} needs square, FFHQ-aligned faces")
    if kind == NOTHING:
        return target, np.zeros((height, width), np.float32)
    scene = Scene(target, landmarks, cv2.resize(other, (width, height), interpolation=cv2.INTER_AREA))
    occluder = _draw(scene, inside, kind, rng)
    return occluder.over(target), np.clip(occluder.covered, 0, 1)


def _draw(scene: Scene, inside: np.ndarray, kind: str, rng: np.random.Generator) -> Occluder:
    """Draws until a fair share of the face is hidden."""
    draw = UNSEEN_KINDS[kind] if kind in UNSEEN_KINDS else KINDS[kind][0]
    while True:
        occluder = draw(scene, rng)
        if HIDDEN_RANGE[0] <= (occluder.covered[inside] > 0.5).mean() <= HIDDEN_RANGE[1]:
            return occluder


def add_occlusion_figures(
    records: Sequence[dict[str, Any]], swaps: Sequence[Swap], targets: Sequence[np.ndarray], pairs: Sequence[Pair]
) -> None:
    """Adds to the records of swaps how they treat what is in front of their targets, see `occlusion_figures`."""
    for record, swap, target, pair in zip(records, swaps, targets, pairs, strict=True):
        if pair.occlusion is not None:
            planes = [load_photo(path).rgb[..., 0] / 255 for path in (pair.occlusion.covered, pair.occlusion.face)]
            record |= occlusion_figures(swap, target, planes[0].astype(np.float32), planes[1] > 0.5)


def occlusion_figures(swap: Swap, target: np.ndarray, covered: np.ndarray, inside: np.ndarray) -> dict[str, float]:
    """How a swap treats what is in front of its target.

    Args:
        swap ([`Swap`]): Of the target.
        target (`np.ndarray`): (H, W, 3) uint8 RGB, with what is in front of it.
        covered (`np.ndarray`): (H, W) float32 in [0, 1], where something hides the face.
        inside (`np.ndarray`): (H, W) bool, the face, as if nothing were in front of it.

    Returns:
        `dict[str, float]`: `occluder_unchanged`, the share of hidden pixels of the face that are as they were;
        `free_left_alone`, the share of other pixels inside the face that the method did not paint; `occlusion_iou`,
        of the method's mask of what is in front and what was drawn, each with the margin that a swap leaves; and
        `bare_covered`, the share of a bare face that this mask holds. Those that have no meaning are left out.
    """
    hidden, figures = inside & (covered > 0.5), {}
    if hidden.any():
        change = np.abs(swap.rgb.astype(int) - target).max(axis=2)
        figures["occluder_unchanged"] = float((change[hidden] <= SAME).mean())
    if swap.mask is not None:
        width = 2 * round(EDGE * len(inside)) + 1
        free = (cv2.erode(inside.astype(np.uint8), np.ones((width, width))) > 0) & (covered < 0.05)
        figures["free_left_alone"] = float((swap.mask[free] < 0.5).mean())
    if swap.occlusion is not None:
        found, drawn = swap.occlusion[inside] > 0.5, cover_mask(covered)[inside] > 0.5
        if hidden.any():
            figures["occlusion_iou"] = float((found & drawn).sum() / (found | drawn).sum())
        else:
            figures["bare_covered"] = float(found.mean())
    return figures


def sides_covered(shares: np.ndarray) -> list[str | None]:
    """In front of which faces of pairs something is.

    Args:
        shares (`np.ndarray`): (N, 2), the covered share of the source's face and the target's; NaN without a face.

    Returns:
        `list[str | None]`: "nothing", "of the source", "of the target" or "of both"; `None` where that is not known.
    """
    names = np.array([[NOTHING, "of the target"], ["of the source", "of both"]])
    return [
        None if np.isnan(pair).any() else str(names[int(pair[0] > NOTICED), int(pair[1] > NOTICED)]) for pair in shares
    ]


def figures_by_kind(
    kinds: Sequence[str | None], values: dict[str, np.ndarray], names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """The mean of figures over the pairs of each kind.

    Args:
        kinds (`Sequence[str | None]`): Of N pairs, `None` if unknown.
        values (`dict[str, np.ndarray]`): (seeds, N) for each figure.
        names (`Sequence[str]`): Figures to average.

    Returns:
        `dict[str, dict[str, float]]`: By kind, then by figure, with `pairs`; empty if no kinds are known. Figures
        without a value are left out.
    """
    rows: dict[str, dict[str, float]] = {}
    for kind in dict.fromkeys(kind for kind in kinds if kind):
        members = [index for index, one in enumerate(kinds) if one == kind]
        rows[kind] = {"pairs": len(members)}
        for name in names:
            known = values[name][:, members] if name in values else np.array([np.nan])
            if not np.isnan(known).all():
                rows[kind][name] = float(np.nanmean(known))
    return rows
