"""Draws FFHQ-aligned faces of people who do not exist, and keeps those that show one sharp adult face.

    pip install --no-deps random-face && pip install "faceswap-diffusion[train]"
    python tools/make_synthetic_faces.py --seeds 200000 1000 --output_dir data/synthetic

The network is MobileStyleGAN from the package random-face (Apache-2.0), distilled from StyleGAN2-FFHQ
(non-commercial). Seed n is the latent numpy.random.RandomState(n).normal(size=(1, 512)), without truncation.
--looks 2 draws two pictures of each person: the second one's style is moved 10 to 25 % of the way towards another
person's.

manifest.csv describes the faces that were kept, rejected.csv the others, both in the order of the seeds. Stop the
script at any time, by any means: run the same command again and it goes on with the seeds that are in neither. The
files are the same however many processes draw them. Seeds from 800000 on are for choosing models, never for training;
seeds from 900000 on are reserved for measuring by others and refused.
"""

import csv
import hashlib
import importlib.util
import multiprocessing
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch
from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import NonNegativeInt, PositiveInt
from PIL import Image
from tqdm.auto import tqdm

from faceswap_diffusion.conditioning.identity import SFace
from faceswap_diffusion.devices import available_cores
from faceswap_diffusion.faces.alignment import arcface_matrix, crop
from faceswap_diffusion.faces.detection import FaceDetector
from faceswap_diffusion.faces.landmarks import FaceMesh
from faceswap_diffusion.provenance.save import GENERATED, save_image
from faceswap_diffusion.safety.age import AgeEstimator
from faceswap_diffusion.training.command_line import build_parser

FIRST_RESERVED_SEED = 900_000
NETWORK_SHA256 = {
    "MappingNetwork.xml": "73e2096cad6e696e4af47df2477e048ab4c42c0e0dec83c7c66604822689e55b",
    "MappingNetwork.bin": "212dd716bdb556e18db603ea97300d4fa3c872b878c726b2402fea80820e7305",
    "SynthesisNetwork.xml": "7918fce515243954d3e06628cb39a23902d6b1d5d02932cc0c2faee7a2aeeedd",
    "SynthesisNetwork.bin": "c7da15fa22d508c82e1c30dd6b4cdf67fe3ccdddaf85b310ee764dbf0c289645",
}
LOOK_STRENGTHS = (0.10, 0.25)  # SFace's cosine to the first look: about 0.94 and 0.85
INSPECTED_SIZE = 256  # faces are judged at this size, whatever size is written
MIN_DETECTION_SCORE = 0.8
MIN_AGE = 30.0  # years: far above 18, for estimates of single faces err; checkpoints/age_probe/README.md measures
MIN_SHARPNESS = 100.0  # variance of the Laplacian; the network's own faces have 180 to 3000


@dataclass(frozen=True)
class Measurement:
    """What is known of one picture: a row of the manifest.

    `sharpness` is the variance of the Laplacian at 256 px; `yaw`, `pitch` and `roll` are degrees; `age` is how
    old the face looks, in years; `identity_cosine` compares SFace's embedding with that of the first look.
    """

    file: str
    seed: int
    look: int
    strength: float
    score: float
    sharpness: float
    yaw: float
    pitch: float
    roll: float
    age: float
    identity_cosine: float


@dataclass(frozen=True)
class DrawnPerson:
    """The result of one seed: the pictures that were kept, and (look, reason) of those that were not."""

    seed: int
    kept: list[Measurement]
    rejected: list[tuple[int, str]]


def drawing_parser() -> ArgumentParser:
    parser = build_parser("make_synthetic_faces.py", __doc__)
    people = parser.add_argument_group("people")
    people.add_argument(
        "--seeds", nargs=2, type=NonNegativeInt, required=True, metavar=("START", "COUNT"), help="a person each"
    )  # fmt: skip
    people.add_argument("--looks", type=PositiveInt, default=1, help="pictures of each person")
    pictures = parser.add_argument_group("pictures")
    pictures.add_argument("--output_dir", type=Path, required=True, help="receives pictures and tables")
    pictures.add_argument("--resolution", type=PositiveInt, default=256, help="side in pixels, at most 1024")
    pictures.add_argument("--quality", type=PositiveInt, default=95, help="of the JPEG files, at most 100")
    drawing = parser.add_argument_group("drawing")
    drawing.add_argument("--network_dir", type=Path, help="the package's folder random_face/data; default: installed")
    drawing.add_argument(
        "--num_workers",
        type=PositiveInt,
        default=available_cores(),
        help="processes, 1.3 GB each; by default one a core",
    )
    return parser


def check_seeds(start: int, count: int) -> None:
    """Refuses seeds that are reserved for measuring."""
    if start + count > FIRST_RESERVED_SEED:
        raise ValueError(
            f"seeds {start} to {start + count - 1}: choose them from 0 to {FIRST_RESERVED_SEED - 1}, "
            "the rest is reserved for evaluation"
        )


