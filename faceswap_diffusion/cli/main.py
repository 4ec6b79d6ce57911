"""The command line: swap and list faces, convert checkpoints, measure swaps, fetch model files, examine itself."""

import argparse
import json
import logging
import os
import sys
import textwrap
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from faceswap_diffusion import __version__
from faceswap_diffusion.console import ready_streams, say
from faceswap_diffusion.evaluation import command as evaluation_command
from faceswap_diffusion.weights.fetch import FETCHABLE, fetch
from faceswap_diffusion.weights.registry import MODEL_FILES

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image, ImageDraw

    from faceswap_diffusion.conversion.weights import ConversionReport
    from faceswap_diffusion.faces.analyzer import Face, MeshFaceAnalyzer
    from faceswap_diffusion.swapping.swapper import FaceSwapper

PROG = "faceswap-diffusion"
RESPONSIBLE_USE = (
    "Swap faces only of people who agreed to it. Every swapped picture says in its metadata that AI made it; "
    "leave that in. See 'Responsible use' in the README."
)
EXAMPLES = """examples:
  my face onto the largest face:
    faceswap-diffusion swap me.jpg group.jpg -o out.png
  the average of two photos of me, onto the leftmost face; onto every face; onto Bob:
    faceswap-diffusion swap me1.jpg me2.jpg group.jpg -o out.png --target-face 0
    faceswap-diffusion swap me1.jpg me2.jpg group.jpg -o out.png --target-face all
    faceswap-diffusion swap me1.jpg me2.jpg group.jpg -o out.png --target-face bob.jpg
  my identity once, then swaps without my photos:
    faceswap-diffusion identity me1.jpg me2.jpg -o me.safetensors
    faceswap-diffusion swap me.safetensors group.jpg -o out.png
  Ann onto face 1 and Bob onto face 0:
    faceswap-diffusion swap ann.jpg bob.jpg two.jpg -o out.png --map 0:1,1:0
"""


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Prints the error without the usage text and exits with 2."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def face_choice(text: str) -> str | int:
    """Reads the choice of a face: an index, or a word or path as it stands."""
    return int(text) if text.lstrip("-").isdigit() else text


def face_score(text: str) -> float:
    """Reads the least confidence of a face."""
    try:
        score = float(text)
    except ValueError:
        score = float("nan")
    if not 0 < score < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; a number between 0 and 1 is needed")
    return score


