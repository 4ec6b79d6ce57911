"""`FaceConditioner`: the only component of a checkpoint whose class is not from diffusers or transformers."""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import nn

from faceswap_diffusion.conditioning.geometry import NUM_FEATURES
from faceswap_diffusion.conditioning.identity import IDENTITY_NETWORKS


class SingleTokenAttention(nn.Module):
    """Self-attention over sequences of length one, with REFace's parameters.

    The softmax over one key is 1, so the value passes unchanged, and query and key have no effect. They exist because
    published checkpoints contain them.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.c_qkv = nn.Linear(dim, dim * 3)
        self.c_proj = nn.Linear(dim, dim)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Maps (B, dim) to (B, dim); each row is a sequence of one token."""
        _, _, value = self.c_qkv(hidden).chunk(3, dim=-1)
        return self.c_proj(value)


class MapperBlock(nn.Module):
    """Pre-norm residual attention block on one token."""

    def __init__(self, dim: int):
        super().__init__()
        self.ln_1 = nn.LayerNorm(dim)
        self.attn = SingleTokenAttention(dim)
        self.ln_2 = nn.LayerNorm(dim)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(dim, dim * 4), "c_proj": nn.Linear(dim * 4, dim)})

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Maps (B, dim) to (B, dim)."""
        hidden = hidden + self.attn(self.ln_1(hidden))
        return hidden + self.mlp["c_proj"](nn.functional.gelu(self.mlp["c_fc"](self.ln_2(hidden))))


class UnconditionalContext(nn.Module):
    """The learned context for no condition. It is a module so that offloading moves it to the device."""

    def __init__(self, num_tokens: int, dim: int):
        super().__init__()
        self.embeds = nn.Parameter(torch.randn(1, num_tokens, dim) * dim**-0.5)

    def forward(self, batch_size: int) -> torch.Tensor:
        """The context (batch_size, num_tokens, dim)."""
        return self.embeds.repeat(batch_size, 1, 1)  # not a view, because FSDP frees the parameter after this call


def build_projection(in_features: int, num_tokens: int, dim: int, hidden_dim: int | None) -> nn.Module:
    """A linear layer, or with `hidden_dim` a two-layer network, to `num_tokens` concatenated tokens of `dim`."""
    if hidden_dim is None:
        return nn.Linear(in_features, num_tokens * dim)
    return nn.Sequential(nn.Linear(in_features, hidden_dim), nn.SiLU(), nn.Linear(hidden_dim, num_tokens * dim))


class FaceConditioner(ModelMixin, ConfigMixin):
    """Turns identity, CLIP features and landmarks into the UNet's `encoder_hidden_states`.

    With `combine="sum"`, one token each, `mapper_layers=5` and the default weights it is REFace's conditioning
    (arXiv 2409.07269, section 3): context = (1.0 clip + 10.0 identity + 0.05 landmarks) / 11.05. With
    `combine="concat"` every condition has its own tokens, scaled by its weight.

    Args:
        identity_network (`str`): `"sface"` (128-d) or `"ir_se50"` (512-d).
        clip_embed_dim (`int`): Width of the image encoder's `image_embeds`.
        cross_attention_dim (`int`): Width of a token.
        num_landmarks (`int`): Number of landmarks of the target.
        mapper_layers (`int`): Residual attention blocks on the CLIP features; 0 leaves them unchanged.
        identity_tokens, clip_tokens, landmark_tokens (`int`): Tokens of each condition; `clip_tokens` each for
            source and target.
        combine (`str`): `"sum"` into one token, or `"concat"`.
        identity_weight, clip_weight, landmark_weight (`float`): Scales of the conditions.
        hidden_dim (`int`, *optional*): Width of the hidden layer of each projection; `None` for linear layers.
        identity_geometry (`bool`): Whether the buffer `geometry_coefficients`, (58, 2N), has the coefficients of
            `conditioning.geometry.fit_geometry`, which explain landmarks by pose and expression.

    Raises:
        ValueError: For an unknown `identity_network` or `combine`, or several tokens with `"sum"`.
    """

    @register_to_config
    def __init__(
        self,
        identity_network: str = "ir_se50",
        clip_embed_dim: int = 768,
        cross_attention_dim: int = 768,
        num_landmarks: int = 68,
        mapper_layers: int = 5,
        identity_tokens: int = 1,
        clip_tokens: int = 1,
        landmark_tokens: int = 1,
        combine: str = "sum",
        identity_weight: float = 10.0,
        clip_weight: float = 1.0,
        landmark_weight: float = 0.05,
        hidden_dim: int | None = None,
        identity_geometry: bool = False,
    ):
        super().__init__()
        if identity_network not in IDENTITY_NETWORKS:
            raise ValueError(f"identity_network is {identity_network!r}: choose one of {sorted(IDENTITY_NETWORKS)}")
        if combine not in ("sum", "concat"):
            raise ValueError(f'combine is {combine!r}: choose "sum" or "concat"')
        if combine == "sum" and (identity_tokens, clip_tokens, landmark_tokens) != (1, 1, 1):
            raise ValueError('combine="sum" adds single tokens: set every number of tokens to 1, or use "concat"')
        self.unconditional = UnconditionalContext(self.num_tokens, cross_attention_dim)
        self.identity_encoder = IDENTITY_NETWORKS[identity_network]()
        self.mapper = nn.Sequential(*(MapperBlock(clip_embed_dim) for _ in range(mapper_layers)))
        self.mapper_norm = nn.LayerNorm(clip_embed_dim) if mapper_layers else nn.Identity()
        dim = cross_attention_dim
        self.identity_projection = build_projection(self.identity_dim, identity_tokens, dim, hidden_dim)
        self.source_projection = build_projection(clip_embed_dim, clip_tokens, dim, hidden_dim)
        self.target_projection = build_projection(clip_embed_dim, clip_tokens, dim, hidden_dim)
        self.landmark_projection = build_projection(num_landmarks * 2, landmark_tokens, dim, hidden_dim)
        # Standardises landmarks. REFace uses raw pixels, which is mean 0 and standard deviation 1.
        self.register_buffer("landmark_mean", torch.zeros(num_landmarks * 2))
        self.register_buffer("landmark_std", torch.ones(num_landmarks * 2))
        if identity_geometry:
            self.register_buffer("geometry_coefficients", torch.zeros(NUM_FEATURES, num_landmarks * 2))

    @property
    def identity_dim(self) -> int:
        """Width of an identity embedding: 128 for SFace, 512 for IR-SE50."""
        return IDENTITY_NETWORKS[self.config["identity_network"]].embedding_dim

    @property
    def num_tokens(self) -> int:
        """Tokens of the context."""
        config = self.config
        if config["combine"] == "sum":
            return 1
        return config["identity_tokens"] + 2 * config["clip_tokens"] + config["landmark_tokens"]

    @apply_forward_hook
    def encode_identity(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Embeds the identity of FFHQ-aligned crops; differentiable.

        Args:
            pixel_values (`torch.Tensor`): (B, 3, H, W), square, RGB in [-1, 1].

        Returns:
            `torch.Tensor`: (B, identity_dim), of unit length.
        """
        return self.identity_encoder(self.identity_encoder.prepare(pixel_values))

    def map_clip(self, clip_embeds: torch.Tensor) -> torch.Tensor:
        """Runs CLIP embeddings (B, clip_embed_dim) through the mapper."""
        return self.mapper_norm(self.mapper(clip_embeds))

    def forward(
        self,
        identity_embeds: torch.Tensor,
        source_clip_embeds: torch.Tensor,
        target_clip_embeds: torch.Tensor,
        landmarks: torch.Tensor,
    ) -> torch.Tensor:
        """Builds the context.

        Args:
            identity_embeds (`torch.Tensor`): (B, identity_dim), of the source, of unit length.
            source_clip_embeds (`torch.Tensor`): (B, clip_embed_dim), `image_embeds` of the masked source.
            target_clip_embeds (`torch.Tensor`): (B, clip_embed_dim), `image_embeds` of the target.
            landmarks (`torch.Tensor`): (B, N, 2) or (B, 2N), of the target, x and y in scaled crop pixels.
                All zeros if there are none, as in REFace.

        Returns:
            `torch.Tensor`: (B, num_tokens, cross_attention_dim).
        """
        landmarks = landmarks.flatten(1)
        standardized = (landmarks - self.landmark_mean) / self.landmark_std
        standardized = torch.where(landmarks.any(dim=1, keepdim=True), standardized, torch.zeros_like(landmarks))
        config = self.config
        identity = config["identity_weight"] * self._tokens(self.identity_projection(identity_embeds))
        source = config["clip_weight"] * self._tokens(self.source_projection(self.map_clip(source_clip_embeds)))
        target = config["clip_weight"] * self._tokens(self.target_projection(self.map_clip(target_clip_embeds)))
        landmark = config["landmark_weight"] * self._tokens(self.landmark_projection(standardized))
        if config["combine"] == "concat":
            return torch.cat([identity, source, target, landmark], dim=1)
        total_weight = config["identity_weight"] + config["clip_weight"] + config["landmark_weight"]
        return (identity + source + target + landmark) / total_weight

    def _tokens(self, projected: torch.Tensor) -> torch.Tensor:
        return projected.view(len(projected), -1, self.config["cross_attention_dim"])  # (B, tokens, D)


# diffusers accepts a third-party class in a Hub repository only under its package's name (see weights/hub.py).
FaceConditioner.__module__ = "faceswap_diffusion"
