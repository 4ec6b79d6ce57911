"""What can be set of a swap, and what it is if nobody says."""

from dataclasses import dataclass, replace

from faceswap_diffusion.masks.regions import region_names

OCCLUSION = ("auto", "off")


@dataclass(frozen=True)
class SwapOptions:
    """The settings of a swap, in photos and in frames alike.

    Args:
        region (`str`): What to repaint: a key of `masks.regions.REGIONS`, such as "face" or "head" (face and hair), or
            several that are joined, as "eyes+brows".
        keep (`str`, *optional*): What of it stays as it is, named in the same way: "mouth", "lower-face+eyes".
        occlusion (`str`): "auto" leaves what is in front of a target's face as it is, if the swapper looks for it;
            "off" repaints it.
        num_inference_steps (`int`, *optional*): Denoising steps; the checkpoint's default if left out.
        guidance_scale (`float`, *optional*): Guidance, on above 1; the checkpoint's default if left out.
        strength (`float`, *optional*): How much of the way from noise to picture is gone, in (0, 1]; below 1 a swap
            starts from the source's face, drawn on the target, which not every checkpoint is shown. The checkpoint's
            default if left out.
        identity_guidance_scale (`float`, *optional*): In [0, 1], how far the new face is brought closer to the
            source for the checkpoint's recogniser, see `conditioning.identity_guidance`, where a drawn face is shown.
            If left out, 1 for photos and 0 for frames of a video.
        color_match (`bool`): Whether to give the new skin the colours of the target's; a drawn face has them.
        skin_texture (`bool`): Whether to give it the photo's texture, as far as that is too fine for the crop that
            was repainted: pores, grain and fine lines. Where the source's drawn face is, it has its own.
        watermark (`bool`): Whether to lay an invisible mark into the new pixels, by which `verify` knows them.
        consent (`str`, *optional*): Who agreed to the swap, and how; recorded in the picture's metadata.
        seed (`int`): Of all randomness. It belongs to the face: alone or with others, the same face comes out.
    """

    region: str = "face"
    keep: str | None = None
    occlusion: str = "auto"
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    strength: float | None = None
    identity_guidance_scale: float | None = None
    color_match: bool = True
    skin_texture: bool = True
    watermark: bool = True
    consent: str | None = None
    seed: int = 0

    def __post_init__(self):
        """Checks what can be checked before the work.

        Raises:
            ValueError: For an unknown region or choice.
        """
        for region in (self.region, self.keep):
            if region is not None:
                region_names(region)
        if self.identity_guidance_scale is not None and not 0 <= self.identity_guidance_scale <= 1:
            raise ValueError(
                f"got identity_guidance_scale {self.identity_guidance_scale}; a swap takes a number from 0 to 1"
            )
        if self.occlusion not in OCCLUSION:
            raise ValueError(f"got occlusion {self.occlusion!r}; a swap takes 'auto' or 'off'")

    def of_frames(self) -> "SwapOptions":
        """The same for frames of a video: gradients of a recogniser would take longer than all the rest."""
        return replace(self, identity_guidance_scale=0.0) if self.identity_guidance_scale is None else self
