"""The settings of training: the only home of every default.

A script has one composed dataclass whose fields are sections, and the fields of a section are options of the command
line. `command_line` makes parser, checks and the saved file of them. Each setting says whether a run that goes on may
have another value.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    restricted_number_type,
)

from faceswap_diffusion.pipelines.faceswap_inpaint import HIDDEN_FILLS
from faceswap_diffusion.pipelines.loading import FEW_STEPS
from faceswap_diffusion.training.fields import FIXED, section, setting
from faceswap_diffusion.weights.folders import EMBEDDED_CHECKPOINT

Strength = restricted_number_type("Strength", float, [(">", 0), ("<=", 1)])


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Faces to train on."""

    train_data_dir: tuple[str, ...] = setting(help="folders of prepare_faces.py")


@dataclass(frozen=True, kw_only=True)
class CachedDataConfig:
    """Faces to train on, or samples that are already encoded."""

    train_data_dir: tuple[str, ...] | None = setting(None, help="folders of prepare_faces.py")
    latents_dir: Path | None = setting(
        None, help="folder of cache_latents.py, in place of them: the plain denoising loss alone"
    )
    latent_window: int | None = setting(
        None, kind=PositiveInt, help="side in latents of what is seen of each, round its mask", resume=FIXED
    )


@dataclass(frozen=True, kw_only=True)
class CropConfig:
    """Crops to train a small network on."""

    train_data_dir: tuple[str, ...] = setting(help="folders of prepare_faces.py")
    resolution: int = setting(128, kind=PositiveInt, help="side of the crops in pixels", resume=FIXED)
    num_validation: int = setting(64, kind=PositiveInt, help="faces held out, every n-th", resume=FIXED)


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """Windows of the crops."""

    crop_size: int = setting(
        64, kind=PositiveInt, help="train on random windows: more steps for the same pixels", resume=FIXED
    )
    recolor_probability: float = setting(
        0.5, kind=ClosedUnitInterval, help="share of windows whose channels are mixed", resume=FIXED
    )


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """How faces become samples."""

    mask_sets: tuple[str, ...] = setting(
        ("face=0.6", "head=0.3", "features=0.1"),
        help="what is hidden of the target and shown of the source, drawn for each sample",
        resume=FIXED,
    )
    pair_probability: float = setting(
        0.5,
        kind=ClosedUnitInterval,
        help="how often another picture of the same person is the source, where there is one",
        resume=FIXED,
    )
    identity_noise: float = setting(
        0.025,
        kind=NonNegativeFloat,
        help="standard deviation added to each coordinate of an identity embedding",
        resume=FIXED,
    )
    landmark_noise: float = setting(
        0.4,
        kind=NonNegativeFloat,
        help="standard deviation in pixels of a 128-pixel crop: what detectors disagree by",
        resume=FIXED,
    )
    warped_masks: float = setting(
        1.0,
        kind=ClosedUnitInterval,
        help="share of the masks that are enlarged by a warped copy of themselves, as REFace's",
        resume=FIXED,
    )
    geometry_share: float = setting(
        0.8,
        kind=ClosedUnitInterval,
        help="up to which share somebody else's geometry replaces the target's in its landmarks",
        resume=FIXED,
    )
    occluded_targets: float = setting(
        0.1,
        kind=ClosedUnitInterval,
        help="share of targets with something before the face, which the mask leaves out",
        resume=FIXED,
    )