def source_to_face(text: str) -> dict[int, int]:
    """Reads `SOURCE:FACE` pairs, as in `0:1,1:0`, into the mapping from face to source that `FaceSwapper` takes."""
    try:
        pairs = [[int(number) for number in pair.split(":")] for pair in text.split(",")]
        mapping = {face: source for source, face in pairs}
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"got {text!r}; write SOURCE:FACE[,SOURCE:FACE...], as 0:1,1:0") from error
    if len(mapping) < len(pairs):
        raise argparse.ArgumentTypeError(f"got {text!r}; a face can take one source only")
    return mapping


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of the whole command line."""
    parser = OneLineParser(prog=PROG, description="Swap faces in photos by diffusion.", epilog=RESPONSIBLE_USE)
    parser.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=OneLineParser)
    common = OneLineParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print a report in JSON on standard output")
    common.add_argument("--debug", action="store_true", help="on failure print the traceback as well")
    _add_swap_arguments(
        commands.add_parser(
            "swap",
            parents=[common],
            help="put the face of one photo into another",
            description=textwrap.fill(f"Put the face of SOURCE into the photo TARGET. {RESPONSIBLE_USE}", 79),
            epilog=EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    _add_identity_arguments(
        commands.add_parser(
            "identity",
            parents=[common],
            help="write down who a source is, to swap without the photos",
            description=textwrap.fill(
                "Encode photos of one person into a file that `swap` takes in their place, with the same checkpoint. "
                f"It tells who somebody is: keep it as you keep the photos. {RESPONSIBLE_USE}",
                79,
            ),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    faces = commands.add_parser("faces", parents=[common], help="list and draw the faces found in a photo")
    faces.add_argument("photo", metavar="PHOTO")
    faces.add_argument("-o", "--output", metavar="OUT", help="also write the photo with the faces drawn into it")
    faces.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    _add_face_score(faces)
    faces.set_defaults(run=run_faces)
    _add_convert_commands(commands.add_parser("convert", help="convert checkpoints from and to other layouts"), common)
    evaluate = commands.add_parser(
        "evaluate",
        help="measure how good swaps are",
        description=evaluation_command.DESCRIPTION,
        epilog=evaluation_command.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    evaluation_command.add_arguments(evaluate)
    evaluate.add_argument("--debug", action="store_true", help="on failure print the traceback as well")
    evaluate.set_defaults(run=run_evaluate)
    fetch_parser = commands.add_parser(
        "fetch", parents=[common], help="get model files of others, with which evaluate measures more"
    )
    fetch_parser.add_argument("names", nargs="+", metavar="NAME", help=f"one or more of {', '.join(FETCHABLE)}")
    fetch_parser.set_defaults(run=run_fetch)
    doctor = commands.add_parser(
        "doctor", parents=[common], help="say which device, attention kernel, models and OpenCV are used"
    )
    doctor.set_defaults(run=run_doctor)
    return parser


def _add_swap_arguments(swap: argparse.ArgumentParser) -> None:
    add = swap.add_argument
    add(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="photo of who to become; several are averaged, but see --map; or what `identity` wrote",
    )
    add("target", metavar="TARGET", help="photo to change")
    add("-o", "--output", required=True, metavar="OUT",
        help="where to write the result: .png, .jpg, .webp, .tif, .avif or .bmp")  # fmt: skip
    add("--overwrite", action="store_true", help="replace OUT if it exists")
    add("--region", default="face",
        help="face, head (with its hair), hair, skin, brows, eyes, nose, mouth, features (brows, eyes, nose and "
        "mouth) or accessories (glasses and earrings, if the face parser knows them) (default: face)")  # fmt: skip
    add("--mask", metavar="MASK",
        help="picture as large as TARGET, white where to repaint, black or transparent elsewhere, in place of "
        "--region")  # fmt: skip
    add("--source-face", type=face_choice, default="largest", metavar="FACE",
        help="in the sources: largest, or an index, 0 being leftmost (default: largest)")  # fmt: skip
    add("--target-face", type=face_choice, default="largest", metavar="FACE",
        help="in TARGET: largest, all, an index, or a photo of the person to replace (default: largest)")  # fmt: skip
    add("--map", type=source_to_face, metavar="S:F,...", dest="mapping",
        help="put source S onto face F of TARGET, counting from 0; the sources are then different people")  # fmt: skip
    add("--steps", type=int, metavar="N", help="denoising steps (default: the checkpoint's)")
    add("--guidance", type=float, metavar="SCALE", help="guidance scale (default: the checkpoint's)")
    add("--strength", type=float, metavar="S",
        help="in (0, 1]; below 1 a swap starts from the source's face, drawn on the target's, and takes fewer steps, "
        "if the checkpoint is shown it (default: the checkpoint's)")  # fmt: skip
    add("--seed", type=int, default=0, help="the same seed gives the same picture (default: 0)")
    add("--no-color-match", action="store_true", help="leave the colours as the network made them")
    add("--no-skin-texture", action="store_true", help="leave the skin as smooth as the network made it")
    _add_checkpoint_arguments(swap)
    add("--occlusion", default="auto", metavar="WHICH",
        help="things in front of faces stay there: auto, off, or the folder of a "
        "network that finds them (default: auto)")  # fmt: skip
    swap.set_defaults(run=run_swap)


def _add_face_score(command: argparse.ArgumentParser) -> None:
    command.add_argument("--face-score", type=face_score, metavar="S",
        help="least confidence of the detector in a face, 0 to 1 (default: 0.6)")  # fmt: skip


def _add_checkpoint_arguments(command: argparse.ArgumentParser) -> None:
    _add_face_score(command)
    add = command.add_argument
    add("--checkpoint", metavar="PATH_OR_ID", help="folder or Hub id of a checkpoint (default: the package's)")
    add("--variant", metavar="NAME", help="of the checkpoint's weights, as fp16 (default: plain, or the only one)")
    add("--few-steps", action="store_true", help="take the checkpoint's few-step version")
    add("--device", help="cpu, cuda, cuda:1, mps (default: the fastest there is)")
    add("--dtype", help="float32, float16 or bfloat16 (default: float16 on cuda, else float32)")


def _add_identity_arguments(identity: argparse.ArgumentParser) -> None:
    add = identity.add_argument
    add("photos", nargs="+", metavar="PHOTO", help="one photo or several of the same person")
    add("-o", "--output", required=True, metavar="OUT", help="file to write (.safetensors)")
    add("--overwrite", action="store_true", help="replace OUT if it exists")
    add("--region", default="face", help="what will be repainted, see swap (default: face)")
    add("--source-face", type=face_choice, default="largest", metavar="FACE",
        help="in the photos: largest, or an index, 0 being leftmost (default: largest)")  # fmt: skip
    _add_checkpoint_arguments(identity)
    identity.set_defaults(run=run_identity)


def _add_convert_commands(convert: argparse.ArgumentParser, common: OneLineParser) -> None:
    commands = convert.add_subparsers(required=True, metavar="COMMAND", parser_class=OneLineParser)
    output = OneLineParser(add_help=False)
    output.add_argument("-o", "--output", required=True, metavar="OUT", help="folder or file to write")
    output.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    saved = OneLineParser(add_help=False)
    saved.add_argument("--dtype", choices=("fp32", "fp16", "bf16"), help="precision to save in (default: as it is)")
    saved.add_argument("--arcface", metavar="FILE", help="model_ir_se50.pth, to be the identity network")

    reface = commands.add_parser(
        "reface", parents=[common, output, saved], help="REFace's published checkpoint into a folder to swap with"
    )
    checkpoint = reface.add_mutually_exclusive_group(required=True)
    checkpoint.add_argument("checkpoint", nargs="?", metavar="CKPT", help="REFace's last.ckpt")
    checkpoint.add_argument("--from-hub", metavar="ID", help="fetch it from the Hub, as Sanoojan/REFace")
    reface.add_argument("--revision", metavar="NAME", help="branch, tag or commit of the Hub repository")
    reface.add_argument("--parser", metavar="FILE", help="79999_iter.pth, REFace's face parser, to use its masks")
    reface.set_defaults(run=run_convert_reface)

    back = commands.add_parser(
        "diffusers-to-reface", parents=[common, output], help="a folder into a checkpoint that REFace's code loads"
    )
    back.add_argument("checkpoint", metavar="DIR", help="folder or Hub id of a checkpoint of REFace's design")
    back.set_defaults(run=run_convert_to_reface)

    start = commands.add_parser(
        "sd-inpaint-init", parents=[common, output, saved], help="Stable Diffusion 1.x into a checkpoint to train from"
    )
    start.add_argument(
        "checkpoint", metavar="SD", help="folder in Diffusers' layout, or one .safetensors or .ckpt file"
    )
    start.add_argument("--image-encoder", metavar="DIR", help="CLIP model (default: the package's small encoder)")
    start.add_argument("--seed", type=int, default=0, help="of the fresh layers (default: 0)")
    start.set_defaults(run=run_convert_from_stable_diffusion)


def run_swap(args: argparse.Namespace) -> int:
    """Swaps and writes the picture."""
    from faceswap_diffusion.photos.loading import load_photo
    from faceswap_diffusion.provenance.save import check_output

    started = time.perf_counter()
    check_output(args.output, overwrite=args.overwrite)
    # All of this before torch and the networks are loaded, which takes seconds.
    sources = [path if path.endswith(".safetensors") else load_photo(path) for path in args.sources]
    target = load_photo(args.target)
    check_output(args.output, overwrite=args.overwrite, size=target.size, has_alpha=target.is_transparent)
    swapper = _load_swapper(args, args.occlusion)
    swapper.pipeline.set_progress_bar_config(disable=None, desc="swapping", file=sys.stderr)
    start_seconds = time.perf_counter() - started
    result = swapper.swap(
        sources,
        target,
        region=args.region,
        source_face=args.source_face,
        target_face=args.target_face,
        mapping=args.mapping,
        num_inference_steps=args.steps,
        guidance_scale=args.guidance,
        strength=args.strength,
        color_match=not args.no_color_match,
        skin_texture=not args.no_skin_texture,
        seed=args.seed,
        mask_image=args.mask,
    )
    saving = time.perf_counter()
    result.save(args.output)
    seconds = {"start": start_seconds, **result.seconds, "save": time.perf_counter() - saving}
    if args.json:
        report = {
            "output": str(args.output),
            "faces": [describe_face(face) for face in result.faces],
            "swapped": result.swapped,
            "dropped": [{**describe_face(dropped.face), "reason": dropped.reason} for dropped in result.dropped],
            "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
            "provenance": result.provenance,
        }
        say(json.dumps(report, indent=2))
    else:
        swapped = ", ".join(map(str, result.swapped))
        say(f"{args.output}: swapped face {swapped} of {len(result.faces)} in {sum(seconds.values()):.1f} s")
    return 0


def run_identity(args: argparse.Namespace) -> int:
    """Encodes a source and writes its identity."""
    from faceswap_diffusion.photos.loading import load_photo
    from faceswap_diffusion.provenance.save import check_place

    if not args.output.endswith(".safetensors"):
        raise ValueError(f"cannot save {args.output}: an identity is a safetensors file; end the name in .safetensors")
    check_place(Path(args.output), args.overwrite)
    photos = [load_photo(path) for path in args.photos]
    identity = _load_swapper(args, "off").encode_source(photos, args.source_face, args.region)
    identity.save(args.output)
    shown = None if identity.texture is None else round(identity.texture.shown, 3)
    if args.json:
        report = {"output": args.output, "photos": args.photos, "region": args.region, "source_shown": shown}
        say(json.dumps(report, indent=2))
    else:
        told = "" if shown is None else f", which show {shown:.0%} of the face"
        say(f"{args.output}: the identity of {len(photos)} photo{'' if len(photos) == 1 else 's'}{told}")
    return 0


def _load_swapper(args: argparse.Namespace, occlusion: str) -> "FaceSwapper":
    _silence_libraries()
    from faceswap_diffusion.swapping.swapper import FaceSwapper

    return FaceSwapper.from_pretrained(
        args.checkpoint,
        device=args.device,
        dtype=args.dtype,
        analyzer=_quiet_analyzer(args.face_score),
        few_steps=args.few_steps,
        variant=args.variant,
        occlusion=occlusion,
    )


def run_faces(args: argparse.Namespace) -> int:
    """Lists the faces of a photo, and draws them."""
    from faceswap_diffusion.photos.loading import load_photo
    from faceswap_diffusion.provenance.save import check_output, save_image

    if args.output:
        check_output(args.output, overwrite=args.overwrite)
    photo = load_photo(args.photo)
    if args.output:
        check_output(args.output, overwrite=args.overwrite, size=photo.size)
    faces = _quiet_analyzer(args.face_score).analyze(photo.rgb)
    if args.output:
        save_image(draw_faces(photo.rgb, faces), args.output, provenance=None)
    if args.json:
        height, width = photo.rgb.shape[:2]
        report = {"photo": args.photo, "width": width, "height": height, "faces": [describe_face(f) for f in faces]}
        say(json.dumps(report, indent=2))
    else:
        say(f"{args.photo}: {len(faces)} face{'' if len(faces) == 1 else 's'}")
        for index, face in enumerate(faces):
            say(f"  {index}: {face_line(face)}")
    return 0


def run_convert_reface(args: argparse.Namespace) -> int:
    """Converts REFace's checkpoint, fetching it first if asked to."""
    if args.revision and not args.from_hub:
        raise ValueError("--revision is one of a Hub repository: it needs --from-hub")
    _silence_libraries()
    from faceswap_diffusion.conversion.download import download_reface
    from faceswap_diffusion.conversion.output import check_output
    from faceswap_diffusion.conversion.reface import convert_reface
    from faceswap_diffusion.conversion.weights import DTYPES

    check_output(args.output, args.overwrite)
    report = convert_reface(
        download_reface(args.from_hub, args.revision) if args.from_hub else args.checkpoint,
        args.output,
        dtype=DTYPES.get(args.dtype),
        parser=args.parser,
        arcface=args.arcface,
        overwrite=args.overwrite,
    )
    return _print_conversion(args, report)


