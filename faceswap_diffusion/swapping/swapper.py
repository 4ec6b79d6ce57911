"""Photo in, photo out: the only place that chains detection, masks, diffusion and compositing."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import torch
from diffusers.utils import logging
from PIL import Image
from torch.nn.functional import cosine_similarity, normalize

from faceswap_diffusion.conditioning.geometry import exchange_geometry, identity_geometry, move_mesh
from faceswap_diffusion.conditioning.reference import (
    Reference,
    SourceHead,
    draw_reference,
    render_texture,
    ring_reach,
    shown_around,
)
from faceswap_diffusion.devices import resolve_device, resolve_dtype
from faceswap_diffusion.faces.alignment import crop, ffhq_matrix, resized_matrix, transform_points
from faceswap_diffusion.faces.analyzer import Face, FaceAnalyzer, MeshFaceAnalyzer
from faceswap_diffusion.faces.selection import NoFaceFoundError, nearest_face, select_face
from faceswap_diffusion.faces.texture import FaceTexture, extract_texture, fill_by_mirror, merge_textures
from faceswap_diffusion.masks.bisenet import BiSeNet
from faceswap_diffusion.masks.inpaint import MaskLike, prepare_mask
from faceswap_diffusion.masks.occlusion import OcclusionNetwork, cover_mask
from faceswap_diffusion.masks.parsing import FaceParser, load_face_parser
from faceswap_diffusion.masks.regions import REGIONS, feather, region_mask, repaint_mask, worn_mask
from faceswap_diffusion.photos.loading import Photo, PhotoLike, load_photo
from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.pipelines.inputs import fill_hidden
from faceswap_diffusion.pipelines.latents import rebuild
from faceswap_diffusion.pipelines.loading import (
    FEW_STEPS_FOLDER,
    load_few_steps,
    load_occlusion,
    load_parser,
    load_pipeline,
)
from faceswap_diffusion.provenance.save import save_image
from faceswap_diffusion.swapping.compositing import (
    ShownReference,
    add_detail,
    continue_surroundings,
    match_border_tone,
    match_color,
    match_light,
    paste_back,
)
from faceswap_diffusion.weights.folders import EMBEDDED_CHECKPOINT, checkpoint_folder

logger = logging.get_logger(__name__)

FACES_PER_BATCH = 4  # bounds the memory that a group photo takes
FEATHER = 0.015  # standard deviation of the seam, as a share of the crop's side
FINEST_CROP = 1024  # side in pixels: what a photo has beyond it is lost
FINEST_TEXTURE = 1024  # side in texels
LEAST_SHOWN = 1 / 3  # share of a face below which a warning says that the source shows little of it

SourceLike = PhotoLike | Sequence[PhotoLike]


@dataclass(frozen=True)
class AlignedFace:
    """A face cut out as the pipeline wants it.

    Args:
        pixels (`np.ndarray`): (S, S, 3) uint8 RGB, FFHQ-aligned.
        matrix (`np.ndarray`): (2, 3), photo pixels to crop pixels.
        labels (`np.ndarray`): (S, S) uint8, what the face parser sees.
        label_names (`tuple[str, ...]`): What the labels mean.
        landmarks (`np.ndarray`): (478, 2) or (68, 2), x, y in crop pixels.
        landmarks68 (`np.ndarray`): (68, 2) in dlib's order, x, y in crop pixels.
        geometry (`torch.Tensor`, *optional*): (1, 68, 2), the part of `landmarks68` that is the person's own; `None`
            if the checkpoint has no use for it, or the analyzer tells no pose and expression.
        depth (`np.ndarray`, *optional*): (478,), of `landmarks`, in crop pixels, smaller is nearer; `None` if the
            analyzer fits no mesh.
        covered (`np.ndarray`, *optional*): (S, S) float32 in [0, 1], where something is in front of the face; `None`
            if nobody looked.
    """

    pixels: np.ndarray
    matrix: np.ndarray
    labels: np.ndarray
    label_names: tuple[str, ...]
    landmarks: np.ndarray
    landmarks68: np.ndarray
    geometry: torch.Tensor | None = None
    depth: np.ndarray | None = None
    covered: np.ndarray | None = None

    def free(self, region: str = "face") -> np.ndarray:
        """Where nothing is in front of the face that is not itself part of a region, (S, S) float32 in [0, 1]."""
        if self.covered is None:
            return np.ones(self.labels.shape, np.float32)
        return 1 - self.covered * (1 - worn_mask(self.labels, region, self.label_names))


@dataclass(frozen=True)
class Person:
    """Who to become: the mean over one or more photos.

    Args:
        identity_embeds (`torch.Tensor`): (1, D), of unit length.
        source_clip_embeds (`torch.Tensor`): (1, C).
        geometry (`torch.Tensor`, *optional*): (1, 68, 2), see [`AlignedFace`].
        texture ([`FaceTexture`], *optional*): Of all photos; `None` if the checkpoint is shown no references, or a
            face has no mesh.
        head ([`SourceHead`], *optional*): Of the photo that shows most of the face.
    """

    identity_embeds: torch.Tensor
    source_clip_embeds: torch.Tensor
    geometry: torch.Tensor | None = None
    texture: FaceTexture | None = None
    head: SourceHead | None = None


@dataclass(frozen=True)
class SwapResult:
    """What a swap gave.

    Args:
        image (`PIL.Image.Image`): The target with swapped faces, of its size, with its alpha and colour profile.
        faces (`list[Face]`): The faces found in the target, left to right, as they were.
        swapped (`list[int]`): Indices into `faces`.
        mask (`PIL.Image.Image`): Mode L, of the target's size; where it is 0 the photo is unchanged to the byte.
        seconds (`dict[str, float]`): Time taken by each stage: load, detect, encode, reference, diffuse, paste.
        provenance (`dict[str, Any]`): How the picture was made; `save` writes it into the file.
        source_shown (`list[float]`, *optional*): For each of `swapped` the share of the face that its source's photos
            show; `None` if the checkpoint is shown no references.
        covered (`list[float]`): For each of `swapped` the share of what was to be repainted that was left as it is,
            because something is in front of it.
    """

    image: Image.Image
    faces: list[Face]
    swapped: list[int]
    mask: Image.Image
    seconds: dict[str, float]
    provenance: dict[str, Any]
    source_shown: list[float] | None = None
    covered: list[float] = field(default_factory=list)

    def save(self, path: str | PathLike | BinaryIO, file_format: str | None = None) -> None:
        """Saves `image`, marked in its metadata as made with AI.

        Args:
            path (`str | PathLike | BinaryIO`): Where to; a path's suffix tells the format.
            file_format (`str`, *optional*): What is written into an open file, see [`provenance.save_image`].

        Raises:
            ValueError: If it cannot be saved there, see [`provenance.save_image`].
        """
        save_image(self.image, path, provenance=self.provenance, file_format=file_format)


class Stopwatch:
    """Seconds per stage: each lap ends one."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Books the time since the last lap on a stage."""
        now = time.perf_counter()
        self.seconds[stage] = now - self._since
        self._since = now


