"""Photo in, photo out: the only place that chains detection, masks, diffusion and compositing."""

import os
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.utils import logging
from PIL import Image

from faceswap_diffusion.devices import network_layout, resolve_device, resolve_dtype
from faceswap_diffusion.faces.analyzer import Face, FaceAnalyzer, MeshFaceAnalyzer
from faceswap_diffusion.faces.selection import nearest_face, select_face
from faceswap_diffusion.masks.bisenet import BiSeNet
from faceswap_diffusion.masks.inpaint import MaskLike
from faceswap_diffusion.masks.occlusion import OcclusionNetwork
from faceswap_diffusion.masks.parsing import FaceParser, load_face_parser
from faceswap_diffusion.photos.loading import Photo, PhotoLike, load_photo
from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.pipelines.loading import (
    FEW_STEPS_FOLDER,
    fuse_lora,
    load_few_steps,
    load_occlusion,
    load_parser,
    load_pipeline,
)
from faceswap_diffusion.safety.checker import SafetyChecker
from faceswap_diffusion.swapping.aligned_face import AlignedFace
from faceswap_diffusion.swapping.coherence import FaceState, independent
from faceswap_diffusion.swapping.options import SwapOptions
from faceswap_diffusion.swapping.painted import PaintedMasks
from faceswap_diffusion.swapping.request import (
    SourceLike,
    TargetFace,
    check_choice,
    check_mapping,
    load_mask,
    load_sources,
)
from faceswap_diffusion.swapping.result import Stopwatch, SwappedFaces, SwapResult
from faceswap_diffusion.swapping.second_look import PhotoFaces, check_any, select_aligned
from faceswap_diffusion.swapping.source_identity import SourceIdentity
from faceswap_diffusion.swapping.stages import PreparedSwap, SwapStages
from faceswap_diffusion.weights.folders import EMBEDDED_CHECKPOINT, checkpoint_folder

logger = logging.get_logger(__name__)

MOST_TURNED = 60  # degrees of yaw above which a warning says that a target is seen from the side

StepCallback = Callable[..., dict[str, Any] | None]


