# pyright: reportOperatorIssue=false
# jsonargparse makes its kinds of numbers at run time.
"""Trains the swap model: masked inpainting of faces, conditioned on identity, CLIP features and landmarks.

    python train/prepare_faces.py photos --output_dir data/faces
    accelerate launch train/train_faceswap.py --train_data_dir data/faces --output_dir runs/mine

goes on from the model in the package. The recipe is REFace's (arXiv 2409.07269): a face is hidden and painted again
from its own identity, with warped masks, augmented sources and a learned unconditional context. Some samples of each
batch go through several denoising steps, as in a swap. A part of them has its own source and is to come out as it was.
The others get the source of another person in the batch; nobody knows their true pixels, so they are taught by the
identity loss through the recogniser, by the target's coarse colours, by LPIPS, and by a discriminator that knows what
faces look like.

Stop it at any time: run the same command again and it goes on from the last saved state, to the same end.
`train/README.md` tells more; `train/recipes/` holds settings for `--config`.
"""

from functools import partial
from pathlib import Path
from typing import Any, Literal

from accelerate import Accelerator
from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    restricted_number_type,
)

from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.pipelines.loading import fuse_lora
from faceswap_diffusion.training.arguments import (
    SAMPLE_ARGUMENTS,
    add_cached_data_arguments,
    add_model_arguments,
    add_optimization_arguments,
    add_output_arguments,
    add_sample_arguments,
    build_parser,
)
from faceswap_diffusion.training.data.batches import Roles, SwapSamples
from faceswap_diffusion.training.data.dataset import PreparedFaces
from faceswap_diffusion.training.data.latent_cache import latent_settings
from faceswap_diffusion.training.data.latents import CachedSamples, check_settings
from faceswap_diffusion.training.engine.checkpoints import save_lora, save_pipeline
from faceswap_diffusion.training.engine.run import Run, prepare_networks
from faceswap_diffusion.training.engine.script import (
    change_checkpoint,
    check_roles,
    draw_samples,
    hand_on,
    load_checkpoint,
    run_script,
    settings_of,
)
from faceswap_diffusion.training.engine.trainable import TRAINING_MODES, select_trainable, trained_parameters
from faceswap_diffusion.training.models.new_model import build_pipeline
from faceswap_diffusion.training.objectives.objective import ObjectiveSettings, SwapObjective

STAYING = ("train", "cross_share", "own_share", "latent_window", *SAMPLE_ARGUMENTS)
NEW_CROP_SIZE = 128
Strength = restricted_number_type("Strength", float, [(">", 0), ("<=", 1)])


def swap_parser() -> ArgumentParser:
    parser = build_parser("train_faceswap.py", __doc__)
    add_cached_data_arguments(parser)
    add_sample_arguments(parser)
    add_network_arguments(parser)
    add_objective_arguments(parser)
    add_optimization_arguments(parser, learning_rate=1e-4, ema_decay=0.998)
    parser.add_argument("--discriminator_learning_rate", type=PositiveFloat, default=3e-4)
    add_output_arguments(parser)
    return parser


def add_network_arguments(parser: ArgumentParser) -> None:
    model = add_model_arguments(parser)
    model.add_argument("--train", type=Literal[TRAINING_MODES], default="full", help="what is trained")
    model.add_argument("--lora_rank", type=PositiveInt, default=16)
    new = parser.add_argument_group("a new model, in place of a checkpoint")
    new.add_argument("--vae", type=Path, help="folder of a finished autoencoder to build it around")
    new.add_argument("--image_encoder", type=Path, help="folder that holds image_encoder/ and feature_extractor/")
    new.add_argument("--block_out_channels", type=PositiveInt, nargs=4, default=[32, 64, 128, 192])
    new.add_argument("--prediction_type", type=Literal["epsilon", "v_prediction"], default="v_prediction")


