# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOptionalMemberAccess=false
# pyright: reportIndexIssue=false, reportOptionalCall=false
# diffusers annotates its models and their outputs too loosely for the checker.
"""Trains the swap model: masked inpainting of faces, conditioned on identity, CLIP features and landmarks.

    accelerate launch train/train_faceswap.py --train_data_dir FACES --measurements runs/measured.safetensors \\
        --vae runs/vae/vae --image_encoder runs/image_encoder --output_dir runs/faceswap

The recipe is REFace's (arXiv 2409.07269): a face is hidden and painted again from its own identity (self-supervised),
with warped masks, augmented sources and a learned unconditional context. Some samples of each batch start from a state
that the model itself has denoised so far, as in a swap. A part of them has its own source, and is to come out as it
was. The others get the source of another person; nobody knows their true pixels, so they are taught by the identity
loss through the recogniser, by the target's coarse colours, and by a discriminator that knows what faces look like.

Stop it at any time: run the same command again and it goes on from the last saved state.
"""

import argparse
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.optimization import get_scheduler
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm
from transformers import CLIPVisionModelWithProjection
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from faceswap_diffusion.conditioning.conditioner import FaceConditioner
from faceswap_diffusion.conditioning.geometry import fit_geometry
from faceswap_diffusion.pipeline_faceswap_inpaint import FaceSwapInpaintPipeline, assemble_unet_input
from faceswap_diffusion.pipeline_inputs import hide, preprocess_encoder_image, resize
from faceswap_diffusion.training.augmentation import jitter_views
from faceswap_diffusion.training.batches import SwapBatch, SwapSampler
from faceswap_diffusion.training.dataset import find_images
from faceswap_diffusion.training.discriminator import PatchDiscriminator, discriminator_loss, painter_loss
from faceswap_diffusion.training.losses import coarse_loss, identity_loss, masked_mse, predict_x0
from faceswap_diffusion.training.measurements import measure_faces
from faceswap_diffusion.training.sampling import roll_out
from faceswap_diffusion.training.states import resume, save_state
from faceswap_diffusion.training.validation import validate


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = parser.add_argument_group("data")
    data.add_argument("--train_data_dir", nargs="+", required=True, help="folders of FFHQ-aligned face crops")
    data.add_argument("--measurements", type=Path, required=True, help="file of measurements, made if missing")
    data.add_argument("--validation_data_dir", nargs="+", help="folders of crops that validation swaps are made of")
    data.add_argument("--num_validation", type=int, default=24, help="crops taken of them; each becomes the next one")
    data.add_argument("--resolution", type=int, default=128, help="side of the crops in pixels")
    model = parser.add_argument_group("model")
    start = model.add_mutually_exclusive_group(required=True)
    start.add_argument("--pretrained_model_name_or_path", help="a checkpoint to go on from, with all its components")
    start.add_argument("--vae", type=Path, help="folder of a finished autoencoder: starts a new model")
    model.add_argument(
        "--image_encoder", type=Path, help="with --vae: folder of image_encoder/ and feature_extractor/"
    )
    model.add_argument(
        "--draw_landmarks", action="store_true", help="draw the landmarks where the face is hidden, from now on"
    )
    model.add_argument("--new_vae", type=Path, help="with a checkpoint: exchange its autoencoder for a finished one")
    model.add_argument("--block_out_channels", type=int, nargs=4, default=[32, 64, 128, 192])
    run = parser.add_argument_group("run")
    run.add_argument("--output_dir", type=Path, required=True, help="receives states, validation swaps, the pipeline")
    run.add_argument("--train_batch_size", type=int, default=16)
    run.add_argument("--max_train_steps", type=int, default=4000)
    run.add_argument("--learning_rate", type=float, default=8e-4)
    run.add_argument("--lr_warmup_steps", type=int, default=200)
    run.add_argument("--ema_decay", type=float, default=0.997)
    run.add_argument("--mixed_precision", choices=["no", "fp16", "bf16"], default="no")
    run.add_argument("--checkpointing_steps", type=int, default=250)
    run.add_argument("--seed", type=int, default=0)
    objective = parser.add_argument_group("objective")
    objective.add_argument(
        "--unconditional_probability", type=float, default=0.1, help="dropout of a sample's context"
    )
    objective.add_argument(
        "--num_cross", type=int, default=4, help="samples a batch with the source of another person"
    )
    objective.add_argument("--num_own", type=int, default=4, help="samples a batch rolled out with their own source")
    objective.add_argument(
        "--num_rollout_steps", type=int, nargs="+", default=[4, 5, 6, 8, 10], help="DDIM steps, drawn for each batch"
    )
    objective.add_argument("--identity_weight", type=float, default=1.0)
    objective.add_argument(
        "--adversarial_weight", type=float, default=0.1, help="of a discriminator's verdict on such samples"
    )
    objective.add_argument("--coarse_weight", type=float, default=0.5)
    objective.add_argument("--identity_start", type=int, default=600, help="step at which the identity loss sets in")
    args = parser.parse_args()
    if args.vae and not args.image_encoder:
        parser.error("--vae starts a new model, which needs --image_encoder as well")
    return args


