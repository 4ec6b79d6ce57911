"""Trains the swap model: masked inpainting of faces, conditioned on identity, CLIP features and landmarks.

    python train/prepare_faces.py photos --output_dir data/faces
    accelerate launch train/train_faceswap.py --train_data_dir data/faces --output_dir runs/mine

goes on from the model in the package. The recipe is REFace's (arXiv 2409.07269): a face is hidden and painted again from
its own identity, with warped masks, augmented sources and a learned unconditional context. Some samples of each batch
go through several denoising steps, as in a swap. A part of them has its own source, and is to come out as it was. The
others get the source of another person in the batch; nobody knows their true pixels, so they are taught by the identity
loss through the recogniser, by the target's coarse colours, by LPIPS, and by a discriminator that knows what faces look
like.

Stop it at any time: run the same command again and it goes on from the last saved state, to the same end.
`train/README.md` tells more; `train/recipes/` holds settings for `--config`.
"""

import shutil
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers
from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveFloat, PositiveInt
from peft import get_peft_model_state_dict

from faceswap_diffusion.checkpoint_files import EMBEDDED_CHECKPOINT, PARSER_FOLDER, load_pipeline
from faceswap_diffusion.hub import push_folder
from faceswap_diffusion.pipeline_faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.training.arguments import add_optimization_arguments, add_output_arguments, build_parser
from faceswap_diffusion.training.batches import Roles, SampleSettings, SwapSamples
from faceswap_diffusion.training.dataset import PreparedFaces
from faceswap_diffusion.training.mask_shuffling import parse_mask_sets
from faceswap_diffusion.training.model_card import write_model_card
from faceswap_diffusion.training.new_model import build_pipeline
from faceswap_diffusion.training.objective import ObjectiveSettings, SwapObjective
from faceswap_diffusion.training.run import (
    DivergedError,
    Run,
    build_accelerator,
    global_batch_size,
    prepare_networks,
    replaced_folder,
)
from faceswap_diffusion.training.states import StateNotSavedError
from faceswap_diffusion.training.trainable import TRAINING_MODES, select_trainable, trained_parameters

STAYING = ("train", "cross_share", "own_share", "mask_sets", "pair_probability")


def swap_parser() -> ArgumentParser:
    parser = build_parser("train_faceswap.py", __doc__)
    data = parser.add_argument_group("data")
    data.add_argument("--train_data_dir", type=str, nargs="+", required=True, help="folders of prepare_faces.py")
    data.add_argument(
        "--mask_sets",
        type=str,
        nargs="+",
        default=["face=0.6", "head=0.3", "features=0.1"],
        help="what is hidden of the target and shown of the source, drawn for each sample",
    )
    data.add_argument(
        "--pair_probability",
        type=ClosedUnitInterval,
        default=0.5,
        help="how often another picture of the same person is the source, where there is one",
    )
    add_model_arguments(parser)
    add_objective_arguments(parser)
    add_optimization_arguments(parser, learning_rate=1e-4, ema_decay=0.998)
    parser.add_argument("--discriminator_learning_rate", type=PositiveFloat, default=1e-3)
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
    model.add_argument("--draw_landmarks", type=bool | None, help="draw landmarks where the face is hidden, from now on")
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


def settings_of(kind: type, args: Namespace, **more: Any) -> Any:
    """A dataclass of settings, filled from the arguments of the same names."""
    given = {field.name: getattr(args, field.name) for field in fields(kind) if hasattr(args, field.name)}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return kind(**{**given, **more})


def draw_samples(args: Namespace, accelerator: Accelerator, pipeline: FaceSwapInpaintPipeline, faces: PreparedFaces):
    """The samples of the run."""
    roles, batch_size = Roles.from_shares(args.cross_share, args.own_share), global_batch_size(args, accelerator)
    roles.check(args.train_batch_size, batch_size)
    mask_sets = parse_mask_sets(args.mask_sets)
    geometry = None
    if pipeline.config["geometry_share"]:
        geometry = pipeline.conditioner.geometry_coefficients.float().cpu()
    settings = settings_of(SampleSettings, args, roles=roles, global_batch_size=batch_size, mask_sets=mask_sets)
    return SwapSamples(faces, settings, geometry)