class FaceSwapper:
    """Swaps faces in photos: finds and aligns them, repaints them by a pipeline, and puts them back.

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
        pipeline.check_complete()
        self.pipeline = pipeline
        self.analyzer = analyzer or MeshFaceAnalyzer()
        self.name = name
        self.parser = parser or load_face_parser()
        if occlusion == "auto" and isinstance(self.parser, BiSeNet):
            occlusion = "off"
        self.occlusion = load_occlusion(occlusion) if isinstance(occlusion, str | Path) else occlusion

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

        Raises:
            ValueError: If the checkpoint is unknown, incomplete, holds keys too many or pickled files, or lacks the
                variant or the few-step version that was asked for, or if there is no such device.
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
        pipeline = load_pipeline(folder, resolve_dtype(dtype, resolved), variant)
        checkpoint = Path(checkpoint or EMBEDDED_CHECKPOINT)
        name = checkpoint.name if checkpoint.is_dir() else str(checkpoint)
        if few_steps:
            load_few_steps(pipeline, folder / FEW_STEPS_FOLDER)
            name = f"{name}/{FEW_STEPS_FOLDER}"
        return cls(pipeline.to(resolved), analyzer, name, load_parser(folder, variant), occlusion)

    @torch.no_grad()
    def swap(
        self,
        source: SourceLike | Sequence[SourceLike],
        target: PhotoLike,
        *,
        region: str = "face",
        source_face: str | int | np.integer = "largest",
        target_face: str | int | np.integer | PhotoLike = "largest",
        mapping: Mapping[int, int] | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        strength: float | None = None,
        color_match: bool = True,
        skin_texture: bool = True,
        seed: int = 0,
        mask_image: MaskLike | PhotoLike | None = None,
        callback_on_step_end: Callable[..., dict[str, Any] | None] | None = None,
    ) -> SwapResult:
        """Puts the face of a source into a target photo.

        The seed belongs to the face: alone or together with others, the same face comes out.

        Args:
            source (`str | PathLike | BinaryIO | PIL.Image.Image | np.ndarray | Photo` or a list): Photo of who to
                become; a list holds photos of one person, which are averaged. With `mapping` a list holds people, each
                a photo or a list of photos.
            target (`str | PathLike | BinaryIO | PIL.Image.Image | np.ndarray | Photo`): Photo to change; arrays
                (H, W, 3) uint8 RGB.
            region (`str`): What to repaint, a key of `masks.regions.REGIONS`: "face", "head" (face and hair), ...
            source_face (`str | int`): Whom the sources show: "largest", or an index, 0 being leftmost.
            target_face (`str | int` or photo): "largest", "all", an index, 0 being leftmost, or a photo of the person
                to replace.
            mapping (`Mapping[int, int]`, *optional*): From the index of a face in the target to that of a person in
                `source`, in place of `target_face`.
            num_inference_steps (`int`, *optional*): Denoising steps; the checkpoint's default if left out.
            guidance_scale (`float`, *optional*): Guidance, on above 1; the checkpoint's default if left out.
            strength (`float`, *optional*): How much of the way from noise to picture is gone, in (0, 1]; below 1 a
                swap starts from the source's face, drawn on the target, which not every checkpoint is shown. The
                checkpoint's default if left out.
            color_match (`bool`): Whether to give the new skin the colours of the target's; a drawn face has them.
            skin_texture (`bool`): Whether to give it the photo's texture, as far as that is too fine for the crop that
                was repainted: pores, grain and fine lines. Where the source's drawn face is, it has its own.
            seed (`int`): Of all randomness.
            mask_image (`PIL.Image.Image | np.ndarray | torch.Tensor` or file, *optional*): White = repaint, black or
                transparent = not, as large as the target, in place of `region`. It counts within each face's aligned
                crop; where it is black the photo is unchanged.
            callback_on_step_end (`Callable`, *optional*): Called after each denoising step as diffusers' pipelines do.

        Returns:
            [`SwapResult`]: The new photo, and how it came about.

        Raises:
            NoFaceFoundError: If source or target shows no face, or not the one that was asked for.
            ValueError: For a photo that cannot be read, and for arguments that do not fit.
        """
        watch = Stopwatch()
        _check_choice(target_face, mapping)
        photo = load_photo(target, "target")
        people_photos = _load_people(source, people=mapping is not None)
        photo_mask = None if mask_image is None else _load_mask(mask_image, photo)
        watch.lap("load")
        faces = self.analyzer.analyze(photo.rgb)
        if mapping is None:
            mapping = dict.fromkeys(self.choose_faces(photo, faces, target_face), 0)
        mapping = {int(face): int(person) for face, person in mapping.items()}
        _check_mapping(mapping, len(faces), len(people_photos), photo.name)
        watch.lap("detect")
        people = {
            person: self.encode_person(people_photos[person], source_face, region) for person in set(mapping.values())
        }
        watch.lap("encode")
        swapped = sorted(mapping)
        aligned = [self.align(photo.rgb, faces[index]) for index in swapped]
        regions = [_mask_crop(face, photo_mask, region) for face in aligned]
        free = [face.free(region) if photo_mask is None else np.ones_like(face.free()) for face in aligned]
        masks = [mask * bare for mask, bare in zip(regions, free, strict=True)]
        _check_masks(masks, swapped, photo.name)
        config = self.pipeline.config
        steps = config["default_num_inference_steps"] if num_inference_steps is None else num_inference_steps
        _check_steps(self.pipeline, steps)
        if guidance_scale is None:
            guidance_scale = config["default_guidance_scale"]
        settings = {"num_inference_steps": steps, "guidance_scale": guidance_scale}
        becoming = [people[mapping[index]] for index in swapped]
        references = [self.draw_reference(face, person) for face, person in zip(aligned, becoming, strict=True)]
        watch.lap("reference")
        crops = self.repaint(
            aligned,
            masks,
            becoming,
            references,
            seed,
            strength=strength,
            callback_on_step_end=callback_on_step_end,
            **settings,
        )
        watch.lap("diffuse")
        shown = self.shown_references(aligned, masks, references, becoming)
        rgb, changed = paste_faces(photo.rgb, aligned, regions, free, crops, shown, color_match, skin_texture)
        if photo_mask is not None:  # the photo's pixels are finer than the crop's, and the mask is meant to the pixel
            rgb, changed = np.where(photo_mask[..., None] > 0, rgb, photo.rgb), changed * (photo_mask > 0)
        image, mask = photo.with_pixels(rgb), Image.fromarray(np.ceil(changed * 255).astype(np.uint8))
        watch.lap("paste")
        region = region if mask_image is None else "mask"
        if strength is None:
            strength = self.pipeline.usual_strength(steps) if any(shown) else 1.0
        source_shown = _shares_shown(becoming)
        provenance = {
            "checkpoint": self.name,
            "region": region,
            "seed": seed,
            "faces": len(swapped),
            **settings,
            "strength": strength,
            "source_shown": source_shown,
        }
        left = [float(1 - mask.sum() / whole.sum()) for mask, whole in zip(masks, regions, strict=True)]
        return SwapResult(image, faces, swapped, mask, watch.seconds, provenance, source_shown, left)

    def choose_faces(self, photo: Photo, faces: list[Face], which: str | int | np.integer | PhotoLike) -> list[int]:
        """Chooses faces of the target.

        Args:
            photo ([`Photo`]): The target.
            faces (`list[Face]`): Its faces, left to right.
            which (`str | int` or photo): "largest", "all", an index, or a photo of the person meant.

        Returns:
            `list[int]`: Indices into `faces`.

        Raises:
            NoFaceFoundError: If there is none such.
        """
        if isinstance(which, int | np.integer):
            select_face(faces, which, where=photo.name)
            return [int(which)]
        largest = select_face(faces, "largest", where=photo.name)
        if isinstance(which, str) and which in ("largest", "all"):
            return [index for index, face in enumerate(faces) if which == "all" or face is largest]
        reference = load_photo(which, "target_face")
        shown = select_face(self.analyzer.analyze(reference.rgb), where=reference.name)
        crops = [self.align(photo.rgb, face).pixels for face in faces] + [self.align(reference.rgb, shown).pixels]
        *embeddings, wanted = self.pipeline.encode_identity(crops).float().cpu().numpy()
        return [nearest_face(np.stack(embeddings), wanted, -1 if self.same_person is None else self.same_person)]

    @property
    def same_person(self) -> float | None:
        """Least cosine of two faces of one person for the checkpoint's recogniser; `None` if it is not known.

        Where it is not known, `target_face` as a photo means the face that is most like it, however little, and there
        are no warnings of photos that show somebody else.
        """
        return self.pipeline.conditioner.identity_encoder.same_person

    def align(self, rgb: np.ndarray, face: Face) -> AlignedFace:
        """Cuts a face out of a photo (H, W, 3) uint8 RGB, parses it, and finds what is in front of it."""
        size = self.pipeline.config["crop_size"]
        matrix = ffhq_matrix(face.landmarks68, size)
        pixels = crop(rgb, matrix, size)
        landmarks = face.landmarks if len(face.landmarks) == 478 else face.landmarks68
        landmarks, landmarks68 = (transform_points(points, matrix) for points in (landmarks, face.landmarks68))
        return AlignedFace(
            pixels=pixels,
            matrix=matrix,
            labels=self.parser.parse(pixels),
            label_names=self.parser.label_names,
            landmarks=landmarks,
            landmarks68=landmarks68,
            geometry=self.own_geometry(landmarks68, face.head_pose, face.blendshapes),
            depth=None if face.depth is None else face.depth * np.sqrt(abs(np.linalg.det(matrix[:, :2]))),
            covered=None if self.occlusion is None else cover_mask(self.occlusion.find(pixels, landmarks)),
        )

    def own_geometry(
        self, landmarks68: np.ndarray, head_pose: np.ndarray | None, blendshapes: np.ndarray | None
    ) -> torch.Tensor | None:
        """What of a face's landmarks is the person's own, and not their pose and expression.

        Args:
            landmarks68 (`np.ndarray`): (68, 2), x, y in crop pixels.
            head_pose (`np.ndarray`, *optional*): (3,), yaw, pitch and roll in degrees.
            blendshapes (`np.ndarray`, *optional*): (52,) in [0, 1].

        Returns:
            `torch.Tensor`, *optional*: (1, 68, 2), see [`AlignedFace`].
        """
        if not self.pipeline.config["geometry_share"] or head_pose is None or blendshapes is None:
            return None
        landmarks, pose, expression = (
            torch.from_numpy(np.asarray(value, np.float32))[None] for value in (landmarks68, head_pose, blendshapes)
        )
        coefficients = self.pipeline.conditioner.geometry_coefficients.float().cpu()
        return identity_geometry(landmarks, pose, expression, coefficients)

    @torch.no_grad()
    def encode_person(
        self, photos: Sequence[Photo], which: str | int | np.integer = "largest", region: str = "face"
    ) -> Person:
        """Encodes who to become: the mean over photos of one person.

        It warns of photos that seem to show somebody else, and if all of them together show little of the face.

        Args:
            photos (`Sequence[Photo]`): One or more.
            which (`str | int`): The face in each: "largest", or an index.
            region (`str`): See `encode_face`.

        Raises:
            NoFaceFoundError: If a photo has no such face.
        """
        found = [select_face(self.analyzer.analyze(photo.rgb), which, where=photo.name) for photo in photos]
        looks = [
            self.encode_face(photo.rgb, self.align(photo.rgb, face), region)
            for photo, face in zip(photos, found, strict=True)
        ]
        names = [photo.name for photo in photos]
        if self.same_person is not None:
            _warn_of_others(names, looks, self.same_person)
        person = average_person(looks)
        _warn_of_little_shown(names, person)
        return person

    @property
    def shows_references(self) -> bool:
        """Whether the checkpoint is shown the source's face, drawn on the target's mesh."""
        return self.pipeline.config["hidden_fill"] == "reference"

    def draw_reference(self, face: AlignedFace, person: Person) -> Reference | None:
        """Draws a person's face on that of a target.

        Args:
            face ([`AlignedFace`]): Of the target.
            person ([`Person`]): Who it becomes.

        Returns:
            [`Reference`], *optional*: Of the crop's size; `None` if the checkpoint shows none, or one of the two faces
            has no mesh.
        """
        if person.texture is None or face.depth is None:
            return None
        skin = region_mask(face.labels, "skin", face.label_names) * face.free()
        mesh = self.lend_mesh(face, person)
        return draw_reference(person.texture, face.pixels, mesh, face.depth, skin, person.head)

    @torch.no_grad()
    def encode_face(self, rgb: np.ndarray, face: AlignedFace, region: str = "face") -> Person:
        """Encodes what one photo shows of who to become.

        Args:
            rgb (`np.ndarray`): (H, W, 3) uint8, the photo.
            face ([`AlignedFace`]): Cut out of it.
            region (`str`): What is to be repainted. It is also what is shown of the source instead of the checkpoint's
                `shown_regions`, where they do not hold it: hair, for one.
        """
        shown = self.pipeline.config["shown_regions"]
        if not REGIONS.get(region, frozenset()) <= REGIONS[shown]:
            shown = region
        mask = repaint_mask(face.labels, face.landmarks, shown, face.label_names)
        identity_embeds = self.pipeline.encode_identity(face.pixels, mask)
        look = Person(identity_embeds, self.pipeline.encode_clip(face.pixels, mask), face.geometry)
        if not self.shows_references or face.depth is None:
            return look
        return replace(look, texture=take_texture(rgb, face), head=source_head(rgb, face, region))

    def repaint(
        self,
        faces: Sequence[AlignedFace],
        masks: Sequence[np.ndarray],
        people: Sequence[Person],
        references: Sequence[Reference | None],
        seed: int,
        **settings: Any,
    ) -> list[np.ndarray]:
        """Runs the pipeline on aligned faces, in batches, with a generator for each face.

        Args:
            faces (`Sequence[AlignedFace]`): Of the target.
            masks (`Sequence[np.ndarray]`): For each face (S, S) float in [0, 1], 1 = repaint.
            people (`Sequence[Person]`): For each face who it becomes.
            references (`Sequence[Reference | None]`): For each face what its hidden part shows, see `draw_reference`.
            seed (`int`): Of each generator.
            settings: Passed to the pipeline.

        Returns:
            `list[np.ndarray]`: For each face (S, S, 3) uint8 RGB.
        """
        crops = []
        for batch in _batches(references):
            shown = [reference for reference in references[batch] if reference is not None]
            (images,) = self.pipeline(
                image=[face.pixels for face in faces[batch]],
                mask_image=list(masks[batch]),
                landmarks=torch.cat([*map(self.lend_shape, faces[batch], people[batch])]),
                reference_image=[reference.pixels / 255 for reference in shown] or None,
                reference_mask_image=[reference.coverage for reference in shown] or None,
                identity_embeds=torch.cat([person.identity_embeds for person in people[batch]]),
                source_clip_embeds=torch.cat([person.source_clip_embeds for person in people[batch]]),
                generator=[torch.Generator().manual_seed(int(seed)) for _ in faces[batch]],
                output_type="np",
                return_dict=False,
                **settings,
            )
            crops += list(np.round(np.asarray(images) * 255).astype(np.uint8))
        return crops

    def shown_references(
        self,
        faces: Sequence[AlignedFace],
        masks: Sequence[np.ndarray],
        references: Sequence[Reference | None],
        people: Sequence[Person],
    ) -> list[ShownReference | None]:
        """What `shown_reference` says of each face; `None` for those without a reference."""
        return [
            None if reference is None else self.shown_reference(face, mask, reference, person)
            for face, mask, reference, person in zip(faces, masks, references, people, strict=True)
        ]

    @torch.no_grad()
    def shown_reference(
        self, face: AlignedFace, mask: np.ndarray, reference: Reference, person: Person
    ) -> ShownReference:
        """What the pipeline was shown in place of a face, for the fine detail that its crops cannot hold.

        Args:
            face ([`AlignedFace`]): Of the target.
            mask (`np.ndarray`): (S, S) float in [0, 1], 1 = repainted.
            reference ([`Reference`]): From `draw_reference`.
            person ([`Person`]): Whose face it shows.
        """
        pipeline, size = self.pipeline, len(face.pixels)
        pixel_values = pipeline.preprocess(face.pixels, size, size)
        drawn = pipeline.preprocess(reference.pixels / 255, size, size)
        mask_and_coverage = [torch.from_numpy(plane)[None, None].float() for plane in (mask, reference.coverage)]
        filled = fill_hidden(pixel_values, mask_and_coverage[0], drawn, mask_and_coverage[1])
        decoded = rebuild(pipeline.vae, filled.to(pipeline._execution_device, pipeline.vae.dtype))
        rebuilt, filled = ((view[0].float().cpu().permute(1, 2, 0).numpy() + 1) * 127.5 for view in (decoded, filled))
        finest = native_size(face.matrix, size)
        fine = None
        if finest > size:
            assert person.texture is not None  # there is a reference
            assert face.depth is not None
            scale = finest / size
            landmarks = (self.lend_mesh(face, person) + 0.5) * scale - 0.5
            fine = render_texture(person.texture, landmarks, face.depth * scale, (finest, finest))
        return ShownReference(filled, rebuilt, reference.coverage, fine)

    def lend_shape(self, face: AlignedFace, person: Person) -> torch.Tensor:
        """Gives a target's landmarks the facial shape of the source, as far as the checkpoint says.

        Args:
            face ([`AlignedFace`]): Of the target.
            person ([`Person`]): Who it becomes.

        Returns:
            `torch.Tensor`: (1, 68, 2), x, y in crop pixels.
        """
        landmarks = torch.from_numpy(np.asarray(face.landmarks68, np.float32))[None]
        if face.geometry is None or person.geometry is None:
            return landmarks
        return exchange_geometry(landmarks, face.geometry, person.geometry, self.pipeline.config["geometry_share"])

    def lend_mesh(self, face: AlignedFace, person: Person) -> np.ndarray:
        """The mesh of a target, (478, 2) in crop pixels, with the facial shape of the source, see `lend_shape`."""
        moved = self.lend_shape(face, person)[0].numpy() - face.landmarks68
        return move_mesh(face.landmarks, moved)


def native_size(rgb_matrix: np.ndarray, size: int) -> int:
    """Side of the aligned square of a face in pixels of its photo, from the crop's up to `FINEST_CROP`.

    Args:
        rgb_matrix (`np.ndarray`): (2, 3), photo pixels to pixels of a crop of `size`.
        size (`int`): In pixels.
    """
    side = size / np.sqrt(abs(np.linalg.det(rgb_matrix[:, :2])))
    return int(np.clip(np.ceil(side), size, max(size, FINEST_CROP)))


def average_person(looks: Sequence[Person]) -> Person:
    """One person of what single photos show: means, and the texture of all of them.

    Args:
        looks (`Sequence[Person]`): From `FaceSwapper.encode_face`.

    Returns:
        [`Person`]: What no photo shows of the face comes from its mirror image, as far as that is shown.
    """
    identity_embeds = normalize(torch.cat([look.identity_embeds for look in looks]).mean(0, keepdim=True))
    source_clip_embeds = torch.cat([look.source_clip_embeds for look in looks]).mean(0, keepdim=True)
    shapes = [look.geometry for look in looks if look.geometry is not None]
    geometry = torch.stack(shapes).mean(0) if len(shapes) == len(looks) else None
    person = Person(identity_embeds, source_clip_embeds, geometry)
    textures = [look.texture for look in looks if look.texture is not None]
    if len(textures) < len(looks):
        return person
    best = looks[int(np.argmax([texture.shown for texture in textures]))]
    return replace(person, texture=fill_by_mirror(merge_textures(textures)), head=best.head)


def take_texture(rgb: np.ndarray, face: AlignedFace) -> FaceTexture:
    """Takes the texture of a face from its photo, as fine as that is.

    Args:
        rgb (`np.ndarray`): (H, W, 3) uint8.
        face ([`AlignedFace`]): Cut out of it, with depth.
    """
    coarse = len(face.pixels)
    size = native_size(face.matrix, coarse)
    matrix, scale = resized_matrix(face.matrix, coarse, size), size / coarse
    visible = repaint_mask(face.labels, face.landmarks, "face", face.label_names)
    visible = cv2.resize(visible, (size, size), interpolation=cv2.INTER_LINEAR) * within_photo(rgb, matrix, size)
    assert face.depth is not None  # only meshes have textures
    landmarks, depth = (face.landmarks + 0.5) * scale - 0.5, face.depth * scale
    texels = min(FINEST_TEXTURE, 2 ** int(np.ceil(np.log2(size)) + 1))  # the face fills half of the crop
    return extract_texture(crop(rgb, matrix, size), landmarks, depth, visible, texels)


def source_head(rgb: np.ndarray, face: AlignedFace, region: str) -> SourceHead:
    """What a source's photo (H, W, 3) uint8 shows around the mesh of its face, for a region to be repainted."""
    shown = shown_around(face.labels, face.landmarks, region, face.label_names)
    shown = shown * within_photo(rgb, face.matrix, len(face.pixels))
    return SourceHead(face.pixels, face.landmarks, shown, ring_reach(region))


