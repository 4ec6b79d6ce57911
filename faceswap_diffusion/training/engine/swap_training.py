"""What all trainings of the swap model share: the checkpoint, its samples, validation swaps, the finished folder."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.pipelines.latents import load_autoencoder
from faceswap_diffusion.provenance.save import save_image
from faceswap_diffusion.training.config import (
    HardwareConfig,
    ModelConfig,
    ReferenceConfig,
    SampleConfig,
    SwapModelConfig,
    ValidationConfig,
)
from faceswap_diffusion.training.data.batches import SampleRoles, SwapSamples
from faceswap_diffusion.training.data.dataset import FaceRecord, PreparedFaces
from faceswap_diffusion.training.data.references import TrainingReferences
from faceswap_diffusion.training.engine.checkpoints import load_whole_pipeline
from faceswap_diffusion.training.engine.gathering import gather_pipeline
from faceswap_diffusion.training.engine.history import log_pictures
from faceswap_diffusion.training.engine.model_card import write_model_card
from faceswap_diffusion.training.engine.trainable import build_optimizer
from faceswap_diffusion.training.engine.trainer import Trainer, global_batch_size
from faceswap_diffusion.training.engine.validation import choose_rows, validate
from faceswap_diffusion.training.models.new_model import exchange_autoencoder, resize_checkpoint
from faceswap_diffusion.weights.hub import push_folder


def load_checkpoint(config: ModelConfig) -> FaceSwapInpaintPipeline:
    """The checkpoint to go on from, in float32, with what is changed of it."""
    return change_checkpoint(config, load_whole_pipeline(config.pretrained_model_name_or_path, config.variant))


def change_checkpoint(config: ModelConfig, pipeline: FaceSwapInpaintPipeline) -> FaceSwapInpaintPipeline:
    """Exchanges a checkpoint's autoencoder, the size of its crops, and what they show, as far as it is asked for."""
    if config.new_vae:
        pipeline = exchange_autoencoder(pipeline, load_autoencoder(config.new_vae))
    if config.crop_size is not None:
        resize_checkpoint(pipeline, config.crop_size)
    if config.hidden_fill is not None:
        pipeline.register_to_config(hidden_fill=config.hidden_fill)
    return pipeline


def draw_samples(
    config: SampleConfig,
    reference_config: ReferenceConfig,
    pipeline: FaceSwapInpaintPipeline,
    faces: PreparedFaces,
    roles: SampleRoles,
    batch_size: int,
    seed: int,
) -> SwapSamples:
    """The samples of a run.

    Args:
        config (`SampleConfig`): How they are made.
        reference_config (`ReferenceConfig`): How references are made wrong, for a checkpoint that shows references.
        pipeline (`FaceSwapInpaintPipeline`): The pipeline that is trained on them.
        faces (`PreparedFaces`): At its crop size.
        roles (`SampleRoles`): Of the samples.
        batch_size (`int`): The global one.
        seed (`int`): The run's.

    Raises:
        ValueError: If mask sets do not fit the faces, or samples have no sources.
    """
    geometry = references = None
    if pipeline.config["geometry_share"]:
        geometry = pipeline.conditioner.geometry_coefficients.float().cpu()
    if pipeline.config["hidden_fill"] == "reference":
        references = TrainingReferences(faces, reference_config)
    return SwapSamples(faces, config, roles, batch_size, seed, geometry, references)


def check_roles(config: SwapModelConfig, accelerator: Accelerator, roles: SampleRoles) -> int:
    """The global batch size of a run.

    Raises:
        ValueError: If batches do not hold their roles evenly.
    """
    batch_size = global_batch_size(config.optimization, accelerator)
    roles.check(config.optimization.train_batch_size, batch_size)
    return batch_size