def add_objective_arguments(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("objective")
    group.add_argument(
        "--cross_share", type=ClosedUnitInterval, default=0.25, help="samples with the source of another person"
    )
    group.add_argument(
        "--own_share", type=ClosedUnitInterval, default=0.25, help="samples through as many steps, with their own"
    )
    group.add_argument("--unconditional_probability", type=ClosedUnitInterval, default=0.1)
    group.add_argument("--timestep_sampling", type=Literal["late", "uniform"], default="late")
    group.add_argument("--snr_gamma", type=PositiveFloat | None, help="min-SNR weights; 5 is usual")
    group.add_argument("--outside_weight", type=ClosedUnitInterval, default=0.1, help="of pixels that are kept")
    group.add_argument(
        "--num_rollout_steps",
        type=PositiveInt,
        nargs="+",
        default=[4, 5, 6, 8, 10],
        help="denoising steps of cross and own samples; one of these is drawn for each step of the training",
    )
    group.add_argument("--rollout_depth", type=Literal["random", "full"], default="random")
    group.add_argument("--rollout_start", type=Literal["noise", "target"], default="noise")
    group.add_argument(
        "--rollout_strength",
        type=Strength,
        default=1.0,
        help="below 1 rollouts start from the noised reference and take this part of their steps, as a swap does",
    )
    group.add_argument(
        "--num_gradient_steps", type=PositiveInt | None, default=1, help="of them, from the end; null: all"
    )
    group.add_argument(
        "--rollout_checkpointing", action="store_true", help="compute each of them anew on the way back"
    )
    group.add_argument("--own_weight", type=NonNegativeFloat, default=1.0)
    group.add_argument("--identity_weight", type=NonNegativeFloat, default=1.5)
    group.add_argument("--coarse_weight", type=NonNegativeFloat, default=2.0, help="of the target's coarse colours")
    group.add_argument(
        "--attributes_weight",
        type=NonNegativeFloat,
        default=0.0,
        help="of what the image encoder sees of the target; for encoders that do not know people, as the package's",
    )
    group.add_argument(
        "--landmarks_weight",
        type=NonNegativeFloat,
        default=0.0,
        help="of how far the swap's landmarks, by the face mesh, are from those it was to have",
    )
    group.add_argument(
        "--lpips_weight", type=NonNegativeFloat, default=0.0, help="needs `faceswap-diffusion fetch lpips_vgg16`"
    )
    group.add_argument("--adversarial_weight", type=NonNegativeFloat, default=0.4)


def load_base(args: Namespace) -> FaceSwapInpaintPipeline:
    """The pipeline to train, in float32."""
    if not args.vae:
        return load_checkpoint(args)
    if args.image_encoder is None:
        raise ValueError("--vae starts a new model, which needs --image_encoder as well")
    faces = PreparedFaces(args.train_data_dir, args.crop_size or NEW_CROP_SIZE)
    pipeline = build_pipeline(args.vae, args.image_encoder, faces, args.block_out_channels, args.prediction_type)
    return change_checkpoint(args, pipeline)


def parameter_groups(args: Namespace, objective: SwapObjective) -> list[dict[str, Any]]:
    painted = [*trained_parameters(objective.unet), *trained_parameters(objective.conditioner)]
    groups: list[dict[str, Any]] = [{"params": painted, "lr": args.learning_rate, "betas": (0.9, 0.99)}]
    if objective.discriminator is not None:
        rates = {"lr": args.discriminator_learning_rate, "betas": (0.5, 0.99), "weight_decay": 0.0}
        groups.append({"params": trained_parameters(objective.discriminator), **rates})
    return groups


def save_weights(args: Namespace, pipeline: FaceSwapInpaintPipeline) -> None:
    """Writes what was trained: additions of low rank by themselves, or the whole checkpoint."""
    if args.train == "lora":
        save_lora(pipeline, args.output_dir / "lora")
    else:
        save_pipeline(pipeline, args.output_dir / "pipeline", base_folder(args))


def base_folder(args: Namespace) -> str:
    return str(args.vae or args.pretrained_model_name_or_path)


def check_data(args: Namespace) -> None:
    """Refuses what does not go with the data that is named, or without."""
    if bool(args.train_data_dir) == bool(args.latents_dir):
        raise ValueError("name faces with --train_data_dir, or encoded samples with --latents_dir: one of the two")
    if args.latents_dir is None:
        if args.latent_window is not None:
            raise ValueError("--latent_window goes with --latents_dir: leave it out")
        return
    if args.vae:
        raise ValueError("--vae starts a new model, which learns from faces first: give --train_data_dir")
    if args.cross_share or args.own_share:
        raise ValueError(
            f"--latents_dir holds no pictures, but --cross_share {args.cross_share} and --own_share {args.own_share} "
            "need them: set both to 0, or train on --train_data_dir"
        )


def build_samples(
    args: Namespace, pipeline: FaceSwapInpaintPipeline, roles: Roles, batch_size: int
) -> SwapSamples | CachedSamples:
    if args.latents_dir is None:
        faces = PreparedFaces(args.train_data_dir, pipeline.config["crop_size"])
        return draw_samples(args, pipeline, faces, roles, batch_size)
    samples = CachedSamples(args.latents_dir, args.latent_window)
    check_settings(samples, latent_settings(args, pipeline))
    return samples


def check_rollouts(args: Namespace, pipeline: FaceSwapInpaintPipeline) -> None:
    """Refuses rollouts from a reference that nobody draws, or from two starts at once."""
    if args.rollout_strength == 1:
        return
    if pipeline.config["hidden_fill"] != "reference":
        raise ValueError(
            f"--rollout_strength {args.rollout_strength} starts from the reference, but the checkpoint's hidden_fill "
            f"is {pipeline.config['hidden_fill']!r}: add --hidden_fill reference, or leave it at 1"
        )
    if args.rollout_start != "noise":
        raise ValueError(
            f"--rollout_strength {args.rollout_strength} starts from the reference, and --rollout_start "
            f"{args.rollout_start} from the target: set one of them"
        )


def settings_that_stay(args: Namespace, pipeline: FaceSwapInpaintPipeline, samples: Any) -> dict[str, Any]:
    staying = {name: getattr(args, name) for name in STAYING}
    latents = samples.fingerprint if isinstance(samples, CachedSamples) else None
    return {**staying, "hidden_fill": pipeline.config["hidden_fill"], "latents": latents}


def build_run(args: Namespace, accelerator: Accelerator) -> Run:
    check_data(args)
    roles = Roles.from_shares(args.cross_share, args.own_share)
    batch_size = check_roles(args, accelerator, roles)
    pipeline = load_base(args)
    check_rollouts(args, pipeline)
    samples = build_samples(args, pipeline, roles, batch_size)
    select_trainable(pipeline, args.train, args.lora_rank)
    prepare_networks(args, accelerator, pipeline)
    identity_network = samples.summary.identity_network
    objective = SwapObjective(pipeline, settings_of(ObjectiveSettings, args), roles, identity_network)
    staying = settings_that_stay(args, pipeline, samples)
    groups = parameter_groups(args, objective)
    return Run(args, accelerator, pipeline, objective, groups, samples, staying, partial(save_weights, args))


def finish(args: Namespace, run: Run) -> None:
    """Makes of what was trained a checkpoint that loads at once."""
    folder = args.output_dir / "pipeline"
    if args.train == "lora":
        pipeline = load_base(args)
        fuse_lora(pipeline, args.output_dir / "lora")
        save_pipeline(pipeline, folder, base_folder(args))
    hand_on(args, folder, run)


def main(arguments: list[str] | None = None) -> None:
    run_script(swap_parser(), arguments, build_run, finish)


if __name__ == "__main__":
    main()
