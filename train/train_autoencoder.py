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

A finished autoencoder grows to crops of twice the side; its latents stay what they were, the first of more channels:

    accelerate launch train/train_autoencoder.py --train_data_dir data/faces_256 --output_dir runs/vae_256 \\
        --grow_from runs/vae/vae --resolution 256 --crop_size 128 --latent_channels 8 --latent_noise 0.1

The faces are those of train/prepare_faces.py. Stop it at any time: run the same command again and it goes on from the
last saved state, to the same end.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveInt
from torch import nn
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from faceswap_diffusion.evaluation.lpips import LPIPS
from faceswap_diffusion.training.arguments import add_small_run_arguments, build_parser
from faceswap_diffusion.training.autoencoder_growth import SketchDecoder, grow_autoencoder, spread_loss
from faceswap_diffusion.training.batches import flip
from faceswap_diffusion.training.dataset import PreparedFaces
from faceswap_diffusion.training.discriminator import PatchDiscriminator, discriminator_loss, painter_loss
from faceswap_diffusion.training.losses import reconstruction_loss
from faceswap_diffusion.training.randomness import choose, generator_for, row_of_sample, uniform
from faceswap_diffusion.training.reconstruction import load_crops, reconstruct
from faceswap_diffusion.training.small_run import hold_out, run_small_script, take_steps

STAYING = (
    "num_validation", "crop_size", "recolor_probability", "encoder_only", "decoder_only", "kl_weight", "gradient_weight",
    "color_weight", "latent_noise", "distill_weight", "spread_weight", "lpips_weight", "lpips_crop_size",
    "adversarial_weight",
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
    model.add_argument("--grow_from", type=str, help="one of half the resolution to grow: folder or Hub id")
    model.add_argument("--decoder_only", action="store_true", help="leave the encoder, and with it the latents, alone")
    model.add_argument("--encoder_only", action="store_true", help="teach the encoder, with a small decoder in between")
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
        "--distill_weight", type=NonNegativeFloat, default=1.0, help="of what happens to the old latents"
    )
    objective.add_argument(
        "--spread_weight", type=NonNegativeFloat, default=0.1, help="of new channels' distance from unit spread"
    )
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


def start_autoencoder(args: Namespace, grown_from: AutoencoderKL | None) -> AutoencoderKL:
    """The autoencoder to go on from where one is given, else a grown one, else a new one."""
    if args.pretrained_model_name_or_path:
        return AutoencoderKL.from_pretrained(args.pretrained_model_name_or_path)
    return grow_autoencoder(grown_from, args.latent_channels) if grown_from else build_autoencoder(args)


