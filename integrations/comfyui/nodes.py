"""ComfyUI's view of a swap: one class for each node.

By ComfyUI's conventions an IMAGE is a tensor (B, H, W, C) and a MASK one (B, H, W), both float32 in [0, 1], RGB; nodes
are classes with `INPUT_TYPES`, `RETURN_TYPES` and the name of a method in `FUNCTION`.
"""

import hashlib
from pathlib import Path
from typing import Any, ClassVar

import folder_paths  # pyright: ignore[reportMissingImports] - ComfyUI's own
import numpy as np
import torch
from PIL import Image

from faceswap_diffusion.masks.regions import REGIONS
from faceswap_diffusion.provenance.save import save_image
from faceswap_diffusion.swapping.source_identity import SourceIdentity
from faceswap_diffusion.swapping.swapper import FaceSwapper

CATEGORY = "faceswap-diffusion"
MODELS = "face_models"
"""The folder of face models in ComfyUI's folder of models."""

REGION = ("STRING", {"default": "face", "tooltip": f"one of {', '.join(REGIONS)}, or several joined by +"})


def to_arrays(images: torch.Tensor) -> list[np.ndarray]:
    """Pictures of an IMAGE (B, H, W, C), each (H, W, 3) uint8 RGB."""
    return list((images[..., :3].clamp(0, 1) * 255).round().byte().cpu().numpy())


def to_image(pictures: list[Image.Image]) -> torch.Tensor:
    """An IMAGE (B, H, W, 3) of pictures of one size."""
    return torch.from_numpy(np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])).float() / 255


def to_mask(pictures: list[Image.Image]) -> torch.Tensor:
    """A MASK (B, H, W) of pictures of one size."""
    return torch.from_numpy(np.stack([np.asarray(picture.convert("L")) for picture in pictures])).float() / 255


def models_folder() -> Path:
    """Where face models are kept, made if there is none."""
    folder = Path(folder_paths.models_dir, MODELS)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def within(folder: Path, name: str, suffix: str) -> Path:
    """A file of a name in a folder.

    Raises:
        ValueError: If the name leads out of the folder, or is empty.
    """
    if not name.strip() or Path(name).name != name or name.startswith("."):
        raise ValueError(f"got the name {name!r}: give a plain name without folders")
    return folder / (name if name.endswith(suffix) else name + suffix)


