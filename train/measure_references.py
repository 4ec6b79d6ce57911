"""Measures how alike references are to what they stand for: those of training, and those of true pairs.

    python train/measure_references.py --data_dir data/faces --pairs_dir data/people

prints a Markdown table. Each line is a kind of references, each figure a cosine of SFace between a face and the same
face with its reference filled in: mean, and what 10, 50 and 90 % of the faces stay below. The first lines are of
training: all faults as configured, none, and each alone. The last is of true pairs: a face's reference comes from
another photo of the same person, as in a swap, so the folder has to be prepared with identities.

A model learns to trust references as far as they deserve it in training: the line of all faults has to be as the one
of true pairs is.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import cv2
import numpy as np
import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt

from faceswap_diffusion.conditioning.identity import SFace
from faceswap_diffusion.console import say
from faceswap_diffusion.masks.regions import repaint_mask
from faceswap_diffusion.pipelines.inputs import fill_hidden
from faceswap_diffusion.training.command_line import parse_config
from faceswap_diffusion.training.config import ReferenceConfig
from faceswap_diffusion.training.data.dataset import FaceRecord, PreparedFaces
from faceswap_diffusion.training.data.references import TrainingReferences
from faceswap_diffusion.training.engine.randomness import generator_for
from faceswap_diffusion.training.fields import section, setting

SCRIPT = "measure_references.py"
HEADINGS = ("references", "faces", "mean", "10 %", "50 %", "90 %")
REGION = "face"
FAULTLESS = replace(ReferenceConfig(), **dict.fromkeys(asdict(ReferenceConfig()), 0.0))


@dataclass(frozen=True, kw_only=True)
class MeasuringConfig:
    """Which faces are measured."""

    data_dir: tuple[str, ...] = setting(help="folders of prepare_faces.py")
    pairs_dir: tuple[str, ...] | None = setting(None, help="folders with several photos of each person")
    resolution: int = setting(256, kind=PositiveInt, help="side of the crops in pixels")
    num_faces: int = setting(128, kind=PositiveInt, help="how many, evenly from all of them")
    seed: int = setting(0, kind=NonNegativeInt, help="of what is random in the faults")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of measure_references.py."""

    measuring: MeasuringConfig = section("measuring")
    references: ReferenceConfig = section("references", description="how they are made wrong", prefix="reference_")


@torch.no_grad()
def likeness(references: TrainingReferences, rows: Sequence[tuple[int, int]], seed: int) -> np.ndarray:
    """How alike faces with their references filled in are to themselves.

    Args:
        references (`TrainingReferences`): Draws them.
        rows (`Sequence[tuple[int, int]]`): Targets, and whose face each reference shows.
        seed (`int`): Of what is random.

    Returns:
        `np.ndarray`: A cosine for each pair.
    """
    recognizer, cosines = SFace().eval(), []
    for number, (row, source_row) in enumerate(rows):
        target = references.faces[row]
        source = target if source_row == row else references.faces[source_row]
        reference = references.draw(target, source, REGION, generator_for(seed, "sample", number))
        both = torch.stack([as_pixels(target), filled(target, reference, references.faces.label_names)])
        embeds = recognizer(recognizer.prepare(both))
        cosines.append(float(embeds[0] @ embeds[1]))
    return np.array(cosines)


def as_pixels(face: FaceRecord) -> torch.Tensor:
    """A face's crop (3, S, S), RGB in [-1, 1]."""
    return face.pixels.float() / 127.5 - 1


def filled(target: FaceRecord, reference: torch.Tensor, label_names: Sequence[str]) -> torch.Tensor:
    """The target (3, S, S) whose face is a reference (4, S, S), as the model is shown it."""
    mask = torch.from_numpy(repaint_mask(target.labels, target.landmarks, REGION, label_names)).float()[None, None]
    return fill_hidden(as_pixels(target)[None], mask, reference[None, :3], reference[None, 3:])[0]


def evenly(rows: Sequence, count: int) -> list:
    """As many of some rows, or all if there are fewer."""
    return list(rows[:: max(1, len(rows) // count)][:count])


def true_pairs(identities: Sequence[str]) -> list[tuple[int, int]]:
    """Each face of which there is another photo, and the next photo of the same person.

    Raises:
        ValueError: If no person has two.
    """
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, identity in enumerate(identities):
        rows_of[identity].append(row)
    pairs = [
        pair for rows in rows_of.values() if len(rows) > 1 for pair in zip(rows, [*rows[1:], rows[0]], strict=True)
    ]
    if not pairs:
        raise ValueError("--pairs_dir has one photo of each person: prepare it with identities, or leave it out")
    return pairs


def kinds_of(faults: ReferenceConfig) -> dict[str, ReferenceConfig]:
    """The lines of training, by name."""
    alone = {f"{name} alone": replace(FAULTLESS, **{name: value}) for name, value in asdict(faults).items()}
    return {"training": faults, "no faults": FAULTLESS, **alone}


def line(name: str, cosines: np.ndarray) -> list[str]:
    """The line of a kind of references, cell by cell."""
    figures = cosines.mean(), *np.percentile(cosines, (10, 50, 90))
    return [name, str(len(cosines)), *(f"{figure:.3f}" for figure in figures)]


def lines_of_training(config: Config) -> list[list[str]]:
    measuring = config.measuring
    faces = PreparedFaces(measuring.data_dir, measuring.resolution)
    rows = [(row, row) for row in evenly(range(len(faces)), measuring.num_faces)]
    return [
        line(name, likeness(TrainingReferences(faces, faults), rows, measuring.seed))
        for name, faults in kinds_of(config.references).items()
    ]


def line_of_pairs(config: MeasuringConfig, pairs_dir: Sequence[str]) -> list[str]:
    faces = PreparedFaces(pairs_dir, config.resolution)
    pairs = evenly(true_pairs(faces.identities), config.num_faces)
    return line("true pairs", likeness(TrainingReferences(faces, FAULTLESS), pairs, config.seed))


def main(arguments: list[str] | None = None) -> None:
    config = parse_config(Config, SCRIPT, __doc__, arguments)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        table = [list(HEADINGS), ["---"] * len(HEADINGS), *lines_of_training(config)]
        if config.measuring.pairs_dir:
            table.append(line_of_pairs(config.measuring, config.measuring.pairs_dir))
    except ValueError as error:
        say(f"{SCRIPT}: {error}", error=True)
        raise SystemExit(2) from error
    print("".join(f"| {' | '.join(cells)} |\n" for cells in table), end="")


if __name__ == "__main__":
    main()
