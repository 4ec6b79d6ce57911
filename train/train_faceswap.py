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
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveFloat, PositiveInt

from faceswap_diffusion.checkpoint_files import EMBEDDED_CHECKPOINT, fuse_lora
from faceswap_diffusion.pipeline_faceswap_inpaint import HIDDEN_FILLS, FaceSwapInpaintPipeline
from faceswap_diffusion.training.arguments import (
    add_data_arguments,
    add_optimization_arguments,
    add_output_arguments,
    build_parser,
)
from faceswap_diffusion.training.batches import Roles
from faceswap_diffusion.training.checkpoints import load_whole_pipeline, save_lora, save_pipeline
from faceswap_diffusion.training.dataset import PreparedFaces
from faceswap_diffusion.training.new_model import build_pipeline, exchange_autoencoder
from faceswap_diffusion.training.objective import ObjectiveSettings, SwapObjective
from faceswap_diffusion.training.run import Run, prepare_networks
from faceswap_diffusion.training.script import draw_samples, hand_on, run_script, settings_of
from faceswap_diffusion.training.trainable import TRAINING_MODES, select_trainable, trained_parameters

STAYING = ("train", "cross_share", "own_share", "mask_sets", "pair_probability")


def swap_parser() -> ArgumentParser:
    parser = build_parser("train_faceswap.py", __doc__)
    add_data_arguments(parser)
    add_model_arguments(parser)
    add_objective_arguments(parser)
    add_optimization_arguments(parser, learning_rate=1e-4, ema_decay=0.998)
    parser.add_argument("--discriminator_learning_rate", type=PositiveFloat, default=3e-4)
    add_output_arguments(parser)
    return parser


def add_model_arguments(parser: ArgumentParser) -> None:
    model = parser.add_argument_group("model")
    model.add_argument(
        "--pretrained_model_name_or_path",
        type=str,
        default=str(EMBEDDED_CHECKPOINT),
        help="checkpoint to go on from: folder or Hub id; the package's if left out",
    )
    model.add_argument("--train", type=Literal[TRAINING_MODES], default="full", help="what is trained")
    model.add_argument("--lora_rank", type=PositiveInt, default=16)
    model.add_argument("--new_vae", type=Path, help="exchange the checkpoint's autoencoder for this finished one")
    model.add_argument(
        "--hidden_fill",
        type=Literal[HIDDEN_FILLS] | None,
        help="what the target shows where its face is hidden; as the checkpoint has it if left out",
    )
    new = parser.add_argument_group("a new model, in place of a checkpoint")
    new.add_argument("--vae", type=Path, help="folder of a finished autoencoder to build it around")
    new.add_argument("--image_encoder", type=Path, help="folder that holds image_encoder/ and feature_extractor/")
    new.add_argument("--crop_size", type=PositiveInt, default=128, help="side of its crops in pixels")
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


def load_base(args: Namespace) -> tuple[FaceSwapInpaintPipeline, PreparedFaces]:
    """The pipeline to train, in float32, and its training faces."""
    if args.vae:
        if args.image_encoder is None:
            raise ValueError("--vae starts a new model, which needs --image_encoder as well")
        faces = PreparedFaces(args.train_data_dir, args.crop_size)
        pipeline = build_pipeline(args.vae, args.image_encoder, faces, args.block_out_channels, args.prediction_type)
    else:
        pipeline = load_whole_pipeline(args.pretrained_model_name_or_path)
        faces = PreparedFaces(args.train_data_dir, pipeline.config["crop_size"])
    if args.new_vae:
        pipeline = exchange_autoencoder(pipeline, AutoencoderKL.from_pretrained(args.new_vae))
    if args.hidden_fill is not None:
        pipeline.register_to_config(hidden_fill=args.hidden_fill)
    return pipeline, faces


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


def build_run(args: Namespace, accelerator: Accelerator) -> Run:
    pipeline, faces = load_base(args)
    roles = Roles.from_shares(args.cross_share, args.own_share)
    samples = draw_samples(args, accelerator, pipeline, faces, roles)
    select_trainable(pipeline, args.train, args.lora_rank)
    prepare_networks(args, accelerator, pipeline)
    objective = SwapObjective(pipeline, settings_of(ObjectiveSettings, args), roles, faces.identity_network)
    staying = {name: getattr(args, name) for name in STAYING}
    groups = parameter_groups(args, objective)
    return Run(args, accelerator, pipeline, objective, groups, samples, staying, partial(save_weights, args))


def finish(args: Namespace, run: Run) -> None:
    """Makes of what was trained a checkpoint that loads at once."""
    folder = args.output_dir / "pipeline"
    if args.train == "lora":
        pipeline, _ = load_base(args)
        fuse_lora(pipeline, args.output_dir / "lora")
        save_pipeline(pipeline, folder, base_folder(args))
    hand_on(args, folder, run)


def main(arguments: list[str] | None = None) -> None:
    run_script(swap_parser(), arguments, build_run, finish)


if __name__ == "__main__":
    main()