@dataclass(frozen=True, kw_only=True)
class ReferenceConfig:
    """How references are corrupted. 0 switches a fault off."""

    cycled: float = setting(
        0.3,
        kind=ClosedUnitInterval,
        help="share whose texture is taken from a drawing on another face's mesh: what that pose hides, and what that "
        "expression closes, is missing",
        resume=FIXED,
    )
    misaligned: float = setting(
        0.004,
        kind=NonNegativeFloat,
        help="standard deviation by which meshes are off, as a share of the crop's side; half of it for all points "
        "alike, half for each part of the face",
        resume=FIXED,
    )
    shaded: float = setting(
        0.05,
        kind=NonNegativeFloat,
        help="standard deviation of what is left of the source's light, as a share of the brightness",
        resume=FIXED,
    )
    toned: float = setting(
        1.5, kind=NonNegativeFloat, help="standard deviation of the tone in CIELAB units", resume=FIXED
    )
    blurred: float = setting(
        0.1, kind=ClosedUnitInterval, help="share of references of a lower resolution", resume=FIXED
    )
    holed: float = setting(
        0.2, kind=ClosedUnitInterval, help="share with pieces missing, as behind glasses and hair", resume=FIXED
    )
    bare: float = setting(0.15, kind=ClosedUnitInterval, help="share that show nothing around the mesh", resume=FIXED)
    toothless: float = setting(
        0.5,
        kind=ClosedUnitInterval,
        help="share whose open mouths are empty where the texture cannot fill them: a model that always sees teeth "
        "does not learn them",
        resume=FIXED,
    )
    occluded: float = setting(
        0.05,
        kind=ClosedUnitInterval,
        help="share of sources with something before the face that no parser noticed, and that their texture "
        "therefore shows",
        resume=FIXED,
    )


@dataclass(frozen=True, kw_only=True)
class BaseConfig:
    """Checkpoint to start from."""

    pretrained_model_name_or_path: str = setting(
        str(EMBEDDED_CHECKPOINT),
        help="checkpoint to go on from: folder or Hub id; the package's if left out",
        resume=FIXED,
    )
    variant: str | None = setting(
        None, help="of its weights, as fp16; plain files, or else the only variant", resume=FIXED
    )


@dataclass(frozen=True, kw_only=True)
class ModelConfig(BaseConfig):
    """Checkpoint to start from, and changes to it."""

    new_vae: Path | None = setting(
        None, help="exchange the checkpoint's autoencoder for this finished one", resume=FIXED
    )
    crop_size: int | None = setting(
        None,
        kind=PositiveInt,
        help="side of the crops in pixels; the checkpoint's if left out, and 128 for a new model",
        resume=FIXED,
    )
    hidden_fill: str | None = setting(
        None,
        kind=Literal[HIDDEN_FILLS],
        help="what the target shows where its face is hidden; as the checkpoint has it if left out",
        resume=FIXED,
    )


@dataclass(frozen=True, kw_only=True)
class TrainedConfig:
    """Which parts of a checkpoint are trained."""

    train: Literal["full", "attention", "lora"] = setting("full", help="what is trained", resume=FIXED)
    lora_rank: int = setting(16, kind=PositiveInt, resume=FIXED)


