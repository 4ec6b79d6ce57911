# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOptionalMemberAccess=false
# pyright: reportIndexIssue=false, reportOptionalCall=false
# diffusers annotates its models and their outputs too loosely for the checker.
"""Trains the small `AutoencoderKL` whose latents the swap model paints in.

    accelerate launch train/train_autoencoder.py --train_data_dir FACES --output_dir runs/vae

Stop it at any time: run the same command again and it goes on from the last saved state.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.optimization import get_scheduler
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from faceswap_diffusion.training.dataset import AlignedFaces, find_images
from faceswap_diffusion.training.states import resume, save_state


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_data_dir", nargs="+", required=True, help="folders of FFHQ-aligned face crops")
    parser.add_argument("--output_dir", type=Path, required=True, help="receives states and the finished vae/")
    parser.add_argument("--resolution", type=int, default=128, help="side of the crops in pixels")
    parser.add_argument(
        "--crop_size", type=int, default=64, help="train on random crops: more steps for the same pixels"
    )
    parser.add_argument("--block_out_channels", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--latent_channels", type=int, default=4)
    parser.add_argument("--train_batch_size", type=int, default=8)
    parser.add_argument("--max_train_steps", type=int, default=4000)
    parser.add_argument("--learning_rate", type=float, default=1.5e-3)
    parser.add_argument("--kl_weight", type=float, default=1e-6, help="weight of the KL term, as Stable Diffusion's")
    parser.add_argument("--gradient_weight", type=float, default=1.0, help="weight of the L1 between image gradients")
    parser.add_argument("--num_validation", type=int, default=64, help="crops held out, every n-th of the sorted list")
    parser.add_argument("--checkpointing_steps", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
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


def image_gradients(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Differences of neighbouring pixels along x and y: what keeps edges sharp under an L1 loss."""
    return images[..., :, 1:] - images[..., :, :-1], images[..., 1:, :] - images[..., :-1, :]


def reconstruction_loss(reconstruction: torch.Tensor, images: torch.Tensor, gradient_weight: float) -> torch.Tensor:
    loss = F.l1_loss(reconstruction, images)
    for got, wanted in zip(image_gradients(reconstruction), image_gradients(images), strict=True):
        loss = loss + gradient_weight * F.l1_loss(got, wanted)
    return loss


def random_crop(images: torch.Tensor, size: int) -> torch.Tensor:
    """One random square window of `images` (B, C, H, W), the same for the batch, mirrored half of the time."""
    top, left = (int(torch.randint(side - size + 1, ())) for side in images.shape[-2:])
    window = images[..., top : top + size, left : left + size]
    return window.flip(-1) if torch.rand(()) < 0.5 else window


def split_validation(paths: list[Path], num_validation: int) -> tuple[list[Path], list[Path]]:
    stride = len(paths) // num_validation
    held_out = set(paths[::stride][:num_validation])
    return [path for path in paths if path not in held_out], sorted(held_out)


@torch.no_grad()
def validate(vae: AutoencoderKL, images: torch.Tensor) -> tuple[float, float]:
    """Mean PSNR in dB of held-out crops, and the standard deviation of their latents."""
    latents, errors = [], []
    for batch in images.split(8):
        posterior = vae.encode(batch).latent_dist
        latents.append(posterior.sample())
        decoded = vae.decode(posterior.mode()).sample.clamp(-1, 1)
        errors.append((decoded - batch).square().mean(dim=(1, 2, 3)))
    return (10 * torch.log10(4 / torch.cat(errors))).mean().item(), torch.cat(latents).std().item()


def main() -> None:
    args = parse_args()
    accelerator = Accelerator()
    set_seed(args.seed)
    train_paths, validation_paths = split_validation(find_images(args.train_data_dir), args.num_validation)
    dataset = AlignedFaces(train_paths, args.resolution)
    validation = AlignedFaces(validation_paths, args.resolution)
    validation_images = torch.stack([validation[index] for index in range(len(validation))])

    vae = build_autoencoder(args)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=args.learning_rate, weight_decay=0.0, betas=(0.9, 0.99))
    lr_scheduler = get_scheduler("cosine", optimizer, num_warmup_steps=100, num_training_steps=args.max_train_steps)
    loader = DataLoader(dataset, batch_size=args.train_batch_size, shuffle=True, drop_last=True)
    vae, optimizer, loader, lr_scheduler = accelerator.prepare(vae, optimizer, loader, lr_scheduler)

    step = resume(accelerator, args.output_dir)
    progress = tqdm(total=args.max_train_steps, initial=step, disable=not accelerator.is_main_process, mininterval=10)
    while step < args.max_train_steps:
        for images in loader:
            images = random_crop(images, args.crop_size)
            posterior = accelerator.unwrap_model(vae).encode(images).latent_dist
            reconstruction = accelerator.unwrap_model(vae).decode(posterior.sample()).sample
            loss = reconstruction_loss(reconstruction, images, args.gradient_weight)
            loss = loss + args.kl_weight * posterior.kl().mean()
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(vae.parameters(), 1.0)
            optimizer.step()
            lr_scheduler.step()
            optimizer.zero_grad()
            step += 1
            progress.update()
            if step % args.checkpointing_steps == 0 or step == args.max_train_steps:
                save_state(accelerator, args.output_dir, step)
                psnr, latent_std = validate(accelerator.unwrap_model(vae), validation_images)
                accelerator.print(
                    f"step {step}: loss {loss.item():.4f}, held-out PSNR {psnr:.2f} dB, latent std {latent_std:.3f}"
                )
            if step == args.max_train_steps:
                break

    finished = accelerator.unwrap_model(vae)
    _, latent_std = validate(finished, validation_images)
    finished.register_to_config(scaling_factor=1 / latent_std)
    if accelerator.is_main_process:
        finished.save_pretrained(args.output_dir / "vae")


if __name__ == "__main__":
    main()
