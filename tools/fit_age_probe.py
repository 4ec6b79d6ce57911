"""Fits the age probe: years of age from SFace's embedding, taught by the age network on people who do not exist.

    python tools/fit_age_probe.py --seeds 300000 400 --output_dir faceswap_diffusion/checkpoints/age_probe

The network's errors depend on light and sharpness above all. The probe learns by ridge regression what of its answers
the identity embedding predicts; the mean of both is better than either.
"""

from pathlib import Path

import cv2
import numpy as np
import torch
from jsonargparse import ArgumentParser
from jsonargparse.typing import NonNegativeInt, PositiveFloat
from make_synthetic_faces import (  # pyright: ignore[reportMissingImports]
    INSPECTED_SIZE,
    FaceGenerator,
    check_network_files,
    check_seeds,
    embed,
    find_network_dir,
)
from safetensors.numpy import save_file
from tqdm.auto import tqdm

from faceswap_diffusion.conditioning.identity import SFace
from faceswap_diffusion.faces.detection import FaceDetector
from faceswap_diffusion.safety.age import AgeNet, age_crop

NUM_FOLDS = 10


def describe_people(network_dir: Path, seeds: range) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (N, 128) and ages (N,) of everybody whose picture shows one face, children among them."""
    generator, detector, recognizer, net = FaceGenerator(network_dir), FaceDetector(), SFace(), AgeNet()
    embeddings, ages = [], []
    for seed in tqdm(seeds, unit="person"):
        drawn = generator.draw(generator.style(seed))
        picture = cv2.resize(drawn, (INSPECTED_SIZE, INSPECTED_SIZE), interpolation=cv2.INTER_AREA)
        detections = detector.detect(picture)
        if len(detections) == 1:
            embeddings.append(embed(recognizer, picture, detections[0].keypoints))
            ages.append(float(net(age_crop(picture, detections[0].keypoints)).mean()))
    return np.array(embeddings), np.array(ages)


def fit(embeddings: np.ndarray, ages: np.ndarray, ridge: float) -> tuple[np.ndarray, float]:
    """Weights (128,) and bias by ridge regression; the bias is not shrunk."""
    mean, mean_age = embeddings.mean(axis=0), float(ages.mean())
    centred = embeddings - mean
    normal = centred.T @ centred + ridge * np.eye(centred.shape[1])
    weight = np.linalg.solve(normal, centred.T @ (ages - mean_age))
    return weight, mean_age - float(weight @ mean)


def held_out_correlation(embeddings: np.ndarray, ages: np.ndarray, ridge: float) -> float:
    """Correlation of the network's ages with those of probes that were fitted without the person."""
    fold = np.arange(len(ages)) % NUM_FOLDS
    predicted = np.empty(len(ages))
    for number in range(NUM_FOLDS):
        weight, bias = fit(embeddings[fold != number], ages[fold != number], ridge)
        predicted[fold == number] = embeddings[fold == number] @ weight + bias
    return float(np.corrcoef(predicted, ages)[0, 1])


def main() -> None:
    parser = ArgumentParser(prog="fit_age_probe.py", description=__doc__)
    parser.add_argument("--config", action="config", help="YAML file of settings; flags after it win")
    parser.add_argument("--seeds", nargs=2, type=NonNegativeInt, required=True, metavar=("START", "COUNT"))
    parser.add_argument("--output_dir", type=Path, required=True, help="receives model.safetensors")
    parser.add_argument("--network_dir", type=Path, help="the package's folder random_face/data; default: installed")
    parser.add_argument("--ridge", type=PositiveFloat, default=2.0, help="weight of the squared weights")
    args = parser.parse_args()
    torch.set_num_threads(1)
    check_seeds(*args.seeds)
    network_dir = args.network_dir or find_network_dir()
    check_network_files(network_dir)
    embeddings, ages = describe_people(network_dir, range(args.seeds[0], sum(args.seeds)))
    print(
        f"{len(ages)} people, {ages.mean():.1f} +- {ages.std():.1f} years; correlation with people held out "
        f"{held_out_correlation(embeddings, ages, args.ridge):.2f}"
    )
    weight, bias = fit(embeddings, ages, args.ridge)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    tensors = {"weight": weight[None].astype(np.float32), "bias": np.array([bias], np.float32)}
    save_file(tensors, args.output_dir / "model.safetensors")


if __name__ == "__main__":
    main()
