"""The dimensions of a network, and presets. No other file contains them as literals.

`JanusFlowConfig` is `config.json` in our own layout; `checkpoint/layouts/official.py` translates the released one.
"""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import LlamaConfig, PreTrainedConfig, SiglipVisionConfig
from transformers.configuration_utils import SubConfigSpec

UNDERSTANDING_ENCODERS = ("siglip", "vae", "shared")
IMAGE_ATTENTIONS = ("causal", "bidirectional")
# in released networks
VARIANTS: dict[str, Any] = {
    "understanding_encoder": "siglip",
    "image_attention": "causal",
    "generation_merge_size": 1,
}
LATENT_DOWNSCALE = 8  # pixels per latent cell of the SDXL-VAE that the released checkpoints were trained on


class JanusFlowConfig(PreTrainedConfig):
    """Dimensions of one JanusFlow network.

    The LLM (`text_config`) and f_enc (`vision_config`) have their own transformers configurations; the fields below
    describe g_enc, g_dec and the tokens of pictures.

    Args:
        text_config: the Llama language model.
        vision_config: the SigLIP tower f_enc. `hidden_act` is the exact GELU; `vision_use_head` says whether the
            (unused) attention-pool head of an official checkpoint is kept for a lossless round trip.
        latent_channels: channels of the VAE's latent.
        latent_downscale: pixels per latent cell, each way (8 for the SDXL-VAE).
        latent_patch_size: latent cells per image token, each way. g_enc's convolution has this kernel and stride, and
            g_dec's pixel shuffle undoes it; a power of two.
        generation_encoder_width: channels of g_enc and of the sinusoid of the time embedding.
        generation_encoder_depth: number of g_enc's ConvNeXt blocks.
        generation_decoder_width: width that g_dec projects the LLM states to, before g_enc's output is concatenated.
        generation_decoder_depth: number of g_dec's ConvNeXt blocks.
        generation_norm_eps: epsilon of the RMSNorms inside g_enc and g_dec.
        generation_use_bias: whether the linear and convolution layers of g_enc and g_dec have biases.
        image_size: side in pixels of the square pictures that the weights were trained to generate.
        image_token_id: id of `<image_placeholder>`, which marks each understanding token of a picture.
        begin_image_token_id: id of `<begin_of_image>`. In understanding the learned begin-of-understanding embedding
            takes its place; in generation the time token does.
        end_image_token_id: id of `<end_of_image>`.
        understanding_encoder: encoder for understanding: "siglip" (as in the paper), "vae" (a second encoder like
            g_enc, on the VAE's latents) or "shared" (g_enc itself). The last two are experiments C and B of the paper's
            table 6, and need equal grids of tokens for understanding and generation.
        image_attention: "causal" (as in the paper) or "bidirectional", where the time token and the image tokens of a
            picture to generate see each other.
        generation_merge_size: cells of g_enc's grid per image token, each way; 1 in the paper. With 2, g_enc and g_dec
            work on 2 x 2 cells per image token, and the LLM reads and writes a quarter of the tokens.

    `config.json` contains the last three only if they differ from the paper's.

    Example:
        >>> from janusflow.config import janusflow_1b
        >>> config = janusflow_1b()
        >>> config.image_size, config.latent_size, config.num_generation_tokens
        (384, 48, 576)
    """

    model_type = "janusflow"
    sub_configs_defaults: ClassVar = {
        "text_config": SubConfigSpec(LlamaConfig),
        "vision_config": SubConfigSpec(SiglipVisionConfig),
    }

    text_config: Any = None
    vision_config: Any = None
    latent_channels: int = 4
    latent_downscale: int = LATENT_DOWNSCALE
    latent_patch_size: int = 2
    generation_encoder_width: int = 768
    generation_encoder_depth: int = 2
    generation_decoder_width: int = 768
    generation_decoder_depth: int = 2
    generation_norm_eps: float = 1e-6
    generation_use_bias: bool = True
    image_size: int = 384
    image_token_id: int = 100581
    begin_image_token_id: int = 100016
    end_image_token_id: int = 100593
    understanding_encoder: str = VARIANTS["understanding_encoder"]
    image_attention: str = VARIANTS["image_attention"]
    generation_merge_size: int = VARIANTS["generation_merge_size"]
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: object) -> None:
        super().__post_init__(**kwargs)
        if self.tie_word_embeddings:
            tied = f"tie_word_embeddings is {self.tie_word_embeddings!r}"
            raise ValueError(f"{tied}; expected False, because the LLM head has weights of its own")
        patch = self.latent_patch_size
        if patch < 2 or patch & (patch - 1):
            raise ValueError(f"latent_patch_size is {patch}; g_dec's pixel shuffles need a power of two from 2 upwards")
        if self.generation_merge_size < 1:
            raise ValueError(f"generation_merge_size is {self.generation_merge_size}; expected a number from 1 upwards")
        if self.image_size % self.token_size:
            message = f"image_size is {self.image_size}; expected a multiple of {self.token_size} (one image token)"
            raise ValueError(message)
        for name, allowed in (
            ("understanding_encoder", UNDERSTANDING_ENCODERS),
            ("image_attention", IMAGE_ATTENTIONS),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected {', '.join(allowed)}")
        seen = (self.vision_config.image_size, self.num_understanding_tokens)
        drawn = (self.image_size, self.num_generation_tokens)
        if self.understanding_encoder != "siglip" and seen != drawn:
            raise ValueError(
                f"understanding_encoder is {self.understanding_encoder!r}, which needs equal pictures and grids: "
                f"understanding has {seen[1]} tokens of {seen[0]} pixels, generation {drawn[1]} of {drawn[0]}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields; variants of the network only where they differ from released networks."""
        values: dict[str, Any] = super().to_dict()
        return {name: value for name, value in values.items() if name not in VARIANTS or value != VARIANTS[name]}

    @property
    def latent_size(self) -> int:
        """Side of the square latent at the size that the weights were trained on."""
        return self.image_size // self.latent_downscale

    @property
    def num_understanding_tokens(self) -> int:
        """Number of tokens that f_enc makes from one picture (576 for the 384-pixel release)."""
        return (self.vision_config.image_size // self.vision_config.patch_size) ** 2

    @property
    def token_size(self) -> int:
        """Side in pixels of one image token of a picture to generate (16 in released networks)."""
        return self.latent_downscale * self.latent_patch_size * self.generation_merge_size

    @property
    def num_generation_tokens(self) -> int:
        """Number of image tokens of one picture to generate at the trained size (576 for the 384-pixel release)."""
        return (self.image_size // self.token_size) ** 2


def janusflow_1b(image_size: int = 384) -> JanusFlowConfig:
    """Return JanusFlow-1.3B as released (`image_size=384`) or the 256-pixel variant of the paper's appendix A.

    Raises:
        ValueError: for any other size.

    Example:
        >>> janusflow_1b(256).num_generation_tokens
        256
    """
    if image_size not in (256, 384):
        raise ValueError(f"image_size is {image_size}; JanusFlow-1.3B exists at 384 and 256 pixels")
    text = LlamaConfig(
        vocab_size=102400,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=24,
        num_attention_heads=16,
        num_key_value_heads=16,
        max_position_embeddings=16384,
        rms_norm_eps=1e-6,
        bos_token_id=100000,
        eos_token_id=100001,
    )
    vision = siglip_config(width=1024, depth=24, heads=16, patch_size=16, image_size=image_size)
    return JanusFlowConfig(text_config=text, vision_config=vision, image_size=image_size, dtype="bfloat16")


def siglip_config(
    *,
    width: int,
    depth: int,
    heads: int,
    patch_size: int,
    image_size: int,
    mlp_ratio: float = 4,
    pool_head: bool = True,
) -> SiglipVisionConfig:
    """Return a SigLIP tower with the exact (erf) GELU of the official code; transformers' default is the tanh form."""
    return SiglipVisionConfig(
        hidden_size=width,
        intermediate_size=int(width * mlp_ratio),
        num_hidden_layers=depth,
        num_attention_heads=heads,
        patch_size=patch_size,
        image_size=image_size,
        hidden_act="gelu",
        layer_norm_eps=1e-6,
        vision_use_head=pool_head,
    )


def tiny(vocab_size: int = 1024) -> JanusFlowConfig:
    """Return the shipped network: 64-pixel pictures, 8x8 tokens for understanding and generation, 13 M parameters.

    Args:
        vocab_size: vocabulary size of the tiny world's tokenizer.

    Example:
        >>> tiny().image_size
        64
    """
    text = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        rms_norm_eps=1e-6,
    )
    vision = siglip_config(width=192, depth=6, heads=3, patch_size=8, image_size=64, pool_head=False)
    return JanusFlowConfig(
        text_config=text,
        vision_config=vision,
        latent_downscale=4,
        generation_encoder_width=128,
        generation_encoder_depth=4,
        generation_decoder_width=128,
        generation_decoder_depth=4,
        image_size=64,
        dtype="float32",
    )
