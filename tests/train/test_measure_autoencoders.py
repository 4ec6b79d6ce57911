"""The comparison of autoencoders, on two of toy size."""

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from faceswap_diffusion.metrics.lpips import LPIPS
from tests.metrics.test_lpips import weights
from tests.tiny import CROP_SIZE
from tests.train.scripts import load_script

measuring = load_script("measure_autoencoders")


def autoencoder(latent_channels: int) -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=latent_channels,
        norm_num_groups=4,
    )


def test_a_line_tells_size_and_quality(prepared_faces, tmp_path):
    crops = measuring.choose_crops(str(prepared_faces), CROP_SIZE, num_faces=3)
    assert crops.shape == (3, 3, CROP_SIZE, CROP_SIZE)
    lpips = LPIPS(weights())
    lines = {}
    for latent_channels in (2, 4):
        vae = autoencoder(latent_channels)
        vae.save_pretrained(tmp_path / str(latent_channels))
        line = measuring.table_line(tmp_path / str(latent_channels), crops, lpips, num_timings=1)
        lines[latent_channels] = dict(zip(measuring.HEADINGS, line, strict=True))
        with torch.inference_mode():
            decoded = vae.decode(vae.encode(crops).latent_dist.mode()).sample.clamp(-1, 1)
            told = float(lines[latent_channels]["LPIPS"])
            assert told == pytest.approx(lpips.distance(decoded, crops).mean().item(), abs=1e-4)
        assert lines[latent_channels]["MB"] == f"{2 * vae.num_parameters() / 1e6:.2f}"
    side = CROP_SIZE // 2
    assert [line["latents"] for line in lines.values()] == [f"2 x {side} x {side}", f"4 x {side} x {side}"]
    assert lines[2]["PSNR"] != lines[4]["PSNR"]


def test_faces_of_another_size_are_refused_in_a_line(prepared_faces, capsys):
    with pytest.raises(SystemExit) as stopped:
        measuring.main(["--data_dir", str(prepared_faces), "--resolution", "96", "none"])
    assert stopped.value.code == 2
    assert "96 are wanted" in capsys.readouterr().err