def build_unet(args: argparse.Namespace, cross_attention_dim: int, sample_size: int) -> UNet2DConditionModel:
    """Attention in the two middle levels; the context also modulates every residual block (`addition_embed_type`)."""
    return UNet2DConditionModel(
        sample_size=sample_size,
        in_channels=9,
        out_channels=4,
        block_out_channels=tuple(args.block_out_channels),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=cross_attention_dim,
        attention_head_dim=tuple(channels // 32 for channels in args.block_out_channels),
        norm_num_groups=8,
        resnet_time_scale_shift="scale_shift",
        addition_embed_type="text",
        addition_embed_type_num_heads=8,
    )


def build_conditioner(clip_embed_dim: int, measured: dict[str, torch.Tensor]) -> FaceConditioner:
    conditioner = FaceConditioner(
        identity_network="sface", clip_embed_dim=clip_embed_dim, cross_attention_dim=192, mapper_layers=0,
        identity_tokens=4, clip_tokens=1, landmark_tokens=4, combine="concat",
        identity_weight=2.0, clip_weight=0.5, landmark_weight=1.0, hidden_dim=192, identity_geometry=True,
    )  # fmt: skip
    # An embedding of unit length through weights of unit variance gives activations of unit variance.
    torch.nn.init.normal_(conditioner.identity_projection[0].weight, std=1.0)
    landmarks = measured["landmarks"]
    conditioner.landmark_mean.copy_(landmarks.flatten(1).mean(0))
    conditioner.landmark_std.copy_(landmarks.flatten(1).std(0))
    conditioner.geometry_coefficients.copy_(fit_geometry(landmarks, measured["head_pose"], measured["blendshapes"]))
    return conditioner


@torch.no_grad()
def encode_targets(vae: AutoencoderKL, pixels: torch.Tensor, cache: Path) -> torch.Tensor:
    """Latents (N, 2, 4, h, w) in half precision, unscaled, of every picture and of its mirror image."""
    if not cache.exists():
        encoded = []
        for batch in tqdm(pixels.split(16), desc="encoding faces", mininterval=10):
            images = batch.permute(0, 3, 1, 2).float() / 127.5 - 1
            pair = [vae.encode(view.to(vae.device)).latent_dist.mode() for view in (images, images.flip(-1))]
            encoded.append(torch.stack(pair, 1).half().cpu())
        cache.parent.mkdir(parents=True, exist_ok=True)
        save_file({"latents": torch.cat(encoded)}, cache)
    return load_file(cache)["latents"]


class SwapModel(torch.nn.Module):
    """What is trained, as one module, so that gradients of several processes are averaged in one go."""

    def __init__(self, unet: UNet2DConditionModel, conditioner: FaceConditioner):
        super().__init__()
        self.unet, self.conditioner = unet, conditioner

    def forward(self, unet_input, timesteps, conditions: tuple[torch.Tensor, ...], dropped: torch.Tensor):
        """Prediction (B, 4, h, w); where `dropped` (B,) is set, of the unconditional context."""
        context = self.conditioner(*conditions)
        context = torch.where(dropped[:, None, None], self.conditioner.unconditional(len(context)), context)
        return self.unet(unet_input, timesteps, context).sample


class Objective:
    """The loss of a batch. Holds what is frozen: autoencoder, image encoder, recogniser, noise schedule."""

    def __init__(
        self,
        args: argparse.Namespace,
        pipeline: FaceSwapInpaintPipeline,
        discriminator: torch.nn.Module,
        judge: PatchDiscriminator,
        device: torch.device,
    ):
        self.args = args
        self.discriminator, self.judge = discriminator, judge  # for its own training, and without
        self.config, self.draw = pipeline.config, pipeline.draw
        self.vae, self.image_encoder, self.scheduler = pipeline.vae, pipeline.image_encoder, pipeline.scheduler
        self.recognizer = pipeline.conditioner.identity_encoder
        self.alphas_cumprod = self.scheduler.alphas_cumprod.to(device)
        self.prediction_type = self.scheduler.config["prediction_type"]
        self.view = (self.image_encoder.config.image_size, pipeline.feature_extractor.image_mean,
                     pipeline.feature_extractor.image_std)  # fmt: skip

    @torch.no_grad()
    def clip_embeds(self, pixels: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return self.image_encoder(preprocess_encoder_image(pixels, *self.view, mask)).image_embeds

    def conditions(self, batch: SwapBatch) -> tuple[torch.Tensor, ...]:
        """What the conditioner takes."""
        return (
            batch.identity_embeds,
            self.clip_embeds(batch.source_pixels, batch.source_mask),
            self.clip_embeds(batch.pixels),
            batch.landmarks * self.config["landmark_scale"],
        )

    def draw_dropped(self, batch: SwapBatch) -> torch.Tensor:
        """Samples (B,) that are trained on the unconditional context; none of those that are rolled out."""
        dropped = torch.rand(len(batch.pixels)) < self.args.unconditional_probability
        dropped[: self.num_rolled_out(batch)] = False
        return dropped.to(batch.pixels.device)

    def num_rolled_out(self, batch: SwapBatch) -> int:
        return batch.num_cross + self.args.num_own if batch.num_cross else 0

    @torch.no_grad()
    def encode_masked(self, batch: SwapBatch) -> torch.Tensor:
        """Scaled latents of the targets without their faces."""
        drawing = self.draw(batch.landmarks, *batch.pixels.shape[-2:])
        masked = hide(batch.pixels, batch.mask, None if drawing is None else drawing.to(batch.pixels.device))
        return self.vae.encode(masked).latent_dist.sample() * self.vae.config["scaling_factor"]

    def draw_timesteps(self, batch_size: int) -> torch.Tensor:
        """As likely as they are late: where the noise is strong a face takes shape, and that is hard to learn."""
        timesteps = len(self.alphas_cumprod) * torch.rand(batch_size).sqrt()
        return timesteps.long().to(self.alphas_cumprod.device)

    def draw_visited(self, step: int) -> torch.Tensor:
        """Timesteps that samples are rolled out through: the same in all processes, which wait for one another."""
        generator = torch.Generator().manual_seed(self.args.seed + step)
        choice = int(torch.randint(len(self.args.num_rollout_steps), (), generator=generator))
        num_steps, num_train_timesteps = self.args.num_rollout_steps[choice], len(self.alphas_cumprod)
        visited = num_train_timesteps - 1 - torch.arange(num_steps) * num_train_timesteps // num_steps
        depth = int(torch.randint(1, num_steps + 1, (), generator=generator))
        return visited[:depth].to(self.alphas_cumprod.device)

    @torch.no_grad()
    def roll_out(
        self, model: SwapModel, noise, masked, mask, conditions, timesteps: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """States at the last of the timesteps, and that timestep for each sample."""
        context = model.conditioner(*conditions)

        def predict(noisy: torch.Tensor, batch_timesteps: torch.Tensor) -> torch.Tensor:
            unet_input = assemble_unet_input(noisy, masked, mask, self.config["channel_order"])
            return model.unet(unet_input, batch_timesteps, context).sample

        states = roll_out(predict, noise, timesteps, self.alphas_cumprod, self.prediction_type)
        return states, timesteps[-1].expand(len(noise))

    def cross_losses(self, x0: torch.Tensor, batch: SwapBatch) -> dict[str, torch.Tensor]:
        cross = slice(batch.num_cross)
        mask, target = batch.mask[cross], batch.pixels[cross]
        decoded = self.vae.decode(x0[cross] / self.vae.config["scaling_factor"]).sample
        swapped = decoded * mask + target * (1 - mask)
        embeds = self.recognizer(self.recognizer.prepare(jitter_views(swapped)))
        return {
            "identity": identity_loss(embeds, batch.identity_embeds[cross]).mean(),
            "coarse": coarse_loss(swapped, target, mask).mean(),
            **self.adversarial_losses(swapped, target, mask),
        }

    def adversarial_losses(
        self, swapped: torch.Tensor, target: torch.Tensor, mask: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The model's loss, and the discriminator's, which says nothing about the model (arXiv 2311.17042, eq. 1)."""
        self.judge.requires_grad_(False)
        verdict = self.judge(swapped)
        self.judge.requires_grad_(True)
        weights = resize(mask, *verdict.shape[-2:])
        real, fake = self.discriminator(torch.cat([target, swapped.detach()])).chunk(2)
        return {
            "adversarial": painter_loss(verdict, weights),
            "discriminator": discriminator_loss(real, fake, weights),
        }

    def __call__(
        self, model: torch.nn.Module, unwrapped: SwapModel, batch: SwapBatch, step: int
    ) -> dict[str, torch.Tensor]:
        latents = batch.latents * self.vae.config["scaling_factor"]
        masked, mask = self.encode_masked(batch), resize(batch.mask, *latents.shape[-2:])
        noise, timesteps = torch.randn_like(latents), self.draw_timesteps(len(latents))
        noisy, conditions = self.scheduler.add_noise(latents, noise, timesteps), self.conditions(batch)
        rolled_out = slice(self.num_rolled_out(batch))
        if batch.num_cross:
            own_conditions = [condition[rolled_out] for condition in conditions]
            noisy[rolled_out], timesteps[rolled_out] = self.roll_out(
                unwrapped,
                noise[rolled_out],
                masked[rolled_out],
                mask[rolled_out],
                own_conditions,
                self.draw_visited(step),
            )
        unet_input = assemble_unet_input(noisy, masked, mask, self.config["channel_order"])
        output = model(unet_input, timesteps, conditions, self.draw_dropped(batch))
        wanted = noise
        if self.prediction_type == "v_prediction":
            wanted = self.scheduler.get_velocity(latents, noise, timesteps)
        # Unweighted: a swap takes shape where the noise is strong, and min-SNR weights all but mute that.
        errors = masked_mse(output, wanted, mask, outside=0.1)
        losses = {"denoising": errors[rolled_out.stop :].mean()}
        if batch.num_cross:
            x0 = predict_x0(output, noisy, self.alphas_cumprod[timesteps], self.prediction_type)
            own = slice(batch.num_cross, rolled_out.stop)
            losses["own"] = masked_mse(x0[own], latents[own], mask[own], outside=0.1).mean()
            losses |= self.cross_losses(x0, batch)
        return losses


def load_pipeline(args: argparse.Namespace) -> FaceSwapInpaintPipeline:
    """The checkpoint to go on from, in float32, with everything frozen but UNet and conditioner."""
    pipeline = FaceSwapInpaintPipeline.from_pretrained(args.pretrained_model_name_or_path, dtype=torch.float32)
    if args.new_vae:
        pipeline.register_modules(vae=AutoencoderKL.from_pretrained(args.new_vae))
    for frozen in (pipeline.vae, pipeline.image_encoder):
        frozen.requires_grad_(False).eval()
    return pipeline


def build_pipeline(args: argparse.Namespace, measured: dict[str, torch.Tensor]) -> FaceSwapInpaintPipeline:
    vae = AutoencoderKL.from_pretrained(args.vae)
    image_encoder = CLIPVisionModelWithProjection.from_pretrained(args.image_encoder / "image_encoder")
    conditioner = build_conditioner(image_encoder.config.projection_dim, measured)
    num_levels = len(vae.config["block_out_channels"])
    unet = build_unet(args, conditioner.config["cross_attention_dim"], args.resolution // 2 ** (num_levels - 1))
    return FaceSwapInpaintPipeline(
        vae=vae.requires_grad_(False).eval(),
        unet=unet,
        image_encoder=image_encoder.requires_grad_(False).eval(),
        feature_extractor=CLIPImageProcessorPil.from_pretrained(args.image_encoder / "feature_extractor"),
        conditioner=conditioner,
        scheduler=DDIMScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1, clip_sample=False,
            set_alpha_to_one=False, prediction_type="v_prediction", timestep_spacing="trailing",
        ),
        crop_size=args.resolution,
        geometry_share=0.5,
        default_num_inference_steps=5,
        default_guidance_scale=1.0,
    )  # fmt: skip


def main() -> None:
    args = parse_args()
    accelerator = Accelerator(mixed_precision=args.mixed_precision)
    set_seed(args.seed)
    with accelerator.main_process_first():
        measured = measure_faces(find_images(args.train_data_dir), args.measurements, args.resolution)
    pipeline = build_pipeline(args, measured) if args.vae else load_pipeline(args)
    if args.draw_landmarks:
        pipeline.register_to_config(draw_landmarks=True)
    pipeline.vae.to(accelerator.device)
    pipeline.image_encoder.to(accelerator.device)
    with accelerator.main_process_first():
        latents = encode_targets(pipeline.vae, measured["pixels"], args.output_dir / "latents.safetensors")
    sampler = SwapSampler(measured, latents)
    validation = None
    if args.validation_data_dir and accelerator.is_main_process:
        validation_paths = find_images(args.validation_data_dir)[: args.num_validation]
        validation = measure_faces(validation_paths, args.output_dir / "validation.safetensors", args.resolution)

    swap_model = SwapModel(pipeline.unet, pipeline.conditioner).train()
    trained = [parameter for parameter in swap_model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=args.learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    lr_scheduler = get_scheduler(
        "cosine", optimizer, num_warmup_steps=args.lr_warmup_steps, num_training_steps=args.max_train_steps
    )
    judge = PatchDiscriminator(num_halvings=3)
    judge_optimizer = torch.optim.AdamW(judge.parameters(), lr=1e-3, weight_decay=0.0, betas=(0.5, 0.99))
    ema = EMAModel(trained, decay=args.ema_decay, use_ema_warmup=True, inv_gamma=1.0, power=3 / 4)
    model, discriminator, optimizer, judge_optimizer = accelerator.prepare(
        swap_model, judge, optimizer, judge_optimizer
    )
    objective = Objective(args, pipeline, discriminator, judge, accelerator.device)
    accelerator.register_for_checkpointing(ema, lr_scheduler)
    step = resume(accelerator, args.output_dir)
    set_seed(args.seed + step, device_specific=True)
    progress = tqdm(
        total=args.max_train_steps, initial=step, mininterval=10, disable=not accelerator.is_local_main_process
    )
    while step < args.max_train_steps:
        rows = torch.randperm(len(sampler))[: args.train_batch_size]
        num_cross = args.num_cross if step >= args.identity_start else 0
        batch = sampler.draw(rows, num_cross).to(accelerator.device)
        with accelerator.autocast():
            losses = objective(model, swap_model, batch, step)
        loss = losses["denoising"]
        if batch.num_cross:
            loss = loss + losses["own"]
            for name in ("identity", "coarse", "adversarial"):
                loss = loss + getattr(args, f"{name}_weight") * losses[name]
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        lr_scheduler.step()
        optimizer.zero_grad()
        if batch.num_cross:
            accelerator.backward(losses["discriminator"])
            judge_optimizer.step()
            judge_optimizer.zero_grad()
        ema.step(trained)
        step += 1
        progress.update()
        if step % 50 == 0:
            accelerator.print(
                f"step {step}: " + ", ".join(f"{name} {value.item():.4f}" for name, value in losses.items())
            )
        if step % args.checkpointing_steps == 0 or step == args.max_train_steps:
            save_state(accelerator, args.output_dir, step)
            ema.store(trained)
            ema.copy_to(trained)
            if accelerator.is_main_process:
                pipeline.save_pretrained(args.output_dir / "pipeline")
            if validation is not None:
                accelerator.print(
                    f"step {step}: " + validate(pipeline, validation, args.output_dir / f"swaps_{step}.png")
                )
            ema.restore(trained)
            accelerator.wait_for_everyone()


if __name__ == "__main__":
    main()
