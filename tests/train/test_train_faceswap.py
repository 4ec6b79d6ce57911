"""The three scripts that make a swap model, one after the other, at toy size: each is stopped once and resumed."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from PIL import Image, ImageEnhance
from transformers import CLIPVisionModelWithProjection

from faceswap_diffusion.faces.alignment import crop, ffhq_matrix
from faceswap_diffusion.faces.analyzer import MeshFaceAnalyzer
from faceswap_diffusion.pipeline_faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.training.states import saved_steps

TRAIN = Path(__file__).parents[2] / "train"
PORTRAITS = ("p001_portrait.jpg", "p005_portrait.jpg", "p006_portrait.jpg", "p010_portrait.jpg")


def run(script: str, *arguments: object) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()
    before = sys.argv
    sys.argv = [script, *map(str, arguments)]
    try:
        runpy.run_path(str(TRAIN / script), run_name="__main__")
    finally:
        sys.argv = before


@pytest.fixture(scope="module")
def faces(tmp_path_factory, example_images) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    analyzer = MeshFaceAnalyzer()
    for name in PORTRAITS:
        image = np.asarray(Image.open(example_images / name).convert("RGB"))
        (face,) = analyzer.analyze(image)
        aligned = Image.fromarray(crop(image, ffhq_matrix(face.landmarks68, 128), 128))
        aligned.save(folder / f"{Path(name).stem}.png")
        ImageEnhance.Brightness(aligned).enhance(0.8).save(folder / f"{Path(name).stem}_dark.png")
    return folder


@pytest.fixture(scope="module")
def autoencoder(faces, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("autoencoder")
    for steps in (2, 3):
        run(
            "train_autoencoder.py", "--train_data_dir", faces, "--output_dir", output, "--resolution", 64,
            "--crop_size", 32, "--block_out_channels", 8, 16, 16, "--train_batch_size", 2, "--num_validation", 2,
            "--max_train_steps", steps, "--checkpointing_steps", 2,
        )  # fmt: skip
        assert saved_steps(output) == [steps]
    return output / "vae"


@pytest.fixture(scope="module")
def sharp_autoencoder(autoencoder, faces, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("sharp_autoencoder")
    for steps in (2, 3):
        run(
            "train_autoencoder.py", "--train_data_dir", faces, "--output_dir", output, "--resolution", 64,
            "--pretrained_model_name_or_path", autoencoder, "--decoder_only", "--latent_noise", 0.15,
            "--adversarial_weight", 0.1, "--crop_size", 32, "--train_batch_size", 2, "--num_validation", 2,
            "--max_train_steps", steps, "--checkpointing_steps", 2,
        )  # fmt: skip
        assert saved_steps(output) == [steps]
    return output / "vae"


@pytest.fixture(scope="module")
def measurements(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("measurements") / "measured.safetensors"


@pytest.fixture(scope="module")
def image_encoder(faces, measurements, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("image_encoder")
    for steps in (2, 3):
        run(
            "train_image_encoder.py", "--train_data_dir", faces, "--measurements", measurements,
            "--output_dir", output, "--resolution", 64, "--image_size", 32, "--train_batch_size", 4,
            "--num_validation", 4, "--max_train_steps", steps, "--checkpointing_steps", 2,
        )  # fmt: skip
        assert saved_steps(output) == [steps]
    return output


def test_the_autoencoder_knows_the_spread_of_its_latents(autoencoder, faces):
    vae = AutoencoderKL.from_pretrained(autoencoder)
    images = torch.stack([torch.from_numpy(np.array(Image.open(path).resize((64, 64)))) for path in faces.iterdir()])
    latents = vae.encode(images.permute(0, 3, 1, 2).float() / 127.5 - 1).latent_dist.sample()
    assert 0.5 < (latents * vae.config["scaling_factor"]).std() < 2


def test_the_second_stage_sharpens_the_decoder_and_leaves_the_latents_alone(autoencoder, sharp_autoencoder):
    before, after = (AutoencoderKL.from_pretrained(folder) for folder in (autoencoder, sharp_autoencoder))
    assert before.config["scaling_factor"] == after.config["scaling_factor"]
    after_state = after.state_dict()
    for key, value in before.named_parameters():
        decodes = key.startswith(("decoder.", "post_quant_conv."))
        assert torch.equal(value, after_state[key]) != decodes, key


def test_the_image_encoder_tells_seventy_labels(image_encoder):
    encoder = CLIPVisionModelWithProjection.from_pretrained(image_encoder / "image_encoder")
    assert encoder(torch.zeros(1, 3, 32, 32)).image_embeds.shape == (1, 70)


def test_swap_training_resumes_moves_what_it_should_and_saves_a_pipeline(
    faces, measurements, autoencoder, image_encoder, tmp_path
):
    def train(steps: int) -> FaceSwapInpaintPipeline:
        run(
            "train_faceswap.py", "--train_data_dir", faces, "--measurements", measurements, "--vae", autoencoder,
            "--image_encoder", image_encoder, "--output_dir", tmp_path, "--resolution", 64,
            "--block_out_channels", 32, 32, 32, 32, "--train_batch_size", 4, "--num_cross", 2, "--num_own", 1,
            "--identity_start", 1, "--max_train_steps", steps, "--lr_warmup_steps", 0,
            "--checkpointing_steps", 2, "--ema_decay", 0.0, "--draw_landmarks", "--num_rollout_steps", 2,
            "--validation_data_dir", faces, "--num_validation", 2,
        )  # fmt: skip
        assert saved_steps(tmp_path) == [steps]
        return FaceSwapInpaintPipeline.from_pretrained(tmp_path / "pipeline")

    before, after = train(2), train(6)
    assert after.config["draw_landmarks"] is True
    for name in ("unet", "conditioner"):
        moved = {
            key: not torch.equal(value, getattr(after, name).state_dict()[key])
            for key, value in getattr(before, name).named_parameters()
        }
        assert [key for key, value in moved.items() if not value] == [], name
    for name in ("vae", "image_encoder"):
        for key, value in getattr(before, name).state_dict().items():
            assert torch.equal(value, getattr(after, name).state_dict()[key]), f"{name}.{key} is frozen"
    assert (tmp_path / "swaps_6.png").exists()
    with Image.open(tmp_path / "swaps_6.png") as picture:
        assert picture.size == (2 * 64, 3 * 64)  # two faces; sources, targets, swaps


def test_a_checkpoint_goes_on_with_a_sharper_autoencoder(
    faces, measurements, autoencoder, sharp_autoencoder, image_encoder, tmp_path
):
    shared = [
        "--train_data_dir", faces, "--measurements", measurements, "--resolution", 64, "--train_batch_size", 4,
        "--max_train_steps", 1, "--ema_decay", 0.0,
    ]  # fmt: skip
    small = ["--block_out_channels", 32, 32, 32, 32]
    first, second = tmp_path / "first", tmp_path / "second"
    run("train_faceswap.py", *shared, *small, "--vae", autoencoder, "--image_encoder", image_encoder,
        "--output_dir", first)  # fmt: skip
    run("train_faceswap.py", *shared, "--pretrained_model_name_or_path", first / "pipeline",
        "--new_vae", sharp_autoencoder, "--output_dir", second)  # fmt: skip
    wanted = AutoencoderKL.from_pretrained(sharp_autoencoder).state_dict()
    got = FaceSwapInpaintPipeline.from_pretrained(second / "pipeline").vae.state_dict()
    for key, value in wanted.items():
        assert torch.equal(value, got[key]), key