def prepare_networks(config: HardwareConfig, accelerator: Accelerator, pipeline: FaceSwapInpaintPipeline) -> None:
    """Brings frozen networks to the device, and makes the settings that change how is computed and not what.

    Args:
        config (`HardwareConfig`): These settings.
        accelerator (`Accelerator`): Of the run.
        pipeline (`FaceSwapInpaintPipeline`): Changed in place.
    """
    pipeline.vae.to(accelerator.device)
    pipeline.image_encoder.to(accelerator.device)
    pipeline.set_progress_bar_config(disable=True)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.allow_tf32
    if config.gradient_checkpointing:
        pipeline.unet.enable_gradient_checkpointing()
        pipeline.vae.enable_gradient_checkpointing()  # losses that look at pictures pass through its decoder
    if config.enable_xformers_memory_efficient_attention:
        pipeline.unet.enable_xformers_memory_efficient_attention()
    if config.torch_compile:
        pipeline.unet.compile()


def swap_optimizer(config: SwapModelConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimiser of a run.

    Raises:
        ValueError: If its package is missing.
    """
    return build_optimizer(groups, config.optimization.weight_decay, config.hardware.use_8bit_adam)


class SwapValidation:
    """Swaps among held-out faces, a picture of them, curves, and the weights as they are by now.

    Args:
        config (`ValidationConfig`): Which faces; none where no folder is given.
        pipeline (`FaceSwapInpaintPipeline`): With the weights trained so far.
        save_weights (`Callable[[FaceSwapInpaintPipeline], None]`): Writes what was trained of the pipeline that it is
            given; called in the main process.
    """

    def __init__(
        self,
        config: ValidationConfig,
        pipeline: FaceSwapInpaintPipeline,
        save_weights: Callable[[FaceSwapInpaintPipeline], None],
    ):
        self.pipeline, self.save_weights = pipeline, save_weights
        self.faces, self.label_names = load_validation(config, pipeline.config["crop_size"])

    def __call__(self, trainer: Trainer, step: int) -> None:
        """Validates after a step, by all processes alike: their networks may be divided among them."""
        if self.faces:
            self.measure(trainer, step)
        whole = gather_pipeline(trainer.accelerator, trainer.model, self.pipeline)
        if trainer.accelerator.is_main_process:
            self.save_weights(whole)

    def measure(self, trainer: Trainer, step: int) -> None:
        """Swaps, and writes what came out."""
        result = validate(self.pipeline, self.faces, self.label_names, seed=trainer.config.optimization.seed)
        trainer.accelerator.log(result.values, step=step)
        if not trainer.accelerator.is_main_process:
            return
        trainer.history.add(step, result.values)
        output_dir = trainer.config.output.output_dir
        folder = output_dir / "validation"
        folder.mkdir(parents=True, exist_ok=True)
        save_image(result.picture, folder / f"step_{step:06}.png", provenance={"step": step})
        curves = trainer.history.plot(output_dir / "curves.png")
        log_pictures(trainer.accelerator, step, {"swaps": result.picture, "curves": curves})
        described = ", ".join(f"{name} {value:.3f}" for name, value in result.values.items())
        tqdm.write(f"step {step}: {described}")


def load_validation(config: ValidationConfig, crop_size: int) -> tuple[list[FaceRecord], Sequence[str]]:
    """The faces that validation swaps are made of, and what their labels mean; none where no folder is given."""
    if not config.validation_data_dir:
        return [], ()
    faces = PreparedFaces(config.validation_data_dir, crop_size)
    return [faces[row] for row in choose_rows(faces.identities, config.num_validation)], faces.label_names


def publish_checkpoint(trainer: Trainer, folder: Path) -> None:
    """Writes a finished checkpoint's card, says how to use it, and uploads it if that is asked for."""
    sharing = trainer.config.sharing
    write_model_card(folder, trainer)
    trainer.accelerator.print(
        f"The checkpoint is in {folder}: faceswap-diffusion swap SOURCE TARGET --checkpoint {folder} -o swap.png"
    )
    if sharing.push_to_hub:
        repository = sharing.hub_model_id or trainer.config.output.output_dir.resolve().name
        trainer.accelerator.print(f"Uploaded: {push_folder(folder, repository, private=sharing.hub_private)}")
