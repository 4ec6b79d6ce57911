# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOptionalMemberAccess=false
# pyright: reportIndexIssue=false, reportOptionalCall=false
# diffusers annotates its models and their outputs too loosely for the checker.
"""Trains the small `AutoencoderKL` whose latents the swap model paints in.

    accelerate launch train/train_autoencoder.py --train_data_dir FACES --output_dir runs/vae

The second stage leaves the latents as they are, so that a swap model trained on them stays valid, and teaches the
decoder alone, against a discriminator, to paint sharply what latents with small errors stand for:

    accelerate launch train/train_autoencoder.py --train_data_dir FACES --output_dir runs/vae_sharp \\
        --pretrained_model_name_or_path runs/vae/vae --decoder_only --latent_noise 0.15 --adversarial_weight 0.1

Stop it at any time: run the same command again and it goes on from the last saved state.
"""

import argparse
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.optimization import get_scheduler
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from faceswap_diffusion.training.dataset import AlignedFaces, find_images
from faceswap_diffusion.training.discriminator import PatchDiscriminator, discriminator_loss, painter_loss
from faceswap_diffusion.training.losses import image_gradients, reconstruction_loss
from faceswap_diffusion.training.states import resume, save_state


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = parser.add_argument_group("data")
    data.add_argument("--train_data_dir", nargs="+", required=True, help="folders of FFHQ-aligned face crops")
    data.add_argument("--resolution", type=int, default=128, help="side of the crops in pixels")
    data.add_argument(
        "--crop_size", type=int, default=64, help="train on random crops: more steps for the same pixels"
    )
    data.add_argument("--recolor_probability", type=float, default=0.5, help="share of crops whose channels are mixed")
    data.add_argument("--num_validation", type=int, default=64, help="crops held out, every n-th of the sorted list")
    model = parser.add_argument_group("model")
    model.add_argument("--pretrained_model_name_or_path", type=Path, help="folder of an autoencoder to go on from")
    model.add_argument("--decoder_only", action="store_true", help="leave the encoder, and with it the latents, alone")
    model.add_argument("--block_out_channels", type=int, nargs="+", default=[16, 32, 64])
    model.add_argument("--latent_channels", type=int, default=4)
    objective = parser.add_argument_group("objective")
    objective.add_argument("--kl_weight", type=float, default=1e-6, help="weight of the KL term: Stable Diffusion's")
    objective.add_argument("--gradient_weight", type=float, default=1.0, help="weight of the L1 of image gradients")
    objective.add_argument("--color_weight", type=float, default=2.0, help="weight of the L1 of 8 x 8 means")
    objective.add_argument("--latent_noise", type=float, default=0.0, help="share of the latents' spread")
    objective.add_argument(
        "--adversarial_weight", type=float, default=0.0, help="weight of the discriminator's verdict"
    )
    run = parser.add_argument_group("run")
    run.add_argument("--output_dir", type=Path, required=True, help="receives states and the finished vae/")
    run.add_argument("--train_batch_size", type=int, default=8)
    run.add_argument("--max_train_steps", type=int, default=4000)
    run.add_argument("--learning_rate", type=float, default=1.5e-3)
    run.add_argument("--mixed_precision", choices=["no", "fp16", "bf16"], default="no")
    run.add_argument("--checkpointing_steps", type=int, default=250)
    run.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def build_autoencoder(args: argparse.Namespace) -> AutoencoderKL:
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


def random_crop(images: torch.Tensor, size: int) -> torch.Tensor:
    """One random square window of `images` (B, C, H, W), the same for the batch, mirrored half of the time."""
    top, left = (int(torch.randint(side - size + 1, ())) for side in images.shape[-2:])
    window = images[..., top : top + size, left : left + size]
    return window.flip(-1) if torch.rand(()) < 0.5 else window


def recolor(images: torch.Tensor, probability: float) -> torch.Tensor:
    """Mixes the colour channels of some of `images` (B, 3, H, W) at random.

    Faces have few colours, and an encoder that sees nothing else finds no room for the others.
    """
    mixing = torch.eye(3) + 0.5 * torch.randn(len(images), 3, 3)
    mixing = mixing / mixing.sum(dim=2, keepdim=True).abs().clamp(min=0.5)
    mixed = torch.einsum("bij,bjhw->bihw", mixing.to(images.device), images).clamp(-1, 1)
    return torch.where(torch.rand(len(images), 1, 1, 1, device=images.device) < probability, mixed, images)


def split_validation(paths: list[Path], num_validation: int) -> tuple[list[Path], list[Path]]:
    stride = len(paths) // num_validation
    held_out = set(paths[::stride][:num_validation])
    return [path for path in paths if path not in held_out], sorted(held_out)


