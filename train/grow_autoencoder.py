# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOperatorIssue=false
# diffusers annotates its models and their outputs too loosely for the checker, jsonargparse makes its kinds of numbers
# at run time.
"""Grows an autoencoder to crops of twice the side. Its latents stay what they were: the first of more channels.

    accelerate launch train/grow_autoencoder.py --train_data_dir data/faces_256 --output_dir runs/vae_256_encoder \\
        --pretrained_model_name_or_path runs/vae/vae --resolution 256 --latent_channels 8

This teaches the encoder alone, which knows what it is to say (see `LatentTargets`) and needs no decoder for it. Then

    accelerate launch train/train_autoencoder.py --train_data_dir data/faces_256 --output_dir runs/vae_256 \\
        --pretrained_model_name_or_path runs/vae_256_encoder/vae --decoder_only --latent_noise 0.1 \\
        --resolution 256 --crop_size 128

teaches the decoder. Stop it at any time: run the same command again and it goes on from the last saved state.
"""

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveInt
from torch import nn
from tqdm.auto import tqdm

from faceswap_diffusion.pipelines.latents import load_autoencoder
from faceswap_diffusion.training.arguments import add_small_run_arguments, build_parser
from faceswap_diffusion.training.data.dataset import PreparedFaces
from faceswap_diffusion.training.data.windows import Windows
from faceswap_diffusion.training.engine.small_run import hold_out, run_small_script, take_steps
from faceswap_diffusion.training.models.autoencoder_growth import grow_autoencoder
from faceswap_diffusion.training.models.latent_targets import LatentTargets, fit_new_channels
from faceswap_diffusion.training.objectives.reconstruction import load_crops

STAYING = (
    "num_validation", "num_fitted", "crop_size", "recolor_probability", "pretrained_model_name_or_path",
    "latent_channels", "distill_weight",
)  # fmt: skip


def growth_parser() -> ArgumentParser:
    parser = build_parser("grow_autoencoder.py", __doc__)
    data = parser.add_argument_group("data")
    data.add_argument("--train_data_dir", type=str, nargs="+", required=True, help="folders of prepare_faces.py")
    data.add_argument("--resolution", type=PositiveInt, default=256, help="side of the crops in pixels")
    data.add_argument("--crop_size", type=PositiveInt, default=128, help="side of the random windows")
    data.add_argument(
        "--recolor_probability",
        type=ClosedUnitInterval,
        default=0.15,
        help="share of windows whose channels are mixed",
    )
    data.add_argument("--num_validation", type=PositiveInt, default=32, help="faces held out, every n-th")
    data.add_argument("--num_fitted", type=PositiveInt, default=32, help="faces that show what is missing")
    model = parser.add_argument_group("model")
    model.add_argument(
        "--pretrained_model_name_or_path", type=str, required=True, help="autoencoder of half the resolution"
    )
    model.add_argument("--latent_channels", type=PositiveInt, default=8)
    model.add_argument("--distill_weight", type=NonNegativeFloat, default=3.0, help="of the old channels")
    add_small_run_arguments(parser, batch_size=3, num_steps=1600, learning_rate=1.2e-3)
    return parser


class GrowthObjective(nn.Module):
    """The squared error of an encoder's scaled latents."""

    def __init__(self, args: Namespace, vae: AutoencoderKL, targets: LatentTargets):
        super().__init__()
        self.args, self.vae = args, vae
        self.targets = (targets,)  # in a tuple: they are neither trained nor saved
        vae.decoder.requires_grad_(False)
        vae.get_submodule("post_quant_conv").requires_grad_(False)

    def forward(self, images: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        wanted = self.targets[0].to(images.device)(images)
        errors = (self.vae.encode(images).latent_dist.mean - wanted) * self.vae.config["scaling_factor"]
        was = self.targets[0].old.config["latent_channels"]
        old, new = (part.square().mean() for part in (errors[:, :was], errors[:, was:]))
        return self.args.distill_weight * old + new


@torch.no_grad()
def unexplained(vae: AutoencoderKL, targets: LatentTargets, images: torch.Tensor) -> list[float]:
    """Squared error of each channel over the variance of what it is to be."""
    pairs = [(vae.encode(image).latent_dist.mean, targets(image)) for image in images.to(vae.device).split(1)]
    got, wanted = (torch.cat(part) for part in zip(*pairs, strict=True))
    return ((got - wanted).square().mean((0, 2, 3)) / wanted.var((0, 2, 3))).tolist()


def train(args: Namespace, accelerator: Accelerator) -> None:
    faces = PreparedFaces(args.train_data_dir, args.resolution)
    rows, held_out_rows = hold_out(len(faces), args.num_validation)
    held_out_images = load_crops(faces, held_out_rows)
    fitted_images = load_crops(faces, rows[:: max(1, len(rows) // args.num_fitted)])
    old = load_autoencoder(args.pretrained_model_name_or_path)
    vae = grow_autoencoder(old, args.latent_channels)
    targets = LatentTargets(old, args.latent_channels - old.config["latent_channels"], fitted_images)
    fit_new_channels(vae, targets, fitted_images)
    objective = GrowthObjective(args, vae, targets)

    def show(step: int, loss: float) -> None:
        shares = " ".join(f"{share:.3f}" for share in unexplained(vae, targets, held_out_images))
        tqdm.write(f"step {step}: loss {loss:.4f}, held out: unexplained share of each channel {shares}")
        vae.save_pretrained(args.output_dir / "vae")

    trained = [parameter for parameter in vae.parameters() if parameter.requires_grad]
    groups = [{"params": trained, "lr": args.learning_rate, "betas": (0.9, 0.99)}]
    samples = Windows(faces, rows, args.crop_size, args.recolor_probability, args.seed)
    staying = {"faces": faces.fingerprint, **{name: getattr(args, name) for name in STAYING}}
    take_steps(args, accelerator, objective, groups, 50, 0.0, samples, staying, show)


def main(arguments: Sequence[str] | None = None) -> None:
    run_small_script(growth_parser(), arguments, train)


if __name__ == "__main__":
    main()
