# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOptionalMemberAccess=false
# pyright: reportIndexIssue=false, reportOptionalCall=false
# diffusers annotates its models and their outputs too loosely for the checker.
"""Trains the swap model: masked inpainting of faces, conditioned on identity, CLIP features and landmarks.

    python train/prepare_faces.py photos --output_dir data/faces
    accelerate launch train/train_faceswap.py --train_data_dir data/faces --output_dir runs/mine

goes on from the model in the package. The recipe is REFace's (arXiv 2409.07269): a face is hidden and painted again from
its own identity, with warped masks, augmented sources and a learned unconditional context. Some samples of each batch go
through several denoising steps as in a swap. A part of them has its own source, and is to come out as it was. The others
get the source of another person in the batch; nobody knows their true pixels, so they are taught by the identity loss
through the recogniser, by the target's coarse colours, by LPIPS, and by a discriminator that knows what faces look like.

Stop it at any time: run the same command again and it goes on from the last saved state, to the same end.
`train/README.md` tells more, `train/recipes/` holds settings for `--config`.
"""

import os
import shutil
import sys
import time
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, ProjectConfiguration, set_seed
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.optimization import get_scheduler
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.training_utils import EMAModel
from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers
from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from peft import get_peft_model_state_dict
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import CLIPVisionModelWithProjection
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from faceswap_diffusion.checkpoint_files import EMBEDDED_CHECKPOINT, load_pipeline
from faceswap_diffusion.conditioning.conditioner import FaceConditioner
from faceswap_diffusion.conditioning.geometry import fit_geometry
from faceswap_diffusion.faces.landmarks import dlib68
from faceswap_diffusion.hub import push_folder
from faceswap_diffusion.pipeline_faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.training.batches import Roles, SampleSettings, StepBatches, SwapSamples
from faceswap_diffusion.training.dataset import PreparedFaces
from faceswap_diffusion.training.mask_shuffling import parse_mask_sets
from faceswap_diffusion.training.objective import ObjectiveSettings, SwapObjective
from faceswap_diffusion.training.trainable import (
    architecture_of,
    build_optimizer,
    select_trainable,
    trained_parameters,
)


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(prog="train_faceswap.py", description=__doc__)
    parser.add_argument("--config", action="config", help="YAML file of settings; flags after it win")
    data = parser.add_argument_group("data")
    data.add_argument("--train_data_dir", type=str, nargs="+", required=True, help="folders of prepare_faces.py")
    data.add_argument("--validation_data_dir", type=str, nargs="+", help="folders that validation swaps are made of")
    data.add_argument("--num_validation", type=PositiveInt, default=24, help="faces taken of them")
    data.add_argument(
        "--mask_sets", type=str, nargs="+", default=["face=0.6", "head=0.3", "features=0.1"],
        help="what is hidden of the target and shown of the source, drawn for each sample",
    )  # fmt: skip
    data.add_argument(
        "--pair_probability", type=ClosedUnitInterval, default=0.5,
        help="how often another picture of the same person is the source, where there is one",
    )  # fmt: skip
    data.add_argument("--dataloader_num_workers", type=NonNegativeInt, default=2)

    model = parser.add_argument_group("model")
    model.add_argument(
        "--pretrained_model_name_or_path", type=str, default=str(EMBEDDED_CHECKPOINT),
        help="checkpoint to go on from: folder or Hub id; the package's if left out",
    )  # fmt: skip
    model.add_argument("--train", type=Literal[TRAINING_MODES], default="full", help="what is trained")
    model.add_argument("--lora_rank", type=PositiveInt, default=16)
    model.add_argument("--new_vae", type=Path, help="exchange the checkpoint's autoencoder for a finished one")
    model.add_argument("--draw_landmarks", type=bool, help="draw the landmarks where the face is hidden, from now on")
    model.add_argument("--vae", type=Path, help="start a new model around this autoencoder instead")
    model.add_argument("--image_encoder", type=Path, help="with --vae: image_encoder/ and feature_extractor/")
    model.add_argument("--crop_size", type=PositiveInt, default=128, help="with --vae: side of the crops in pixels")
    model.add_argument("--block_out_channels", type=PositiveInt, nargs=4, default=[32, 64, 128, 192])
    model.add_argument("--prediction_type", type=Literal["epsilon", "v_prediction"], default="v_prediction",
                       help="with --vae")  # fmt: skip

    objective = parser.add_argument_group("objective")
    objective.add_argument(
        "--cross_share", type=ClosedUnitInterval, default=0.25, help="samples with the source of another person"
    )
    objective.add_argument(
        "--own_share", type=ClosedUnitInterval, default=0.25, help="samples through as many steps, with their own"
    )
    objective.add_argument("--unconditional_probability", type=ClosedUnitInterval, default=0.1)
    objective.add_argument("--timestep_sampling", type=Literal["late", "uniform"], default="late")
    objective.add_argument("--snr_gamma", type=PositiveFloat | None, help="min-SNR weights; 5 is usual")
    objective.add_argument("--outside_weight", type=ClosedUnitInterval, default=0.1, help="of pixels that are kept")
    objective.add_argument(
        "--num_rollout_steps", type=PositiveInt, nargs="+", default=[4, 5, 6, 8, 10],
        help="denoising steps of cross and own samples, drawn for each step of the training",
    )  # fmt: skip
    objective.add_argument("--rollout_depth", type=Literal["random", "full"], default="random")
    objective.add_argument("--rollout_start", type=Literal["noise", "target"], default="noise")
    objective.add_argument(
        "--num_gradient_steps", type=PositiveInt | None, default=1, help="of these, from the end; null: all"
    )
    objective.add_argument(
        "--rollout_checkpointing", type=bool, default=False, help="compute each of them anew on the way back"
    )
    objective.add_argument("--own_weight", type=NonNegativeFloat, default=1.0)
    objective.add_argument("--identity_weight", type=NonNegativeFloat, default=1.0)
    objective.add_argument("--coarse_weight", type=NonNegativeFloat, default=1.0, help="of the target's coarse colours")
    objective.add_argument(
        "--lpips_weight", type=NonNegativeFloat, default=0.0, help="needs `faceswap-diffusion fetch lpips_vgg16`"
    )
    objective.add_argument("--adversarial_weight", type=NonNegativeFloat, default=0.3)

    optimization = parser.add_argument_group("optimization")
    optimization.add_argument("--train_batch_size", type=PositiveInt, default=16, help="of each process")
    optimization.add_argument("--gradient_accumulation_steps", type=PositiveInt, default=1)
    optimization.add_argument("--max_train_steps", type=PositiveInt, default=1000)
    optimization.add_argument("--learning_rate", type=PositiveFloat, default=1e-4)
    optimization.add_argument("--discriminator_learning_rate", type=PositiveFloat, default=1e-3)
    optimization.add_argument(
        "--lr_scheduler", type=Literal["constant", "constant_with_warmup", "linear", "cosine"], default="cosine"
    )
    optimization.add_argument("--lr_warmup_steps", type=NonNegativeInt, default=100)
    optimization.add_argument("--weight_decay", type=NonNegativeFloat, default=0.01)
    optimization.add_argument("--max_grad_norm", type=PositiveFloat, default=1.0)
    optimization.add_argument("--ema_decay", type=ClosedUnitInterval, default=0.998, help="0: no running average")
    optimization.add_argument("--use_8bit_adam", type=bool, default=False, help="bitsandbytes'; NVIDIA GPUs only")
    optimization.add_argument("--mixed_precision", type=Literal["no", "fp16", "bf16"], default="no")
    optimization.add_argument("--allow_tf32", type=bool, default=True)
    optimization.add_argument("--gradient_checkpointing", type=bool, default=False)
    optimization.add_argument("--enable_xformers_memory_efficient_attention", type=bool, default=False)
    optimization.add_argument("--torch_compile", type=bool, default=False)

    output = parser.add_argument_group("output")
    output.add_argument("--output_dir", type=Path, required=True, help="receives states, swaps, curves, the checkpoint")
    output.add_argument("--checkpointing_steps", type=PositiveInt, default=250)
    output.add_argument("--checkpoints_total_limit", type=PositiveInt | None, default=2, help="older states go")
    output.add_argument("--validation_steps", type=PositiveInt, default=250)
    output.add_argument("--report_to", type=Literal["tensorboard", "wandb", "trackio", "none"], default="tensorboard")
    output.add_argument("--tracker_project_name", type=str, default="faceswap-diffusion")
    output.add_argument("--seed", type=NonNegativeInt, default=0)
    output.add_argument("--license", type=str, help="of the trained weights, for the model card")
    output.add_argument("--push_to_hub", type=bool, default=False)
    output.add_argument("--hub_model_id", type=str, help="owner/name; the output folder's name if left out")
    output.add_argument("--hub_private", type=bool, default=False)
    return parser


