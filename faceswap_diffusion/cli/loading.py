"""What a swap loads, ordered so that errors come early: faces first, then PyTorch and the networks."""

import argparse
import logging
from typing import TYPE_CHECKING

from faceswap_diffusion.cli.options import PROG, tell

if TYPE_CHECKING:
    import numpy as np

    from faceswap_diffusion.faces.analyzer import Face, FaceAnalyzer
    from faceswap_diffusion.photos.loading import Photo
    from faceswap_diffusion.swapping.swapper import FaceSwapper


def add_checkpoint_options(parser: argparse.ArgumentParser) -> None:
    """Adds the group of options that say which networks to load, and where to."""
    group = parser.add_argument_group("which networks, and where they run")
    add = group.add_argument
    add("--checkpoint", metavar="PATH_OR_ID", help="folder or Hub id of a checkpoint (default: the package's)")
    add("--variant", metavar="NAME", help="of the checkpoint's weights, as fp16 (default: plain, or the only one)")
    add("--few-steps", action="store_true", help="take the checkpoint's few-step version")
    add("--device", help="cpu, cuda, cuda:1, mps (default: the fastest there is)")
    add("--dtype", help="float32, float16 or bfloat16 (default: float16 on cuda, else float32)")


def add_face_score(parser: argparse.ArgumentParser) -> None:
    """Adds the option for the detector's threshold."""
    parser.add_argument("--face-score", type=face_score, metavar="S",
        help="least confidence of the detector in a face, 0 to 1 (default: 0.6)")  # fmt: skip


def face_score(text: str) -> float:
    """Reads the detector's threshold."""
    try:
        score = float(text)
    except ValueError:
        score = float("nan")
    if not 0 < score < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; a number between 0 and 1 is needed")
    return score


class FoundFaces:
    """A [`FaceAnalyzer`] that looks at each photo once."""

    def __init__(self, analyzer: "FaceAnalyzer"):
        self.analyzer = analyzer
        self.found: dict[int, tuple[np.ndarray, list[Face]]] = {}

    def analyze(self, image: "np.ndarray") -> "list[Face]":
        """Finds the faces, once for each photo. The photo is kept, so that its `id` is not used again."""
        if id(image) not in self.found:
            self.found[id(image)] = image, self.analyzer.analyze(image)
        return self.found[id(image)][1]


def find_faces(args: argparse.Namespace) -> FoundFaces:
    """Loads the networks that find and describe faces, which need no PyTorch; see `add_face_score`."""
    from faceswap_diffusion.faces.analyzer import MeshFaceAnalyzer

    return FoundFaces(MeshFaceAnalyzer() if args.face_score is None else MeshFaceAnalyzer(args.face_score))


def tell_loading(args: argparse.Namespace) -> None:
    """Says what is being loaded."""
    tell(args, f"{PROG}: loading PyTorch and {args.checkpoint or 'the checkpoint of the package'} ...", error=True)


def load_swapper(
    args: argparse.Namespace, analyzer: "FaceAnalyzer", occlusion: str, lora: str | None = None
) -> "FaceSwapper":
    """Loads the swapper that the options ask for.

    Args:
        args (`argparse.Namespace`): See `add_checkpoint_options`.
        analyzer ([`FaceAnalyzer`]): Finds the faces.
        occlusion (`str`): See `FaceSwapper.from_pretrained`.
        lora (`str`, *optional*): Likewise.

    Raises:
        ValueError: If it cannot be loaded.
    """
    import_diffusers(args)
    from faceswap_diffusion.swapping.swapper import FaceSwapper

    swapper = FaceSwapper.from_pretrained(
        args.checkpoint,
        device=args.device,
        dtype=args.dtype,
        analyzer=analyzer,
        few_steps=args.few_steps,
        variant=args.variant,
        occlusion=occlusion,
        lora=lora,
    )
    if getattr(args, "only", None):
        swapper.allow_only(args.only)
    return swapper


def import_diffusers(args: argparse.Namespace) -> None:
    """Imports the libraries and silences them, unless `--verbose` is given."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        if not args.verbose:
            library.set_verbosity(logging.CRITICAL)  # what goes wrong is raised as well
        library.disable_progress_bar()


def check_sources(args: argparse.Namespace, analyzer: FoundFaces, sources: "list[Photo | str]") -> None:
    """Finds the faces of the sources, so that a photo without one is known before PyTorch is loaded.

    Raises:
        NoFaceFoundError: If a photo shows none, or not the one that was asked for.
    """
    from faceswap_diffusion.faces.selection import select_face

    for source in sources:
        if not isinstance(source, str):
            select_face(analyzer.analyze(source.rgb), args.source_face, where=source.name)