def run_convert_to_reface(args: argparse.Namespace) -> int:
    """Converts a folder into a checkpoint for REFace's own code."""
    _silence_libraries()
    from faceswap_diffusion.conversion.reface_export import convert_to_reface

    return _print_conversion(args, convert_to_reface(args.checkpoint, args.output, overwrite=args.overwrite))


def run_convert_from_stable_diffusion(args: argparse.Namespace) -> int:
    """Makes a checkpoint to train from."""
    _silence_libraries()
    from faceswap_diffusion.conversion.stable_diffusion import init_from_stable_diffusion
    from faceswap_diffusion.conversion.weights import DTYPES

    report = init_from_stable_diffusion(
        args.checkpoint,
        args.output,
        arcface=args.arcface,
        image_encoder=args.image_encoder,
        seed=args.seed,
        dtype=DTYPES.get(args.dtype),
        overwrite=args.overwrite,
    )
    return _print_conversion(args, report)


def _print_conversion(args: argparse.Namespace, report: "ConversionReport") -> int:
    if args.json:
        say(json.dumps({"output": args.output, **asdict(report)}, indent=2))
    else:
        say("\n".join([f"{args.output}: converted", *report.lines()]))
    return 0


def run_doctor(args: argparse.Namespace) -> int:
    """Examines the installation; 1 if something is wrong with it."""
    from faceswap_diffusion.cli.doctor import examine, format_report

    report = examine()
    say(json.dumps(report, indent=2) if args.json else format_report(report))
    return 1 if report["problems"] else 0


