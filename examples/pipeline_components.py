"""Uses the pipeline without `FaceSwapper`: each step from photo to photo in your own hands, and another scheduler."""

from pathlib import Path

import numpy as np
import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from PIL import Image

from faceswap_diffusion import FaceSwapInpaintPipeline, MeshFaceAnalyzer
from faceswap_diffusion.checkpoint_files import EMBEDDED_CHECKPOINT
from faceswap_diffusion.compositing import paste_back
from faceswap_diffusion.conditioning.reference import draw_reference
from faceswap_diffusion.faces.alignment import crop, ffhq_matrix, transform_points
from faceswap_diffusion.faces.selection import select_face
from faceswap_diffusion.faces.texture import extract_texture, fill_by_mirror
from faceswap_diffusion.masks.parsing import load_face_parser
from faceswap_diffusion.masks.regions import feather, region_mask, repaint_mask
from faceswap_diffusion.photos import Photo, load_photo
from faceswap_diffusion.provenance import save_image
from faceswap_diffusion.swapper import AlignedFace, source_head

IMAGES = Path(__file__).parent / "images"
OUTPUTS = Path("outputs")
OUTPUTS.mkdir(exist_ok=True)

# 1. The pipeline. Any component can be replaced; here it is the scheduler.
pipe = FaceSwapInpaintPipeline.from_pretrained(EMBEDDED_CHECKPOINT, dtype=torch.float32)
pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
size = pipe.config["crop_size"]

# 2. Find and align the face of each photo, and tell its parts.
analyzer, parser = MeshFaceAnalyzer(), load_face_parser()


def align(photo: Photo) -> AlignedFace:
    """The largest face of a photo, cut out as FFHQ does."""
    face = select_face(analyzer.analyze(photo.rgb), where=photo.name)
    assert face.depth is not None  # this analyzer fits a mesh
    matrix = ffhq_matrix(face.landmarks68, size)
    pixels = crop(photo.rgb, matrix, size)
    return AlignedFace(
        pixels=pixels,
        matrix=matrix,
        labels=parser.parse(pixels),
        label_names=parser.label_names,
        landmarks=transform_points(face.landmarks, matrix),
        landmarks68=transform_points(face.landmarks68, matrix),
        depth=face.depth * np.sqrt(np.linalg.det(matrix[:, :2])),  # in pixels of the crop, too
    )


photo = load_photo(IMAGES / "p008_selfie.jpg")
source_photo = load_photo(IMAGES / "p005_portrait.jpg")
source, target = align(source_photo), align(photo)
assert source.depth is not None
assert target.depth is not None

# 3. Mask what to hide (target) and what to show (source). A mask is white, or 1, where to repaint.
source_mask, target_mask = (repaint_mask(face.labels, face.landmarks, "face") for face in (source, target))

# 4. Draw the source's face, and what is around it, on the target's mesh.
texture = fill_by_mirror(extract_texture(source.pixels, source.landmarks, source.depth, source_mask))
skin = region_mask(target.labels, "skin")
reference = draw_reference(
    texture, target.pixels, target.landmarks, target.depth, skin, head=source_head(source_photo.rgb, source, "face")
)

# 5. Repaint the target's crop, beginning with the reference.
(swapped,) = pipe(
    image=Image.fromarray(target.pixels),
    source_image=Image.fromarray(source.pixels),
    mask_image=target_mask,
    source_mask_image=source_mask,
    landmarks=target.landmarks68,
    reference_image=reference.pixels / 255,
    reference_mask_image=reference.coverage,
    generator=torch.Generator().manual_seed(0),
    output_type="np",
    return_dict=False,
)

# 6. Put the crop back into the photo, and save it with the metadata that says a model painted in it.
painted = np.round(swapped[0] * 255).astype(np.uint8)
result, _ = paste_back(photo.rgb, painted, feather(target_mask, 4.0), target.matrix)
save_image(Image.fromarray(result), OUTPUTS / "pipeline_components.png", provenance={"example": Path(__file__).name})

print(OUTPUTS / "pipeline_components.png")