def find_network_dir() -> Path:
    """Folder of the networks in the installed package, which is not imported: that would need its demo's packages."""
    spec = importlib.util.find_spec("random_face")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError("random-face is not installed: pip install --no-deps random-face, or give --network_dir")
    return Path(spec.submodule_search_locations[0]) / "data"


def check_network_files(folder: Path) -> None:
    """Compares every file of the network with its SHA-256."""
    for name, expected in NETWORK_SHA256.items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{path} is missing: give the folder random_face/data of random-face 2021.7.21.1")
        if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise ValueError(f"{path} has another SHA-256 than random-face 2021.7.21.1's: unpack the package again")


class FaceGenerator:
    """MobileStyleGAN on one thread: a seed or style (1, 512) in, an FFHQ-aligned face out."""

    def __init__(self, folder: Path):
        import openvino  # here, so that everything else works without it

        core = openvino.Core()
        core.set_property("CPU", {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"})
        self.mapping = core.compile_model(folder / "MappingNetwork.xml", "CPU")
        self.synthesis = core.compile_model(folder / "SynthesisNetwork.xml", "CPU")

    def style(self, seed: int) -> np.ndarray:
        """Style vector w (1, 512) of a seed."""
        return self._map(np.random.RandomState(seed).normal(size=(1, 512)))

    def look(self, seed: int, look: int) -> tuple[np.ndarray, float]:
        """Style of the person's `look`-th picture, and how far it was moved towards another person's."""
        if look == 0:
            return self.style(seed), 0.0
        rng = np.random.default_rng((seed, look))
        strength = rng.uniform(*LOOK_STRENGTHS)
        style = self.style(seed)
        return style + strength * (self._map(rng.normal(size=(1, 512))) - style), strength

    def draw(self, style: np.ndarray) -> np.ndarray:
        """Picture (1024, 1024, 3), uint8 RGB, of a style."""
        pixels = self.synthesis(style)[0][0].transpose(1, 2, 0)
        return np.clip((pixels + 1) * 127.5 + 0.5, 0, 255).astype(np.uint8)

    def _map(self, latent: np.ndarray) -> np.ndarray:
        return self.mapping(latent.astype(np.float32))[0].copy()


@torch.no_grad()
def embed(recognizer: SFace, picture: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """SFace's embedding (128,) of a face."""
    aligned = crop(picture, arcface_matrix(keypoints), 112)
    pixel_values = torch.from_numpy(aligned).permute(2, 0, 1)[None].float() / 127.5 - 1
    return recognizer(pixel_values)[0].numpy()


class FaceInspector:
    """Measures a face and rejects what is not one sharp adult face."""

    def __init__(self):
        self.detector, self.mesh = FaceDetector(), FaceMesh()
        self.recognizer, self.estimate_age = SFace(), AgeEstimator()

    def inspect(self, picture: np.ndarray) -> tuple[dict[str, float], np.ndarray] | str:
        """Measures a picture, uint8 RGB.

        Returns:
            `tuple` or `str`: The measured columns of the manifest and SFace's embedding (128,), or the reason why the
            picture must not be kept.
        """
        sharpness = float(cv2.Laplacian(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())
        if sharpness < MIN_SHARPNESS:
            return "blurred"
        detections = self.detector.detect(picture)
        if len(detections) != 1:
            return f"{len(detections)} faces"
        detection = detections[0]
        if detection.score < MIN_DETECTION_SCORE:
            return "unsure detection"
        embedding = embed(self.recognizer, picture, detection.keypoints)
        age = self.estimate_age(picture, detection.keypoints, embedding)
        if age < MIN_AGE:
            return "may be a minor"
        yaw, pitch, roll = map(float, self.mesh(picture, detection.keypoints).head_pose)
        measured = {"score": float(detection.score), "sharpness": sharpness, "age": age}
        return {**measured, "yaw": yaw, "pitch": pitch, "roll": roll}, embed(
            self.recognizer, picture, detection.keypoints
        )


def draw_person(
    generator: FaceGenerator, inspector: FaceInspector, seed: int, looks: int
) -> tuple[list[tuple[Measurement, np.ndarray]], list[tuple[int, str]]]:
    """Draws all looks of one person; none is kept if the first is rejected.

    Returns:
        `tuple`: What is kept, as (measurement, picture), and what is rejected, as (look, reason).
    """
    kept, rejected, first_embedding = [], [], np.empty(0)
    for look in range(looks):
        style, strength = generator.look(seed, look)
        picture = generator.draw(style)
        inspected = cv2.resize(picture, (INSPECTED_SIZE, INSPECTED_SIZE), interpolation=cv2.INTER_AREA)
        verdict = inspector.inspect(inspected)
        if isinstance(verdict, str):
            rejected.append((look, verdict))
            if look == 0:
                break
            continue
        measured, embedding = verdict
        if look == 0:
            first_embedding = embedding
        measured["identity_cosine"] = float(embedding @ first_embedding)
        file = f"{seed}.jpg" if look == 0 else f"{seed}_{look}.jpg"
        kept.append((Measurement(file=file, seed=seed, look=look, strength=strength, **measured), picture))
    return kept, rejected


class Records:
    """The two tables of an output folder; a person's rows are appended together, after the pictures are in place."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.manifest = self._open("manifest.csv", [field.name for field in fields(Measurement)])
        self.rejected = self._open("rejected.csv", ["seed", "look", "reason"])

    def _open(self, name: str, header: list[str]) -> Path:
        path = self.folder / name
        if not path.exists():
            self._append(path, [header])
        elif path.read_text(encoding="utf-8-sig").partition("\n")[0] != ",".join(header):
            raise ValueError(f"{path} has other columns than {','.join(header)}: choose another --output_dir")
        return path

    def _append(self, path: Path, rows: list[list]) -> None:
        with path.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)

    def _rows(self, path: Path) -> csv.DictReader:
        return csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines())

    def done_seeds(self) -> set[int]:
        """Seeds that are in one of the tables."""
        return {int(row["seed"]) for path in (self.manifest, self.rejected) for row in self._rows(path)}

    def add(self, person: DrawnPerson) -> None:
        kept = [
            [round(value, 4) if isinstance(value, float) else value for value in asdict(measurement).values()]
            for measurement in person.kept
        ]
        # One append a table: after a kill between the two, `done_seeds` still knows the person.
        self._append(self.manifest, kept)
        self._append(self.rejected, [[person.seed, look, reason] for look, reason in person.rejected])


def save_picture(picture: np.ndarray, path: Path, resolution: int, quality: int, seed: int) -> None:
    """Writes a JPEG that says in its metadata that a model drew it."""
    resized = Image.fromarray(picture).resize((resolution, resolution), Image.Resampling.LANCZOS)
    provenance = {"network": "random-face 2021.7.21.1", "seed": seed}
    save_image(resized, path, provenance=provenance, digital_source_type=GENERATED, quality=quality)


class PeopleOfSeeds:
    """Draws a person, and saves the pictures that are kept, for each seed that is asked for.

    Each process makes its own networks when it draws its first person.
    """

    def __init__(self, seeds: list[int], network_dir: Path, args: Namespace):
        self.seeds, self.network_dir, self.args = seeds, network_dir, args

    @cached_property
    def generator(self) -> FaceGenerator:
        return FaceGenerator(self.network_dir)

    @cached_property
    def inspector(self) -> FaceInspector:
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        return FaceInspector()

    def draw(self, seed: int) -> DrawnPerson:
        args = self.args
        kept, rejected = draw_person(self.generator, self.inspector, seed, args.looks)
        for measurement, picture in kept:
            save_picture(picture, args.output_dir / measurement.file, args.resolution, args.quality, seed)
        return DrawnPerson(seed, [measurement for measurement, _ in kept], rejected)


def draw_people(people: PeopleOfSeeds, num_workers: int) -> Iterator[DrawnPerson]:
    """Draws everybody in the order of their seeds, in one process or several."""
    num_workers = min(num_workers, len(people.seeds))
    if num_workers <= 1:
        yield from map(people.draw, people.seeds)
        return
    # Not forked: torch and OpenCV have threads of their own by now.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, context, initializer=_begin_worker, initargs=(people,)) as workers:
        yield from workers.map(_draw_in_worker, people.seeds)


_people: PeopleOfSeeds


def _begin_worker(people: PeopleOfSeeds) -> None:
    global _people
    _people = people  # once a process, for its networks
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the process that writes the tables


def _draw_in_worker(seed: int) -> DrawnPerson:
    return _people.draw(seed)


def make_faces(args: Namespace) -> None:
    start, count = args.seeds
    check_seeds(start, count)
    network_dir = args.network_dir or find_network_dir()
    check_network_files(network_dir)
    records = Records(args.output_dir)
    done = records.done_seeds()
    seeds = [seed for seed in range(start, start + count) if seed not in done]
    num_kept = 0
    with tqdm(total=count, initial=count - len(seeds), desc="drawing faces", unit="person") as progress:
        for person in draw_people(PeopleOfSeeds(seeds, network_dir, args), args.num_workers):
            records.add(person)
            num_kept += len(person.kept)
            progress.set_postfix(kept=num_kept, refresh=False)
            progress.update()


def main(arguments: list[str] | None = None) -> None:
    parser = drawing_parser()
    args = parser.parse_args(arguments)
    try:
        make_faces(args)
    except ValueError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
