"""Distils a swap model into a student of 1 to 8 steps (LCM, arXiv 2310.04378; LCM-LoRA, arXiv 2311.05556).

    python train/prepare_faces.py photos --output_dir data/faces
    accelerate launch train/distill_lcm.py --train_data_dir data/faces --output_dir runs/fast

leaves a LoRA and its scheduler in `runs/fast/lora`, for the checkpoint it was distilled from, and in
`runs/fast/pipeline` a checkpoint with both in it, which swaps at once. With `--output_type full` there is no LoRA.

The teacher's guidance becomes part of the student, which needs none of its own: each of its steps is twice as fast.
For a full-size checkpoint, whose swaps take 50 steps, `--num_rollout_steps 10` saves most of the time.

Stop it at any time: run the same command again and it goes on from the last saved state, to the same end.
"""

from dataclasses import replace
from functools import partial
from typing import cast

from accelerate import Accelerator

from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.pipelines.loading import fuse_lora
from faceswap_diffusion.training.config import DistillConfig
from faceswap_diffusion.training.data.batches import SampleRoles
from faceswap_diffusion.training.data.dataset import PreparedFaces
from faceswap_diffusion.training.engine.checkpoints import load_whole_pipeline, save_lora, save_pipeline
from faceswap_diffusion.training.engine.script import run_script
from faceswap_diffusion.training.engine.swap_training import (
    SwapValidation,
    check_roles,
    draw_samples,
    prepare_networks,
    publish_checkpoint,
    swap_optimizer,
)
from faceswap_diffusion.training.engine.trainable import trained_parameters
from faceswap_diffusion.training.engine.trainer import Task, Trainer
from faceswap_diffusion.training.objectives.distillation import (
    ConsistencyObjective,
    make_student,
    set_student_defaults,
    split_off_teacher,
    with_teacher_defaults,
)

SCRIPT = "distill_lcm.py"


def load_teacher(config: DistillConfig) -> FaceSwapInpaintPipeline:
    return load_whole_pipeline(config.model.pretrained_model_name_or_path, config.model.variant)


def build_trainer(config: DistillConfig, accelerator: Accelerator) -> Trainer[DistillConfig]:
    roles = SampleRoles.from_shares(config.consistency.cross_identity_share, 0)
    batch_size = check_roles(config, accelerator, roles)
    pipeline = load_teacher(config)
    config = replace(config, consistency=with_teacher_defaults(config.consistency, pipeline))
    faces, seed = PreparedFaces(config.data.train_data_dir, pipeline.config["crop_size"]), config.optimization.seed
    samples = draw_samples(config.samples, config.references, pipeline, faces, roles, batch_size, seed)
    teacher, student = split_off_teacher(pipeline), config.student
    num_ddim_timesteps = cast(int, config.consistency.num_ddim_timesteps)
    make_student(pipeline, student.output_type, student.lora_rank, num_ddim_timesteps, student.num_inference_steps)
    prepare_networks(config.hardware, accelerator, pipeline)
    objective = ConsistencyObjective(pipeline, teacher, config.consistency, faces.identity_network, seed)
    groups = [
        {
            "params": trained_parameters(objective.unet),
            "lr": config.optimization.learning_rate,
            "betas": (0.9, 0.99),
        }
    ]
    task = Task(
        objective=objective,
        optimizer=swap_optimizer(config, groups),
        samples=samples,
        validate=SwapValidation(config.validation, pipeline, partial(save_weights, config)),
        collate=samples.collate,
        faces=samples.summary,
    )
    return Trainer(config, accelerator, task)


def save_weights(config: DistillConfig, pipeline: FaceSwapInpaintPipeline) -> None:
    """Writes what was trained: additions of low rank by themselves, or the whole student."""
    output_dir = config.output.output_dir
    if config.student.output_type == "lora":
        save_lora(pipeline, output_dir / "lora")
    else:
        save_pipeline(pipeline, output_dir / "pipeline", config.model.pretrained_model_name_or_path)


def finish(trainer: Trainer[DistillConfig]) -> None:
    config = trainer.config
    output_dir, student = config.output.output_dir, config.student
    if student.output_type == "lora":
        pipeline = load_teacher(config)
        fuse_lora(pipeline, output_dir / "lora")
        num_ddim_timesteps = cast(int, config.consistency.num_ddim_timesteps)
        set_student_defaults(pipeline, num_ddim_timesteps, student.num_inference_steps)
        save_pipeline(pipeline, output_dir / "pipeline", config.model.pretrained_model_name_or_path)
    publish_checkpoint(trainer, output_dir / "pipeline")


def main(arguments: list[str] | None = None) -> None:
    run_script(DistillConfig, SCRIPT, __doc__, arguments, build_trainer, finish)


if __name__ == "__main__":
    main()