def run_evaluate(args: argparse.Namespace) -> int:
    """Measures swaps."""
    evaluation_command.check_extra()
    _silence_libraries()
    return evaluation_command.run(args)


def run_fetch(args: argparse.Namespace) -> int:
    """Gets model files, and says where they are and under which licences."""
    paths = {name: str(fetch(name)) for name in args.names}
    if args.json:
        say(json.dumps(paths, indent=2))
    else:
        for name, path in paths.items():
            say(f"{path}: {MODEL_FILES[name].licence}")
    return 0


def describe_face(face: "Face") -> dict[str, Any]:
    """Turns a face into plain numbers, rounded to what they are worth."""
    return {
        "bbox": [round(float(value), 1) for value in face.bbox],
        "score": round(float(face.score), 3),
        "keypoints": [[round(float(x), 1), round(float(y), 1)] for x, y in face.keypoints],
        "head_pose": None if face.head_pose is None else [round(float(angle), 1) for angle in face.head_pose],
    }


def face_line(face: "Face") -> str:
    """Writes a face as one line: place, size, confidence, head pose."""
    left, top, right, bottom = (round(float(value)) for value in face.bbox)
    line = f"{right - left} x {bottom - top} px at ({left}, {top}), score {face.score:.2f}"
    if face.head_pose is not None:
        yaw, pitch, roll = face.head_pose
        line += f", yaw {yaw:+.0f} pitch {pitch:+.0f} roll {roll:+.0f} degrees"
    return line