class FaceSwapper(SwapStages):
    """Swaps faces in photos: finds and aligns them, repaints them by a pipeline, and puts them back.

    One swapper may be used by several threads: each call gives what it would give alone. Networks of OpenCV and LiteRT
    and the pipeline serve one call at a time, behind locks; masks, references and pasting run side by side, and crops
    are decoded while others are painted. Two swappers must not share an analyzer or a pipeline across threads.

    Args:
        pipeline ([`FaceSwapInpaintPipeline`]): With all its components.
        analyzer ([`FaceAnalyzer`], *optional*): Finds the faces; [`MeshFaceAnalyzer`] if left out.
        name (`str`): What to call the pipeline in the metadata of pictures.
        parser ([`FaceParser`] or [`BiSeNet`], *optional*): Tells the parts of a face; the package's if left out.
        occlusion ([`OcclusionNetwork`] or `str | Path`): Finds what is in front of a target's face, so that it
            stays there; see `from_pretrained`.
    """

    def __init__(
        self,
        pipeline: FaceSwapInpaintPipeline,
        analyzer: FaceAnalyzer | None = None,
        name: str = "own",
        parser: FaceParser | BiSeNet | None = None,
        occlusion: OcclusionNetwork | str | Path | None = "auto",
    ):
        parser = parser or load_face_parser()
        if occlusion == "auto" and isinstance(parser, BiSeNet):
            occlusion = "off"
        if isinstance(occlusion, str | Path):
            occlusion = load_occlusion(occlusion)
        super().__init__(pipeline, analyzer or MeshFaceAnalyzer(), parser, occlusion)
        self.name = name

    @classmethod
    def from_pretrained(
        cls,
        checkpoint: str | Path | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        analyzer: FaceAnalyzer | None = None,
        few_steps: bool = False,
        variant: str | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        subfolder: str | None = None,
        cache_dir: str | PathLike | None = None,
        local_files_only: bool = False,
        occlusion: str | Path = "auto",
        lora: str | Path | None = None,
        safety_checker: SafetyChecker | str | None = "auto",
    ) -> "FaceSwapper":
        """Loads a swapper.

        Args:
            checkpoint (`str | Path`, *optional*): Folder in Diffusers' layout or Hub id; the small checkpoint inside
                the package if left out.
            device (`str | torch.device`, *optional*): CUDA if there is one, else MPS, else the CPU if left out.
            dtype (`str | torch.dtype`, *optional*): "float32", "float16" or "bfloat16"; float16 on CUDA and float32
                elsewhere if left out.
            analyzer ([`FaceAnalyzer`], *optional*): Finds the faces; [`MeshFaceAnalyzer`] if left out.
            few_steps (`bool`): Whether to take the checkpoint's few-step version, which swaps in as many steps as
                its config says.
            variant (`str`, *optional*): Of the weights, as `"fp16"`; if left out, the plain files, or where there are
                none the only variant.
            revision (`str`, *optional*): Branch, tag or commit of the Hub repository, of which no more than one
                variant is fetched.
            token (`str | bool`, *optional*): For repositories that are not public; the stored one if left out.
            subfolder (`str`, *optional*): Where in the folder or repository the checkpoint is.
            cache_dir (`str | PathLike`, *optional*): Where fetched files are kept; the Hub's own cache if left out.
            local_files_only (`bool`): Whether to take what is in the cache, and ask no server.
            occlusion (`str | Path`): What finds things in front of faces: "auto" for the package's network, unless the
                checkpoint brings a face parser of its own, "off" for nothing, or the folder of another network.
            lora (`str | Path`, *optional*): A LoRA of the checkpoint's UNet, a safetensors file or its folder.
            safety_checker ([`SafetyChecker`] or `str`, *optional*): Refuses explicit pictures and faces like a
                minor's: "auto" for the checkpoint's, or if it has none the package's; `None` for none, with a warning.

        Raises:
            ValueError: If checkpoint or LoRA is unknown, incomplete, holds keys too many or pickled files, or lacks
                the variant or the few-step version that was asked for, or if there is no such device.
        """
        resolved = resolve_device(device)
        folder = checkpoint_folder(
            checkpoint,
            variant=variant,
            subfolder=subfolder,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
        pipeline = load_pipeline(folder, resolve_dtype(dtype, resolved), variant, safety_checker)
        checkpoint = Path(checkpoint or EMBEDDED_CHECKPOINT)
        name = checkpoint.name if checkpoint.is_dir() else str(checkpoint)
        if few_steps:
            load_few_steps(pipeline, folder / FEW_STEPS_FOLDER)
            name = f"{name}/{FEW_STEPS_FOLDER}"
        if lora is not None:
            fuse_lora(pipeline, Path(lora))
            name = f"{name}+{Path(lora).stem}"
        for network in (pipeline.unet, pipeline.vae):
            network.to(memory_format=network_layout(resolved))
        return cls(pipeline.to(resolved), analyzer, name, load_parser(folder, variant), occlusion)

    def swap(
        self,
        source: SourceLike | Sequence[SourceLike],
        target: PhotoLike,
        *,
        source_face: str | int | np.integer = "largest",
        target_face: TargetFace = "largest",
        mapping: Mapping[int, int] | None = None,
        mask_image: MaskLike | PhotoLike | None = None,
        add_mask_image: MaskLike | PhotoLike | None = None,
        keep_mask_image: MaskLike | PhotoLike | None = None,
        callback_on_step_end: StepCallback | None = None,
        **settings: Any,
    ) -> SwapResult:
        """Puts the face of a source into a target photo.

        Args:
            source (`str | PathLike | BinaryIO | PIL.Image.Image | np.ndarray | Photo` or a list): Photo of who to
                become; a list holds photos of one person, which are averaged. In place of photos a [`SourceIdentity`],
                or the .safetensors file of one. With `mapping` a list holds people, each a photo, a list of photos or
                an identity.
            target (`str | PathLike | BinaryIO | PIL.Image.Image | np.ndarray | Photo`): Photo to change; arrays
                (H, W, 3) uint8 RGB.
            source_face (`str | int`): Whom the sources show: "largest", or an index, 0 being leftmost.
            target_face (`str | int` or photo): "largest", "all", an index, 0 being leftmost, or a photo of the person
                to replace.
            mapping (`Mapping[int, int]`, *optional*): From the index of a face in the target to that of a person in
                `source`, in place of `target_face`.
            mask_image (`PIL.Image.Image | np.ndarray | torch.Tensor` or file, *optional*): White = repaint, black or
                transparent = not, as large as the target, in place of `region`. It counts within each face's aligned
                crop; where it is black the photo is unchanged.
            add_mask_image (`PIL.Image.Image | np.ndarray | torch.Tensor` or file, *optional*): White = repaint as
                well, besides `region` or `mask_image`, even what is in front of the face.
            keep_mask_image (`PIL.Image.Image | np.ndarray | torch.Tensor` or file, *optional*): White = leave as it
                is, whatever region and other masks say.
            callback_on_step_end (`Callable`, *optional*): Called after each denoising step as diffusers' pipelines do.
            settings: `region`, `keep`, `seed`, `num_inference_steps` and the others of [`SwapOptions`].

        Returns:
            [`SwapResult`]: The new photo, and how it came about.

        Raises:
            NoFaceFoundError: If source or target shows no face, or not the one that was asked for.
            RefusedError: If the safety checker refuses source, target or result, or a face is of nobody who agreed,
                see `allow_only`; with `target_face="all"` such faces are left as they are.
            ValueError: For a photo that cannot be read, and for arguments that do not fit.
        """
        watch, options = Stopwatch(), SwapOptions(**settings)
        check_choice(target_face, mapping)
        photo = load_photo(target, "target")
        sources = load_sources(source, several=mapping is not None)
        masks = (mask_image, add_mask_image, keep_mask_image)
        painted = PaintedMasks(*(None if mask is None else load_mask(mask, photo) for mask in masks))
        watch.lap("load")
        found = self.survey(photo.rgb)
        if mapping is None:
            chosen = self.choose_faces(found, target_face, photo.name)
            mapping = dict.fromkeys(self._without_outsiders(photo, found.faces, chosen), 0)
        mapping = {int(face): int(person) for face, person in sorted(mapping.items())}
        check_mapping(mapping, len(found.faces), len(sources), photo.name)
        faces = [found.faces[index] for index in mapping]
        for index, face in zip(mapping, faces, strict=True):
            self.check_agreed(photo.rgb, face, f"face {index} of {photo.name}")
        names = [f"face {index} of {photo.name}" for index in mapping]
        _warn_of_turned(faces, names)
        watch.lap("detect")
        self.check_safety(photo.rgb, faces, photo.name)
        watch.lap("check")
        identities = {
            index: self._identity(sources[index], source_face, options.region) for index in set(mapping.values())
        }
        watch.lap("encode")
        made = self._swap_aligned(
            photo.rgb,
            [found.aligned[index] for index in mapping],
            [identities[index] for index in mapping.values()],
            options,
            painted,
            callback_on_step_end,
            names,
            [independent() for _ in mapping],
        )
        watch.lap("swap")
        self.check_safety(made.rgb, faces, "the result")
        watch.lap("check the result")
        changed = Image.fromarray(np.ceil(made.mask * 255).astype(np.uint8))
        scale = options.identity_guidance_scale
        provenance = {
            "checkpoint": self.name,
            **painted.describe(options),
            "seed": options.seed,
            "faces": len(mapping),
            **made.settings,
            **({} if scale is None else {"identity_guidance_scale": scale}),
            "source_shown": made.source_shown,
            **({} if options.consent is None else {"consent": options.consent}),
        }
        seconds = {**watch.seconds, **made.seconds}
        seconds["check"] += seconds.pop("check the result")
        del seconds["swap"]  # told by its parts
        return SwapResult(
            photo.with_pixels(made.rgb),
            list(found.faces),
            list(mapping),
            changed,
            seconds,
            provenance,
            made.source_shown,
            made.covered,
            list(found.dropped),
            made.in_front,
            photo.name if os.path.isfile(photo.name) else None,
        )

    def _without_outsiders(self, photo: Photo, faces: Sequence[Face], chosen: list[int]) -> list[int]:
        """Of several faces those of people who agreed; a single one is left to be refused by name."""
        agreed = [index for index in chosen if self.has_agreed(photo.rgb, faces[index])]
        return agreed or chosen[:1]

    @torch.no_grad()
    def _identity(
        self, source: list[Photo] | SourceIdentity, which: str | int | np.integer, region: str
    ) -> SourceIdentity:
        return source if isinstance(source, SourceIdentity) else self._encode_photos(source, which, region)

    def swap_faces(
        self,
        rgb: np.ndarray,
        faces: Sequence[Face],
        identities: Sequence[SourceIdentity],
        options: SwapOptions,
        *,
        others: Sequence[Face] = (),
        painted: PaintedMasks | None = None,
        callback_on_step_end: StepCallback | None = None,
        states: Sequence[FaceState] | None = None,
        check_safety: bool = True,
    ) -> SwappedFaces:
        """Gives faces of a picture other identities: what `swap` does between reading a photo and making one.

        Args:
            rgb (`np.ndarray`): (H, W, 3) uint8 RGB.
            faces (`Sequence[Face]`): Those to change, from `find_faces`.
            identities (`Sequence[SourceIdentity]`): For each of them who it becomes, from `encode_source`.
            options ([`SwapOptions`]): How.
            others (`Sequence[Face]`): The picture's other faces, which stay as they are.
            painted ([`PaintedMasks`], *optional*): Masks for the picture.
            callback_on_step_end (`Callable`, *optional*): As for `swap`.
            states (`Sequence[FaceState]`, *optional*): For each of `faces`, if the picture is a frame of a video, what
                [`TemporalCoherence.advance`] gives: it keeps the swaps of neighbouring frames alike.
            check_safety (`bool`): Whether the safety checker looks at the picture and what comes of it. Of a video it
                need not look at every frame.

        Returns:
            [`SwappedFaces`]: The new picture, and where it is new.

        Raises:
            RefusedError: If the safety checker refuses the picture, or what comes of it.
            ValueError: If a face has nothing to be repainted, and for options that do not fit.
        """
        if check_safety:
            self.check_safety(rgb, faces, "the picture")
        if states is None:
            states = [independent() for _ in faces]
        else:
            options = options.of_frames()
        aligned, names = self._align_named(rgb, faces, others, states)
        made = self._swap_aligned(
            rgb, aligned, identities, options, painted or PaintedMasks(), callback_on_step_end, names, states
        )
        if check_safety:
            self.check_safety(made.rgb, faces, "the result")
        return made

    @torch.no_grad()
    def _swap_aligned(
        self,
        rgb: np.ndarray,
        aligned: Sequence[AlignedFace],
        identities: Sequence[SourceIdentity],
        options: SwapOptions,
        painted: PaintedMasks,
        callback_on_step_end: StepCallback | None,
        names: Sequence[str],
        states: Sequence[FaceState],
    ) -> SwappedFaces:
        """Does what `swap_faces` says with faces that are aligned, called `names` in errors."""
        prepared = self.prepare(rgb, aligned, identities, options, painted, names, states)
        watch = Stopwatch()
        crops = self.repaint(
            aligned,
            prepared.masks,
            identities,
            prepared.masked,
            options.seed,
            callback_on_step_end=callback_on_step_end,
            **prepared.settings,
        )
        watch.lap("diffuse")
        made = self.paste(prepared, crops, states)
        made.seconds["diffuse"] += watch.seconds["diffuse"]
        return made

    def prepare_faces(
        self,
        rgb: np.ndarray,
        faces: Sequence[Face],
        identities: Sequence[SourceIdentity],
        options: SwapOptions,
        *,
        others: Sequence[Face] = (),
        states: Sequence[FaceState],
    ) -> PreparedSwap:
        """The first part of what `swap_faces` does, for frames that are painted in batches. See there.

        Next are `paint`, `decode_crops` and `paste`.
        """
        aligned, names = self._align_named(rgb, faces, others, states)
        return self.prepare(rgb, aligned, identities, options.of_frames(), PaintedMasks(), names, states)

    def _align_named(
        self, rgb: np.ndarray, faces: Sequence[Face], others: Sequence[Face], states: Sequence[FaceState]
    ) -> tuple[list[AlignedFace], list[str]]:
        """Aligns those of a picture's faces that are swapped, and says what errors call them."""
        around = [*faces, *others]
        aligned = [self.align(rgb, face, around, state) for face, state in zip(faces, states, strict=True)]
        return aligned, [f"face {index} of those to swap" for index in range(len(faces))]

    def choose_faces(self, found: PhotoFaces, which: TargetFace, where: str) -> list[int]:
        """Chooses faces of the target.

        Args:
            found ([`PhotoFaces`]): Its faces, from `survey`.
            which (`str | int` or photo): "largest", "all", an index, or a photo of the person meant.
            where (`str`): What to call the target in errors.

        Returns:
            `list[int]`: Indices into the faces.

        Raises:
            NoFaceFoundError: If there is none such.
        """
        faces = found.faces
        check_any(found, where)
        if isinstance(which, int | np.integer):
            select_face(faces, which, where=where)
            return [int(which)]
        largest = select_face(faces, "largest", where=where)
        if isinstance(which, str) and which in ("largest", "all"):
            return [index for index, face in enumerate(faces) if which == "all" or face is largest]
        reference = load_photo(which, "target_face")
        wanted = select_aligned(self.survey(reference.rgb), "largest", reference.name)
        crops = [face.pixels for face in [*found.aligned, wanted]]
        with torch.no_grad(), self._pipeline_lock:
            *embeddings, sought = self.pipeline.encode_identity(crops).float().cpu().numpy()
        return [nearest_face(np.stack(embeddings), sought, -1 if self.same_person is None else self.same_person)]


def _warn_of_turned(faces: Sequence[Face], names: Sequence[str]) -> None:
    """Warns of faces that are seen from the side, on which the mesh is least exact."""
    for face, name in zip(faces, names, strict=True):
        if face.head_pose is not None and abs(face.head_pose[0]) > MOST_TURNED:
            logger.warning(
                f"{name} is seen from the side (yaw {face.head_pose[0]:+.0f} degrees): above {MOST_TURNED} degrees "
                "swaps are less exact; look at the result, or choose a photo that is turned less"
            )
