"""Trains the small `OcclusionNetwork` on prepared faces with drawn things in front of them.

    accelerate launch train/train_occlusion.py --train_data_dir FACES --clear_faces NAMES --output_dir runs/occlusion

FACES was written by prepare_faces.py; NAMES is a file with the names of those faces that nothing covers, one a line,
as find_clear_faces.py writes it.
Stop it at any time: run the same command again and it goes on from the last saved state, to the same end.

With `--teacher` the other faces count as well: what that network is sure of is taken for true.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from jsonargparse.typing import ClosedUnitInterval, PositiveInt
from torch import nn
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from faceswap_diffusion.masks.occlusion import OcclusionNetwork, near_face, network_input
from faceswap_diffusion.masks.outlines import beard_mask, region_mask_from_landmarks
from faceswap_diffusion.masks.parsing import LABELS, load_face_parser
from faceswap_diffusion.occluders.drawing import Scene
from faceswap_diffusion.occluders.kinds import KINDS, UNSEEN_KINDS
from faceswap_diffusion.training.config import OptimizationConfig, OutputConfig, TrainingConfig
from faceswap_diffusion.training.data.dataset import PreparedFaces, read_description, resize_landmarks
from faceswap_diffusion.training.data.occlusion_samples import THINNEST, KnownFace, make_samples
from faceswap_diffusion.training.engine.randomness import generator_for
from faceswap_diffusion.training.engine.script import run_script
from faceswap_diffusion.training.engine.trainer import Task, Trainer, as_it_is
from faceswap_diffusion.training.fields import FIXED, section, setting

SCRIPT = "train_occlusion.py"
STORED_SIZE = 256
"""Side of the crops that things are drawn on: their faces are a little larger than in the network's window."""

NOT_FACE = ("background", "hair", "other")
MISSED = 1.0
"""How much more a covered pixel counts than a free one: most of a face is free, and frames are thin."""

SURE = (0.08, 0.9)
"""Probabilities below and above which a teacher is believed."""


@dataclass(frozen=True, kw_only=True)
class OcclusionDataConfig:
    """Which faces are trained on."""

    train_data_dir: Path = setting(help="folder of prepared faces")
    clear_faces: Path = setting(help="file with the names of faces that nothing covers")
    teacher: Path | None = setting(None, help="folder of an earlier network, to label the other faces")
    pseudo_share: float = setting(
        0.25, kind=ClosedUnitInterval, help="share of samples with a face that the teacher labelled", resume=FIXED
    )
    resolution: int = setting(
        96, kind=PositiveInt, help="side in pixels of the window that the network looks at", resume=FIXED
    )
    validation_stride: int = setting(20, kind=PositiveInt, help="every n-th clear face is held out", resume=FIXED)


@dataclass(frozen=True, kw_only=True)
class OcclusionModelConfig:
    """Which network is trained."""

    initial_network: Path | None = setting(
        None, help="folder of a network to begin with (default: the face parser)", resume=FIXED
    )


@dataclass(frozen=True, kw_only=True)
class Config(TrainingConfig):
    """Settings of train_occlusion.py."""

    data: OcclusionDataConfig = section("data")
    model: OcclusionModelConfig = section("model")
    optimization: OptimizationConfig = section(
        "optimization",
        max_train_steps=4000,
        learning_rate=2e-3,
        lr_warmup_steps=50,
        ema_decay=0.0,
        dataloader_num_workers=0,
    )
    output: OutputConfig = section(
        "output", checkpointing_steps=200, validation_steps=200, checkpoints_total_limit=1, report_to="none"
    )


