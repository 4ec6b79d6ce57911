"""Trains the swap model: masked inpainting of faces, conditioned on identity, CLIP features and landmarks.

    python train/prepare_faces.py photos --output_dir data/faces
    accelerate launch train/train_faceswap.py --train_data_dir data/faces --output_dir runs/mine

goes on from the model in the package. The recipe is REFace's (arXiv 2409.07269): a face is hidden and generated again
from its own identity, with warped masks, augmented sources and a learned unconditional context. Some samples of each
batch go through several denoising steps, as in a swap. A part of them has its own source and is to come out as it was.
The others get the source of another person in the batch; there is no ground truth for them, so they are trained by the
identity loss through the recogniser, by the target's coarse colours, by LPIPS, and by a discriminator that knows what
faces look like.

Stop it at any time: run the same command again and it goes on from the last saved state, to the same end.
`train/README.md` has more; `train/recipes/` holds settings for `--config`.
"""

from functools import partial
from typing import Any

from accelerate import Accelerator

from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.pipelines.loading import fuse_lora
from faceswap_diffusion.training.config import LossConfig, TrainFaceswapConfig
from faceswap_diffusion.training.data.batches import SampleRoles, SwapSamples
from faceswap_diffusion.training.data.dataset import PreparedFaces
from faceswap_diffusion.training.data.latent_cache import latent_settings
from faceswap_diffusion.training.data.latents import CachedSamples, check_settings
from faceswap_diffusion.training.engine.checkpoints import save_lora, save_pipeline
from faceswap_diffusion.training.engine.script import run_script
from faceswap_diffusion.training.engine.swap_training import (
    SwapValidation,
    change_checkpoint,
    check_roles,
    draw_samples,
    load_checkpoint,
    prepare_networks,
    publish_checkpoint,
    swap_optimizer,
)
from faceswap_diffusion.training.engine.trainable import select_trainable, trained_parameters
from faceswap_diffusion.training.engine.trainer import Task, Trainer
from faceswap_diffusion.training.models.new_model import build_pipeline
from faceswap_diffusion.training.objectives.objective import SwapObjective

SCRIPT = "train_faceswap.py"
NEW_CROP_SIZE = 128


def load_base(config: TrainFaceswapConfig) -> FaceSwapInpaintPipeline:
    """The pipeline to train, in float32."""
    new = config.new_model
    if not new.vae:
        return load_checkpoint(config.model)
    if new.image_encoder is None:
        raise ValueError("--vae starts a new model, which needs --image_encoder as well")
    faces = PreparedFaces(faces_of(config), config.model.crop_size or NEW_CROP_SIZE)
    pipeline = build_pipeline(new.vae, new.image_encoder, faces, new.block_out_channels, new.prediction_type)
    return change_checkpoint(config.model, pipeline)


def parameter_groups(config: TrainFaceswapConfig, objective: SwapObjective) -> list[dict[str, Any]]:
    trained = [*trained_parameters(objective.unet), *trained_parameters(objective.conditioner)]
    groups: list[dict[str, Any]] = [{"params": trained, "lr": config.optimization.learning_rate, "betas": (0.9, 0.99)}]
    if objective.discriminator is not None:
        rate = config.discriminator.discriminator_learning_rate
        trained = trained_parameters(objective.discriminator)
        groups.append({"params": trained, "lr": rate, "betas": (0.5, 0.99), "weight_decay": 0.0})
    return groups


def save_weights(config: TrainFaceswapConfig, pipeline: FaceSwapInpaintPipeline) -> None:
    """Writes what was trained: additions of low rank by themselves, or the whole checkpoint."""
    output_dir = config.output.output_dir
    if config.trained.train == "lora":
        save_lora(pipeline, output_dir / "lora")
    else:
        save_pipeline(pipeline, output_dir / "pipeline", base_folder(config))


def base_folder(config: TrainFaceswapConfig) -> str:
    return str(config.new_model.vae or config.model.pretrained_model_name_or_path)


def faces_of(config: TrainFaceswapConfig) -> tuple[str, ...]:
    """The folders of prepared faces.

    Raises:
        ValueError: If there are none.
    """
    if not config.data.train_data_dir:
        raise ValueError("name faces with --train_data_dir, or encoded samples with --latents_dir: one of the two")
    return config.data.train_data_dir