def load_base(args: Namespace) -> tuple[FaceSwapInpaintPipeline, PreparedFaces]:
    """The pipeline to train, in float32, and its training faces."""
    if args.vae:
        if args.image_encoder is None:
            raise ValueError("--vae starts a new model, which needs --image_encoder as well")
        faces = PreparedFaces(args.train_data_dir, args.crop_size)
        pipeline = build_pipeline(args.vae, args.image_encoder, faces, args.block_out_channels, args.prediction_type)
    else:
        pipeline = load_pipeline(args.pretrained_model_name_or_path)
        if pipeline.image_encoder is None or pipeline.conditioner is None:
            raise ValueError(
                f"checkpoint {args.pretrained_model_name_or_path} lacks an image encoder or a conditioner: training "
                "needs a whole checkpoint, as `convert reface` and `convert sd-inpaint-init` write it"
            )
        faces = PreparedFaces(args.train_data_dir, pipeline.config["crop_size"])
    if args.new_vae:
        pipeline.register_modules(vae=AutoencoderKL.from_pretrained(args.new_vae))
    if args.draw_landmarks is not None:
        pipeline.register_to_config(draw_landmarks=args.draw_landmarks)
    return pipeline, faces


def settings_of(kind: type, args: Namespace, **more) -> object:
    """A settings dataclass filled from the arguments of the same names."""
    given = {field.name: getattr(args, field.name) for field in fields(kind) if hasattr(args, field.name)}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return kind(**{**given, **more})


