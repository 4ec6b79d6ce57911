"""The autoencoder's script at toy size: both stages, killed runs, and several processes."""

from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from safetensors.torch import load_file

from faceswap_diffusion.metrics.lpips import LPIPS
from faceswap_diffusion.training.data.dataset import PreparedFaces
from faceswap_diffusion.training.data.windows import recolor
from faceswap_diffusion.training.engine.states import saved_steps
from faceswap_diffusion.training.objectives.losses import reconstruction_loss
from tests.metrics.test_lpips import weights
from tests.processes import finish, wait_until
from tests.tiny import tiny_autoencoder
from tests.train.scripts import load_script, run, start, start_two

WEIGHTS = "vae/diffusion_pytorch_model.safetensors"


training = load_script("train_autoencoder")


def arguments(prepared_faces: Path, output_dir: Path, *more: object) -> list[str]:
    given = [
        "--train_data_dir", prepared_faces, "--output_dir", output_dir, "--resolution", 64, "--crop_size", 32,
        "--block_out_channels", 8, 16, 16, "--train_batch_size", 4, "--num_validation", 2, "--max_train_steps", 4,
        "--checkpointing_steps", 1, "--latent_noise", 0.1, "--adversarial_weight", 0.1, *more,
    ]  # fmt: skip
    return [str(part) for part in given]


@pytest.fixture(scope="module")
def autoencoder(prepared_faces, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("autoencoder")
    run(training, arguments(prepared_faces, output))
    return output


@pytest.fixture(scope="module")
def second_stage(prepared_faces, autoencoder, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("second_stage")
    run(training,
        arguments(
            prepared_faces, output, "--pretrained_model_name_or_path", autoencoder / "vae", "--decoder_only",
            "--max_train_steps", 2,
        )
    )  # fmt: skip
    return output


def test_the_autoencoder_knows_the_spread_of_its_latents(autoencoder, prepared_faces):
    vae = AutoencoderKL.from_pretrained(autoencoder / "vae")
    images = torch.stack([face.pixels for face in PreparedFaces([prepared_faces], 64)])
    latents = vae.encode(images.float() / 127.5 - 1).latent_dist.sample(torch.Generator().manual_seed(1))
    assert 0.8 < (latents * vae.config["scaling_factor"]).std() < 1.25


def test_all_that_should_learn_does(autoencoder, prepared_faces, tmp_path):
    run(training, arguments(prepared_faces, tmp_path, "--max_train_steps", 1))
    before, after = load_file(tmp_path / WEIGHTS), load_file(autoencoder / WEIGHTS)
    assert [name for name, tensor in before.items() if torch.equal(tensor, after[name])] == []
    judge = [
        load_file(folder / "states" / f"step_{step:06}" / "model.safetensors")
        for folder, step in ((tmp_path, 1), (autoencoder, 4))
    ]
    judged = [name for name in judge[0] if name.startswith("discriminator.") and "original" in name]
    assert len(judged) >= 3
    assert [name for name in judged if torch.equal(judge[0][name], judge[1][name])] == []


def test_the_second_stage_sharpens_the_decoder_and_leaves_the_latents_alone(autoencoder, second_stage):
    before, after = (AutoencoderKL.from_pretrained(folder / "vae") for folder in (autoencoder, second_stage))
    assert before.config["scaling_factor"] == after.config["scaling_factor"]
    after_state = after.state_dict()
    for name, value in before.named_parameters():
        decodes = name.startswith(("decoder.", "post_quant_conv."))
        assert torch.equal(value, after_state[name]) != decodes, name


def test_the_decoder_of_another_kind_of_autoencoder_is_sharpened_too(prepared_faces, tmp_path):
    before = tiny_autoencoder("AutoencoderTiny")
    before.save_pretrained(tmp_path / "tiny")
    more = ["--pretrained_model_name_or_path", tmp_path / "tiny", "--decoder_only", "--max_train_steps", 2]
    run(training, arguments(prepared_faces, tmp_path / "run", *more))
    after = AutoencoderTiny.from_pretrained(tmp_path / "run" / "vae").state_dict()
    for name, value in before.named_parameters():
        assert torch.equal(value, after[name]) != name.startswith("decoder."), name


def test_a_finished_run_is_left_as_it_is(autoencoder, prepared_faces):
    before = (autoencoder / WEIGHTS).stat()
    run(training, arguments(prepared_faces, autoencoder))
    assert (autoencoder / WEIGHTS).stat() == before
    assert saved_steps(autoencoder / "states") == [4]


def test_a_run_is_validated_once_at_its_end(prepared_faces, tmp_path, capsys):
    run(training, arguments(prepared_faces, tmp_path, "--max_train_steps", 2, "--checkpointing_steps", 2))
    told = [line for line in capsys.readouterr().out.splitlines() if "held out: PSNR" in line]
    assert len(told) == 1
    assert told[0].startswith("step 2: loss ")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--crop_size", 128), "windows of 128 pixels are larger than crops of 64: lower --crop_size"),
        (("--num_validation", 8), "8 faces are too few to hold out 8"),
        (("--resolution", 128), "holds crops of 64 pixels, 128 are wanted"),
    ],
)
def test_what_cannot_work_is_told_in_a_line(prepared_faces, tmp_path, capsys, more, told):
    with pytest.raises(SystemExit) as stopped:
        run(training, arguments(prepared_faces, tmp_path, *more))
    assert stopped.value.code == 2
    assert told in capsys.readouterr().err


