"""Swaps the face of an aligned crop by masked inpainting with latent diffusion."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.image_processor import VaeImageProcessor
from diffusers.loaders.lora_pipeline import StableDiffusionLoraLoaderMixin
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.pipeline_utils import StableDiffusionMixin
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import retrieve_timesteps
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import logging
from diffusers.utils.torch_utils import randn_tensor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.clip.modeling_clip import CLIPVisionModelWithProjection

from faceswap_diffusion.conditioning.conditioner import FaceConditioner
from faceswap_diffusion.conditioning.landmark_drawing import draw_landmarks
from faceswap_diffusion.pipelines.call_memory import CallMemory, remembered_time_embeddings
from faceswap_diffusion.pipelines.inputs import (
    ImageInput,
    fill_hidden,
    images_to_tensors,
    preprocess_encoder_image,
    preprocess_identity_image,
    repeat_batch,
    resize,
)
from faceswap_diffusion.pipelines.latents import (
    Autoencoder,
    channel_count,
    decode,
    encode,
    spatial_factor,
)
from faceswap_diffusion.pipelines.output import FaceSwapPipelineOutput
from faceswap_diffusion.pipelines.single_token import remembered_vectors, shorten_single_token_attention
from faceswap_diffusion.safety.checker import SafetyChecker
from faceswap_diffusion.weights.hub import HubPipeline

logger = logging.get_logger(__name__)

CHANNEL_ORDERS = ("latents,masked_image_latents,keep_mask", "latents,mask,masked_image_latents")
MASKED_LATENTS = ("sample", "mode")
HIDDEN_FILLS = ("grey", "landmarks", "reference")
EMBEDS_OF_PICTURES = {
    "identity_embeds": "source_image",
    "source_clip_embeds": "source_image",
    "target_clip_embeds": "image",
}
FORMER_DEFAULTS = {
    "channel_order": "latents,masked_image_latents,keep_mask", "masked_latents": "sample", "crop_size": 512,
    "shown_regions": "face", "landmark_scale": 1.0, "hidden_fill": "grey", "geometry_share": 0.0,
    "mask_identity": False, "default_num_inference_steps": 50, "default_strength": 1.0, "default_guidance_scale": 3.5,
}  # fmt: skip
"""What checkpoints mean that were saved before there was such a setting."""

WITHOUT_CHECKER = (
    "You have disabled the safety checker for {} by passing `safety_checker=None`. Keep it enabled in all public "
    "facing circumstances, and do not expose unfiltered results in services or applications open to the public."
)
CARRIED_SETTINGS = "face_swap_settings"
"""Attribute of a UNet that is or was part of a pipeline: its settings."""

HOOKS = {"_hf_hook", "_diffusers_hook"}  # attributes of hooked modules
COMPILED = {"_compiled_call_impl", "_orig_mod"}  # of modules that `compile` changed, and of what torch.compile returns

LEAST_HOLE = 0.3  # share of a latent's pixels that are uncovered from which on it has nothing to start from
WIDE_HOLE = 3  # latents; a narrower hole starts from the colours around it, with which `close_holes` fills it
OUTPUT_TYPES = ("pil", "np", "pt", "latent")

Setting = TypeVar("Setting")


def assemble_unet_input(
    latents: torch.Tensor, masked_image_latents: torch.Tensor, mask_latents: torch.Tensor, channel_order: str
) -> torch.Tensor:
    """Concatenates the inputs of an inpainting UNet. Only this function knows their order and the mask's polarity.

    Args:
        latents (`torch.Tensor` of shape `(B, C, h, w)`): Noisy latents, already scaled for the timestep.
        masked_image_latents (`torch.Tensor` of shape `(B, C, h, w)`): Latents of the target without its face.
        mask_latents (`torch.Tensor` of shape `(B, 1, h, w)`): 1 = repaint, 0 = keep, at latent size.
        channel_order (`str`): One of `CHANNEL_ORDERS`. `"latents,masked_image_latents,keep_mask"` is REFace's (its
            mask says 1 = keep), `"latents,mask,masked_image_latents"` that of Stable Diffusion's inpainting models.

    Returns:
        `torch.Tensor` of shape `(B, 2 * C + 1, h, w)`.

    Raises:
        ValueError: For an unknown order.
    """
    if channel_order not in CHANNEL_ORDERS:
        raise ValueError(f"channel_order is {channel_order!r}, but has to be one of {CHANNEL_ORDERS}")
    parts = {
        "latents": latents,
        "masked_image_latents": masked_image_latents,
        "mask": mask_latents,
        "keep_mask": 1 - mask_latents,
    }
    return torch.cat([parts[name] for name in channel_order.split(",")], dim=1)


def as_batch(landmarks: torch.Tensor | np.ndarray) -> torch.Tensor:
    """Landmarks `(N, 2)` or `(B, N, 2)` as a float tensor `(B, N, 2)`."""
    landmarks = torch.as_tensor(landmarks).float()
    return landmarks[None] if landmarks.ndim == 2 else landmarks


def wide_holes(holes: torch.Tensor | None, width: int = WIDE_HOLE) -> torch.Tensor | None:
    """Leaves out holes that are too narrow to hold a square of `width` latents (a morphological opening).

    Args:
        holes (`torch.Tensor` of shape `(B, 1, h, w)`, bool, *optional*): What the reference does not cover. Beyond the
            edge of the picture they go on.
        width (`int`): In latents.

    Returns:
        `torch.Tensor` of shape `(B, 1, h, w)`, bool; `None` if there are none.
    """
    if holes is None:
        return None
    covered = F.pad((~holes).float(), [width - 1] * 4)
    squares = 1 - F.max_pool2d(covered, width, stride=1)  # 1 where one fits into a hole
    wide = F.max_pool2d(squares, width, stride=1) > 0
    return wide if wide.any() else None


def has_mark(network: torch.nn.Module, marks: set[str]) -> bool:
    """Whether a part of a network has an own attribute or part of one of these names."""
    waiting = [network]
    while waiting:
        own = vars(waiting.pop())
        if not marks.isdisjoint(own) or not marks.isdisjoint(own["_modules"]):
            return True
        waiting += [part for part in own["_modules"].values() if part is not None]
    return False


def is_hooked(network: torch.nn.Module) -> bool:
    """Whether a part of a network has a hook of Accelerate or Diffusers, such as those that offload it."""
    return has_mark(network, HOOKS)


class UNetLoraLoaderMixin(StableDiffusionLoraLoaderMixin):
    """LoRA as in Stable Diffusion, for the UNet alone: conditions come from pictures, there is no text encoder."""

    _lora_loadable_modules = ["unet"]  # noqa: RUF012 - the name and type that diffusers reads
    text_encoder = None

    @classmethod
    def load_lora_into_text_encoder(cls, state_dict: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> None:
        """Warns about layers of a text encoder, which this pipeline lacks."""
        if any(key.startswith(cls.text_encoder_name) for key in state_dict):
            logger.warning("The LoRA's layers for a text encoder are left out: this pipeline has none.")

    def fuse_lora(self, components: Sequence[str] = ("unet",), **kwargs: Any) -> None:
        """Adds the LoRA's weights to those of the UNet; see diffusers' `LoraBaseMixin.fuse_lora`."""
        super().fuse_lora(components=list(components), **kwargs)

    def unfuse_lora(self, components: Sequence[str] = ("unet",), **kwargs: Any) -> None:
        """Subtracts the LoRA's weights again; see diffusers' `LoraBaseMixin.unfuse_lora`."""
        super().unfuse_lora(components=list(components), **kwargs)


class FaceSwapInpaintPipeline(HubPipeline, StableDiffusionMixin, UNetLoraLoaderMixin):
    r"""Repaints the face of a target crop with the identity of a source, by masked inpainting with latent diffusion.

    It works on aligned crops and knows no detector; `FaceSwapper` goes from photo to photo. See [`DiffusionPipeline`]
    for the methods that all pipelines share.

    The settings below belong to the weights. `from_pretrained` reads them from the checkpoint, and from then on the
    UNet carries them: `FaceSwapInpaintPipeline(**pipe.components)` has those of `pipe`. With a UNet of other origin
    all but `crop_size` and `identity_size` have to be given; without them a pipeline can be made, but not called.

    Args:
        vae (`Autoencoder`): Encodes the masked target and decodes the result; of a kind that `latents.WIDTHS` has.
        unet ([`UNet2DConditionModel`]): Inpainting UNet: two times the latent channels, and the mask.
        image_encoder (`CLIPVisionModelWithProjection`, *optional*): Looks at source and target. Not needed if
            `source_clip_embeds` and `target_clip_embeds`, or `condition_embeds`, are passed.
        feature_extractor (`CLIPImageProcessorPil`, *optional*): Holds the mean and deviation of the encoder's pixels.
        conditioner ([`FaceConditioner`], *optional*): Makes the UNet's context of identity, image embeddings and
            landmarks. Not needed if `condition_embeds` and `negative_condition_embeds` are passed.
        scheduler ([`SchedulerMixin`]): DDIM or any other of diffusers' schedulers for such a UNet.
        safety_checker ([`SafetyChecker`], *optional*): Blackens explicit crops; [`FaceSwapper`] asks it about photos.
        requires_safety_checker (`bool`): Whether a pipeline without it warns.
        channel_order (`str`): What the UNet's input channels are, one of `CHANNEL_ORDERS`.
        masked_latents (`str`): `"sample"` or `"mode"` of the autoencoder's posterior for the masked target.
        crop_size (`int`, *optional*): Side length in pixels of the crops the weights are made for, the default height
            and width; what UNet and autoencoder are made for if left out.
        shown_regions (`str`): Region of the source to show; for `FaceSwapper`.
        landmark_scale (`float`): Factor on landmarks in pixels of a `crop_size` crop before the conditioner gets them.
        identity_size (`int`, *optional*): Side length of the identity network's view of the source; `crop_size` if
            left out.
        hidden_fill (`str`): What the hidden part of the target shows, one of `HIDDEN_FILLS`; the autoencoder carries
            it to the UNet. `"grey"` is REFace's; `"landmarks"`: the target's 68 landmarks, drawn as lines;
            `"reference"`: the source's face, rendered on the target.
        geometry_share (`float`): How much of the target's facial shape in its landmarks is replaced by the source's,
            in [0, 1]; needs a conditioner with `identity_geometry`; for `FaceSwapper`.
        mask_identity (`bool`): Whether the identity network, too, sees the shown part of the source only.
        default_num_inference_steps (`int`): Steps if a call names none.
        default_strength (`float`): Strength of calls with a reference that name none, in (0, 1].
        default_guidance_scale (`float`): Guidance if a call names none.

    Raises:
        ValueError: If a setting is unknown, or components do not fit each other.
    """

    model_cpu_offload_seq = "image_encoder->conditioner->unet->vae"
    _optional_components = [  # noqa: RUF012 - as diffusers has it
        "image_encoder", "feature_extractor", "conditioner", "safety_checker",
    ]  # fmt: skip
    _exclude_from_cpu_offload = ["safety_checker"]  # noqa: RUF012
    _callback_tensor_inputs = (
        "latents", "condition_embeds", "negative_condition_embeds", "mask_latents", "masked_image_latents",
    )  # fmt: skip

    # Set by `register_modules`. `Any`, since components may be missing or exchanged for their kin.
    vae: Any
    unet: Any
    image_encoder: Any
    feature_extractor: Any
    conditioner: Any
    scheduler: Any
    safety_checker: Any
    _guidance_scale: float
    _num_timesteps: int
    _interrupt: bool
    _is_guided_step = True
    _call_memory: CallMemory | None = None

    def __init__(
        self,
        vae: Autoencoder,
        unet: UNet2DConditionModel,
        image_encoder: CLIPVisionModelWithProjection | None,
        feature_extractor: CLIPImageProcessorPil | None,
        conditioner: FaceConditioner | None,
        scheduler: SchedulerMixin,
        safety_checker: SafetyChecker | None = None,
        requires_safety_checker: bool = True,
        channel_order: str | None = None,
        masked_latents: str | None = None,
        crop_size: int | None = None,
        shown_regions: str | None = None,
        landmark_scale: float | None = None,
        hidden_fill: str | None = None,
        geometry_share: float | None = None,
        identity_size: int | None = None,
        mask_identity: bool | None = None,
        default_num_inference_steps: int | None = None,
        default_strength: float | None = None,
        default_guidance_scale: float | None = None,
    ):
        super().__init__()
        self.vae_scale_factor = spatial_factor(vae)
        self.register_modules(
            vae=vae,
            unet=unet,
            image_encoder=image_encoder,
            feature_extractor=feature_extractor,
            conditioner=conditioner,
            scheduler=scheduler,
            safety_checker=safety_checker,
        )
        self.register_to_config(requires_safety_checker=requires_safety_checker)
        if safety_checker is None and requires_safety_checker:
            logger.warning(WITHOUT_CHECKER.format(type(self)))
        given = {
            "channel_order": channel_order,
            "masked_latents": masked_latents,
            "crop_size": crop_size,
            "shown_regions": shown_regions,
            "landmark_scale": landmark_scale,
            "hidden_fill": hidden_fill,
            "geometry_share": geometry_share,
            "identity_size": identity_size,
            "mask_identity": mask_identity,
            "default_num_inference_steps": default_num_inference_steps,
            "default_strength": default_strength,
            "default_guidance_scale": default_guidance_scale,
        }
        carried = dict(getattr(unet, CARRIED_SETTINGS, {}))
        carried["crop_size"] = self.usual_crop_size() or carried.get("crop_size")
        self.register_to_config(
            **{name: carried.get(name) if value is None else value for name, value in given.items()}
        )
        self.check_settings()
        self.check_components()
        shorten_single_token_attention(unet)
        self.image_processor = VaeImageProcessor(vae_scale_factor=self.vae_scale_factor)
        if not hasattr(unet, CARRIED_SETTINGS) and not self.missing_settings():
            setattr(unet, CARRIED_SETTINGS, self.settings)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings in the config: the arguments of the constructor besides `components`."""
        return {name: self.config[name] for name in (*FORMER_DEFAULTS, "identity_size")}

    def register_to_config(self, **kwargs: Any) -> None:
        """Changes the config, and the copy that the UNet carries to other pipelines; see diffusers' `ConfigMixin`."""
        super().register_to_config(**kwargs)
        is_built = hasattr(self, "image_processor")
        if is_built and not kwargs.keys().isdisjoint(self.settings):
            setattr(self.unet, CARRIED_SETTINGS, self.settings)

    def usual_crop_size(self) -> int | None:
        """Side in pixels of the crops that UNet and autoencoder are made for; `None` if unknown."""
        size = self.unet.config["sample_size"]
        return size * self.vae_scale_factor if isinstance(size, int) else None

    def missing_settings(self) -> list[str]:
        """Names of the settings that are missing."""
        return [name for name in FORMER_DEFAULTS if self.config[name] is None]

    def check_complete(self) -> None:
        """Refuses missing settings: with wrong ones a pipeline would generate noise."""
        if missing := self.missing_settings():
            raise ValueError(
                f"{', '.join(missing)} not given, and this UNet does not say what it was trained with: pass the "
                "settings of its checkpoint to the constructor, or load the pipeline by from_pretrained"
            )

    def check_settings(self) -> None:
        """Refuses a config with settings that are unknown or not for these components."""
        choices = {"channel_order": CHANNEL_ORDERS, "masked_latents": MASKED_LATENTS, "hidden_fill": HIDDEN_FILLS}
        for name, known in choices.items():
            if self.config[name] not in (None, *known):
                raise ValueError(f"{name} is {self.config[name]!r}, but has to be one of {known}")
        crop_size, usual = self.config["crop_size"], self.usual_crop_size()
        if usual is not None and crop_size != usual:
            raise ValueError(
                f"crop_size is {crop_size}, but UNet and autoencoder are made for crops of {usual} pixels "
                f"({self.unet.config['sample_size']} latents of {self.vae_scale_factor}): leave it out, or pass the "
                "components of one checkpoint; another size for one call is its height and width"
            )
        if crop_size is not None and crop_size % self.vae_scale_factor:
            raise ValueError(f"crop_size is {crop_size}: use a multiple of {self.vae_scale_factor}")

    def check_components(self) -> None:
        """Refuses components that do not fit each other."""
        latent_channels = channel_count(self.vae)
        num_channels = 2 * latent_channels + 1
        taken, made = (self.unet.config[f"{name}_channels"] for name in ("in", "out"))
        if taken != num_channels:
            raise ValueError(
                f"the UNet takes {taken} channels, but latents, masked latents and mask make {num_channels}: it has "
                "to be an inpainting UNet of this autoencoder"
            )
        if made != latent_channels:
            raise ValueError(
                f"the UNet makes {made} channels, but the autoencoder's latents have {latent_channels}: it has to be "
                "an inpainting UNet of this autoencoder"
            )
        if self.conditioner is not None:
            self.check_conditioner(self.conditioner.config)

    def check_conditioner(self, config: Any) -> None:
        """Refuses a conditioner (its config) that does not fit the UNet, the image encoder or the settings."""
        width = self.unet.config["cross_attention_dim"]
        if config["cross_attention_dim"] != width:
            raise ValueError(
                f"the conditioner makes tokens {config['cross_attention_dim']} wide, but the UNet takes {width}: pass "
                "the components of one checkpoint"
            )
        width = None if self.image_encoder is None else self.image_encoder.config.projection_dim
        if width is not None and config["clip_embed_dim"] != width:
            raise ValueError(
                f"the conditioner takes image embeddings {config['clip_embed_dim']} wide, but the image encoder's are "
                f"{width}: pass the components of one checkpoint"
            )
        if self.config["geometry_share"] and not config["identity_geometry"]:
            raise ValueError(
                f"geometry_share is {self.config['geometry_share']}, but the conditioner knows no geometry: set "
                "geometry_share to 0, or train a conditioner with identity_geometry"
            )

    @classmethod
    def extract_init_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Reads a saved config.

        Older ones lack settings, have the bool `draw_landmarks` in place of `hidden_fill`, and two settings that no
        swap ever followed.
        """
        config_dict = {**FORMER_DEFAULTS, "requires_safety_checker": False, **config_dict}
        if "draw_landmarks" in config_dict:
            config_dict["hidden_fill"] = "landmarks" if config_dict.pop("draw_landmarks") else "grey"
        for name in ("hidden_regions", "landmark_set"):
            config_dict.pop(name, None)
        return super().extract_init_dict(config_dict, **kwargs)

    @classmethod
    def _mend_networks(cls, networks: dict[str, Any], config: Any) -> None:
        """Sets the UNet's sample size from `crop_size`: in older checkpoints they may differ."""
        unet, vae = networks.get("unet"), networks.get("vae")
        if unet is not None and vae is not None and isinstance(unet.config["sample_size"], int):
            crop_size = config.get("crop_size", FORMER_DEFAULTS["crop_size"])
            unet.register_to_config(sample_size=crop_size // spatial_factor(vae))

    @property
    def guidance_scale(self) -> float:
        """Weight of the condition against the learned unconditional context; a callback may change it."""
        return self._guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether the UNet runs on the unconditional context as well, in the current step."""
        return self._guidance_scale > 1 and self._is_guided_step

    @property
    def num_timesteps(self) -> int:
        """Number of denoising steps of the current call."""
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        """Whether a callback asked to stop."""
        return self._interrupt

    @property
    def _execution_device(self) -> torch.device:
        """Where the networks run. Diffusers' search for hooks of offloading takes 10 ms, so it is left out without."""
        networks = [part for part in self.components.values() if isinstance(part, torch.nn.Module)]
        if any(map(is_hooked, networks)):
            return super()._execution_device
        return next(self.unet.parameters()).device

    def _setting(self, value: Setting | None, name: str) -> Setting:
        """The given value, or the config's if there is none."""
        return self.config[name] if value is None else value

    def count_steps(
        self, num_inference_steps: int | None, timesteps: list[int] | None, sigmas: list[float] | None
    ) -> int:
        """Number of steps from pure noise; see `__call__` for the arguments.

        Raises:
            ValueError: If timesteps and noise levels are given, or the scheduler does not take what is given.
        """
        if timesteps is None and sigmas is None:
            return self._setting(num_inference_steps, "default_num_inference_steps")
        if timesteps is not None and sigmas is not None:
            raise ValueError("`timesteps` and `sigmas` both say which steps to take: pass one of them")
        name = "sigmas" if timesteps is None else "timesteps"
        if name not in inspect.signature(self.scheduler.set_timesteps).parameters:
            raise ValueError(f"`{name}` cannot be chosen with {type(self.scheduler).__name__}: leave it out")
        retrieve_timesteps(self.scheduler, timesteps=timesteps, sigmas=sigmas)
        num_visited, order = len(self.scheduler.timesteps), self.scheduler.order
        return -(-num_visited // order)  # a scheduler of second order visits all timesteps but one twice

    def check_inputs(
        self,
        image: ImageInput | None,
        masked_image_latents: torch.Tensor | None,
        negative_condition_embeds: torch.Tensor | None,
        reference_image: ImageInput | None,
        reference_mask_image: ImageInput | None,
        height: int,
        width: int,
        strength: float,
        num_inference_steps: int,
        guidance_scale: float,
        output_type: str,
        callback_on_step_end_tensor_inputs: Sequence[str],
    ) -> None:
        """Checks the arguments of `__call__` before anything is computed.

        Raises:
            ValueError: Naming what was got and what is wanted.
        """
        if height % self.vae_scale_factor or width % self.vae_scale_factor:
            raise ValueError(f"`height`, `width` are {height}, {width}: use multiples of {self.vae_scale_factor}")
        if num_inference_steps < 1:
            raise ValueError(f"`num_inference_steps` is {num_inference_steps}: at least 1 is needed")
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"`output_type` is {output_type!r}, but has to be one of {OUTPUT_TYPES}")
        unknown = set(callback_on_step_end_tensor_inputs) - set(self._callback_tensor_inputs)
        if unknown:
            raise ValueError(
                f"`callback_on_step_end_tensor_inputs` has {sorted(unknown)}: choose of {self._callback_tensor_inputs}"
            )
        if guidance_scale > 1 and negative_condition_embeds is None and self.conditioner is None:
            raise ValueError("without a conditioner guidance above 1 needs `negative_condition_embeds`")
        if image is None and masked_image_latents is None:
            raise ValueError("pass the target as `image`, or as `masked_image_latents`")
        self.check_reference(reference_image, reference_mask_image, masked_image_latents)
        self.check_strength(strength, num_inference_steps, self.shows_reference(reference_image, masked_image_latents))

    def check_guidance_range(self, guidance_start: float, guidance_end: float) -> None:
        """Refuses shares of the steps out of range, and an end that does not come after the start."""
        if not 0 <= guidance_start < guidance_end <= 1:
            raise ValueError(
                f"`guidance_start`, `guidance_end` are {guidance_start}, {guidance_end}: two shares of the steps in "
                "[0, 1] are needed, the first less than the second"
            )

    def check_reference(
        self,
        reference_image: ImageInput | None,
        reference_mask_image: ImageInput | None,
        masked_image_latents: torch.Tensor | None,
    ) -> None:
        """Refuses a reference that the checkpoint does not use, and a mask without a reference."""
        if reference_image is not None and self.config["hidden_fill"] != "reference":
            raise ValueError(
                "`reference_image` is for checkpoints whose hidden_fill is 'reference', here it is "
                f"{self.config['hidden_fill']!r}: leave it out, or take a checkpoint trained with references"
            )
        if reference_mask_image is not None and reference_image is None and masked_image_latents is None:
            raise ValueError("`reference_mask_image` says where a reference shows something: pass `reference_image`")

    def check_strength(self, strength: float, num_inference_steps: int, shows_reference: bool) -> None:
        """Refuses a strength out of range, one that leaves no step, and one below 1 without a reference."""
        if not 0 < strength <= 1:
            raise ValueError(f"`strength` is {strength}: a number above 0 and at most 1 is needed")
        if int(num_inference_steps * strength) < 1:
            raise ValueError(
                f"`num_inference_steps` is {num_inference_steps} and `strength` {strength}, which leaves no step: "
                "their product has to be 1 at least"
            )
        if strength < 1 and not shows_reference:
            raise ValueError(
                f"`strength` is {strength}, but below 1 a swap starts from the reference: leave it out, or pass "
                "`reference_image` to a checkpoint whose hidden_fill is 'reference'"
            )

    def usual_strength(self, num_inference_steps: int) -> float:
        """The config's strength for swaps with a reference, or what leaves one of very few steps."""
        return max(self.config["default_strength"], 1 / max(num_inference_steps, 1))

    def shows_reference(self, reference_image: ImageInput | None, masked_image_latents: torch.Tensor | None) -> bool:
        """Whether the masked image shows a reference; given latents are assumed to."""
        given = reference_image is not None or masked_image_latents is not None
        return given and self.config["hidden_fill"] == "reference"

    def preprocess(self, image: ImageInput, height: int, width: int, name: str = "image") -> torch.Tensor:
        """Converts pictures to tensors of one size.

        Args:
            image (`ImageInput`): RGB, of any size, as `image_to_tensor` takes it, or a list of such.
            height (`int`): In pixels.
            width (`int`): In pixels.
            name (`str`): What an error calls it.

        Returns:
            `torch.Tensor` of shape `(B, 3, height, width)`, RGB in [-1, 1].
        """
        pixels = images_to_tensors(image, 3, name)
        return 2 * torch.cat([resize(picture, height, width, antialias=True) for picture in pixels]) - 1

    def preprocess_mask(
        self,
        mask_image: ImageInput | None,
        image: ImageInput | None,
        height: int,
        width: int,
        name: str = "mask_image",
        image_name: str = "image",
    ) -> torch.Tensor:
        """Converts masks to tensors of one size, without binarising them.

        Args:
            mask_image (`ImageInput`, *optional*): Grey, of the size of `image`; all white if left out.
            image (`ImageInput`, *optional*): What it belongs to.
            height (`int`): In pixels.
            width (`int`): In pixels.
            name (`str`): What an error calls the mask.
            image_name (`str`): What an error calls the picture.

        Returns:
            `torch.Tensor` of shape `(B, 1, height, width)` in [0, 1].

        Raises:
            ValueError: If a mask has not the size of its picture.
        """
        if mask_image is None:
            return torch.ones(1, 1, height, width)
        masks = images_to_tensors(mask_image, 1, name)
        images = masks if image is None else images_to_tensors(image, 3, image_name)
        sizes, image_sizes = ({tuple(pixels.shape[-2:]) for pixels in batch} for batch in (masks, images))
        if sizes != image_sizes:
            raise ValueError(
                f"`{name}` is {sorted(sizes)} pixels (height, width), but `{image_name}` is {sorted(image_sizes)}: "
                "a mask has the size of its picture"
            )
        return torch.cat([resize(mask, height, width, antialias=True) for mask in masks])

    def encode_identity(self, source_image: ImageInput, source_mask_image: ImageInput | None = None) -> torch.Tensor:
        """Embeds the identity of aligned source crops.

        Args:
            source_image (`ImageInput`): RGB, square.
            source_mask_image (`ImageInput`, *optional*): White = shown; looked at if the config says `mask_identity`.

        Returns:
            `torch.Tensor` of shape `(B, D)`, of unit length.
        """
        if self.conditioner is None:
            raise ValueError("the identity network is a part of the conditioner, which this pipeline lacks")
        crop_size = self.config["crop_size"]
        view = self.preprocess(source_image, crop_size, crop_size, "source_image")
        size = self.config["identity_size"] or crop_size
        if self.config["mask_identity"]:
            mask = self.preprocess_mask(
                source_mask_image, source_image, crop_size, crop_size, "source_mask_image", "source_image"
            )
            view = preprocess_identity_image(view, size, self._encoder_statistics()[0], mask)
        return self.conditioner.encode_identity(
            resize(view, size, size).to(self._execution_device, self.conditioner.dtype)
        )

    def encode_clip(
        self,
        image: ImageInput,
        mask_image: ImageInput | None = None,
        height: int | None = None,
        width: int | None = None,
    ) -> torch.Tensor:
        """Embeds aligned crops with the image encoder: sources behind their mask, targets whole.

        Args:
            image (`ImageInput`): RGB.
            mask_image (`ImageInput`, *optional*): White = shown; the rest is 0 after normalisation.
            height (`int`, *optional*): To which the picture is brought before the encoder's view; `crop_size` if
                left out.
            width (`int`, *optional*): Likewise.

        Returns:
            `torch.Tensor` of shape `(B, C)`: `image_embeds`.
        """
        if self.image_encoder is None:
            raise ValueError("this pipeline has no image encoder: pass `source_clip_embeds` and `target_clip_embeds`")
        height, width = self._setting(height, "crop_size"), self._setting(width, "crop_size")
        name, mask_name = ("image", "mask_image") if mask_image is None else ("source_image", "source_mask_image")
        pixel_values = self.preprocess(image, height, width, name)
        mask = self.preprocess_mask(mask_image, image, height, width, mask_name, name)
        size = self.image_encoder.config.image_size
        view = preprocess_encoder_image(pixel_values, size, *self._encoder_statistics(), mask)
        return self.image_encoder(view.to(self._execution_device, self.image_encoder.dtype)).image_embeds

    def _encoder_statistics(self) -> tuple[Sequence[float], Sequence[float]]:
        if self.feature_extractor is None:
            raise ValueError("this pipeline has no feature extractor, which holds the mean and deviation of pixels")
        return self.feature_extractor.image_mean, self.feature_extractor.image_std

    def prepare_landmarks(self, landmarks: torch.Tensor | np.ndarray | None, height: int, width: int) -> torch.Tensor:
        """Scales the target's landmarks to what the conditioner was trained on.

        Args:
            landmarks (`torch.Tensor` or `np.ndarray`, *optional*): `(B, N, 2)` or `(N, 2)`, x and y in crop pixels.
                All zeros, like `None`, means that none were found.
            height (`int`): Of the crop in pixels.
            width (`int`): Of the crop in pixels.

        Returns:
            `torch.Tensor` of shape `(B, N, 2)`.

        Raises:
            ValueError: If there are not as many as the conditioner takes, or they are far outside the crop.
        """
        num_landmarks = self.conditioner.config["num_landmarks"]
        if landmarks is None:
            return torch.zeros(1, num_landmarks, 2)
        landmarks = as_batch(landmarks)
        if landmarks.ndim != 3 or tuple(landmarks.shape[1:]) != (num_landmarks, 2):
            raise ValueError(f"`landmarks` has shape {tuple(landmarks.shape)}: (B, {num_landmarks}, 2) is needed")
        size = landmarks.new_tensor([width, height])
        # A margin, because the outline of a face that is cut off by the crop lies outside it.
        if not ((landmarks >= -size / 4) & (landmarks <= size * 5 / 4)).all():
            raise ValueError(f"`landmarks` lie outside the crop of {width} x {height} pixels: pass crop pixels, x, y")
        return landmarks * (self.config["landmark_scale"] * self.config["crop_size"] / size)

    def draw(self, landmarks: torch.Tensor | np.ndarray | None, height: int, width: int) -> torch.Tensor | None:
        """Draws the target's landmarks for its hidden part, unless the config says that it is grey.

        Returns:
            `torch.Tensor` of shape `(B, 3, height, width)`, RGB in [-1, 1], or `None` for plain grey.
        """
        if self.config["hidden_fill"] == "grey" or landmarks is None:
            return None
        return draw_landmarks(as_batch(landmarks), height, width)

    def prepare_fill(
        self,
        reference_image: ImageInput | None,
        reference_mask_image: ImageInput | None,
        landmarks: torch.Tensor | np.ndarray | None,
        height: int,
        width: int,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Prepares the content of the target's hidden pixels, by the config's `hidden_fill`. See `__call__`.

        Where there is no reference for a checkpoint that shows references, the landmarks are drawn.

        Returns:
            `tuple[torch.Tensor | None, torch.Tensor | None]`: Pixels `(B, 3, height, width)`, RGB in [-1, 1], `None`
                for plain grey; and where they show something, `(B, 1, height, width)`, `None` for everywhere.
        """
        if reference_image is not None:
            mask = self.preprocess_mask(
                reference_mask_image, reference_image, height, width, "reference_mask_image", "reference_image"
            )
            return self.preprocess(reference_image, height, width, "reference_image"), mask
        if self.config["hidden_fill"] == "reference":
            instead = "is grey" if landmarks is None else "shows the landmarks"
            logger.warning(f"There is no `reference_image`: the hidden part of the target {instead} instead.")
        return self.draw(landmarks, height, width), None

    def encode_condition(
        self,
        image: ImageInput | None = None,
        source_image: ImageInput | None = None,
        source_mask_image: ImageInput | None = None,
        landmarks: torch.Tensor | np.ndarray | None = None,
        identity_embeds: torch.Tensor | None = None,
        source_clip_embeds: torch.Tensor | None = None,
        target_clip_embeds: torch.Tensor | None = None,
        height: int | None = None,
        width: int | None = None,
    ) -> torch.Tensor:
        """Encodes source, target and landmarks to the UNet's context. See `__call__` for the arguments.

        Returns:
            `torch.Tensor` of shape `(B, num_tokens, cross_attention_dim)`.
        """
        if self.conditioner is None:
            raise ValueError("without a conditioner pass `condition_embeds`")
        height, width = self._setting(height, "crop_size"), self._setting(width, "crop_size")
        if identity_embeds is None and source_image is not None:
            identity_embeds = self.encode_identity(source_image, source_mask_image)
        if source_clip_embeds is None and source_image is not None:
            source_clip_embeds = self.encode_clip(source_image, source_mask_image)
        if target_clip_embeds is None and image is not None:
            target_clip_embeds = self.encode_clip(image, height=height, width=width)
        parts = {
            "identity_embeds": identity_embeds,
            "source_clip_embeds": source_clip_embeds,
            "target_clip_embeds": target_clip_embeds,
            "landmarks": self.prepare_landmarks(landmarks, height, width),
        }
        parts = {name: part for name, part in parts.items() if part is not None}
        for embeds, picture in EMBEDS_OF_PICTURES.items():
            if embeds not in parts:
                raise ValueError(f"pass `{picture}`, or `{embeds}` in its place")
        batch_size = max(len(part) for part in parts.values())
        parts = {name: repeat_batch(part, batch_size, 1, name) for name, part in parts.items()}
        device, dtype = self._execution_device, self.conditioner.dtype  # diffusers looks for hooks, 30 ms a time
        return self.conditioner(**{name: part.to(device, dtype) for name, part in parts.items()})

    def get_timesteps(
        self,
        num_inference_steps: int,
        strength: float,
        device: torch.device,
        has_holes: bool = False,
        timesteps: list[int] | None = None,
        sigmas: list[float] | None = None,
    ) -> tuple[torch.Tensor, int, int]:
        """Sets the scheduler's timesteps, and keeps the last ones if `strength` is below 1.

        Args:
            num_inference_steps (`int`): Of the whole way from noise to picture.
            strength (`float`): In (0, 1], which part of it what the reference covers goes.
            device (`torch.device`): Of the timesteps.
            has_holes (`bool`): Whether there are holes, which go the whole way.
            timesteps (`list[int]`, *optional*): See `__call__`.
            sigmas (`list[float]`, *optional*): See `__call__`.

        Returns:
            `tuple[torch.Tensor, int, int]`: The timesteps, how many denoising steps they make, and how many of the
                timesteps pass before what is covered starts.
        """
        retrieve_timesteps(self.scheduler, num_inference_steps, device, timesteps, sigmas)
        num_skipped = num_inference_steps - int(num_inference_steps * strength)
        begin_index = num_skipped * self.scheduler.order
        if has_holes:
            return self.scheduler.timesteps, num_inference_steps, begin_index
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(begin_index)
        return self.scheduler.timesteps[begin_index:], num_inference_steps - num_skipped, 0

    def find_holes(
        self, mask: torch.Tensor, coverage: torch.Tensor | None, strength: float, device: torch.device
    ) -> torch.Tensor | None:
        """Finds latents that are hidden and that the reference does not cover.

        Args:
            mask (`torch.Tensor` of shape `(B, 1, H, W)`): 1 = repaint.
            coverage (`torch.Tensor` of shape `(B, 1, H, W)`, *optional*): Where the reference shows something;
                everywhere if left out.
            strength (`float`): In (0, 1]; at 1 everything starts from noise, and holes do not matter.
            device (`torch.device`): Of the result.

        Returns:
            `torch.Tensor` of shape `(B, 1, h, w)`, bool; `None` if there are none.
        """
        if coverage is None or strength == 1:
            return None
        height, width = (side // self.vae_scale_factor for side in mask.shape[-2:])
        holes = F.adaptive_avg_pool2d(mask * (1 - coverage), (height, width)) > LEAST_HOLE
        return holes.to(device) if holes.any() else None

    def prepare_noise(
        self,
        batch_size: int,
        height: int,
        width: int,
        dtype: torch.dtype,
        device: torch.device,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Draws the initial noise, or scales the given one.

        Returns:
            `torch.Tensor` of shape `(batch_size, C, h, w)`.

        Raises:
            ValueError: If there are not as many generators or latents as pictures.
        """
        if isinstance(generator, list) and len(generator) != batch_size:
            raise ValueError(f"`generator` is a list of {len(generator)}: one for each of {batch_size} is needed")
        factor = self.vae_scale_factor
        shape = (batch_size, channel_count(self.vae), height // factor, width // factor)
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=device, dtype=dtype)
        elif tuple(latents.shape) != shape:
            raise ValueError(f"`latents` has shape {tuple(latents.shape)}: {shape} is needed")
        return latents.to(device, dtype)

    def prepare_latents(
        self, noise: torch.Tensor, masked_image_latents: torch.Tensor, timesteps: torch.Tensor, strength: float
    ) -> torch.Tensor:
        """Prepares the initial latents: noise, or below strength 1 the noised masked image.

        What the reference does not cover is noise all the same, see `hold_covered`.

        Args:
            noise (`torch.Tensor` of shape `(B, C, h, w)`): Of mean 0 and deviation 1.
            masked_image_latents (`torch.Tensor` of shape `(B, C, h, w)`): Of the target with the reference in it.
            timesteps (`torch.Tensor`): To visit, the noisiest first.
            strength (`float`): In (0, 1].

        Returns:
            `torch.Tensor` of shape `(B, C, h, w)`.
        """
        if strength == 1:
            return noise * self.scheduler.init_noise_sigma
        return self.scheduler.add_noise(masked_image_latents, noise, timesteps[:1].repeat(len(noise)))

    def hold_covered(
        self,
        latents: torch.Tensor,
        holes: torch.Tensor,
        noise: torch.Tensor,
        masked_image_latents: torch.Tensor,
        timestep: torch.Tensor,
    ) -> torch.Tensor:
        """Replaces all but the holes by the masked image noised to a timestep (arXiv 2306.00950, section 3.2).

        A hole has nothing to start from, so it goes the whole way from noise, while what the reference covers waits.

        Args:
            latents (`torch.Tensor` of shape `(B, C, h, w)`): Of the timestep.
            holes (`torch.Tensor` of shape `(B, 1, h, w)`): From `find_holes`.
            noise (`torch.Tensor` of shape `(B, C, h, w)`): Of mean 0 and deviation 1.
            masked_image_latents (`torch.Tensor` of shape `(B, C, h, w)`): Of the target with the reference in it.
            timestep (`torch.Tensor`): The noise level.

        Returns:
            `torch.Tensor` of shape `(B, C, h, w)`.
        """
        waiting = self.scheduler.add_noise(masked_image_latents, noise, timestep.reshape(1).repeat(len(noise)))
        return torch.where(holes, latents, waiting)

    def prepare_mask_latents(
        self,
        pixel_values: torch.Tensor | None,
        mask: torch.Tensor,
        masked_image_latents: torch.Tensor | None,
        dtype: torch.dtype,
        device: torch.device,
        generator: torch.Generator | list[torch.Generator] | None,
        fill: torch.Tensor | None = None,
        coverage: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Resizes the mask to latent size and encodes the target without the face.

        Args:
            pixel_values (`torch.Tensor` of shape `(B, 3, H, W)`, *optional*): The target, RGB in [-1, 1]; not needed
                with `masked_image_latents`.
            mask (`torch.Tensor` of shape `(B, 1, H, W)`): 1 = repaint.
            masked_image_latents (`torch.Tensor` of shape `(B, C, h, w)`, *optional*): Ready latents, scaled.
            dtype (`torch.dtype`): Of the result.
            device (`torch.device`): Of the result.
            generator (`torch.Generator` or `list[torch.Generator]`, *optional*): For sampling from the posterior.
            fill (`torch.Tensor` of shape `(B, 3, H, W)`, *optional*): What hidden pixels show, see `fill_hidden`.
            coverage (`torch.Tensor` of shape `(B, 1, H, W)`, *optional*): Where it shows something.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: The mask `(B, 1, h, w)` and the latents `(B, C, h, w)`.
        """
        height, width = (side // self.vae_scale_factor for side in mask.shape[-2:])
        if masked_image_latents is None:
            assert pixel_values is not None  # check_inputs saw to it
            masked_image = fill_hidden(pixel_values, mask, fill, coverage)
            masked_image_latents = self.encode_vae_image(masked_image.to(device, self.vae.dtype), generator)
        return resize(mask, height, width).to(device, dtype), masked_image_latents.to(device, dtype)

    def encode_vae_image(
        self, pixel_values: torch.Tensor, generator: torch.Generator | list[torch.Generator] | None
    ) -> torch.Tensor:
        """Encodes RGB `(B, 3, H, W)` in [-1, 1] to scaled latents `(B, C, h, w)`."""
        return encode(self.vae, pixel_values, self.config["masked_latents"] == "sample", generator)

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Decodes scaled latents (B, C, h, w) to RGB (B, 3, H, W), about [-1, 1]."""
        return decode(self.vae, latents.to(self.vae.dtype))

    def run_safety_checker(self, images: torch.Tensor) -> tuple[torch.Tensor, list[bool] | None]:
        """Blackens explicit pictures, and warns of them.

        Args:
            images (`torch.Tensor` of shape `(B, 3, H, W)`): RGB in [-1, 1].

        Returns:
            `tuple[torch.Tensor, list[bool]]`: The pictures, and whether each is explicit; `None` in place of the list
            if there is no checker.
        """
        if self.safety_checker is None:
            return images, None
        images, explicit = self.safety_checker(images)
        if any(explicit):
            logger.warning(
                "Potential NSFW content was detected in one or more images. A black image will be returned instead."
            )
        return images, explicit

    def prepare_extra_step_kwargs(
        self, generator: torch.Generator | list[torch.Generator] | None, eta: float
    ) -> dict[str, Any]:
        """Keeps of `generator` and `eta` what the scheduler's step accepts."""
        taken = inspect.signature(self.scheduler.step).parameters
        return {name: value for name, value in {"generator": generator, "eta": eta}.items() if name in taken}

    @contextmanager
    def sharing_steps(self, timesteps: torch.Tensor, num_tokens: int) -> Iterator[CallMemory]:
        """Lets steps share what does not depend on the latents, in the body of the `with` statement.

        Each step computes its own where something else decides when the UNet's layers run: hooks, which fetch weights
        in the order of layers, and compiled graphs.

        Args:
            timesteps (`torch.Tensor` of shape `(S,)`): Those of the steps.
            num_tokens (`int`): Of the context.

        Yields:
            `CallMemory`: To be told the number of each step, and when to forget.
        """
        memory = CallMemory()
        if has_mark(self.unet, HOOKS | COMPILED):
            yield memory
            return
        with ExitStack() as stack:
            stack.enter_context(remembered_time_embeddings(self.unet, timesteps, memory))
            if num_tokens == 1:
                self._call_memory = memory
                stack.callback(lambda: setattr(self, "_call_memory", None))
                stack.enter_context(remembered_vectors(self.unet, memory))
            yield memory

    def join_contexts(self, negative_condition_embeds: torch.Tensor, condition_embeds: torch.Tensor) -> torch.Tensor:
        """The contexts of a step with guidance, `(2 * B, T, D)`; one tensor for all steps that share."""
        contexts = (negative_condition_embeds, condition_embeds)
        if self._call_memory is None:
            return torch.cat(contexts)
        return self._call_memory.recall(self, contexts, lambda: torch.cat(contexts))

    def predict_noise(
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        condition_embeds: torch.Tensor,
        mask_latents: torch.Tensor,
        masked_image_latents: torch.Tensor,
        negative_condition_embeds: torch.Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
    ) -> torch.Tensor:
        """Runs the UNet, on both contexts with guidance, and combines the predictions (arXiv 2207.12598, eq. 6).

        Returns:
            `torch.Tensor` of the shape of `latents`.
        """
        unet_input = assemble_unet_input(
            self.scheduler.scale_model_input(latents, timestep),
            masked_image_latents,
            mask_latents,
            self.config["channel_order"],
        )
        encoder_hidden_states = condition_embeds
        if self.do_classifier_free_guidance:
            unet_input = torch.cat([unet_input] * 2)
            encoder_hidden_states = self.join_contexts(negative_condition_embeds, condition_embeds)  # pyright: ignore
        noise_pred = self.unet(
            unet_input,
            timestep,
            encoder_hidden_states=encoder_hidden_states,
            cross_attention_kwargs=cross_attention_kwargs,
            return_dict=False,
        )[0]
        if self.do_classifier_free_guidance:
            noise_pred_uncond, noise_pred_cond = noise_pred.chunk(2)
            noise_pred = noise_pred_uncond + self.guidance_scale * (noise_pred_cond - noise_pred_uncond)
        return noise_pred

    @torch.no_grad()
    def __call__(
        self,
        image: ImageInput | None = None,
        source_image: ImageInput | None = None,
        mask_image: ImageInput | None = None,
        source_mask_image: ImageInput | None = None,
        landmarks: torch.Tensor | np.ndarray | None = None,
        reference_image: ImageInput | None = None,
        reference_mask_image: ImageInput | None = None,
        identity_embeds: torch.Tensor | None = None,
        source_clip_embeds: torch.Tensor | None = None,
        target_clip_embeds: torch.Tensor | None = None,
        masked_image_latents: torch.Tensor | None = None,
        height: int | None = None,
        width: int | None = None,
        strength: float | None = None,
        num_inference_steps: int | None = None,
        timesteps: list[int] | None = None,
        sigmas: list[float] | None = None,
        guidance_scale: float | None = None,
        guidance_start: float = 0.0,
        guidance_end: float = 1.0,
        num_images_per_prompt: int = 1,
        eta: float = 0.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        condition_embeds: torch.Tensor | None = None,
        negative_condition_embeds: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: dict[str, Any] | None = None,
        callback_on_step_end: Callable[..., dict | None] | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> Any:  # a union would make every caller tell them apart
        r"""Repaints faces.

        Pictures are RGB: PIL pictures, arrays `(H, W, 3)` or `(B, H, W, 3)`, tensors `(3, H, W)` or `(B, 3, H, W)`
        (bytes, or floats in [0, 1]), or lists of these, of any size. A batch of one goes with larger batches of
        others: one source to many targets, or one target and many sources.

        Args:
            image (`ImageInput`, *optional*): The target: FFHQ-aligned crops whose faces are repainted.
            source_image (`ImageInput`, *optional*): Who to become: FFHQ-aligned crops.
            mask_image (`ImageInput`, *optional*): White = repaint, black = keep, grey = in between; of the target's
                size. Everything is repainted if left out.
            source_mask_image (`ImageInput`, *optional*): White = shown part of the source; of its size. All is shown
                if left out.
            landmarks (`torch.Tensor` or `np.ndarray` of shape `(B, N, 2)`, *optional*): The target's landmarks, x
                and y in pixels of a `height` x `width` crop. Zeros, or nothing, if none were found.
            reference_image (`ImageInput`, *optional*): The source's face rendered on the target, as aligned crops,
                for checkpoints whose `hidden_fill` is `"reference"`: shown where the target is hidden. These draw the
                landmarks in its place if it is left out.
            reference_mask_image (`ImageInput`, *optional*): White = the reference shows something there; of its size.
                Elsewhere there is a smooth colour. It shows something everywhere if left out.
            identity_embeds (`torch.Tensor` of shape `(B, D)`, *optional*): In place of the identity of `source_image`.
            source_clip_embeds (`torch.Tensor` of shape `(B, C)`, *optional*): In place of encoding `source_image`.
            target_clip_embeds (`torch.Tensor` of shape `(B, C)`, *optional*): In place of encoding `image`.
            masked_image_latents (`torch.Tensor` of shape `(B, C, h, w)`, *optional*): In place of encoding `image`
                without its face (and with what `hidden_fill` puts there), scaled by the autoencoder's scaling
                factor. `reference_mask_image` still says where a reference is in it.
            height (`int`, *optional*): In pixels; the config's `crop_size` if left out.
            width (`int`, *optional*): In pixels; the config's `crop_size` if left out.
            strength (`float`, *optional*): How much of the way from noise to picture is gone, in (0, 1]. Below 1 a
                swap starts from the noised reference and takes that part of `num_inference_steps`, which needs a
                reference; what the reference does not cover goes the whole way from noise. If left out, the config's
                default with a reference, 1 without.
            num_inference_steps (`int`, *optional*): Denoising steps; the config's default if left out.
            timesteps (`list[int]`, *optional*): Timesteps of the whole way from noise to picture, the noisiest first,
                in place of `num_inference_steps`, for schedulers that take them.
            sigmas (`list[float]`, *optional*): The same as noise levels, down to the last that the scheduler wants.
            guidance_scale (`float`, *optional*): Guidance is on above 1; the config's default if left out.
            guidance_start (`float`): Share of the steps after which guidance begins, in [0, 1). Steps without
                guidance take half the time.
            guidance_end (`float`): Share of the steps after which guidance ends, in (0, 1].
            num_images_per_prompt (`int`): Results for each face, next to each other in the output.
            eta (`float`): DDIM's η in [0, 1]; left to the schedulers that take it.
            generator (`torch.Generator` or `list[torch.Generator]`, *optional*): Source of all randomness. With a
                list, one for each result, a face comes out the same in any batch.
            latents (`torch.Tensor` of shape `(B, C, h, w)`, *optional*): The noise to start from, or below strength 1
                to add to the reference.
            condition_embeds (`torch.Tensor` of shape `(B, T, D)`, *optional*): The UNet's context, in place of all
                embeddings and landmarks.
            negative_condition_embeds (`torch.Tensor` of shape `(B, T, D)`, *optional*): In place of the learned
                unconditional context.
            output_type (`str`): `"pil"`, `"np"`, `"pt"` or `"latent"`.
            return_dict (`bool`): Whether to return a [`FaceSwapPipelineOutput`] rather than a tuple.
            cross_attention_kwargs (`dict[str, Any]`, *optional*): Passed to the attention processors; `scale` is that
                of LoRA layers.
            callback_on_step_end (`Callable`, *optional*): Called with the pipeline, the number of the step, the
                timestep and a dictionary of tensors after each step. What it returns of `_callback_tensor_inputs` is
                taken from then on; other keys count for nothing, as does `None`.
            callback_on_step_end_tensor_inputs (`Sequence[str]`): What the dictionary holds, of
                `_callback_tensor_inputs`.

        Returns:
            [`FaceSwapPipelineOutput`] or `tuple`: The repainted crops.

        Raises:
            ValueError: For arguments that do not fit; the text says what is wanted.

        Examples:
            ```py
            >>> import torch
            >>> from PIL import Image
            >>> from faceswap_diffusion import FaceSwapInpaintPipeline

            >>> pipe = FaceSwapInpaintPipeline.from_pretrained("path/to/checkpoint")
            >>> target, source = Image.open("target_crop.png"), Image.open("source_crop.png")  # FFHQ-aligned
            >>> mask = Image.open("target_mask.png")  # white = repaint
            >>> source_mask = Image.open("source_mask.png")  # white = shown
            >>> generator = torch.Generator().manual_seed(0)
            >>> pipe(target, source, mask, source_mask, generator=generator).images[0].save("swapped_crop.png")
            ```
        """
        if isinstance(callback_on_step_end, PipelineCallback | MultiPipelineCallbacks):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        self.check_complete()
        height, width = self._setting(height, "crop_size"), self._setting(width, "crop_size")
        num_inference_steps = self.count_steps(num_inference_steps, timesteps, sigmas)
        guidance_scale = self._setting(guidance_scale, "default_guidance_scale")
        if strength is None:
            shows_reference = self.shows_reference(reference_image, masked_image_latents)
            strength = self.usual_strength(num_inference_steps) if shows_reference else 1.0

        # 1. Check inputs
        self.check_inputs(
            image,
            masked_image_latents,
            negative_condition_embeds,
            reference_image,
            reference_mask_image,
            height,
            width,
            strength,
            num_inference_steps,
            guidance_scale,
            output_type,
            callback_on_step_end_tensor_inputs,
        )
        self.check_guidance_range(guidance_start, guidance_end)
        self._guidance_scale = guidance_scale
        self._interrupt = False
        device, dtype = self._execution_device, self.unet.dtype

        # 2. Conditions
        if condition_embeds is None:
            condition_embeds = self.encode_condition(
                image,
                source_image,
                source_mask_image,
                landmarks,
                identity_embeds,
                source_clip_embeds,
                target_clip_embeds,
                height,
                width,
            )
        if negative_condition_embeds is None and self.conditioner is not None:
            negative_condition_embeds = self.conditioner.unconditional(len(condition_embeds))

        # 3. One batch of all
        fill, coverage = None, None
        if masked_image_latents is None:
            fill, coverage = self.prepare_fill(reference_image, reference_mask_image, landmarks, height, width)
        elif reference_mask_image is not None:
            coverage = self.preprocess_mask(reference_mask_image, None, height, width, "reference_mask_image")
        fill_name = "landmarks" if reference_image is None else "reference_image"
        batch = {
            "image": None if image is None else self.preprocess(image, height, width),
            "mask_image": self.preprocess_mask(mask_image, image, height, width),
            "masked_image_latents": masked_image_latents,
            fill_name: fill,
            "reference_mask_image": coverage,
            "condition_embeds": condition_embeds,
            "negative_condition_embeds": negative_condition_embeds,
        }
        batch = {name: part for name, part in batch.items() if part is not None}
        batch_size = max(len(part) for part in batch.values())
        batch = {name: repeat_batch(part, batch_size, num_images_per_prompt, name) for name, part in batch.items()}
        batch_size *= num_images_per_prompt

        # 4. Timesteps and the UNet's inputs
        holes = wide_holes(self.find_holes(batch["mask_image"], batch.get("reference_mask_image"), strength, device))
        visited, num_inference_steps, num_waiting = self.get_timesteps(
            num_inference_steps, strength, device, holes is not None, timesteps, sigmas
        )
        noise = self.prepare_noise(batch_size, height, width, dtype, device, generator, latents)
        mask_latents, masked_image_latents = self.prepare_mask_latents(
            batch.get("image"),
            batch["mask_image"],
            batch.get("masked_image_latents"),
            dtype,
            device,
            generator,
            batch.get(fill_name),
            batch.get("reference_mask_image"),
        )
        tensors = {
            "latents": self.prepare_latents(noise, masked_image_latents, visited, strength if holes is None else 1.0),
            "condition_embeds": batch["condition_embeds"].to(device, dtype),
            "mask_latents": mask_latents,
            "masked_image_latents": masked_image_latents,
        }
        if "negative_condition_embeds" in batch:
            tensors["negative_condition_embeds"] = batch["negative_condition_embeds"].to(device, dtype)
        extra_step_kwargs = self.prepare_extra_step_kwargs(generator, eta)

        # 5. Denoising loop
        num_warmup_steps = len(visited) - num_inference_steps * self.scheduler.order
        self._num_timesteps = len(visited)
        with (
            self.sharing_steps(visited, tensors["condition_embeds"].shape[1]) as memory,
            self.progress_bar(total=num_inference_steps) as progress_bar,  # pyright: ignore[reportCallIssue]
        ):
            for i, t in enumerate(visited):
                memory.step = i
                if self.interrupt:
                    continue
                if holes is not None and i <= num_waiting:
                    tensors["latents"] = self.hold_covered(tensors["latents"], holes, noise, masked_image_latents, t)
                self._is_guided_step = guidance_start <= i / len(visited) and (i + 1) / len(visited) <= guidance_end
                noise_pred = self.predict_noise(timestep=t, cross_attention_kwargs=cross_attention_kwargs, **tensors)
                step = self.scheduler.step(noise_pred, t, tensors["latents"], **extra_step_kwargs, return_dict=False)
                tensors["latents"] = step[0]

                if callback_on_step_end is not None:
                    callback_kwargs = {name: tensors.get(name) for name in callback_on_step_end_tensor_inputs}
                    changed = callback_on_step_end(self, i, t, callback_kwargs) or {}
                    tensors.update({name: changed[name] for name in self._callback_tensor_inputs if name in changed})
                    memory.forget()  # it may have changed tensors in place, weights, or the scale of LoRA layers

                if i == len(visited) - 1 or ((i + 1) > num_warmup_steps and (i + 1) % self.scheduler.order == 0):
                    progress_bar.update()

        self._is_guided_step = True

        # 6. Decode
        images: Any = tensors["latents"]
        explicit = None
        if output_type != "latent":
            images, explicit = self.run_safety_checker(self.decode_latents(images))
            images = self.image_processor.postprocess(images, output_type=output_type)
        self.maybe_free_model_hooks()
        return FaceSwapPipelineOutput(images, explicit) if return_dict else (images, explicit)