def check_data(config: TrainFaceswapConfig) -> None:
    """Refuses what does not go with the data that is named, or without."""
    data, loss = config.data, config.loss
    if bool(data.train_data_dir) == bool(data.latents_dir):
        raise ValueError("name faces with --train_data_dir, or encoded samples with --latents_dir: one of the two")
    if data.latents_dir is None:
        if data.latent_window is not None:
            raise ValueError("--latent_window goes with --latents_dir: leave it out")
        return
    if config.new_model.vae:
        raise ValueError("--vae starts a new model, which learns from faces first: give --train_data_dir")
    if loss.cross_identity_share or loss.self_reconstruction_share:
        raise ValueError(
            f"--latents_dir holds no pictures, but --cross_identity_share {loss.cross_identity_share} and "
            f"--self_reconstruction_share {loss.self_reconstruction_share} need them: set both to 0, or train on "
            "--train_data_dir"
        )


def build_samples(
    config: TrainFaceswapConfig, pipeline: FaceSwapInpaintPipeline, roles: SampleRoles, batch_size: int
) -> SwapSamples | CachedSamples:
    seed = config.optimization.seed
    if config.data.latents_dir is None:
        faces = PreparedFaces(faces_of(config), pipeline.config["crop_size"])
        return draw_samples(config.samples, config.references, pipeline, faces, roles, batch_size, seed)
    samples = CachedSamples(config.data.latents_dir, config.data.latent_window)
    check_settings(samples, latent_settings(config.samples, config.references, seed, pipeline))
    return samples


def check_rollouts(loss: LossConfig, pipeline: FaceSwapInpaintPipeline) -> None:
    """Refuses rollouts that start from a reference that is not drawn, or from two starts at once."""
    if loss.rollout_strength == 1:
        return
    if pipeline.config["hidden_fill"] != "reference":
        raise ValueError(
            f"--rollout_strength {loss.rollout_strength} starts from the reference, but the checkpoint's hidden_fill "
            f"is {pipeline.config['hidden_fill']!r}: add --hidden_fill reference, or leave it at 1"
        )
    if loss.rollout_start != "noise":
        raise ValueError(
            f"--rollout_strength {loss.rollout_strength} starts from the reference, and --rollout_start "
            f"{loss.rollout_start} from the target: set one of them"
        )


def build_trainer(config: TrainFaceswapConfig, accelerator: Accelerator) -> Trainer[TrainFaceswapConfig]:
    check_data(config)
    roles = SampleRoles.from_shares(config.loss.cross_identity_share, config.loss.self_reconstruction_share)
    batch_size = check_roles(config, accelerator, roles)
    pipeline = load_base(config)
    check_rollouts(config.loss, pipeline)
    samples = build_samples(config, pipeline, roles, batch_size)
    select_trainable(pipeline, config.trained.train, config.trained.lora_rank)
    prepare_networks(config.hardware, accelerator, pipeline)
    identity_network = samples.summary.identity_network
    objective = SwapObjective(pipeline, config.loss, roles, identity_network, config.optimization.seed)
    task = Task(
        objective=objective,
        optimizer=swap_optimizer(config, parameter_groups(config, objective)),
        samples=samples,
        validate=SwapValidation(config.validation, pipeline, partial(save_weights, config)),
        collate=samples.collate,
        facts={
            "hidden_fill": pipeline.config["hidden_fill"],
            "latents": samples.fingerprint if isinstance(samples, CachedSamples) else None,
        },
        faces=samples.summary,
    )
    return Trainer(config, accelerator, task)


def finish(trainer: Trainer[TrainFaceswapConfig]) -> None:
    """Makes of what was trained a checkpoint that loads at once."""
    config = trainer.config
    folder = config.output.output_dir / "pipeline"
    if config.trained.train == "lora":
        pipeline = load_base(config)
        fuse_lora(pipeline, config.output.output_dir / "lora")
        save_pipeline(pipeline, folder, base_folder(config))
    publish_checkpoint(trainer, folder)


def main(arguments: list[str] | None = None) -> None:
    run_script(TrainFaceswapConfig, SCRIPT, __doc__, arguments, build_trainer, finish)


if __name__ == "__main__":
    main()
