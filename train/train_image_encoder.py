# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOptionalMemberAccess=false
# pyright: reportIndexIssue=false, reportOptionalCall=false
# diffusers annotates its models and their outputs too loosely for the checker.
"""Trains the small image encoder: a CLIP vision tower that tells pose, expression and light, and nothing of identity.

    accelerate launch train/train_image_encoder.py --train_data_dir FACES --output_dir runs/image_encoder

In self-supervised training source and target are one picture, so an encoder that learns along with the swap model
learns to carry the identity of the target, and a swap then gives the target again. This one is taught beforehand, on
labels that hold no identity, and frozen: its `image_embeds` ARE the standardised labels (3 head pose, 52 blendshapes,
15 light).

Stop it at any time: run the same command again and it goes on from the last saved state.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers.optimization import get_scheduler
from tqdm.auto import tqdm
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from faceswap_diffusion.training.dataset import find_images
from faceswap_diffusion.training.measurements import measure_faces, mirrored_blendshapes
from faceswap_diffusion.training.states import resume, save_state

NUM_LABELS = 3 + 52 + 15
LIGHT_MIRRORED = [0, 2, 1, 3, 4]  # the cheeks change places


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_data_dir", nargs="+", required=True, help="folders of FFHQ-aligned face crops")
    parser.add_argument("--output_dir", type=Path, required=True, help="receives states and the finished encoder")
    parser.add_argument("--measurements", type=Path, required=True, help="file of measurements, made if missing")
    parser.add_argument("--resolution", type=int, default=128, help="side of the crops in pixels")
    parser.add_argument("--image_size", type=int, default=64, help="side of the encoder's view in pixels")
    parser.add_argument("--train_batch_size", type=int, default=64)
    parser.add_argument("--max_train_steps", type=int, default=2500)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--num_validation", type=int, default=256)
    parser.add_argument("--checkpointing_steps", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def labels_and_mirrored(measured: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels (N, 70) of the pictures and of their mirror images."""
    sign = torch.tensor([-1.0, 1.0, -1.0])  # yaw and roll turn round
    straight = [measured["head_pose"], measured["blendshapes"], measured["light"].flatten(1)]
    mirrored = [
        measured["head_pose"] * sign,
        measured["blendshapes"][:, mirrored_blendshapes()],
        measured["light"][:, LIGHT_MIRRORED].flatten(1),
    ]
    return torch.cat(straight, 1), torch.cat(mirrored, 1)


def draw_batch(
    measured: dict[str, torch.Tensor], labels: tuple[torch.Tensor, torch.Tensor], rows: torch.Tensor, image_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Augmented views (B, 3, image_size, image_size) and their raw labels (B, 70).

    Mirroring, and a gain and an offset for each colour channel, which change the light's labels likewise; a third of
    the views show the face alone, as a masked source does.
    """
    views = measured["pixels"][rows].permute(0, 3, 1, 2).float() / 127.5 - 1
    masks = measured["face_mask"][rows].float()[:, None] / 255
    mirror = torch.rand(len(rows)) < 0.5
    views = torch.where(mirror[:, None, None, None], views.flip(-1), views)
    masks = torch.where(mirror[:, None, None, None], masks.flip(-1), masks)
    wanted = torch.where(mirror[:, None], labels[1][rows], labels[0][rows])
    gain = 1 + 0.2 * (torch.rand(len(rows), 1, 1) - 0.5) + 0.1 * (torch.rand(len(rows), 3, 1) - 0.5)
    offset = 0.2 * (torch.rand(len(rows), 1, 1) - 0.5)
    views = views * gain[..., None] + offset[..., None]
    light = wanted[:, 55:].view(-1, 5, 3) * gain.view(-1, 1, 3) + offset
    wanted = torch.cat([wanted[:, :55], light.flatten(1)], 1)
    hidden = (torch.rand(len(rows)) < 1 / 3)[:, None, None, None]
    views = torch.where(hidden, views * masks, views)
    return F.interpolate(views, (image_size, image_size), mode="bilinear", align_corners=False), wanted


def build_encoder(image_size: int) -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=112, intermediate_size=336, num_hidden_layers=4, num_attention_heads=4,
            image_size=image_size, patch_size=8, projection_dim=NUM_LABELS,
        )
    )  # fmt: skip


def report(predicted: torch.Tensor, wanted: torch.Tensor) -> str:
    """Median explained variance of the three groups of labels (some blendshapes hardly ever move)."""
    explained = 1 - (predicted - wanted).square().mean(0) / wanted.var(0)
    groups = {"head pose": explained[:3], "blendshapes": explained[3:55], "light": explained[55:]}
    return ", ".join(f"{name} {values.median():.3f}" for name, values in groups.items())


def main() -> None:
    args = parse_args()
    accelerator = Accelerator()
    set_seed(args.seed)
    measured = measure_faces(find_images(args.train_data_dir), args.measurements, args.resolution)
    labels = labels_and_mirrored(measured)
    mean = torch.cat(labels).mean(0)
    std = torch.cat(labels).std(0).clamp(min=0.02)  # a blendshape that never moves is not blown up
    order = torch.randperm(len(labels[0]), generator=torch.Generator().manual_seed(args.seed))
    validation_rows, train_rows = order[: args.num_validation], order[args.num_validation :]

    encoder = build_encoder(args.image_size)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=args.learning_rate, weight_decay=0.05)
    lr_scheduler = get_scheduler("cosine", optimizer, num_warmup_steps=200, num_training_steps=args.max_train_steps)
    encoder, optimizer, lr_scheduler = accelerator.prepare(encoder, optimizer, lr_scheduler)
    step = resume(accelerator, args.output_dir)
    progress = tqdm(total=args.max_train_steps, initial=step, mininterval=10)
    while step < args.max_train_steps:
        rows = train_rows[torch.randint(len(train_rows), (args.train_batch_size,))]
        views, wanted = draw_batch(measured, labels, rows, args.image_size)
        predicted = encoder(pixel_values=views.to(accelerator.device)).image_embeds
        loss = F.smooth_l1_loss(predicted, ((wanted - mean) / std).clamp(-5, 5).to(accelerator.device))
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        lr_scheduler.step()
        optimizer.zero_grad()
        step += 1
        progress.update()
        if step % args.checkpointing_steps == 0 or step == args.max_train_steps:
            save_state(accelerator, args.output_dir, step)
            views, wanted = draw_batch(measured, labels, validation_rows, args.image_size)
            with torch.no_grad():
                predicted = encoder(pixel_values=views.to(accelerator.device)).image_embeds.cpu()
            accelerator.print(f"step {step}: held-out explained variance {report(predicted, (wanted - mean) / std)}")

    finished = accelerator.unwrap_model(encoder)
    finished.save_pretrained(args.output_dir / "image_encoder")
    size = {"height": args.image_size, "width": args.image_size}
    CLIPImageProcessorPil(
        size=size, crop_size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3, do_center_crop=False
    ).save_pretrained(args.output_dir / "feature_extractor")


if __name__ == "__main__":
    main()