@torch.no_grad()
def validate(vae: AutoencoderKL, images: torch.Tensor) -> tuple[float, float, float]:
    """Of held-out crops: PSNR in dB, gradient energy of the reconstruction over theirs, spread of the latents."""
    latents, errors, energies = [], [], []
    for batch in images.split(8):
        posterior = vae.encode(batch).latent_dist
        latents.append(posterior.sample())
        decoded = vae.decode(posterior.mode()).sample.clamp(-1, 1)
        errors.append((decoded - batch).square().mean(dim=(1, 2, 3)))
        got, wanted = (sum(part.square().mean() for part in image_gradients(view)) for view in (decoded, batch))
        energies.append(got / wanted)
    psnr = (10 * torch.log10(4 / torch.cat(errors))).mean().item()
    return psnr, torch.stack(energies).mean().item(), torch.cat(latents).std().item()


class Objective:
    """The losses of a batch, for the autoencoder and for the discriminator."""

    def __init__(self, args: argparse.Namespace, vae: AutoencoderKL, discriminator: PatchDiscriminator):
        self.args, self.vae, self.discriminator = args, vae, discriminator
        self.noise = args.latent_noise / vae.config["scaling_factor"]

    def reconstruct(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Reconstruction through noisy latents, and the KL term."""
        with torch.set_grad_enabled(not self.args.decoder_only):
            posterior = self.vae.encode(images).latent_dist
            latents = posterior.sample()
        noisy = latents + self.noise * torch.rand(len(latents), 1, 1, 1) * torch.randn_like(latents)
        return self.vae.decode(noisy).sample, posterior.kl().mean()

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The autoencoder's loss and the discriminator's; the second says nothing about the autoencoder."""
        args = self.args
        reconstruction, kl = self.reconstruct(images)
        loss = reconstruction_loss(reconstruction, images, args.gradient_weight, args.color_weight)
        if not args.decoder_only:
            loss = loss + args.kl_weight * kl
        if not args.adversarial_weight:
            return loss, loss.new_zeros(())
        self.discriminator.requires_grad_(False)
        loss = loss + args.adversarial_weight * painter_loss(self.discriminator(reconstruction)).mean()
        self.discriminator.requires_grad_(True)
        verdicts = self.discriminator(images), self.discriminator(reconstruction.detach())
        return loss, discriminator_loss(*verdicts).mean()


def main() -> None:
    args = parse_args()
    accelerator = Accelerator(mixed_precision=args.mixed_precision)
    set_seed(args.seed)
    train_paths, validation_paths = split_validation(find_images(args.train_data_dir), args.num_validation)
    dataset = AlignedFaces(train_paths, args.resolution)
    validation = AlignedFaces(validation_paths, args.resolution)
    validation_images = torch.stack([validation[index] for index in range(len(validation))])

    started_from = args.pretrained_model_name_or_path
    vae = AutoencoderKL.from_pretrained(started_from) if started_from else build_autoencoder(args)
    if args.decoder_only:
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    discriminator = PatchDiscriminator()
    trained = [parameter for parameter in vae.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=args.learning_rate, weight_decay=0.0, betas=(0.9, 0.99))
    judge_optimizer = torch.optim.AdamW(discriminator.parameters(), lr=4e-4, weight_decay=0.0, betas=(0.5, 0.99))
    lr_scheduler = get_scheduler("cosine", optimizer, num_warmup_steps=100, num_training_steps=args.max_train_steps)
    loader = DataLoader(dataset, batch_size=args.train_batch_size, shuffle=True, drop_last=True)
    vae, discriminator, optimizer, judge_optimizer, loader, lr_scheduler = accelerator.prepare(
        vae, discriminator, optimizer, judge_optimizer, loader, lr_scheduler
    )
    objective = Objective(args, accelerator.unwrap_model(vae), discriminator)

    step = resume(accelerator, args.output_dir)
    progress = tqdm(total=args.max_train_steps, initial=step, disable=not accelerator.is_main_process, mininterval=10)
    while step < args.max_train_steps:
        for images in loader:
            images = recolor(random_crop(images, args.crop_size), args.recolor_probability)
            with accelerator.autocast():
                loss, judge_loss = objective(images)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            lr_scheduler.step()
            optimizer.zero_grad()
            if args.adversarial_weight:
                accelerator.backward(judge_loss)
                judge_optimizer.step()
                judge_optimizer.zero_grad()
            step += 1
            progress.update()
            if step % args.checkpointing_steps == 0 or step == args.max_train_steps:
                save_state(accelerator, args.output_dir, step)
                finished = accelerator.unwrap_model(vae)
                psnr, energy, latent_std = validate(finished, validation_images)
                accelerator.print(
                    f"step {step}: loss {loss.item():.4f}, discriminator {judge_loss.item():.3f}, held out: "
                    f"PSNR {psnr:.2f} dB, gradient energy {energy:.2f}, latent std {latent_std:.3f}"
                )
                if not args.decoder_only:
                    finished.register_to_config(scaling_factor=1 / latent_std)
                if accelerator.is_main_process:
                    finished.save_pretrained(args.output_dir / "vae")
            if step == args.max_train_steps:
                break


if __name__ == "__main__":
    main()
