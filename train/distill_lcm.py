# pyright: reportOperatorIssue=false
# jsonargparse makes its kinds of numbers at run time.
"""Distils a swap model into a student of 1 to 8 steps (LCM, arXiv 2310.04378; LCM-LoRA, arXiv 2311.05556).

    python train/prepare_faces.py photos --output_dir data/faces
    accelerate launch train/distill_lcm.py --train_data_dir data/faces --output_dir runs/fast

leaves a LoRA and its scheduler in `runs/fast/lora`, for the checkpoint it was distilled from, and in
`runs/fast/pipeline` a checkpoint with both in it, which swaps at once. With `--output_type full` there is no LoRA.

The teacher's guidance becomes part of the student, which needs none of its own: each of its steps is twice as fast.
For a full-size checkpoint, whose swaps take 50 steps, `--num_rollout_steps 10` saves most of the time.

Stop it at any time: run the same command again and it goes on from the last saved state, to the same end.
"""

from functools import partial
from typing import Any, Literal

from accelerate import Accelerator
from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import ClosedUnitInterval, PositiveFloat, PositiveInt

from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.pipelines.loading import FEW_STEPS, fuse_lora
from faceswap_diffusion.training.arguments import (
    SAMPLE_ARGUMENTS,
    add_data_arguments,
    add_optimization_arguments,
    add_output_arguments,
    build_parser,
)
from faceswap_diffusion.training.data.batches import Roles
from faceswap_diffusion.training.data.dataset import PreparedFaces
from faceswap_diffusion.training.engine.checkpoints import load_whole_pipeline, save_lora, save_pipeline
from faceswap_diffusion.training.engine.run import Run, prepare_networks
from faceswap_diffusion.training.engine.script import check_roles, draw_samples, hand_on, run_script, settings_of
from faceswap_diffusion.training.engine.trainable import trained_parameters
from faceswap_diffusion.training.objectives.distillation import (
    OUTPUT_TYPES,
    ConsistencyObjective,
    ConsistencySettings,
    make_student,
    set_student_defaults,
    split_off_teacher,
)
from faceswap_diffusion.weights.folders import EMBEDDED_CHECKPOINT

STAYING = (
    "output_type", "cross_share", "num_rollout_steps", "guidance_scale", "num_ddim_timesteps",
    *SAMPLE_ARGUMENTS,
)  # fmt: skip


def distillation_parser() -> ArgumentParser:
    parser = build_parser("distill_lcm.py", __doc__)
    add_data_arguments(parser)
    model = parser.add_argument_group("model")
    model.add_argument(
        "--pretrained_model_name_or_path",
        type=str,
        default=str(EMBEDDED_CHECKPOINT),
        help="checkpoint to distil: folder or Hub id; the package's if left out",
    )
    model.add_argument("--variant", type=str, help="of its weights, as fp16; plain files, or else the only variant")
    model.add_argument(
        "--output_type", type=Literal[OUTPUT_TYPES], default="lora", help="what is trained: additions, or the UNet"
    )
    model.add_argument("--lora_rank", type=PositiveInt, default=64)
    model.add_argument(
        "--num_inference_steps",
        type=PositiveInt,
        default=FEW_STEPS,
        help="of the student's swaps if a call names none",
    )
    add_consistency_arguments(parser)
    add_optimization_arguments(parser, learning_rate=1e-4, ema_decay=0.995)
    add_output_arguments(parser)
    return parser


def add_consistency_arguments(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("consistency")
    group.add_argument(
        "--cross_share",
        type=ClosedUnitInterval,
        default=0.5,
        help="samples with the source of another person, which the teacher swaps first",
    )
    group.add_argument(
        "--num_rollout_steps", type=PositiveInt | None, help="of these swaps; the checkpoint's own if left out"
    )
    group.add_argument(
        "--guidance_scale", type=PositiveFloat | None, help="of the teacher; the checkpoint's own if left out"
    )
    group.add_argument(
        "--num_ddim_timesteps",
        type=PositiveInt | None,
        help="steps into which the teacher's way is divided, the most that the student can take; the checkpoint's own "
        "number if left out",
    )
    group.add_argument(
        "--huber_c", type=PositiveFloat, default=0.001, help="where the loss turns from square to linear"
    )
    group.add_argument("--outside_weight", type=ClosedUnitInterval, default=0.1, help="of pixels that are kept")


def take_over(args: Namespace, pipeline: FaceSwapInpaintPipeline) -> None:
    """Fills arguments that are left out with what the checkpoint was made for.

    A teacher that was trained for few steps is worse on a longer way: the small model's likeness is lost there.
    """
    num_steps, guidance_scale = (
        pipeline.config[f"default_{name}"] for name in ("num_inference_steps", "guidance_scale")
    )
    given = {"num_ddim_timesteps": num_steps, "num_rollout_steps": num_steps, "guidance_scale": guidance_scale}
    for name, value in given.items():
        if args[name] is None:
            args[name] = value


def build_run(args: Namespace, accelerator: Accelerator) -> Run:
    roles = Roles.from_shares(args.cross_share, 0)
    batch_size = check_roles(args, accelerator, roles)
    pipeline = load_whole_pipeline(args.pretrained_model_name_or_path, args.variant)
    take_over(args, pipeline)
    faces = PreparedFaces(args.train_data_dir, pipeline.config["crop_size"])
    samples = draw_samples(args, pipeline, faces, roles, batch_size)
    settings = settings_of(ConsistencySettings, args)
    teacher = split_off_teacher(pipeline)
    make_student(pipeline, args.output_type, args.lora_rank, args.num_ddim_timesteps, args.num_inference_steps)
    prepare_networks(args, accelerator, pipeline)
    objective = ConsistencyObjective(pipeline, teacher, settings, faces.identity_network)
    groups: list[dict[str, Any]] = [
        {"params": trained_parameters(objective.unet), "lr": args.learning_rate, "betas": (0.9, 0.99)}
    ]
    staying = {name: getattr(args, name) for name in STAYING}
    return Run(args, accelerator, pipeline, objective, groups, samples, staying, partial(save_weights, args))


def save_weights(args: Namespace, pipeline: FaceSwapInpaintPipeline) -> None:
    """Writes what was trained: additions of low rank by themselves, or the whole student."""
    if args.output_type == "lora":
        save_lora(pipeline, args.output_dir / "lora")
    else:
        save_pipeline(pipeline, args.output_dir / "pipeline", args.pretrained_model_name_or_path)


def finish(args: Namespace, run: Run) -> None:
    folder = args.output_dir / "pipeline"
    if args.output_type == "lora":
        pipeline = load_whole_pipeline(args.pretrained_model_name_or_path, args.variant)
        fuse_lora(pipeline, args.output_dir / "lora")
        set_student_defaults(pipeline, args.num_ddim_timesteps, args.num_inference_steps)
        save_pipeline(pipeline, folder, args.pretrained_model_name_or_path)
    hand_on(args, folder, run)


def main(arguments: list[str] | None = None) -> None:
    run_script(distillation_parser(), arguments, build_run, finish)


if __name__ == "__main__":
    main()
