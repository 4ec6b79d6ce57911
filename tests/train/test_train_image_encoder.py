"""The image encoder's script at toy size."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPVisionModelWithProjection
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from faceswap_diffusion.training.data.dataset import PreparedFaces
from faceswap_diffusion.training.data.encoder_labels import labels_and_mirrored
from faceswap_diffusion.training.engine.states import saved_steps
from tests.processes import finish, wait_until
from tests.train.scripts import load_script, run, start

WEIGHTS = "image_encoder/model.safetensors"


training = load_script("train_image_encoder")


def arguments(prepared_faces: Path, output_dir: Path, *more: object) -> list[str]:
    given = [
        "--train_data_dir", prepared_faces, "--output_dir", output_dir, "--resolution", 64, "--image_size", 32,
        "--train_batch_size", 4, "--num_validation", 4, "--max_train_steps", 3, "--checkpointing_steps", 1, *more,
    ]  # fmt: skip
    return [str(part) for part in given]


@pytest.fixture(scope="module")
def encoder(prepared_faces, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("image_encoder")
    run(training, arguments(prepared_faces, output))
    return output


def test_the_image_encoder_tells_seventy_labels_of_a_view_of_its_size(encoder):
    model = CLIPVisionModelWithProjection.from_pretrained(encoder / "image_encoder")
    extractor = CLIPImageProcessorPil.from_pretrained(encoder / "feature_extractor")
    assert extractor.size["height"] == 32
    assert model(torch.zeros(1, 3, 32, 32)).image_embeds.shape == (1, 70)
    assert saved_steps(encoder / "states") == [3]


@pytest.fixture(scope="module")
def views(prepared_faces):
    faces = PreparedFaces([prepared_faces], 64)
    return training.LabelledViews(faces, range(8), labels_and_mirrored(faces), 64, seed=0)


def test_views_and_labels_depend_on_the_number_alone(views):
    first, again = views[5], views[5]
    assert torch.equal(first["views"], again["views"])
    assert torch.equal(first["labels"], again["labels"])
    assert not torch.equal(first["views"], views[13]["views"])
    assert first["views"].shape == (3, 64, 64)
    assert first["labels"].shape == (70,)


def test_labels_are_those_of_what_is_seen(views):
    """Yaw has the sign of the side that is seen; light changes with the view's colours."""
    straight, mirrored = views.labels
    signs, num_masked = set(), 0
    for index in range(24):
        sample = views[index]
        (row,) = [row for row in range(8) if close(sample["labels"][1:3].abs(), straight[row, 1:3].abs())]
        sign = bool(torch.equal(sample["labels"][:55], mirrored[row, :55]))
        assert sign or torch.equal(sample["labels"][:55], straight[row, :55])
        signs.add(sign)
        pixels = views.faces[row].pixels.float() / 127.5 - 1
        pixels = pixels.flip(-1) if sign else pixels
        shown = sample["views"] != 0
        num_masked += not shown.all()
        label_light = sample["labels"][55:].view(5, 3)
        known_light = (mirrored if sign else straight)[row, 55:].view(5, 3)
        for channel in range(3):  # one gain and offset for the pixels and for the light
            gain, offset = line(pixels[channel][shown[channel]], sample["views"][channel][shown[channel]])
            assert 0.8 < gain < 1.2
            torch.testing.assert_close(
                label_light[:, channel], known_light[:, channel] * gain + offset, atol=1e-4, rtol=0
            )
    assert signs == {True, False}
    assert 2 < num_masked < 16


def close(first: torch.Tensor, second: torch.Tensor) -> bool:
    return torch.allclose(first, second, atol=1e-5)


def line(x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    """Gain and offset of y = gain * x + offset."""
    gain = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    return gain.item(), (y.mean() - gain * x.mean()).item()


def test_standardised_labels_have_mean_0_and_spread_1():
    torch.manual_seed(0)
    labels = torch.randn(500, 70) * 3 + 5
    labels[:, 7] = 0.5  # never moves
    objective = training.EncoderObjective(training.build_encoder(32), labels)
    standardised = objective.standardise(labels)
    torch.testing.assert_close(standardised.mean(0), torch.zeros(70), atol=1e-4, rtol=0)
    assert standardised[:, 8].std() == pytest.approx(1)
    assert objective.std[7] == pytest.approx(0.02)


@pytest.mark.slow
def test_a_run_that_is_killed_ends_as_if_undisturbed(encoder, prepared_faces, tmp_path):
    program = start("train_image_encoder", arguments(prepared_faces, tmp_path))
    wait_until(lambda: saved_steps(tmp_path / "states"), program)
    program.kill()
    program.communicate()
    finish(start("train_image_encoder", arguments(prepared_faces, tmp_path)))
    wanted = load_file(encoder / WEIGHTS)
    for name, tensor in load_file(tmp_path / WEIGHTS).items():
        assert torch.equal(tensor, wanted[name]), name