def parameter_groups(args: Namespace, objective: SwapObjective) -> list[dict[str, Any]]:
    painted = [*trained_parameters(objective.unet), *trained_parameters(objective.conditioner)]
    groups: list[dict[str, Any]] = [{"params": painted, "lr": args.learning_rate, "betas": (0.9, 0.99)}]
    if objective.discriminator is not None:
        rates = {"lr": args.discriminator_learning_rate, "betas": (0.5, 0.99), "weight_decay": 0.0}
        groups.append({"params": trained_parameters(objective.discriminator), **rates})
    return groups


def save_pipeline(args: Namespace, pipeline: FaceSwapInpaintPipeline) -> None:
    """Writes a checkpoint that loads at once, with the face parser of the one that it started from."""
    with replaced_folder(args.output_dir / "pipeline") as folder:
        pipeline.save_pretrained(folder)
        parser = Path(args.pretrained_model_name_or_path, PARSER_FOLDER)
        if parser.is_dir() and not args.vae:
            shutil.copytree(parser, folder / PARSER_FOLDER)


def save_lora(args: Namespace, pipeline: FaceSwapInpaintPipeline) -> None:
    """Writes the additions of low rank by themselves, as `load_lora_weights` takes them."""
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(pipeline.unet))
    with replaced_folder(args.output_dir / "lora") as folder:
        FaceSwapInpaintPipeline.save_lora_weights(folder, unet_lora_layers=layers)


def fuse_lora(args: Namespace) -> None:
    """Writes the checkpoint that the additions of low rank make of the one that they were trained on."""
    pipeline, _ = load_base(args)
    pipeline.load_lora_weights(args.output_dir / "lora")
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    save_pipeline(args, pipeline)


def build_run(args: Namespace, accelerator: Accelerator) -> Run:
    pipeline, faces = load_base(args)
    samples = draw_samples(args, accelerator, pipeline, faces)
    select_trainable(pipeline, args.train, args.lora_rank)
    prepare_networks(args, accelerator, pipeline)
    settings = settings_of(ObjectiveSettings, args)
    objective = SwapObjective(pipeline, settings, samples.settings.roles, faces.identity_network)
    save = save_lora if args.train == "lora" else save_pipeline
    staying = {name: getattr(args, name) for name in STAYING}
    groups = parameter_groups(args, objective)
    return Run(args, accelerator, pipeline, objective, groups, samples, staying, lambda: save(args, pipeline))


def finish(args: Namespace, run: Run) -> None:
    """Makes of the trained weights a folder for everybody: a checkpoint that loads at once, its card, the upload."""
    folder = args.output_dir / "pipeline"
    if args.train == "lora":
        fuse_lora(args)
    write_model_card(folder, run)
    print(f"The checkpoint is in {folder}: faceswap-diffusion swap SOURCE TARGET --checkpoint {folder} -o swap.png")
    if args.push_to_hub:
        repository = args.hub_model_id or args.output_dir.resolve().name
        print(f"Uploaded: {push_folder(folder, repository, private=args.hub_private)}")


def main(arguments: list[str] | None = None) -> None:
    parser = swap_parser()
    args = parser.parse_args(arguments)
    accelerator = build_accelerator(args)
    set_seed(args.seed)  # for new layers; everything else is drawn from the seed and its own number
    try:
        run = build_run(args, accelerator)
        if accelerator.is_main_process:
            args.output_dir.mkdir(parents=True, exist_ok=True)
            parser.save(args, args.output_dir / "config.yaml", overwrite=True)
        if args.report_to != "none":
            accelerator.init_trackers(args.tracker_project_name)
        step = run.train()
        if step < args.max_train_steps:
            accelerator.print(f"Stopped after step {step}: the same command goes on from there.")
        elif accelerator.is_main_process:
            finish(args, run)
        accelerator.end_training()
    except ValueError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        sys.exit(2)
    except (DivergedError, StateNotSavedError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