class Run:
    """Everything that a run is made of, ready to take its steps."""

    def __init__(self, args: Namespace, accelerator: Accelerator):
        self.args, self.accelerator = args, accelerator
        self.roles = Roles.from_shares(args.cross_share, args.own_share)
        self.global_batch_size = (
            args.train_batch_size * args.gradient_accumulation_steps * accelerator.num_processes
        )
        self.roles.check(args.train_batch_size, self.global_batch_size)
        self.pipeline, faces = load_base(args)
        self.samples = self.draw_from(faces)
        self.validation_faces = self.load_validation()
        select_trainable(self.pipeline, args.train, args.lora_rank)
        self.prepare_networks()
        adversarial_weight = args.adversarial_weight if self.roles.num_cross else 0.0
        objective = SwapObjective(
            self.pipeline,
            settings_of(ObjectiveSettings, args, adversarial_weight=adversarial_weight),
            faces.identity_network,
        )
        architecture = architecture_of(objective)
        self.model, self.optimizer = accelerator.prepare(objective, self.build_optimizer(objective))
        self.lr_scheduler = get_scheduler(
            args.lr_scheduler, self.optimizer, args.lr_warmup_steps, num_training_steps=args.max_train_steps
        )
        objective = accelerator.unwrap_model(self.model)
        self.painted = [*trained_parameters(objective.unet), *trained_parameters(objective.conditioner)]
        self.ema = EMAModel(self.painted, args.ema_decay, use_ema_warmup=True, power=3 / 4) if args.ema_decay else None
        self.parts = TrainingParts(
            model=self.model,
            optimizer=self.optimizer,
            lr_scheduler=self.lr_scheduler,
            ema=self.ema,
            settings=self.settings_that_stay(faces, architecture),
        )
        self.history = History(args.output_dir, is_main_process=accelerator.is_main_process)

    def draw_from(self, faces: PreparedFaces) -> SwapSamples:
        geometry = None
        if self.pipeline.config["geometry_share"]:
            geometry = self.pipeline.conditioner.geometry_coefficients.float().cpu()
        settings = settings_of(
            SampleSettings,
            self.args,
            roles=self.roles,
            global_batch_size=self.global_batch_size,
            mask_sets=parse_mask_sets(self.args.mask_sets),
        )
        return SwapSamples(faces, settings, geometry)

    def load_validation(self) -> list[FaceRecord]:
        if not self.args.validation_data_dir:
            return []
        faces = PreparedFaces(self.args.validation_data_dir, self.pipeline.config["crop_size"])
        return [faces[row] for row in range(min(self.args.num_validation, len(faces)))]

    def prepare_networks(self) -> None:
        """Settings of the UNet that change how it computes and not what; frozen networks go to the device."""
        args, device = self.args, self.accelerator.device
        self.pipeline.vae.to(device)
        self.pipeline.image_encoder.to(device)
        self.pipeline.set_progress_bar_config(disable=True)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.allow_tf32
        if args.gradient_checkpointing:
            self.pipeline.unet.enable_gradient_checkpointing()
        if args.enable_xformers_memory_efficient_attention:
            self.pipeline.unet.enable_xformers_memory_efficient_attention()
        if args.torch_compile:
            self.pipeline.unet.compile()

    def build_optimizer(self, objective: SwapObjective) -> torch.optim.Optimizer:
        args = self.args
        painted = [*trained_parameters(objective.unet), *trained_parameters(objective.conditioner)]
        groups = [{"params": painted, "lr": args.learning_rate, "betas": (0.9, 0.99)}]
        if objective.discriminator is not None:
            judging = trained_parameters(objective.discriminator)
            rates = {"lr": args.discriminator_learning_rate, "betas": (0.5, 0.99), "weight_decay": 0.0}
            groups.append({"params": judging, **rates})
        return build_optimizer(groups, args.weight_decay, args.use_8bit_adam)

    def settings_that_stay(self, faces: PreparedFaces, architecture: str) -> dict:
        """What must not change between a stop and going on, or the run would not be the same run."""
        names = ("seed", "train", "cross_share", "own_share", "mask_sets", "pair_probability", "max_train_steps",
                 "lr_scheduler", "lr_warmup_steps", "ema_decay", "mixed_precision")  # fmt: skip
        stay = {name: getattr(self.args, name) for name in names}
        return {**stay, "global_batch_size": self.global_batch_size, "faces": faces.fingerprint,
                "architecture": architecture}  # fmt: skip

    def batches(self, first_step: int) -> DataLoader:
        args, accelerator = self.args, self.accelerator
        sampler = StepBatches(
            args.train_batch_size, first_step, args.max_train_steps, args.gradient_accumulation_steps,
            accelerator.process_index, accelerator.num_processes,
        )  # fmt: skip
        return DataLoader(
            self.samples, batch_sampler=sampler, collate_fn=self.samples.collate,
            num_workers=args.dataloader_num_workers, pin_memory=accelerator.device.type == "cuda",
            worker_init_fn=use_one_thread,
        )  # fmt: skip

    def train(self) -> int:
        """Takes all steps that are left, or as many as there are before somebody asks to stop.

        Returns:
            `int`: The number of steps that the run has taken by now.
        """
        args, accelerator = self.args, self.accelerator
        step = load_state(accelerator, args.output_dir / "states", self.parts)
        self.history.truncate(step)
        progress = tqdm(
            total=args.max_train_steps, initial=step, mininterval=5, disable=not accelerator.is_local_main_process
        )
        batches = iter(self.batches(step))
        with StopSignal() as stop:
            while step < args.max_train_steps:
                started = time.perf_counter()
                values, waited = self.take_step(step, batches)
                step += 1
                seconds = time.perf_counter() - started
                speed = {"images_per_second": self.global_batch_size / seconds, "data_share": waited / seconds}
                self.report(step, values, speed, progress)
                last, stopping = step == args.max_train_steps, stop.requested(accelerator)
                if last or step % args.validation_steps == 0:
                    self.validate(step)
                    self.save_weights()
                # Last, so that a run that is killed before does all of this again.
                if last or stopping or step % args.checkpointing_steps == 0:
                    save_state(accelerator, args.output_dir / "states", step, self.parts, args.checkpoints_total_limit)
                if stopping:
                    break
        return step

    def take_step(self, step: int, batches) -> tuple[dict[str, float], float]:
        """One step of the optimiser. Returns the losses, means over the global batch, and the seconds without data."""
        args, accelerator = self.args, self.accelerator
        totals: dict[str, float] = {}
        waited = 0.0
        for _ in range(args.gradient_accumulation_steps):
            started = time.perf_counter()
            batch = next(batches).to(accelerator.device)
            waited += time.perf_counter() - started
            with accelerator.accumulate(self.model):
                losses = self.model(batch, step)
                for name, value in self.gather_means(losses).items():
                    totals[name] = totals.get(name, 0.0) + value / args.gradient_accumulation_steps
                if not math.isfinite(totals["loss"]):
                    self.give_up(step, totals)
                accelerator.backward(losses["loss"])
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(self.painted, args.max_grad_norm)
                self.optimizer.step()
                self.optimizer.zero_grad()
        self.lr_scheduler.step()
        if self.ema is not None:
            self.ema.step(self.painted)
        return {**totals, "learning_rate": self.lr_scheduler.get_last_lr()[0]}, waited

    def gather_means(self, losses: dict[str, torch.Tensor]) -> dict[str, float]:
        values = torch.stack([loss.detach().float() for loss in losses.values()])
        return dict(zip(losses, self.accelerator.reduce(values, "mean").tolist(), strict=True))

    def give_up(self, step: int, losses: dict[str, float]) -> None:
        """Saves what was there before the loss went wrong, and stops."""
        folder = save_state(
            self.accelerator, self.args.output_dir / "states", step, self.parts, self.args.checkpoints_total_limit
        )
        terms = ", ".join(f"{name} {value:g}" for name, value in losses.items())
        raise ValueError(
            f"the loss is no longer a number in step {step + 1} ({terms}); the state before it is in {folder}: try a "
            "lower --learning_rate, or --mixed_precision bf16 in place of fp16"
        )

    def report(self, step: int, values: dict[str, float], speed: dict[str, float], progress: tqdm) -> None:
        self.history.add(step, values)
        self.accelerator.log({**values, **speed}, step=step)
        progress.set_postfix({"loss": f"{values['loss']:.4f}", **{name: f"{rate:.3g}" for name, rate in speed.items()}},
                             refresh=False)  # fmt: skip
        progress.update()

    @contextmanager
    def averaged_weights(self):
        """Puts the running average of the weights in the networks for a while."""
        if self.ema is None:
            yield
            return
        self.ema.store(self.painted)
        self.ema.copy_to(self.painted)
        yield
        self.ema.restore(self.painted)

    def validate(self, step: int) -> None:
        """Swaps among the validation faces, by all processes alike: their networks may be divided among them."""
        if not self.validation_faces:
            return
        with self.averaged_weights():
            result = validate(self.pipeline, self.validation_faces, seed=self.args.seed)
        self.history.add(step, result.values)
        self.accelerator.log(result.values, step=step)
        if self.accelerator.is_main_process:
            folder = self.args.output_dir / "validation"
            folder.mkdir(parents=True, exist_ok=True)
            result.picture.save(folder / f"step_{step:06}.png")
            curves = self.history.plot(self.args.output_dir / "curves.png")
            log_pictures(self.accelerator, step, {"swaps": result.picture, "curves": curves})
            described = ", ".join(f"{name} {value:.3f}" for name, value in result.values.items())
            self.accelerator.print(f"step {step}: {described}")

    def save_weights(self) -> None:
        """Writes what was trained, as it is by now: the whole checkpoint, or additions of low rank by themselves."""
        with self.averaged_weights():
            if self.accelerator.is_main_process:
                if self.args.train == "lora":
                    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(self.pipeline.unet))
                    with replaced_folder(self.args.output_dir / "lora") as folder:
                        FaceSwapInpaintPipeline.save_lora_weights(folder, unet_lora_layers=layers)
                else:
                    self.save_pipeline(self.pipeline)
        self.accelerator.wait_for_everyone()

    def save_pipeline(self, pipeline: FaceSwapInpaintPipeline) -> None:
        with replaced_folder(self.args.output_dir / "pipeline") as folder:
            pipeline.save_pretrained(folder)
            parser = Path(self.args.pretrained_model_name_or_path, PARSER_FOLDER)
            if parser.is_dir():
                shutil.copytree(parser, folder / PARSER_FOLDER)

    def finish(self) -> None:
        """Makes of the trained weights a folder for everybody: a checkpoint that loads at once, its card, the upload."""
        args = self.args
        if not self.accelerator.is_main_process:
            return
        folder = args.output_dir / "pipeline"
        if args.train == "lora":
            pipeline, _ = load_base(args)
            pipeline.load_lora_weights(args.output_dir / "lora")
            pipeline.fuse_lora()
            pipeline.unload_lora_weights()
            self.save_pipeline(pipeline)
        self.write_card(folder)
        print(f"The checkpoint is in {folder}: faceswap-diffusion swap SOURCE TARGET --checkpoint {folder} -o swap.png")
        if args.push_to_hub:
            repository = args.hub_model_id or args.output_dir.resolve().name
            print(f"Uploaded: {push_folder(folder, repository, private=args.hub_private)}")