class LoadSwapper:
    """Loads a checkpoint."""

    CATEGORY = CATEGORY
    FUNCTION = "load"
    RETURN_TYPES = ("FACE_SWAPPER",)
    RETURN_NAMES = ("swapper",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What the node takes."""
        tooltip = "folder or Hub id; empty for the small model in the package"
        return {
            "required": {
                "checkpoint": ("STRING", {"default": "", "tooltip": tooltip}),
                "device": (["auto", "cpu", "cuda", "mps"],),
                "few_steps": ("BOOLEAN", {"default": False}),
            }
        }

    def load(self, checkpoint: str, device: str, few_steps: bool) -> tuple[FaceSwapper]:
        """Loads it."""
        swapper = FaceSwapper.from_pretrained(
            checkpoint.strip() or None, device=None if device == "auto" else device, few_steps=few_steps
        )
        return (swapper,)


class EncodeFace:
    """Makes a face model of photos of one person."""

    CATEGORY = CATEGORY
    FUNCTION = "encode"
    RETURN_TYPES = ("FACE_MODEL",)
    RETURN_NAMES = ("face_model",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What the node takes."""
        return {"required": {"swapper": ("FACE_SWAPPER",), "photos": ("IMAGE",), "region": REGION}}

    def encode(self, swapper: FaceSwapper, photos: torch.Tensor, region: str) -> tuple[SourceIdentity]:
        """Encodes a batch of photos (B, H, W, C)."""
        return (swapper.encode_source(to_arrays(photos), "largest", region),)


class SaveFaceModel:
    """Writes a face model into ComfyUI's folder of models. It identifies a person: keep it as safe as the photos."""

    CATEGORY = CATEGORY
    FUNCTION = "save"
    RETURN_TYPES = ()
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What the node takes."""
        return {"required": {"face_model": ("FACE_MODEL",), "name": ("STRING", {"default": "somebody"})}}

    def save(self, face_model: SourceIdentity, name: str) -> dict[str, Any]:
        """Writes it."""
        path = within(models_folder(), name, ".safetensors")
        face_model.save(path)
        return {"ui": {"text": [path.name]}}


class LoadFaceModel:
    """Reads a face model from ComfyUI's folder of models."""

    CATEGORY = CATEGORY
    FUNCTION = "load"
    RETURN_TYPES = ("FACE_MODEL",)
    RETURN_NAMES = ("face_model",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What the node takes."""
        return {"required": {"name": (sorted(path.name for path in models_folder().glob("*.safetensors")),)}}

    @classmethod
    def IS_CHANGED(cls, name: str) -> str:
        """What tells a file from another of the same name."""
        return hashlib.sha256(within(models_folder(), name, ".safetensors").read_bytes()).hexdigest()

    def load(self, name: str) -> tuple[SourceIdentity]:
        """Reads it."""
        return (SourceIdentity.load(within(models_folder(), name, ".safetensors")),)


class SwapFaces:
    """Puts a face into pictures."""

    CATEGORY = CATEGORY
    FUNCTION = "swap"
    RETURN_TYPES = ("IMAGE", "MASK", "SWAP_FACTS")
    RETURN_NAMES = ("image", "mask", "facts")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What the node takes."""
        nobody = {"default": "", "multiline": True, "tooltip": "who agreed, and how: recorded by 'Save swapped image'"}
        return {
            "required": {
                "swapper": ("FACE_SWAPPER",),
                "face_model": ("FACE_MODEL",),
                "image": ("IMAGE",),
                "target_face": (
                    "STRING",
                    {"default": "largest", "tooltip": "largest, all, or a number"},
                ),
                "region": REGION,
                "keep": ("STRING", {"default": "", "tooltip": "parts of the region that stay, joined by +"}),
                "occlusion": ("BOOLEAN", {"default": True, "tooltip": "leave what is in front of faces as it is"}),
                "steps": ("INT", {"default": 0, "min": 0, "max": 1000, "tooltip": "0: the checkpoint's own number"}),
                "seed": ("INT", {"default": 0, "min": 0, "max": 0xFFFFFFFFFFFFFFFF}),
                "consent": ("STRING", nobody),
            },
            "optional": {"mask": ("MASK", {"tooltip": "white where to repaint, in place of the region"})},
        }

    def swap(
        self,
        swapper: FaceSwapper,
        face_model: SourceIdentity,
        image: torch.Tensor,
        target_face: str,
        region: str,
        keep: str,
        occlusion: bool,
        steps: int,
        seed: int,
        consent: str,
        mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, list[dict[str, Any]]]:
        """Swaps in each picture of a batch; a mask of one picture serves all."""
        settings = {
            "target_face": int(target_face) if target_face.isdigit() else target_face,
            "region": region,
            "keep": keep.strip() or None,
            "occlusion": "auto" if occlusion else "off",
            "num_inference_steps": steps or None,
            "seed": seed,
            "consent": consent.strip() or None,
        }
        results = []
        for index, picture in enumerate(to_arrays(image)):
            painted = None if mask is None else mask[min(index, len(mask) - 1)].cpu().numpy()
            results.append(swapper.swap(face_model, picture, mask_image=painted, **settings))
        pictures, masks = ([getattr(result, name) for result in results] for name in ("image", "mask"))
        return to_image(pictures), to_mask(masks), [result.provenance for result in results]


class SaveSwappedImage:
    """Saves pictures with metadata that say that AI made them, which ComfyUI's own node does not write."""

    CATEGORY = CATEGORY
    FUNCTION = "save"
    RETURN_TYPES = ()
    OUTPUT_NODE = True
    PREFIX: ClassVar[dict[str, str]] = {"default": "swapped"}

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What the node takes."""
        return {
            "required": {
                "image": ("IMAGE",), "facts": ("SWAP_FACTS",), "filename_prefix": ("STRING", cls.PREFIX)
            }
        }  # fmt: skip

    def save(self, image: torch.Tensor, facts: list[dict[str, Any]], filename_prefix: str) -> dict[str, Any]:
        """Writes PNG files into ComfyUI's folder of outputs."""
        size = (image.shape[2], image.shape[1])
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory(), *size
        )
        saved = []
        for index, (pixels, provenance) in enumerate(zip(to_arrays(image), facts, strict=True)):
            file = f"{name}_{counter + index:05}_.png"
            save_image(Image.fromarray(pixels), Path(folder, file), provenance=provenance)
            saved.append({"filename": file, "subfolder": subfolder, "type": "output"})
        return {"ui": {"images": saved}}


NODE_CLASS_MAPPINGS = {
    "FaceSwapLoadSwapper": LoadSwapper,
    "FaceSwapEncodeFace": EncodeFace,
    "FaceSwapSaveFaceModel": SaveFaceModel,
    "FaceSwapLoadFaceModel": LoadFaceModel,
    "FaceSwapSwapFaces": SwapFaces,
    "FaceSwapSaveSwappedImage": SaveSwappedImage,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "FaceSwapLoadSwapper": "Load face swapper",
    "FaceSwapEncodeFace": "Face model from photos",
    "FaceSwapSaveFaceModel": "Save face model",
    "FaceSwapLoadFaceModel": "Load face model",
    "FaceSwapSwapFaces": "Swap faces",
    "FaceSwapSaveSwappedImage": "Save swapped image",
}
