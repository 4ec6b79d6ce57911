"""`faceswap-diffusion faces`: lists the faces of a photo or a video, and draws them."""

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from faceswap_diffusion.cli.loading import add_checkpoint_options, add_face_score, find_faces, import_diffusers
from faceswap_diffusion.cli.options import tell
from faceswap_diffusion.console import say

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image, ImageDraw

    from faceswap_diffusion.faces.analyzer import Face

SUMMARY = "list and draw the faces found in a photo or in a video"


def add_arguments(faces: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    faces.add_argument("photo", metavar="PHOTO", help="or a video, or a folder of its frames")
    faces.add_argument("-o", "--output", metavar="OUT",
        help="also write the photo with the faces drawn into it, or a sheet of a video's faces")  # fmt: skip
    faces.add_argument("--draw", choices=("faces", "masks"), default="faces",
        help="what is drawn into a photo: boxes and landmarks, or the regions of faces and what is in front of them "
        "(default: faces)")  # fmt: skip
    faces.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    add_face_score(faces)
    add_checkpoint_options(faces)
    faces.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Lists the faces of a photo, and draws them; or the tracks of a video."""
    from faceswap_diffusion.cli.faces_video import run_video, shows_frames

    if shows_frames(args.photo):
        return run_video(args)
    from faceswap_diffusion.photos.loading import load_photo
    from faceswap_diffusion.provenance.save import check_output, save_image

    if args.output:
        check_output(args.output, overwrite=args.overwrite)
    elif args.draw != "faces":
        raise ValueError(f"--draw {args.draw} draws into a picture: say where to with -o")
    photo = load_photo(args.photo)
    if args.output:
        check_output(args.output, overwrite=args.overwrite, size=photo.size)
    faces = find_faces(args).analyze(photo.rgb)
    if args.output:
        save_image(draw(args, photo.rgb, faces), args.output, provenance=None)
    if args.json:
        height, width = photo.rgb.shape[:2]
        report = {"photo": args.photo, "width": width, "height": height, "faces": [describe_face(f) for f in faces]}
        say(json.dumps(report, indent=2))
    else:
        lines = [f"{args.photo}: {len(faces)} face{'' if len(faces) == 1 else 's'}"]
        lines += [f"  {index}: {face_line(face)}" for index, face in enumerate(faces)]
        tell(args, "\n".join(lines))
    return 0


def draw(args: argparse.Namespace, rgb: "np.ndarray", faces: Sequence["Face"]) -> "Image.Image":
    """Draws what `--draw` asks for."""
    if args.draw == "faces":
        return draw_faces(rgb, faces)
    import_diffusers(args)
    from faceswap_diffusion.cli.mask_drawing import draw_masks

    return draw_masks(rgb, faces)


def describe_face(face: "Face") -> dict[str, Any]:
    """Turns a face into plain numbers, rounded to their precision."""
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