def random_window(image: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
    """A random square of an image (..., H, W), mirrored half of the time."""
    top, left = (choose(side - size + 1, generator) for side in image.shape[-2:])
    return flip(image[..., top : top + size, left : left + size], uniform(generator) < 0.5)


def recolor(image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mixes the colour channels of an image (3, H, W) in [-1, 1] at random.

    Faces have few colours, and an encoder that sees nothing else finds no room for the others.
    """
    mixing = torch.eye(3) + 0.5 * torch.randn(3, 3, generator=generator)
    mixing = mixing / mixing.sum(dim=1, keepdim=True).abs().clamp(min=0.5)
    return torch.einsum("ij,jhw->ihw", mixing, image).clamp(-1, 1)


class Windows(Dataset):
    """Windows of faces: sample number k of a run."""

    def __init__(self, faces: PreparedFaces, rows: list[int], size: int, recolor_probability: float, seed: int):
        self.faces, self.rows, self.size, self.seed = faces, rows, size, seed
        self.recolor_probability = recolor_probability

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """A window (3, size, size), RGB in [-1, 1], and its number."""
        generator = generator_for(self.seed, "sample", index)
        face = self.faces[self.rows[row_of_sample(self.seed, index, len(self.rows))]]
        window = random_window(face.pixels.float() / 127.5 - 1, self.size, generator)
        if uniform(generator) < self.recolor_probability:
            window = recolor(window, generator)
        return {"images": window, "indices": torch.tensor(index)}


class AutoencoderObjective(nn.Module):
    """The losses of autoencoder and discriminator in one forward pass."""

    def __init__(self, args: Namespace, vae: AutoencoderKL, grown_from: AutoencoderKL | None = None):
        super().__init__()
        self.args, self.vae = args, vae
        self.grown_from = (grown_from,) if grown_from else ()  # in a tuple: it is neither trained nor saved
        self.noise = args.latent_noise / vae.config["scaling_factor"]
        self.discriminator = PatchDiscriminator() if args.adversarial_weight else None
        self.lpips = (LPIPS(),) if args.lpips_weight else ()  # likewise
        self.sketch = None
        if args.encoder_only:
            self.sketch = SketchDecoder(vae.config["latent_channels"], 2 ** (len(vae.config["block_out_channels"]) - 1))
            vae.decoder.requires_grad_(False)
            vae.post_quant_conv.requires_grad_(False)
        if args.decoder_only:
            vae.encoder.requires_grad_(False)
            vae.quant_conv.requires_grad_(False)

    def reconstruct(
        self, images: torch.Tensor, indices: torch.Tensor
    ) -> tuple[torch.Tensor, DiagonalGaussianDistribution]:
        """Reconstruction through noisy latents, and their posterior. What is drawn depends on the samples' numbers."""
        posterior = self.vae.encode(images).latent_dist
        generators = [generator_for(self.args.seed, "noise", index) for index in indices.tolist()]
        shape = (2, *posterior.mean.shape[1:])
        strength = self.noise * torch.tensor([uniform(generator) for generator in generators])[:, None, None, None]
        sampling, noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators], 1)
        noisy = posterior.mean + posterior.std * sampling.to(images) + (strength * noise).to(images)
        return self.decode(noisy).float(), posterior

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.sketch(latents) if self.sketch is not None else self.vae.decode(latents).sample

    def forward(self, images: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        args = self.args
        reconstruction, posterior = self.reconstruct(images, indices)
        loss = reconstruction_loss(reconstruction, images, args.gradient_weight, args.color_weight)
        if not args.decoder_only:
            loss = loss + args.kl_weight * posterior.kl().mean()
        for grown_from in self.grown_from:
            loss = loss + self.growth_loss(grown_from.to(images.device), posterior.mean, images)
        for lpips in self.lpips:
            views = self.lpips_windows(torch.stack([reconstruction, images], 1), indices)
            distances = lpips.to(images.device).distance(*views.unbind(1))
            loss = loss + args.lpips_weight * distances.mean()
        if self.discriminator is not None:
            loss = loss + self.adversarial_loss(reconstruction, images)
        return loss

    def growth_loss(self, grown_from: AutoencoderKL, latents: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Old channels stay as they were at half the resolution, new ones get a spread of 1."""
        scale = self.vae.config["scaling_factor"]
        with torch.no_grad():
            wanted = grown_from.encode(F.avg_pool2d(images, 2)).latent_dist.mean
        old, new = latents[:, : wanted.shape[1]], latents[:, wanted.shape[1] :]
        spread = spread_loss(scale * new) if new.shape[1] else 0.0
        return self.args.distill_weight * F.mse_loss(scale * old, scale * wanted) + self.args.spread_weight * spread

    def lpips_windows(self, pairs: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        """The same window of both pictures of a pair (B, 2, 3, H, W), drawn with the samples' numbers."""
        size = min(self.args.lpips_crop_size, pairs.shape[-1])
        return torch.stack([
            random_window(pair, size, generator_for(self.args.seed, "lpips", index))
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
        if self.sketch is not None:
            groups.append({"params": list(self.sketch.parameters()), "betas": (0.9, 0.99)})
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
    grown_from = AutoencoderKL.from_pretrained(args.grow_from).requires_grad_(False) if args.grow_from else None
    vae = start_autoencoder(args, grown_from)
    objective = AutoencoderObjective(args, vae, grown_from)

    def show(step: int, loss: float) -> None:
        held_out = reconstruct(vae, held_out_images, decode=objective.decode)
        tqdm.write(
            f"step {step}: loss {loss:.4f}, held out: PSNR {held_out.psnr:.2f} dB, gradient energy "
            f"{held_out.gradient_energy:.2f}, latent std {held_out.latent_std:.3f}, of channels "
            + " ".join(f"{std:.2f}" for std in held_out.channel_std)
        )
        if not args.decoder_only and not args.grow_from:  # latents that stay are scaled as before
            vae.register_to_config(scaling_factor=1 / held_out.latent_std)
        vae.save_pretrained(args.output_dir / "vae")

    samples = Windows(faces, rows, args.crop_size, args.recolor_probability, args.seed)
    staying = {"faces": faces.fingerprint, **{name: getattr(args, name) for name in STAYING}}
    take_steps(args, accelerator, objective, objective.parameter_groups(), 100, 0.0, samples, staying, show)


def main(arguments: Sequence[str] | None = None) -> None:
    run_small_script(autoencoder_parser(), arguments, train)


if __name__ == "__main__":
    main()