def test_a_run_does_not_go_on_with_other_settings(autoencoder, prepared_faces, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(training, arguments(prepared_faces, autoencoder, "--latent_noise", 0.2, "--crop_size", 16))
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "crop_size was 32 and is 16, latent_noise was 0.1 and is 0.2" in error


def test_windows_and_their_colours_depend_on_the_number_alone(prepared_faces):
    faces = PreparedFaces([prepared_faces], 64)
    samples = training.Windows(faces, [1, 2, 5], 32, 0.5, seed=0)
    drawn = [samples[index]["images"] for index in range(30)]
    assert all(image.shape == (3, 32, 32) and image.min() >= -1 and image.max() <= 1 for image in drawn)
    assert torch.equal(samples[7]["images"], drawn[7])
    assert len({image.sum().item() for image in drawn}) == 30
    shown = [faces[row].pixels.float() / 127.5 - 1 for row in (1, 2, 5)]
    plain = [image for image in drawn if any(is_part(image, face) for face in shown)]
    assert 6 < len(plain) < 24  # the others are recoloured


def is_part(image: torch.Tensor, face: torch.Tensor) -> bool:
    """Whether an image is a window of a face or of its mirror image."""
    windows = torch.cat([view.unfold(1, 32, 1).unfold(2, 32, 1) for view in (face, face.flip(-1))], 1)
    return bool((windows == image[:, None, None]).all(-1).all(-1).all(0).any())


def test_mixed_channels_keep_grey_grey():
    image = torch.rand(1, 4, 4).expand(3, 4, 4) * 0.2
    mixed = recolor(image, torch.Generator().manual_seed(0))
    for channel in mixed:  # a mixing row that sums to 1, or less where it was cut off
        ratio = channel / image[0]
        torch.testing.assert_close(ratio, ratio[0, 0].expand(4, 4))
    assert not torch.equal(mixed, image)


def small_autoencoder() -> AutoencoderKL:
    return training.build_autoencoder(training.AutoencoderConfig(block_out_channels=(8, 8)), 128)


def test_the_objective_is_the_sum_of_its_parts():
    """Without latent noise and discriminator; the posterior is drawn with the samples' numbers."""
    torch.manual_seed(0)
    vae = small_autoencoder()
    config = training.ReconstructionConfig(kl_weight=0.5, gradient_weight=3.0, color_weight=2.0)
    objective = training.AutoencoderObjective(config, vae)
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    loss = objective({"images": images, "indices": torch.tensor([4, 9])}, 0)["loss"]
    reconstruction, kl = objective.reconstruct(images, torch.tensor([4, 9]))
    torch.testing.assert_close(loss, reconstruction_loss(reconstruction, images, 3.0, 2.0) + 0.5 * kl)
    posterior = vae.encode(images).latent_dist
    torch.testing.assert_close(kl, posterior.kl().mean())
    alone, _ = objective.reconstruct(images[1:], torch.tensor([9]))
    torch.testing.assert_close(alone[0], reconstruction[1])
    assert (objective.reconstruct(images, torch.tensor([4, 8]))[0][1] - reconstruction[1]).abs().max() > 1e-4


def test_the_perceptual_term_is_lpips_of_the_reconstruction():
    torch.manual_seed(0)
    objective = training.AutoencoderObjective(training.ReconstructionConfig(), small_autoencoder())
    images, numbers = torch.rand(2, 3, 32, 32) * 2 - 1, torch.tensor([4, 9])
    batch = {"images": images, "indices": numbers}
    without = objective(batch, 0)["loss"]
    lpips = LPIPS(weights())
    objective.lpips, objective.config = (lpips,), training.ReconstructionConfig(lpips_weight=0.7)
    seen = objective.lpips_windows(torch.stack([objective.reconstruct(images, numbers)[0], images], 1), numbers)
    distance = lpips.distance(seen[:, 0], seen[:, 1]).mean()
    assert distance > 0
    torch.testing.assert_close(objective(batch, 0)["loss"], without + 0.7 * distance)


def test_the_perceptual_term_looks_at_the_same_random_window_of_both():
    objective = training.AutoencoderObjective(training.ReconstructionConfig(lpips_crop_size=16), small_autoencoder())
    images = torch.rand(2, 3, 32, 32)
    windows = objective.lpips_windows(torch.stack([images, -images], 1), torch.tensor([4, 9]))
    assert windows.shape == (2, 2, 3, 16, 16)
    torch.testing.assert_close(windows[:, 0], -windows[:, 1])
    again = objective.lpips_windows(torch.stack([images, -images], 1)[1:], torch.tensor([9]))
    torch.testing.assert_close(again[0], windows[1])


def test_the_perceptual_term_needs_its_network(prepared_faces, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FACESWAP_DIFFUSION_MODELS", str(tmp_path / "models"))
    with pytest.raises(SystemExit) as stopped:
        run(training, arguments(prepared_faces, tmp_path / "run", "--lpips_weight", 1))
    assert stopped.value.code == 2
    assert "faceswap-diffusion fetch lpips_vgg16" in capsys.readouterr().err


@pytest.mark.slow
def test_gradients_of_two_processes_are_averaged(autoencoder, prepared_faces, tmp_path):
    """Two processes end where one with the same global batch does: through the unwrapped model they would part."""
    finish(*start_two("train_autoencoder", arguments(prepared_faces, tmp_path, "--train_batch_size", 2)))
    wanted = load_file(autoencoder / WEIGHTS)
    for name, tensor in load_file(tmp_path / WEIGHTS).items():
        # Weights move by up to 1e-4. A bias before a group norm has next to no gradient; Adam enlarges what it has.
        atol = 3e-5 if name.endswith(".bias") else 1e-6
        torch.testing.assert_close(tensor, wanted[name], rtol=0, atol=atol, msg=name)


@pytest.mark.slow
def test_a_run_that_is_killed_ends_as_if_undisturbed(autoencoder, prepared_faces, tmp_path):
    for _ in range(2):
        steps = saved_steps(tmp_path / "states")
        program = start("train_autoencoder", arguments(prepared_faces, tmp_path))
        wait_until(lambda before=steps: saved_steps(tmp_path / "states") != before, program)
        program.kill()
        program.communicate()
    finish(start("train_autoencoder", arguments(prepared_faces, tmp_path)))
    assert (tmp_path / WEIGHTS).read_bytes() == (autoencoder / WEIGHTS).read_bytes()
    assert (tmp_path / "vae" / "config.json").read_text() == (autoencoder / "vae" / "config.json").read_text()