def use_one_thread(worker_index: int) -> None:
    """Workers of the data loader share the cores with the networks."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


@contextmanager
def replaced_folder(folder: Path):
    """A new folder to write to, which takes the place of `folder` once it is complete."""
    unfinished, former = (folder.with_name(f"{folder.name}.{state}") for state in ("unfinished", "former"))
    for left_over in (unfinished, former):
        shutil.rmtree(left_over, ignore_errors=True)
    unfinished.mkdir(parents=True)
    yield unfinished
    if folder.exists():
        os.replace(folder, former)
    os.replace(unfinished, folder)
    shutil.rmtree(former, ignore_errors=True)


def build_accelerator(args: Namespace) -> Accelerator:
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision,
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        log_with=None if args.report_to == "none" else args.report_to,
        project_config=ProjectConfiguration(project_dir=str(args.output_dir), logging_dir=str(args.output_dir / "logs")),
    )
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        deepspeed_config = accelerator.state.deepspeed_plugin.deepspeed_config
        deepspeed_config["train_micro_batch_size_per_gpu"] = args.train_batch_size
    return accelerator


def main() -> None:
    parser = build_parser()
    args = parser.parse_args()
    accelerator = build_accelerator(args)
    set_seed(args.seed)  # for new layers; everything else is drawn from the seed and its own number
    try:
        run = Run(args, accelerator)
        if accelerator.is_main_process:
            args.output_dir.mkdir(parents=True, exist_ok=True)
            parser.save(args, args.output_dir / "config.yaml", overwrite=True, skip_none=False)
        if args.report_to != "none":
            accelerator.init_trackers(args.tracker_project_name, config=run.parts.settings)
        step = run.train()
        if step == args.max_train_steps:
            run.finish()
        else:
            accelerator.print(f"Stopped after step {step}: the same command goes on from there.")
        accelerator.end_training()
    except (ValueError, StateNotSavedError) as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()
