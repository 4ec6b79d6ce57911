"""What reads files of strangers: for each reader good files to begin with, and a function that reads one."""

import io
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import ArgumentError
from PIL import Image
from safetensors.torch import save

from faceswap_diffusion.photos.exif import read_exif
from faceswap_diffusion.photos.loading import load_photo
from faceswap_diffusion.provenance.credentials import read_credentials
from faceswap_diffusion.provenance.save import read_provenance, save_image
from faceswap_diffusion.provenance.video import read_video_provenance
from faceswap_diffusion.safety.refusal import RefusedError
from faceswap_diffusion.swapping.agreed import AgreedPeople
from faceswap_diffusion.swapping.jobs import Job, read_jobs
from faceswap_diffusion.swapping.source_identity import SourceIdentity
from faceswap_diffusion.training.command_line import add_settings, build_parser, read_config
from faceswap_diffusion.training.config import TrainFaceswapConfig
from faceswap_diffusion.videos.frames import Span
from faceswap_diffusion.videos.reading import open_video
from faceswap_diffusion.weights.folders import load_networks, read_components
from tests.clips import noise, write_clip
from tests.tiny import odd_exif, tiny_unet

FRAMES = 8
"""Of a video that are decoded."""


@dataclass(frozen=True)
class Reader:
    """A reader under test.

    Args:
        suffixes (`tuple[str, ...]`): Of the files, one for each of `seeds`.
        seeds (`list[bytes]`): Good files.
        read (`Callable`): Reads a file; what it raises for a bad one is among `expected`.
        share (`float`): Of the inputs, for those that are slow.
    """

    suffixes: tuple[str, ...]
    seeds: list[bytes]
    read: Callable[[Path], object]
    share: float = 1.0
    expected: tuple[type[Exception], ...] = (ValueError,)


def pictures() -> Reader:
    rgb = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8))
    suffixes = ("png", "jpeg", "webp", "tiff", "bmp", "gif", "avif")
    seeds = []
    for suffix in suffixes:
        file = io.BytesIO()
        extra: dict[str, Any] = {"exif": odd_exif()} if suffix in ("png", "jpeg", "webp") else {}
        rgb.save(file, suffix.upper(), **extra)
        seeds.append(file.getvalue())

    def read(path: Path) -> None:
        load_photo(path)
        read_provenance(path)
        with Image.open(path) as picture:
            read_exif(picture)

    return Reader(tuple(f".{suffix}" for suffix in suffixes), seeds, read)


def marked_pictures() -> Reader:
    rgb = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8))
    suffixes, seeds = (".png", ".jpg", ".webp"), []
    for suffix in suffixes:
        with tempfile.TemporaryDirectory() as folder:
            save_image(rgb, Path(folder, f"swap{suffix}"), provenance={"checkpoint": "tiny"})
            seeds.append(Path(folder, f"swap{suffix}").read_bytes())

    def read(path: Path) -> None:
        read_credentials(path)
        load_photo(path)
        read_provenance(path)

    return Reader(suffixes, seeds, read, share=0.3)


def videos() -> Reader:
    suffixes, seeds = (".mp4", ".mkv", ".webm"), []
    for suffix in suffixes:
        with tempfile.TemporaryDirectory() as folder:
            codec = "libvpx-vp9" if suffix == ".webm" else "libx264"
            path = write_clip(Path(folder, f"clip{suffix}"), noise(4), codec=codec, sound=suffix != ".webm")
            seeds.append(path.read_bytes())

    def read(path: Path) -> None:
        video = open_video(path)
        for _ in islice(video.frames(Span()), FRAMES):
            pass
        read_video_provenance(path)

    return Reader(suffixes, seeds, read, share=0.2)


def identities() -> Reader:
    identity = SourceIdentity(torch.ones(1, 4), torch.zeros(1, 3), fingerprint=torch.zeros(2))
    people = AgreedPeople(["Ann"], torch.ones(1, 4), torch.zeros(2), 0.363)
    seeds = []
    for thing in (identity, people):
        with tempfile.TemporaryDirectory() as folder:
            thing.save(Path(folder, "a.safetensors"))
            seeds.append(Path(folder, "a.safetensors").read_bytes())
    seeds.append(save({"weight": torch.zeros(2, 2)}))

    def read(path: Path) -> None:
        for load in (SourceIdentity.load, lambda file: AgreedPeople.load(file, 0.363)):
            try:
                load(path)
            except ValueError as error:
                check_line(error)

    return Reader((".safetensors",) * 3, seeds, read)


def weights() -> Reader:
    unet = tiny_unet()
    with tempfile.TemporaryDirectory() as folder:
        unet.save_config(folder)
        config = Path(folder, "config.json").read_bytes()

    def read(path: Path) -> None:
        folder = path.with_suffix("")
        (folder / "unet").mkdir(parents=True, exist_ok=True)
        (folder / "model_index.json").write_text('{"unet": ["diffusers", "UNet2DConditionModel"]}')
        (folder / "unet" / "config.json").write_bytes(config)
        path.rename(folder / "unet" / "diffusion_pytorch_model.safetensors")
        load_networks(folder, ["unet"])

    return Reader((".safetensors",), [save(dict(list(unet.state_dict().items())[:3]))], read, share=0.05)


def model_indices() -> Reader:
    index = {"_class_name": "FaceSwapInpaintPipeline", "unet": ["diffusers", "UNet2DConditionModel"], "crop_size": 256}

    def read(path: Path) -> None:
        folder = path.with_suffix("")
        (folder / "unet").mkdir(parents=True, exist_ok=True)
        path.rename(folder / "model_index.json")
        read_components(folder)

    return Reader((".json",), [json.dumps(index).encode()], read)


def job_lists() -> Reader:
    plain = b"source,target,output,seed,region,steps\na.jpg,b.jpg,c.png,1,face,5\na.jpg|d.jpg,b.jpg,,,mouth,\n"
    quoted = '\ufeffsource,target,consent,mask\n"a ""1"".jpg","b\n.jpg","both, in writing",m.png\n'.encode()
    return Reader((".csv",) * 2, [plain, quoted], lambda path: read_jobs(path, Job((), ""), ".png"))


def configs() -> Reader:
    parser = build_parser("train.py", None, exit_on_error=False)
    add_settings(parser, TrainFaceswapConfig)
    seed = b"resolution: 64\nlearning_rate: 1.0e-4\nseed: 3\ntrain_data_dir: faces\noutput_dir: out\n"

    def read(path: Path) -> None:
        read_config(parser, TrainFaceswapConfig, ["--config", str(path)])

    return Reader((".yaml",), [seed], read, share=0.05, expected=(ValueError, ArgumentError))


READERS: dict[str, Callable[[], Reader]] = {
    "pictures": pictures,
    "marked pictures": marked_pictures,
    "videos": videos,
    "identities": identities,
    "weights": weights,
    "model indices": model_indices,
    "job lists": job_lists,
    "configs": configs,
}


def check_line(error: Exception) -> None:
    """An error for users is one line, and says something."""
    assert not isinstance(error, RefusedError)
    assert str(error).strip()
    assert "\n" not in str(error).strip(), str(error)
