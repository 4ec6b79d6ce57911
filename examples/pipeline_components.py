"""Uses the Diffusers pipeline directly, with every step from photo to photo, and with another scheduler."""

from pathlib import Path

import numpy as np
import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from PIL import Image

from faceswap_diffusion import (
    FaceSwapInpaintPipeline,
    FaceSwapper,
    feather,
    load_photo,
    paste_back,
    repaint_mask,
    save_image,
    select_face,
)

IMAGES = Path(__file__).parent / "images"
OUTPUTS = Path("outputs")
OUTPUTS.mkdir(exist_ok=True)

# 1. Load the pipeline, here the one in the package. Any component can be replaced, such as the scheduler.
pipe = FaceSwapInpaintPipeline.from_pretrained()
pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)

# 2. Find and align the face of the target, and mask it: white (1) is where to repaint.
swapper = FaceSwapper(pipe)
photo = load_photo(IMAGES / "p008_selfie.jpg")
target = swapper.align(photo.rgb, select_face(swapper.analyzer.analyze(photo.rgb), "largest", where=photo.name))
mask = repaint_mask(target.labels, target.landmarks, "face")

# 3. Encode the source, and draw the source's face on the target's mesh.
person = swapper.encode_source([load_photo(IMAGES / "p005_portrait.jpg")])
reference = swapper.draw_reference(target, person)
assert reference is not None  # the checkpoint in the package uses references

# 4. Repaint the target's crop, starting from the reference.
swapped, _ = pipe(
    image=Image.fromarray(target.pixels),
    mask_image=mask,
    landmarks=swapper.exchange_shape(target, person),
    identity_embeds=person.identity_embeds,
    source_clip_embeds=person.source_clip_embeds,
    reference_image=reference.pixels / 255,
    reference_mask_image=reference.coverage,
    generator=torch.Generator().manual_seed(0),
    output_type="np",
    return_dict=False,
)

# 5. Paste the crop into the photo, and save it with metadata that mark it as made with AI.
pixels = np.round(swapped[0] * 255).astype(np.uint8)
result, _ = paste_back(photo.rgb, pixels, feather(mask, 4.0), target.matrix)
save_image(Image.fromarray(result), OUTPUTS / "pipeline_components.png", provenance={"example": Path(__file__).name})

print(OUTPUTS / "pipeline_components.png")
