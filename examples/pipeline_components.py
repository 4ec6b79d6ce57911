"""Uses the pipeline without `FaceSwapper`: each step from photo to photo in your own hands, and another scheduler."""

from pathlib import Path

import numpy as np
import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from PIL import Image

from faceswap_diffusion import FaceSwapInpaintPipeline, MeshFaceAnalyzer
from faceswap_diffusion.checkpoint_files import EMBEDDED_CHECKPOINT
from faceswap_diffusion.compositing import paste_back
from faceswap_diffusion.faces.alignment import crop, ffhq_matrix, transform_points
from faceswap_diffusion.faces.selection import select_face
from faceswap_diffusion.masks.parsing import load_face_parser
from faceswap_diffusion.masks.regions import feather, repaint_mask
from faceswap_diffusion.photos import load_photo
from faceswap_diffusion.provenance import save_image

IMAGES = Path(__file__).parent / "images"
OUTPUTS = Path("outputs")
OUTPUTS.mkdir(exist_ok=True)

# 1. The pipeline. Any component can be replaced; here it is the scheduler.
pipe = FaceSwapInpaintPipeline.from_pretrained(EMBEDDED_CHECKPOINT, dtype=torch.float32)
pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
size = pipe.config["crop_size"]

# 2. Find and align the face of each photo, and mask what to hide (target) and what to show (source).
analyzer, parser = MeshFaceAnalyzer(), load_face_parser()
aligned = {}
for role, name in {"source": "p005_portrait.jpg", "target": "p008_selfie.jpg"}.items():
    photo = load_photo(IMAGES / name)
    face = select_face(analyzer.analyze(photo.rgb), where=name)
    matrix = ffhq_matrix(face.landmarks68, size)
    pixels = crop(photo.rgb, matrix, size)
    mask = repaint_mask(parser.parse(pixels), transform_points(face.landmarks, matrix), "face")
    aligned[role] = (photo, pixels, mask, matrix, transform_points(face.landmarks68, matrix))

# 3. Repaint the target's crop. A mask is white, or 1, where to repaint.
_, source_pixels, source_mask, _, _ = aligned["source"]
photo, target_pixels, target_mask, matrix, landmarks = aligned["target"]
(swapped,) = pipe(
    image=Image.fromarray(target_pixels),
    source_image=Image.fromarray(source_pixels),
    mask_image=target_mask,
    source_mask_image=source_mask,
    landmarks=landmarks,
    generator=torch.Generator().manual_seed(0),
    output_type="np",
    return_dict=False,
)

# 4. Put the crop back into the photo, and save it with the metadata that says a model painted in it.
result, _ = paste_back(photo.rgb, np.round(swapped[0] * 255).astype(np.uint8), feather(target_mask, 2.0), matrix)
save_image(Image.fromarray(result), OUTPUTS / "pipeline_components.png", provenance={"example": Path(__file__).name})

print(OUTPUTS / "pipeline_components.png")
