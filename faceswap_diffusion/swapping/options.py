"""What can be set of a swap, and what it is if nobody says."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SwapOptions:
    """The settings of a swap, in photos and in frames alike.

    Args:
        region (`str`): What to repaint, a key of `masks.regions.REGIONS`: "face", "head" (face and hair), ...
        num_inference_steps (`int`, *optional*): Denoising steps; the checkpoint's default if left out.
        guidance_scale (`float`, *optional*): Guidance, on above 1; the checkpoint's default if left out.
        strength (`float`, *optional*): How much of the way from noise to picture is gone, in (0, 1]; below 1 a swap
            starts from the source's face, drawn on the target, which not every checkpoint is shown. The checkpoint's
            default if left out.
        color_match (`bool`): Whether to give the new skin the colours of the target's; a drawn face has them.
        skin_texture (`bool`): Whether to give it the photo's texture, as far as that is too fine for the crop that
            was repainted: pores, grain and fine lines. Where the source's drawn face is, it has its own.
        watermark (`bool`): Whether to lay an invisible mark into the new pixels, by which `verify` knows them.
        consent (`str`, *optional*): Who agreed to the swap, and how; recorded in the picture's metadata.
        seed (`int`): Of all randomness. It belongs to the face: alone or with others, the same face comes out.
    """

    region: str = "face"
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    strength: float | None = None
    color_match: bool = True
    skin_texture: bool = True
    watermark: bool = True
    consent: str | None = None
    seed: int = 0