def draw_faces(rgb: "np.ndarray", faces: Sequence["Face"]) -> "Image.Image":
    """Draws boxes, indices and landmarks of faces.

    Args:
        rgb (`np.ndarray`): (H, W, 3) uint8 RGB.
        faces (`Sequence[Face]`): In pixels of `rgb`.
    """
    from PIL import Image, ImageDraw

    image = Image.fromarray(rgb)
    draw = ImageDraw.Draw(image)
    for index, face in enumerate(faces):
        left, top, right, bottom = (float(value) for value in face.bbox)
        line = max(1, round((right - left) / 100))
        draw.rectangle((left, top, right, bottom), outline=(0, 255, 0), width=line)
        draw.text((left + 2 * line, top + line), str(index), fill=(0, 255, 0), font_size=max(12, (right - left) / 8))
        _draw_points(draw, face.landmarks68, line, (0, 200, 255))
        _draw_points(draw, face.keypoints, 2 * line, (255, 0, 0))
    return image


def _draw_points(draw: "ImageDraw.ImageDraw", points: "np.ndarray", radius: int, color: tuple[int, int, int]) -> None:
    for x, y in points:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)


def _quiet_analyzer(face_score: float | None = None) -> "MeshFaceAnalyzer":
    """Loads the default analyzer without the line that LiteRT's C++ writes to standard error."""
    from faceswap_diffusion.faces.analyzer import MeshFaceAnalyzer

    analyzer = MeshFaceAnalyzer() if face_score is None else MeshFaceAnalyzer(face_score)
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        analyzer.mesh  # noqa: B018 - loads it
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    return analyzer


def _silence_libraries() -> None:
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity(logging.CRITICAL)  # what goes wrong is raised as well
        library.disable_progress_bar()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv (`Sequence[str]`, *optional*): The arguments; `sys.argv` if left out.

    Returns:
        `int`: Exit status: 0 done, 1 unexpected failure, 2 something is wrong with what was given, 130 interrupted.
    """
    ready_streams()
    logging.basicConfig(format=f"{PROG}: warning: %(message)s")  # of our own modules
    args = build_parser().parse_args(argv)
    try:
        return args.run(args)
    except KeyboardInterrupt:
        say(f"{PROG}: interrupted", error=True)
        return 130
    except Exception as error:
        if args.debug:
            traceback.print_exc()
        is_users = isinstance(error, ValueError | FileNotFoundError | IsADirectoryError | PermissionError)
        message = " ".join(str(error).split()) or type(error).__name__
        hint = "" if is_users or args.debug else f" ({type(error).__name__}; --debug shows where)"
        say(f"{PROG}: error: {message}{hint}", error=True)
        return 2 if is_users else 1
