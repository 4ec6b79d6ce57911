"""Draws FFHQ-aligned faces of people who do not exist, and keeps those that show one sharp adult face.

    pip install --no-deps random-face && pip install openvino
    python train/make_synthetic_faces.py --seeds 200000 1000 --output_dir data/synthetic

The network is MobileStyleGAN from the package `random-face` (Apache-2.0), distilled from StyleGAN2-FFHQ
(non-commercial). Seed n is the latent `numpy.random.RandomState(n).normal(size=(1, 512))`, without truncation.
`--looks 2` draws two pictures of each person: the second one's style is moved 10 to 25 % of the way towards somebody
else's.

`manifest.csv` describes the faces that were kept, `rejected.csv` the others. Stop the script at any time: run the
same command again and it goes on with the first seed that is in neither. Seeds from 800000 on are for choosing models,
never for training; seeds from 900000 on are reserved for measuring by others and refused.
"""

import argparse
import csv
import hashlib
import importlib.util
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from faceswap_diffusion.conditioning.identity import SFace
from faceswap_diffusion.faces.alignment import arcface_matrix, crop
from faceswap_diffusion.faces.detection import FaceDetector
from faceswap_diffusion.faces.landmarks import FaceMesh
from faceswap_diffusion.provenance import GENERATED, save_image

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
MIN_SHARPNESS = 100.0  # variance of the Laplacian; the network's own faces have 180 to 3000


@dataclass(frozen=True)
class Measurement:
    """What is known of one picture: a row of the manifest.

    `sharpness` is the variance of the Laplacian at 256 px; `yaw`, `pitch` and `roll` are degrees; `minor_score` is the
    adult probe's; `identity_cosine` compares SFace's embedding with that of the person's first look.
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
    minor_score: float
    identity_cosine: float


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs=2, type=int, required=True, metavar=("START", "COUNT"))
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--looks", type=int, default=1, help="pictures of each person")
    parser.add_argument("--resolution", type=int, default=256, help="side of the pictures in pixels, at most 1024")
    parser.add_argument("--quality", type=int, default=95, help="JPEG quality")
    parser.add_argument("--network_dir", type=Path, help="the package's folder random_face/data; default: installed")
    parser.add_argument(
        "--adult_probe",
        type=Path,
        required=True,
        help="JSON file of a linear probe on SFace's embedding that tells minors from adults: w (128), b, threshold",
    )
    parser.add_argument("--num_threads", type=int, default=1)
    args = parser.parse_args(arguments)
    check_seeds(*args.seeds)
    return args


def check_seeds(start: int, count: int) -> None:
    """Refuses seeds that are reserved for measuring."""
    if start < 0 or start + count > FIRST_RESERVED_SEED:
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
    """MobileStyleGAN: a seed or style (1, 512) in, an FFHQ-aligned face out."""

    def __init__(self, folder: Path, num_threads: int = 1):
        import openvino  # here, so that everything else works without it

        check_network_files(folder)
        core = openvino.Core()
        core.set_property("CPU", {"INFERENCE_NUM_THREADS": num_threads, "INFERENCE_PRECISION_HINT": "f32"})
        self.mapping = core.compile_model(folder / "MappingNetwork.xml", "CPU")
        self.synthesis = core.compile_model(folder / "SynthesisNetwork.xml", "CPU")

    def style(self, seed: int) -> np.ndarray:
        """Style vector w (1, 512) of a seed."""
        return self._map(np.random.RandomState(seed).normal(size=(1, 512)))

    def look(self, seed: int, look: int) -> tuple[np.ndarray, float]:
        """Style of the person's `look`-th picture, and how far it was moved towards somebody else's."""
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


class FaceInspector:
    """Measures a face and rejects what is not one sharp adult face."""

    def __init__(self, adult_probe: Path):
        probe = json.loads(adult_probe.read_text())
        self.weights, self.bias, self.threshold = np.array(probe["w"]), probe["b"], probe["threshold"]
        self.detector, self.mesh, self.recognizer = FaceDetector(), FaceMesh(), SFace()

    def minor_score(self, embedding: np.ndarray) -> float:
        """The probe's score of an embedding (128,): above its threshold the face looks like a minor's."""
        return float(4 * self.weights @ embedding + self.bias)

    @torch.no_grad()
    def embed(self, picture: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
        aligned = crop(picture, arcface_matrix(keypoints), 112)
        pixel_values = torch.from_numpy(aligned).permute(2, 0, 1)[None].float() / 127.5 - 1
        return self.recognizer(pixel_values)[0].numpy()

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
        embedding = self.embed(picture, detection.keypoints)
        minor_score = self.minor_score(embedding)
        if minor_score > self.threshold:
            return "may be a minor"
        yaw, pitch, roll = map(float, self.mesh(picture, detection.keypoints).head_pose)
        measured = {"score": float(detection.score), "sharpness": sharpness, "minor_score": minor_score}
        return {**measured, "yaw": yaw, "pitch": pitch, "roll": roll}, embedding


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
        return path

    def _append(self, path: Path, rows: list[list]) -> None:
        with path.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)

    def done_seeds(self) -> set[int]:
        """Seeds that are in one of the tables."""
        return {int(row["seed"]) for path in (self.manifest, self.rejected) for row in csv.DictReader(path.open())}

    def add(self, measurements: list[Measurement], rejected: list[list]) -> None:
        rounded = [
            [round(value, 4) if isinstance(value, float) else value for value in asdict(measurement).values()]
            for measurement in measurements
        ]
        # One append a table: after a kill between the two, `done_seeds` still knows the person.
        self._append(self.manifest, rounded)
        self._append(self.rejected, rejected)


def save_picture(picture: np.ndarray, path: Path, resolution: int, quality: int, seed: int) -> None:
    """Writes a JPEG that says in its metadata that a model drew it."""
    resized = Image.fromarray(picture).resize((resolution, resolution), Image.Resampling.LANCZOS)
    provenance = {"network": "random-face 2021.7.21.1", "seed": seed}
    save_image(resized, path, provenance=provenance, digital_source_type=GENERATED, quality=quality)


def main(arguments: list[str] | None = None) -> None:
    args = parse_args(arguments)
    torch.set_num_threads(args.num_threads)
    cv2.setNumThreads(args.num_threads)
    generator = FaceGenerator(args.network_dir or find_network_dir(), args.num_threads)
    inspector = FaceInspector(args.adult_probe)
    records = Records(args.output_dir)
    start, count = args.seeds
    done = records.done_seeds()
    num_kept = 0
    progress = tqdm([seed for seed in range(start, start + count) if seed not in done], unit="person", mininterval=10)
    for seed in progress:
        kept, rejected = draw_person(generator, inspector, seed, args.looks)
        for measurement, picture in kept:
            save_picture(picture, args.output_dir / measurement.file, args.resolution, args.quality, seed)
        records.add([measurement for measurement, _ in kept], [[seed, look, reason] for look, reason in rejected])
        num_kept += len(kept)
        progress.set_postfix(kept=num_kept, refresh=False)


if __name__ == "__main__":
    main()