@dataclass(frozen=True, kw_only=True)
class NewModelConfig:
    """Parts of a new model."""

    vae: Path | None = setting(None, help="folder of a finished autoencoder to build it around", resume=FIXED)
    image_encoder: Path | None = setting(
        None, help="folder that holds image_encoder/ and feature_extractor/", resume=FIXED
    )
    block_out_channels: tuple[int, int, int, int] = setting((32, 64, 128, 192), kind=PositiveInt, resume=FIXED)
    prediction_type: Literal["epsilon", "v_prediction"] = setting("v_prediction", resume=FIXED)


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Terms of the swap model's loss, and shares of the samples that they are computed on."""

    cross_identity_share: float = setting(
        0.25, kind=ClosedUnitInterval, help="samples with the source of another person", resume=FIXED
    )
    self_reconstruction_share: float = setting(
        0.25, kind=ClosedUnitInterval, help="samples through as many steps, with their own source", resume=FIXED
    )
    unconditional_probability: float = setting(
        0.1, kind=ClosedUnitInterval, help="how often a sample that is denoised once has no condition"
    )
    timestep_sampling: Literal["late", "uniform"] = setting(
        "late",
        help="late: as likely as they are late, since a face takes shape where the noise is strong, and that is hard "
        "to learn",
    )
    snr_gamma: float | None = setting(
        None, kind=PositiveFloat, help="of min-SNR weights (arXiv 2303.09556); 5 is usual; null: all timesteps alike"
    )
    outside_weight: float = setting(0.1, kind=ClosedUnitInterval, help="of pixels that are kept")
    num_rollout_steps: tuple[int, ...] = setting(
        (4, 5, 6, 8, 10),
        kind=PositiveInt,
        help="denoising steps of cross-identity and self-reconstruction samples; one of these is drawn for each step "
        "of the training",
    )
    rollout_depth: Literal["random", "full"] = setting("random", help="random: stop after any number of them")
    rollout_start: Literal["noise", "target"] = setting(
        "noise", help="noise as in a swap, or REFace's target, noised to the first timestep"
    )
    rollout_strength: float = setting(
        1.0,
        kind=Strength,
        help="below 1 rollouts start from the noised reference and take this part of their steps, as a swap does",
    )
    num_gradient_steps: int | None = setting(
        1, kind=PositiveInt, help="how many of them gradients pass through, from the end; null: all"
    )
    rollout_checkpointing: bool = setting(False, help="recompute each of them in the backward pass, to save memory")
    self_reconstruction_weight: float = setting(1.0, kind=NonNegativeFloat)
    identity_weight: float = setting(1.5, kind=NonNegativeFloat)
    coarse_weight: float = setting(2.0, kind=NonNegativeFloat, help="of the target's coarse colours")
    attributes_weight: float = setting(
        0.0,
        kind=NonNegativeFloat,
        help="of what the image encoder sees of the target; for encoders that do not know people, as the package's",
    )
    landmarks_weight: float = setting(
        0.0,
        kind=NonNegativeFloat,
        help="of how far the swap's landmarks, by the face mesh, are from those it was to have",
    )
    lpips_weight: float = setting(0.0, kind=NonNegativeFloat, help="needs `faceswap-diffusion fetch lpips_vgg16`")
    adversarial_weight: float = setting(0.4, kind=NonNegativeFloat, help="0: no discriminator")


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """How the discriminator is optimised."""

    discriminator_learning_rate: float = setting(3e-4, kind=PositiveFloat)


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """The few-step student."""

    output_type: Literal["lora", "full"] = setting(
        "lora", help="what is trained: additions, or the UNet", resume=FIXED
    )
    lora_rank: int = setting(64, kind=PositiveInt, resume=FIXED)
    num_inference_steps: int = setting(FEW_STEPS, kind=PositiveInt, help="of the student's swaps if a call names none")


@dataclass(frozen=True, kw_only=True)
class ConsistencyConfig:
    """The loss of a few-step student."""

    cross_identity_share: float = setting(
        0.5,
        kind=ClosedUnitInterval,
        help="samples with the source of another person, which the teacher swaps first",
        resume=FIXED,
    )
    num_rollout_steps: int | None = setting(
        None, kind=PositiveInt, help="of these swaps; the checkpoint's own if left out", resume=FIXED
    )
    guidance_scale: float | None = setting(
        None, kind=PositiveFloat, help="of the teacher; the checkpoint's own if left out", resume=FIXED
    )
    num_ddim_timesteps: int | None = setting(
        None,
        kind=PositiveInt,
        help="steps into which the teacher's way is divided, the most that the student can take; the checkpoint's own "
        "number if left out",
        resume=FIXED,
    )
    huber_c: float = setting(0.001, kind=PositiveFloat, help="where the loss turns from square to linear")
    outside_weight: float = setting(0.1, kind=ClosedUnitInterval, help="of pixels that are kept")


@dataclass(frozen=True, kw_only=True)
class OptimizationConfig:
    """Batch sizes, optimiser, schedule and precision."""

    train_batch_size: int = setting(16, kind=PositiveInt, help="of each process")
    gradient_accumulation_steps: int = setting(1, kind=PositiveInt)
    max_train_steps: int = setting(1000, kind=PositiveInt, help="a finished run goes on with a larger number")
    learning_rate: float = setting(1e-4, kind=PositiveFloat)
    lr_scheduler: Literal["constant", "constant_with_warmup", "linear", "cosine"] = setting("cosine", resume=FIXED)
    lr_warmup_steps: int = setting(100, kind=NonNegativeInt, resume=FIXED)
    weight_decay: float = setting(0.01, kind=NonNegativeFloat)
    max_grad_norm: float = setting(1.0, kind=PositiveFloat)
    ema_decay: float = setting(0.998, kind=ClosedUnitInterval, help="0: no running average", resume=FIXED)
    mixed_precision: Literal["no", "fp16", "bf16"] = setting("no", resume=FIXED)
    dataloader_num_workers: int = setting(2, kind=NonNegativeInt)
    seed: int = setting(0, kind=NonNegativeInt, resume=FIXED)