def within_photo(rgb: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """Where a crop shows its photo, (size, size) float32 in [0, 1]: beyond the edge it shows the mirror image."""
    inside = crop(np.ones(rgb.shape[:2], np.float32), matrix, size, cv2.BORDER_CONSTANT)
    return np.clip(inside, 0, 1)


def paste_faces(
    rgb: np.ndarray,
    faces: Sequence[AlignedFace],
    masks: Sequence[np.ndarray],
    free: Sequence[np.ndarray],
    crops: Sequence[np.ndarray],
    shown: Sequence[ShownReference | None],
    color_match: bool,
    skin_texture: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Puts repainted crops back into a photo, one after the other, as fine as the photo is.

    Args:
        rgb (`np.ndarray`): (H, W, 3) uint8.
        faces (`Sequence[AlignedFace]`): Of the photo.
        masks (`Sequence[np.ndarray]`): For each face (S, S) float in [0, 1], a region.
        free (`Sequence[np.ndarray]`): For each face (S, S) float in [0, 1], where nothing is in front of it.
        crops (`Sequence[np.ndarray]`): For each face (S, S, 3) uint8 RGB.
        shown (`Sequence[ShownReference | None]`): For each face the source of its fine detail, if there is one.
        color_match (`bool`): Whether to give new skin the colours of the target's, where there is no reference.
        skin_texture (`bool`): Whether skin without a reference gets the photo's own fine texture.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: The new photo (H, W, 3) uint8 RGB, and (H, W) float32 in [0, 1], which is 0
        where the photo is unchanged to the byte.
    """
    photo, changed = rgb, np.zeros(rgb.shape[:2], np.float32)
    for face, mask, bare, pixels, reference in zip(faces, masks, free, crops, shown, strict=True):
        skin = mask * bare * region_mask(face.labels, "skin", face.label_names)
        if reference is not None:
            pixels = continue_surroundings(pixels.astype(np.float32), face.pixels, mask)
            assert face.depth is not None  # only meshes have references
            pixels = match_light(pixels, face.pixels, face.landmarks, face.depth, skin)
            pixels = match_border_tone(pixels, face.pixels, mask, skin)
        elif color_match:
            pixels = match_color(pixels, face.pixels, skin)
        size = native_size(face.matrix, len(pixels))
        matrix = resized_matrix(face.matrix, len(pixels), size)
        fine = add_detail(pixels, face.pixels, crop(photo, matrix, size), skin if skin_texture else None, reference)
        # The region ends softly, things in front of it as sharply as they are.
        seam = bare * feather(mask, FEATHER * len(mask))
        seam = cv2.resize(seam, (size, size), interpolation=cv2.INTER_LINEAR)
        rgb, seam = paste_back(rgb, fine, seam, matrix)
        changed = np.maximum(changed, seam)
    return rgb, changed


def _check_choice(target_face: str | int | np.integer | PhotoLike, mapping: Mapping[int, int] | None) -> None:
    """Finds out early what cannot be meant."""
    if mapping is not None and not (isinstance(target_face, str) and target_face == "largest"):
        raise ValueError("target_face and mapping both say which face to swap: give one of them")
    if isinstance(target_face, str) and target_face not in ("largest", "all") and not os.path.exists(target_face):
        wanted = "'largest', 'all', an index counted from 0 at the left, or a photo of the person"
        raise ValueError(f"target_face is {target_face!r}: give {wanted}")


def _load_people(source: Any, people: bool) -> list[list[Photo]]:
    """Loads the sources: one list of photos for each person. `people` says that a list holds several persons."""
    listed = list(source) if isinstance(source, list | tuple) else [source]
    if not listed:
        raise ValueError("no source given: pass at least one photo of who to become")
    persons = listed if people else [listed]
    return [
        [load_photo(photo, "source") for photo in (person if isinstance(person, list | tuple) else [person])]
        for person in persons
    ]


def _load_mask(mask_image: MaskLike | PhotoLike, photo: Photo) -> np.ndarray:
    """Reads a user's mask for a photo: (H, W) float32 in [0, 1]."""
    if not isinstance(mask_image, Image.Image | np.ndarray | torch.Tensor):
        drawn = load_photo(mask_image, "mask")
        mask_image = drawn.with_pixels(drawn.rgb)
    height, width = photo.rgb.shape[:2]
    return prepare_mask(mask_image, (width, height))[0].numpy()


def _mask_crop(face: AlignedFace, photo_mask: np.ndarray | None, region: str) -> np.ndarray:
    """What to repaint of an aligned face, (S, S) float32: the user's mask seen in the crop, or a region."""
    if photo_mask is None:
        return repaint_mask(face.labels, face.landmarks, region, face.label_names, face.pixels)
    return np.clip(crop(photo_mask, face.matrix, len(face.labels), cv2.BORDER_CONSTANT), 0, 1)


def _batches(references: Sequence[Reference | None]) -> Iterator[slice]:
    """Parts of at most `FACES_PER_BATCH` neighbours, of which all have a reference, or none."""
    start = 0
    for end in range(1, len(references) + 1):
        at_end = end == len(references) or end == start + FACES_PER_BATCH
        if at_end or (references[end] is None) != (references[start] is None):
            yield slice(start, end)
            start = end


def _shares_shown(people: Sequence[Person]) -> list[float] | None:
    """Of each person the share of the face that photos show; `None` if references play no part."""
    textures = [person.texture for person in people if person.texture is not None]
    return [round(texture.shown, 3) for texture in textures] if len(textures) == len(people) else None


def _warn_of_others(names: Sequence[str], looks: Sequence[Person], same_person: float) -> None:
    """Warns of photos of a source in which somebody else seems to be than in the first, by the recogniser's cosine."""
    first = looks[0].identity_embeds.float()
    for name, look in zip(names[1:], looks[1:], strict=True):
        cosine = cosine_similarity(first, look.identity_embeds.float()).item()
        if cosine < same_person:
            logger.warning(
                f"{name} does not look like the person in {names[0]} (cosine {cosine:.2f}, below {same_person}): the "
                "photos of a source are averaged; leave out those of others"
            )


def _warn_of_little_shown(names: Sequence[str], person: Person) -> None:
    """Warns if the photos of a source leave most of the face to mirroring and to the model."""
    if person.texture is not None and person.texture.shown < LEAST_SHOWN:
        logger.warning(
            f"{', '.join(names)} shows only {person.texture.shown:.0%} of the face, the rest is mirrored or made "
            "up: add photos from other sides"
        )


def _check_steps(pipeline: FaceSwapInpaintPipeline, num_inference_steps: int) -> None:
    """A few-step student takes no more steps than its teacher's way has, and is best with those it is made for."""
    limit, usual = (
        pipeline.scheduler.config.get("original_inference_steps"),
        pipeline.config["default_num_inference_steps"],
    )
    if limit is None:
        return
    if usual < num_inference_steps <= limit:
        logger.warning(
            f"{num_inference_steps} denoising steps are more than the {usual} that this few-step version is made for: "
            "lower num_inference_steps, or take the checkpoint itself"
        )
    if num_inference_steps > limit:
        raise ValueError(
            f"got {num_inference_steps} denoising steps, and a few-step version takes {limit} at most: lower "
            "num_inference_steps, or take the checkpoint itself"
        )


def _check_mapping(mapping: Mapping[int, int], num_faces: int, num_people: int, where: str) -> None:
    if not mapping:
        raise ValueError("mapping is empty: give at least one face of the target and its source")
    for face, person in mapping.items():
        if not 0 <= face < num_faces:
            raise NoFaceFoundError(f"mapping names face {face}, but {where} has {num_faces} face(s), counted from 0")
        if not 0 <= person < num_people:
            raise ValueError(f"mapping names source {person}, but {num_people} source(s) are given, counted from 0")


def _check_masks(masks: Sequence[np.ndarray], indices: Sequence[int], where: str) -> None:
    for index, mask in zip(indices, masks, strict=True):
        if not mask.any():
            raise ValueError(f"nothing to repaint on face {index} of {where}: choose another region, mask or face")
