"""Prepares photos for training: aligned crops, label maps, landmarks, head pose, expression and identity of each face.

    python train/prepare_faces.py PHOTOS --output_dir data/faces

PHOTOS are folders, or tar files of webdataset; --dataset_name takes a data set of the Hugging Face Hub instead.
CelebAMask-HQ and FFHQ are known by their folders, and a folder per person by two photos of each. Crops that are
FFHQ-aligned already are prepared with --aligned.

`rejected.csv` lists what was left out and why. Stop the script at any time, by any means: run the same command again
and it goes on with the first shard that is missing, to the same files.
"""

import sys
from argparse import SUPPRESS
from pathlib import Path
from typing import Literal

import cv2
import torch
from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import PositiveInt

from faceswap_diffusion.console import ready_streams, say, say_interrupted
from faceswap_diffusion.devices import available_cores
from faceswap_diffusion.training.command_line import build_parser
from faceswap_diffusion.training.data.person_folders import folder_of, look_into_folders
from faceswap_diffusion.training.data.photo_sources import (
    HubPhotos,
    IdentityRule,
    Layout,
    PhotoSource,
    TarPhotos,
    open_folders,
)
from faceswap_diffusion.training.data.preparation import PreparationSettings, count_reasons, prepare_faces


def add_arguments(parser: ArgumentParser) -> None:
    photos = parser.add_argument_group("photos")
    # Without a default, or no photos on the command line would be taken for a word against those of --config.
    photos.add_argument(
        "photos", type=Path, nargs="*", default=SUPPRESS, help="folders, with their subfolders, or tar files"
    )
    photos.add_argument("--dataset_name", type=str, help="Hub id or local path of a data set, in place of them")
    photos.add_argument("--split", type=str, default="train", help="of the data set")
    photos.add_argument("--image_column", type=str, default="image", help="of the data set")
    photos.add_argument(
        "--layout", type=Layout, default="auto", help="of a folder; auto: CelebAMask-HQ's or FFHQ's if it looks so"
    )
    photos.add_argument("--aligned", action="store_true", help="they are FFHQ-aligned crops: take them as they are")
    people = parser.add_argument_group("people", "who is who: two pictures of one person may become source and target")
    people.add_argument(
        "--identity", type=IdentityRule, default="auto",
        help="auto: from a manifest.csv beside the photos, CelebA's list, or folders that are found to hold one "
        "person each; folder: from the folder of each photo; none: unknown",
    )  # fmt: skip
    people.add_argument("--identity_csv", type=Path, help="table with the columns file (relative to it) and identity")
    people.add_argument(
        "--identity_column", type=str, help="of the data set; in tar files a key of the .json, or a text's suffix"
    )
    faces = parser.add_argument_group("faces")
    faces.add_argument("--output_dir", type=Path, required=True, help="receives the shards")
    faces.add_argument(
        "--resolution",
        type=PositiveInt,
        default=PreparationSettings.resolution,
        help="side of the crops in pixels; smaller faces are left out",
    )
    faces.add_argument("--face", type=Literal["largest", "all"], default="largest", help="which of a photo")
    faces.add_argument("--shard_size", type=PositiveInt, default=256, help="photos in a shard")
    faces.add_argument(
        "--num_workers", type=PositiveInt, default=available_cores(), help="processes; by default one a core"
    )


def open_photos(args: Namespace) -> PhotoSource:
    paths = args.get("photos")
    if bool(paths) == bool(args.dataset_name):
        raise ValueError("name folders or tar files of photos, or a --dataset_name: one of the two")
    if args.dataset_name:
        return HubPhotos(args.dataset_name, args.split, args.image_column, args.identity_column)
    if all(path.suffix == ".tar" for path in paths):
        return TarPhotos(paths, args.identity_column)
    return open_folders(paths, args.layout, args.identity, args.identity_csv)


def recognise_people(photos: PhotoSource) -> None:
    """Takes folders for people where their photos look so, and says what it assumed."""
    if any(photos.identities):
        return
    found = look_into_folders(photos)
    if found is None:
        return
    if found.are_people:
        photos.identities = [folder_of(name) for name in photos.names]
        assumed, other = "are taken for people", "--identity none"
    else:
        assumed, other = "are not taken for people, so identities are unknown", "--identity folder"
    say(
        f"prepare_faces.py: the {found.num_folders} folders of the photos {assumed}: in {found.num_alike} of "
        f"{found.num_seen} that were looked into, two photos show one person, and {found.num_mixed} of "
        f"{found.num_neighbours} pairs of folders show the same one ({other} says otherwise)",
        error=True,
    )


def main(arguments: list[str] | None = None) -> None:
    parser = build_parser("prepare_faces.py", __doc__)
    add_arguments(parser)
    ready_streams()
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        source = open_photos(args)
        if args.identity == "auto" and not args.dataset_name:
            recognise_people(source)
        settings = PreparationSettings(args.resolution, args.aligned or source.aligned, args.face, args.shard_size)
        num_faces, rejections = prepare_faces(source, args.output_dir, settings, args.num_workers)
    except KeyboardInterrupt:
        say_interrupted(f"{parser.prog}: interrupted; the same command goes on from here")
        sys.exit(130)
    except ValueError as error:
        say(f"{parser.prog}: {error}", error=True)
        sys.exit(2)
    left_out = f"; left out: {count_reasons(rejections)} (see rejected.csv)" if rejections else ""
    say(f"{num_faces} faces of {len(source)} photos in {args.output_dir}{left_out}")


if __name__ == "__main__":
    main()