@dataclass(frozen=True, kw_only=True)
class HardwareConfig:
    """Options that save memory or time without changing the result."""

    use_8bit_adam: bool = setting(False, help="bitsandbytes'; NVIDIA GPUs only", resume=FIXED)
    allow_tf32: bool = setting(False)
    gradient_checkpointing: bool = setting(False)
    enable_xformers_memory_efficient_attention: bool = setting(False)
    torch_compile: bool = setting(False)


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """Where to write, how often, and which trackers to use."""

    output_dir: Path = setting(help="receives states, curves, settings and what was trained")
    checkpointing_steps: int = setting(250, kind=PositiveInt)
    checkpoints_total_limit: int | None = setting(2, kind=PositiveInt, help="older states go")
    validation_steps: int = setting(250, kind=PositiveInt)
    report_to: Literal["tensorboard", "wandb", "trackio", "none"] = setting("tensorboard")
    tracker_project_name: str = setting("faceswap-diffusion")


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Faces that are swapped to monitor the training."""

    validation_data_dir: tuple[str, ...] | None = setting(None, help="folders that validation swaps are made of")
    num_validation: int = setting(24, kind=PositiveInt, help="faces taken of them")


@dataclass(frozen=True, kw_only=True)
class SharingConfig:
    """Model card and upload of the finished checkpoint."""

    license: str | None = setting(None, help="of the trained weights, for the model card")
    push_to_hub: bool = setting(False)
    hub_model_id: str | None = setting(None, help="owner/name; the output folder's name if left out")
    hub_private: bool = setting(False)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Settings of every training; each script adds its own."""

    optimization: OptimizationConfig = section("optimization")
    output: OutputConfig = section("output")


@dataclass(frozen=True, kw_only=True)
class SwapModelConfig(TrainingConfig):
    """Settings of every training of a swap model."""

    samples: SampleConfig = section("samples")
    references: ReferenceConfig = section(
        "references", description="how they are made wrong, where hidden_fill is reference", prefix="reference_"
    )
    hardware: HardwareConfig = section("hardware")
    validation: ValidationConfig = section("validation")
    sharing: SharingConfig = section("sharing")


@dataclass(frozen=True, kw_only=True)
class TrainFaceswapConfig(SwapModelConfig):
    """Settings of train_faceswap.py."""

    data: CachedDataConfig = section("data")
    model: ModelConfig = section("model")
    trained: TrainedConfig = section("trained")
    new_model: NewModelConfig = section("a new model, in place of a checkpoint")
    loss: LossConfig = section("objective")
    discriminator: DiscriminatorConfig = section("discriminator")


@dataclass(frozen=True, kw_only=True)
class DistillConfig(SwapModelConfig):
    """Settings of distill_lcm.py."""

    data: DataConfig = section("data")
    model: BaseConfig = section("model")
    student: StudentConfig = section("student")
    consistency: ConsistencyConfig = section("consistency")
    optimization: OptimizationConfig = section("optimization", ema_decay=0.995)


@dataclass(frozen=True, kw_only=True)
class LatentsConfig:
    """Samples to encode, and how they are divided into files."""

    output_dir: Path = setting(help="receives the shards")
    num_samples: int = setting(kind=PositiveInt, help="how many; a run with more repeats them")
    shard_size: int = setting(1024, kind=PositiveInt, help="samples in a file, of 256 MB at most")
    seed: int = setting(0, kind=NonNegativeInt, help="of the run")
    num_workers: int | None = setting(None, kind=PositiveInt, help="processes; one a core if left out")


@dataclass(frozen=True, kw_only=True)
class CacheLatentsConfig:
    """Settings of cache_latents.py."""

    data: DataConfig = section("data")
    samples: SampleConfig = section("samples")
    references: ReferenceConfig = section(
        "references", description="how they are made wrong, where hidden_fill is reference", prefix="reference_"
    )
    model: ModelConfig = section("model")
    latents: LatentsConfig = section("latents")