def load_faces(folder: Path, size: int) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Reads names, pixels (N, size, size, 3) and labels (N, size, size) uint8, and landmarks (N, 478, 2)."""
    stored = read_description(folder)["resolution"]
    faces = PreparedFaces([folder], stored)
    names: list[str] = []
    pixels = np.empty((len(faces), size, size, 3), np.uint8)
    labels = np.empty((len(faces), size, size), np.uint8)
    for row in tqdm(range(len(faces)), mininterval=10):
        face = faces[row]
        names.append(face.name)
        pixels[row] = cv2.resize(face.pixels.permute(1, 2, 0).numpy(), (size, size), interpolation=cv2.INTER_AREA)
        labels[row] = cv2.resize(face.labels, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)
    return names, pixels, labels, resize_landmarks(faces.column("landmarks"), stored, size)


def clear_face(pixels: np.ndarray, labels: np.ndarray, landmarks: np.ndarray) -> KnownFace:
    """A face that nothing covers: what the parser takes for something else, except beards, is left open."""
    not_face = np.isin(labels, [LABELS.index(name) for name in NOT_FACE])
    not_face &= ~(beard_mask(landmarks, len(pixels)) > 0)
    not_face = cv2.dilate(not_face.astype(np.uint8), np.ones((5, 5)))
    known = near_face(region_mask_from_landmarks(landmarks, len(pixels))) * (1 - not_face)
    return KnownFace(pixels, landmarks, np.zeros(labels.shape, np.float32), known.astype(np.float32))


def taught_face(pixels: np.ndarray, landmarks: np.ndarray, teacher: OcclusionNetwork) -> KnownFace:
    """A face with what a teacher is sure of."""
    found = teacher.find(pixels, landmarks)
    low, high = SURE
    known = ((found < low) | (found > high)) * near_face(region_mask_from_landmarks(landmarks, len(pixels)))
    return KnownFace(pixels, landmarks, (found > 0.5).astype(np.float32), known.astype(np.float32))


def new_network(resolution: int, initial_network: Path | None = None) -> OcclusionNetwork:
    """A network that goes on from another, or begins with what the face parser has learnt.

    Then the planes of landmarks count for nothing yet.
    """
    if initial_network is not None:
        return OcclusionNetwork.from_pretrained(initial_network, sample_size=resolution)
    network, parser = OcclusionNetwork(sample_size=resolution), load_face_parser()
    learnt = parser.state_dict()
    stem = network.state_dict()["stem.1.0.weight"].zero_()
    stem[:, : learnt["stem.1.0.weight"].shape[1]] = learnt["stem.1.0.weight"]
    learnt = {name: value for name, value in learnt.items() if not name.startswith("head")}
    network.load_state_dict({**learnt, "stem.1.0.weight": stem}, strict=False)
    return network


def occlusion_loss(logits: torch.Tensor, covered: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Cross entropy plus soft Dice (Milletari et al. 2016, eq. 1) of what is covered, over pixels (B, H, W)."""
    importance = weights * (1 + MISSED * covered)
    entropy = F.binary_cross_entropy_with_logits(logits, covered, reduction="none")
    probabilities = logits.sigmoid() * weights
    overlap = (probabilities * covered).sum((1, 2))
    total = (probabilities + covered * weights).sum((1, 2))
    dice = 1 - (2 * overlap + 20) / (total + 20)
    return (entropy * importance).sum() / importance.sum() + 0.5 * dice.mean()


def measure(network: OcclusionNetwork, faces: list[KnownFace], seed: int = 0) -> dict[str, float]:
    """IoU of each kind with what was drawn, at a threshold of 0.5, inside faces that were held out.

    Returns:
        `dict[str, float]`: By kind; "seen" and "unseen" are means over kinds, "false" is the share of uncovered
        faces that is called covered.
    """
    kinds = {name: draw for name, (draw, _) in KINDS.items()} | UNSEEN_KINDS
    rng, counts = np.random.default_rng(seed), dict.fromkeys(kinds, np.zeros(2))
    false = []
    for index, face in enumerate(faces):
        inside = face.known > 0.5
        false.append((network.find(face.pixels, face.landmarks) > 0.5)[inside].mean())
        for name, draw in kinds.items():
            drawn = draw(Scene(face.pixels, face.landmarks, faces[index - 1].pixels), rng)
            found, wanted = network.find(drawn.over(face.pixels), face.landmarks), THINNEST * drawn.covered
            found, wanted = found > 0.5, wanted > 0.5
            both, either = (found & wanted & inside).sum(), ((found | wanted) & inside).sum()
            counts[name] = counts[name] + [both, either]
    scores = {name: float(both / max(either, 1)) for name, (both, either) in counts.items()}
    seen, unseen = (float(np.mean([scores[name] for name in group])) for group in (KINDS, UNSEEN_KINDS))
    return {**scores, "seen": seen, "unseen": unseen, "false": float(np.mean(false))}


def make_batch(
    clear: list[KnownFace], taught: list[KnownFace], count: int, share: float, size: int, rng: np.random.Generator
) -> list[torch.Tensor]:
    """Draws `count` samples: the network's input, what is covered and the weights."""
    samples = []
    while len(samples) < count:
        pool = taught if taught and rng.random() < share else clear
        face, other = pool[rng.integers(len(pool))], clear[rng.integers(len(clear))]
        samples += make_samples(face, other.pixels, size, rng)
    pixels, planes, covered, weights = (np.stack(arrays) for arrays in zip(*samples[:count], strict=True))
    return [network_input(pixels, planes), torch.from_numpy(covered), torch.from_numpy(weights)]


