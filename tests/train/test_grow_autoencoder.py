"""The script that grows an autoencoder, at toy size."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from faceswap_diffusion.training.data.dataset import PreparedFaces
from faceswap_diffusion.training.models.autoencoder_growth import grow_autoencoder
from faceswap_diffusion.training.models.latent_targets import LatentTargets
from faceswap_diffusion.training.objectives.reconstruction import load_crops
from tests.tiny import small_vae
from tests.train.scripts import load_script, run

training = load_script("grow_autoencoder")


@cache
def old_folder() -> Path:
    folder = Path(mkdtemp())
    small_vae().save_pretrained(folder)
    return folder


def arguments(prepared_faces: Path, output_dir: Path, *more: object) -> list[str]:
    given = [
        "--train_data_dir", prepared_faces, "--output_dir", output_dir, "--resolution", 64, "--crop_size", 64,
        "--pretrained_model_name_or_path", old_folder(), "--latent_channels", 6,
        "--num_validation", 2, "--num_fitted", 3, "--max_train_steps", 12, "--validation_steps", 6, *more,
    ]  # fmt: skip
    return [str(part) for part in given]


def shares(line: str) -> list[float]:
    return [float(share) for share in line.rsplit("channel ")[1].split()]


def test_an_encoder_learns_its_latents_and_the_decoder_waits(prepared_faces, tmp_path, capsys):
    run(training, arguments(prepared_faces, tmp_path))
    told = [line for line in capsys.readouterr().out.splitlines() if "unexplained share" in line]
    assert [line.split(":")[0] for line in told] == ["step 6", "step 12"]
    first, last = (shares(line) for line in told)
    assert len(last) == 6
    assert max(last[:4]) < 0.35  # nearly as before
    assert sum(last[4:]) < sum(first[4:])
    old, new = (AutoencoderKL.from_pretrained(path) for path in (old_folder(), tmp_path / "vae"))
    assert new.config["scaling_factor"] == old.config["scaling_factor"]
    untrained = grow_autoencoder(old, 6).state_dict()
    for name, value in new.state_dict().items():
        if name.startswith("decoder.mid_block."):
            assert torch.equal(value, untrained[name]), name
    assert not torch.equal(new.encoder.conv_in.weight, untrained["encoder.conv_in.weight"])


def test_the_loss_weighs_old_channels(prepared_faces):
    old = AutoencoderKL.from_pretrained(old_folder())
    images = load_crops(PreparedFaces([prepared_faces], 64), range(2))
    vae, targets = grow_autoencoder(old, 6), LatentTargets(old, 2, images)
    loss = training.GrowthObjective(5.0, vae, targets)({"images": images}, 0)["loss"]
    errors = (vae.encode(images).latent_dist.mean - targets(images)) * vae.config["scaling_factor"]
    torch.testing.assert_close(loss, 5 * errors[:, :4].square().mean() + errors[:, 4:].square().mean())


def test_what_cannot_grow_is_told_in_a_line(prepared_faces, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(training, arguments(prepared_faces, tmp_path, "--latent_channels", 3))
    assert stopped.value.code == 2
    assert "got 3 latent channels, the old autoencoder has 4: raise --latent_channels" in capsys.readouterr().err
