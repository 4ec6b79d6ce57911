# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOptionalMemberAccess=false
# pyright: reportOperatorIssue=false, reportOptionalCall=false
# diffusers annotates its models and their outputs too loosely for the checker, jsonargparse makes its kinds of numbers
# at run time.
"""Trains the small `AutoencoderKL` whose latents the swap model paints in.

    accelerate launch train/train_autoencoder.py --train_data_dir data/faces --output_dir runs/vae

The second stage leaves the latents as they are, so that a swap model trained on them stays valid, and teaches the
decoder alone, against a discriminator, to paint sharply what latents with small errors stand for:

    accelerate launch train/train_autoencoder.py --train_data_dir data/faces --output_dir runs/vae_sharp \\
        --pretrained_model_name_or_path runs/vae/vae --decoder_only --latent_noise 0.15 --adversarial_weight 0.1

So learns the decoder of an autoencoder that train/grow_autoencoder.py has grown, too.

The faces are those of train/prepare_faces.py. Stop it at any time: run the same command again and it goes on from the
last saved state, to the same end.
"""

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveInt
from torch import nn
from tqdm.auto import tqdm

from faceswap_diffusion.metrics.lpips import LPIPS
from faceswap_diffusion.pipelines.latents import (
    Autoencoder,
    freeze_encoder,
    load_autoencoder,
    posterior,
    scale_and_shift,
)
from faceswap_diffusion.training.arguments import add_small_run_arguments, build_parser
from faceswap_diffusion.training.data.dataset import PreparedFaces
from faceswap_diffusion.training.data.windows import Windows, random_window
from faceswap_diffusion.training.engine.randomness import generator_for, uniform
from faceswap_diffusion.training.engine.small_run import hold_out, run_small_script, take_steps
from faceswap_diffusion.training.objectives.discriminator import PatchDiscriminator, discriminator_loss, painter_loss
from faceswap_diffusion.training.objectives.losses import reconstruction_loss
from faceswap_diffusion.training.objectives.reconstruction import load_crops, reconstruct

STAYING = (
    "num_validation", "crop_size", "recolor_probability", "decoder_only", "kl_weight", "gradient_weight",
    "color_weight", "latent_noise", "lpips_weight", "lpips_crop_size", "adversarial_weight",
)  # fmt: skip


def autoencoder_parser() -> ArgumentParser:
    parser = build_parser("train_autoencoder.py", __doc__)
    data = parser.add_argument_group("data")
    data.add_argument("--train_data_dir", type=str, nargs="+", required=True, help="folders of prepare_faces.py")
    data.add_argument("--resolution", type=PositiveInt, default=128, help="side of the crops in pixels")
    data.add_argument(
        "--crop_size", type=PositiveInt, default=64, help="train on random windows: more steps for the same pixels"
    )
    data.add_argument(
        "--recolor_probability", type=ClosedUnitInterval, default=0.5, help="share of windows whose channels are mixed"
    )
    data.add_argument("--num_validation", type=PositiveInt, default=64, help="faces held out, every n-th")
    model = parser.add_argument_group("model")
    model.add_argument("--pretrained_model_name_or_path", type=str, help="autoencoder to go on from: folder or Hub id")
    model.add_argument("--decoder_only", action="store_true", help="leave the encoder, and with it the latents, alone")
    model.add_argument("--block_out_channels", type=PositiveInt, nargs="+", default=[16, 32, 64])
    model.add_argument("--latent_channels", type=PositiveInt, default=4)
    objective = parser.add_argument_group("objective")
    objective.add_argument(
        "--kl_weight", type=NonNegativeFloat, default=1e-6, help="weight of the KL term: Stable Diffusion's"
    )
    objective.add_argument("--gradient_weight", type=NonNegativeFloat, default=1.0, help="of the L1 of gradients")
    objective.add_argument("--color_weight", type=NonNegativeFloat, default=2.0, help="of the L1 of 8 x 8 means")
    objective.add_argument("--latent_noise", type=NonNegativeFloat, default=0.0, help="share of the latents' spread")
    objective.add_argument(
        "--lpips_weight", type=NonNegativeFloat, default=0.0, help="needs `faceswap-diffusion fetch lpips_vgg16`"
    )
    objective.add_argument("--lpips_crop_size", type=PositiveInt, default=64, help="of random windows for LPIPS")
    objective.add_argument("--adversarial_weight", type=NonNegativeFloat, default=0.0, help="of the discriminator")
    add_small_run_arguments(parser, batch_size=8, num_steps=4000, learning_rate=1.5e-3)
    return parser


def build_autoencoder(args: Namespace) -> AutoencoderKL:
    num_levels = len(args.block_out_channels)
    return AutoencoderKL(
        block_out_channels=tuple(args.block_out_channels),
        down_block_types=("DownEncoderBlock2D",) * num_levels,
        up_block_types=("UpDecoderBlock2D",) * num_levels,
        latent_channels=args.latent_channels,
        layers_per_block=1,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=args.resolution,
    )


