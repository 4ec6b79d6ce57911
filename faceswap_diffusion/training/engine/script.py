"""What is around the run in a training script of the swap model: samples of arguments, a card, an exit code."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import set_seed
from jsonargparse import ArgumentParser, Namespace

from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.pipelines.latents import load_autoencoder
from faceswap_diffusion.training.arguments import REFERENCE
from faceswap_diffusion.training.data.batches import Roles, SampleSettings, SwapSamples
from faceswap_diffusion.training.data.dataset import PreparedFaces
from faceswap_diffusion.training.data.mask_shuffling import parse_mask_sets
from faceswap_diffusion.training.data.references import ReferenceFaults, TrainingReferences
from faceswap_diffusion.training.engine.checkpoints import load_whole_pipeline
from faceswap_diffusion.training.engine.history import check_tracker
from faceswap_diffusion.training.engine.model_card import write_model_card
from faceswap_diffusion.training.engine.run import Run, build_accelerator, global_batch_size, leaving_together
from faceswap_diffusion.training.models.new_model import exchange_autoencoder, resize_checkpoint
from faceswap_diffusion.weights.hub import push_folder


def settings_of(kind: type, args: Namespace, prefix: str = "", **more: Any) -> Any:
    """A dataclass of settings, filled from the arguments of the same names, or of these names after a prefix."""
    names = [field.name for field in fields(kind) if hasattr(args, prefix + field.name)]
    given = {name: getattr(args, prefix + name) for name in names}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return kind(**{**given, **more})


def load_checkpoint(args: Namespace) -> FaceSwapInpaintPipeline:
    """The checkpoint to go on from, in float32, with what `arguments.add_model_arguments` changes of it."""
    return change_checkpoint(args, load_whole_pipeline(args.pretrained_model_name_or_path, args.variant))


def change_checkpoint(args: Namespace, pipeline: FaceSwapInpaintPipeline) -> FaceSwapInpaintPipeline:
    """Exchanges a checkpoint's autoencoder, the size of its crops, and what they show, as far as it is asked for."""
    if args.new_vae:
        pipeline = exchange_autoencoder(pipeline, load_autoencoder(args.new_vae))
    if args.crop_size is not None:
        resize_checkpoint(pipeline, args.crop_size)
    if args.hidden_fill is not None:
        pipeline.register_to_config(hidden_fill=args.hidden_fill)
    return pipeline


def draw_samples(
    args: Namespace, pipeline: FaceSwapInpaintPipeline, faces: PreparedFaces, roles: Roles, batch_size: int
) -> SwapSamples:
    """The samples of a run.

    Args:
        args (`Namespace`): See `arguments.add_sample_arguments`.
        pipeline (`FaceSwapInpaintPipeline`): That is to see them.
        faces (`PreparedFaces`): At its crop size.
        roles (`Roles`): Of the samples.
        batch_size (`int`): The global one.

    Raises:
        ValueError: If mask sets do not fit the faces, or samples have no sources.
    """
    mask_sets = parse_mask_sets(args.mask_sets)
    geometry = references = None
    if pipeline.config["geometry_share"]:
        geometry = pipeline.conditioner.geometry_coefficients.float().cpu()
    if pipeline.config["hidden_fill"] == "reference":
        references = TrainingReferences(faces, settings_of(ReferenceFaults, args, REFERENCE))
    settings = settings_of(SampleSettings, args, roles=roles, global_batch_size=batch_size, mask_sets=mask_sets)
    return SwapSamples(faces, settings, geometry, references)


def check_roles(args: Namespace, accelerator: Accelerator, roles: Roles) -> int:
    """The global batch size of a run.

    Raises:
        ValueError: If batches do not hold their roles evenly.
    """
    batch_size = global_batch_size(args, accelerator)
    roles.check(args.train_batch_size, batch_size)
    return batch_size


def hand_on(args: Namespace, folder: Path, run: Run) -> None:
    """Makes of a finished checkpoint something for everybody: its card, how to use it, the upload."""
    write_model_card(folder, run)
    run.accelerator.print(
        f"The checkpoint is in {folder}: faceswap-diffusion swap SOURCE TARGET --checkpoint {folder} -o swap.png"
    )
    if args.push_to_hub:
        repository = args.hub_model_id or args.output_dir.resolve().name
        run.accelerator.print(f"Uploaded: {push_folder(folder, repository, private=args.hub_private)}")


def run_script(
    parser: ArgumentParser,
    arguments: Sequence[str] | None,
    build_run: Callable[[Namespace, Accelerator], Run],
    finish: Callable[[Namespace, Run], None],
) -> None:
    """Runs a training script; see `leaving_together` for how it ends.

    Args:
        parser (`ArgumentParser`): Of the script.
        arguments (`Sequence[str]`, *optional*): Those of the process if left out.
        build_run (`Callable`): Makes the run of arguments and accelerator.
        finish (`Callable`): Called in the main process once all steps are taken.
    """
    args = parser.parse_args(arguments)
    accelerator = build_accelerator(args)
    set_seed(args.seed)  # for new layers; everything else is drawn from the seed and its own number
    with leaving_together(parser, accelerator):
        check_tracker(args.report_to)
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