def load_known_faces(config: OcclusionDataConfig) -> tuple[list[KnownFace], list[KnownFace], list[KnownFace]]:
    """Clear faces to learn from, clear faces that are held out, and others as far as a teacher labels them."""
    names, pixels, labels, landmarks = load_faces(config.train_data_dir, STORED_SIZE)
    listed = set(config.clear_faces.read_text().splitlines())
    rows = [row for row, name in enumerate(names) if name in listed]
    if not rows:
        raise ValueError(f"no face of {config.train_data_dir} is named in {config.clear_faces}: it lists one a line")
    clear = [clear_face(pixels[row], labels[row], landmarks[row]) for row in rows]
    held_out = clear[:: config.validation_stride]
    shown = [face for index, face in enumerate(clear) if index % config.validation_stride]
    if config.teacher is None:
        return shown, held_out, []
    teacher = OcclusionNetwork.from_pretrained(config.teacher).eval()
    others = sorted(set(range(len(names))) - set(rows))
    return shown, held_out, [taught_face(pixels[row], landmarks[row], teacher) for row in others]


class OccludedBatches(Dataset):
    """Batches of a run, each by the numbers of its samples.

    Args:
        clear (`list[KnownFace]`): Faces that nothing covers.
        taught (`list[KnownFace]`): Others, as far as a teacher labels them.
        config (`OcclusionDataConfig`): Share of the others, and the window's side.
        seed (`int`): The run's.
    """

    def __init__(self, clear: list[KnownFace], taught: list[KnownFace], config: OcclusionDataConfig, seed: int):
        self.clear, self.taught, self.config, self.seed = clear, taught, config, seed

    def __getitems__(self, numbers: list[int]) -> list[torch.Tensor]:
        """The network's input, what is covered and the weights."""
        number = numbers[0] // len(numbers)
        rng = np.random.default_rng(generator_for(self.seed, "step", number).initial_seed())
        share, size = self.config.pseudo_share, self.config.resolution
        return make_batch(self.clear, self.taught, len(numbers), share, size, rng)


class OcclusionObjective(nn.Module):
    """The loss of an occlusion network."""

    def __init__(self, network: OcclusionNetwork):
        super().__init__()
        self.network = network

    def forward(self, batch: list[torch.Tensor], step: int) -> dict[str, torch.Tensor]:
        """The loss of a batch of `OccludedBatches`."""
        inputs, covered, weights = batch
        logits = self.network(inputs.contiguous(memory_format=torch.channels_last))
        return {"loss": occlusion_loss(logits[:, 0], covered, weights)}


def validate(network: OcclusionNetwork, held_out: list[KnownFace], trainer: Trainer, step: int) -> None:
    """Measures the network on faces that are held out: on all of them once the training is over."""
    is_over = step == trainer.config.optimization.max_train_steps
    network.eval()
    scores = measure(network, held_out if is_over else held_out[:8])
    network.train()
    table = ", ".join(f"{name} {score:.3f}" for name, score in scores.items())
    loss = trainer.history.last()["loss"] if trainer.accelerator.is_main_process else 0.0
    trainer.accelerator.print(f"step {step}: loss {loss:.4f}, held-out IoU {table}", flush=True)


def build_trainer(config: Config, accelerator: Accelerator) -> Trainer[Config]:
    cv2.setNumThreads(1)
    data, optimization = config.data, config.optimization
    shown, held_out, taught = load_known_faces(data)
    network = new_network(data.resolution, config.model.initial_network)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    task = Task(
        objective=OcclusionObjective(network),
        optimizer=torch.optim.AdamW(
            network.parameters(), lr=optimization.learning_rate, weight_decay=optimization.weight_decay
        ),
        samples=OccludedBatches(shown, taught, data, optimization.seed),
        validate=partial(validate, network, held_out),
        collate=as_it_is,
        facts={"faces": len(shown) + len(taught)},
    )
    return Trainer(config, accelerator, task)


def finish(trainer: Trainer[Config]) -> None:
    network: Any = trainer.task.objective.get_submodule("network")
    network.half().save_pretrained(trainer.config.output.output_dir / "occlusion")


def main(arguments: Sequence[str] | None = None) -> None:
    run_script(Config, SCRIPT, __doc__, arguments, build_trainer, finish)


if __name__ == "__main__":
    main()