class AutoencoderObjective(nn.Module):
    """The losses of autoencoder and discriminator in one forward pass."""

    def __init__(self, args: Namespace, vae: Autoencoder):
        super().__init__()
        self.args, self.vae = args, vae
        self.noise = args.latent_noise / scale_and_shift(vae)[0]
        self.discriminator = PatchDiscriminator() if args.adversarial_weight else None
        self.lpips = (LPIPS(),) if args.lpips_weight else ()  # in a tuple: it is neither trained nor saved
        if args.decoder_only:
            freeze_encoder(vae)

    def reconstruct(self, images: torch.Tensor, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Reconstruction through noisy latents, and the KL term. What is drawn depends on the samples' numbers."""
        latents = posterior(self.vae, images)
        generators = [generator_for(self.args.seed, "noise", index) for index in indices.tolist()]
        shape = (2, *latents.mean.shape[1:])
        strength = self.noise * torch.tensor([uniform(generator) for generator in generators])[:, None, None, None]
        sampling, noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators], 1)
        noisy = latents.mean + latents.std * sampling.to(images) + (strength * noise).to(images)
        return self.vae.decode(noisy).sample.float(), latents.kl().mean()

    def forward(self, images: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        args = self.args
        reconstruction, kl = self.reconstruct(images, indices)
        loss = reconstruction_loss(reconstruction, images, args.gradient_weight, args.color_weight)
        if not args.decoder_only:
            loss = loss + args.kl_weight * kl
        for lpips in self.lpips:
            seen = self.lpips_windows(torch.stack([reconstruction, images], 1), indices)
            distances = lpips.to(images.device).distance(seen[:, 0], seen[:, 1])
            loss = loss + args.lpips_weight * distances.mean()
        if self.discriminator is not None:
            loss = loss + self.adversarial_loss(reconstruction, images)
        return loss

    def lpips_windows(self, pairs: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        """The same window of both pictures of a pair (B, 2, 3, H, W), drawn with the samples' numbers."""
        size = min(self.args.lpips_crop_size, pairs.shape[-1])
        return torch.stack([
            random_window(pair, size, generator_for(self.args.seed, "window", index))
            for pair, index in zip(pairs, indices.tolist(), strict=True)
        ])  # fmt: skip

    def adversarial_loss(self, reconstruction: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """The autoencoder's and the discriminator's; the second says nothing about the autoencoder."""
        self.discriminator.requires_grad_(False)
        painted = painter_loss(self.discriminator(reconstruction)).mean()
        self.discriminator.requires_grad_(True)
        real, fake = self.discriminator(torch.cat([images, reconstruction.detach()])).chunk(2)
        return self.args.adversarial_weight * painted + discriminator_loss(real, fake).mean()

    def parameter_groups(self) -> list[dict]:
        trained = [parameter for parameter in self.vae.parameters() if parameter.requires_grad]
        groups = [{"params": trained, "lr": self.args.learning_rate, "betas": (0.9, 0.99)}]
        if self.discriminator is not None:
            groups.append({"params": list(self.discriminator.parameters()), "lr": 4e-4, "betas": (0.5, 0.99)})
        return groups


def train(args: Namespace, accelerator: Accelerator) -> None:
    if args.crop_size > args.resolution:
        raise ValueError(
            f"windows of {args.crop_size} pixels are larger than crops of {args.resolution}: lower --crop_size"
        )
    faces = PreparedFaces(args.train_data_dir, args.resolution)
    rows, held_out_rows = hold_out(len(faces), args.num_validation)
    held_out_images = load_crops(faces, held_out_rows)
    started_from = args.pretrained_model_name_or_path
    vae = load_autoencoder(started_from) if started_from else build_autoencoder(args)
    objective = AutoencoderObjective(args, vae)

    def show(step: int, loss: float) -> None:
        held_out = reconstruct(vae, held_out_images)
        tqdm.write(
            f"step {step}: loss {loss:.4f}, held out: PSNR {held_out.psnr:.2f} dB, gradient energy "
            f"{held_out.gradient_energy:.2f}, latent std {held_out.latent_std:.3f}"
        )
        if not args.decoder_only:
            vae.register_to_config(scaling_factor=1 / held_out.latent_std)
        vae.save_pretrained(args.output_dir / "vae")

    samples = Windows(faces, rows, args.crop_size, args.recolor_probability, args.seed)
    staying = {"faces": faces.fingerprint, **{name: getattr(args, name) for name in STAYING}}
    take_steps(args, accelerator, objective, objective.parameter_groups(), 100, 0.0, samples, staying, show)


def main(arguments: Sequence[str] | None = None) -> None:
    run_small_script(autoencoder_parser(), arguments, train)


if __name__ == "__main__":
    main()
