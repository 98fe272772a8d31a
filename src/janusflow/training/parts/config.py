"""The settings for pretraining parts, read from a YAML recipe like those of `janusflow train`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from transformers import PreTrainedConfig

from janusflow.arguments import quoted
from janusflow.config import VARIANTS, JanusFlowConfig, tiny
from janusflow.data.constraints import NonNegativeFloat, NonNegativeInt, PositiveInt, Seed, Share
from janusflow.data.sources.registry import AnySource
from janusflow.training.config import recipe_values, typed_config
from janusflow.training.config.data import DataConfig
from janusflow.training.parts.fit import FitConfig
from janusflow.training.parts.tokenizer import SPECIAL_TOKENS

LEAST_VOCABULARY = 256 + len(SPECIAL_TOKENS)  # every byte is a token


@dataclass(frozen=True)
class TokenizerConfig:
    """The tokenizer.

    Attributes:
        vocabulary: number of tokens, special ones included.
        records: number of records to learn from, each of `pictures` and of `texts`.
    """

    vocabulary: Annotated[int, Field(ge=LEAST_VOCABULARY)] = 2048
    records: PositiveInt = 20_000


@dataclass(frozen=True)
class VaeDecoderConfig:
    """Training of the VAE's decoder on latents with noise, while the latents stay as they are.

    Attributes:
        fit: see `FitConfig`.
        noise: maximum deviation of the noise, relative to that of the latents. Generated latents contain errors, which
            a decoder that was trained on latents of pictures makes visible.
    """

    fit: FitConfig
    noise: NonNegativeFloat = 0.2


@dataclass(frozen=True)
class VaeConfig:
    """The VAE. Its loss is |d| + 2 d^2 + edges |grad d| + kl KL, with d the difference of the pictures; see `vae.py`.

    Attributes:
        fit: see `FitConfig`.
        batch_size: pictures per step.
        channels: channels of the levels; each level has half the side of the one before.
        layers: residual blocks per level.
        edges, kl: weights of these terms.
        equivariance: weight of the terms of the difference once more, for latents and pictures reduced by 2 or 4. It
            costs a little sharpness and makes latents easier to generate.
        decoder: further training of the decoder alone; None for none.
    """

    fit: FitConfig
    batch_size: PositiveInt = 16
    channels: tuple[int, ...] = (16, 32, 64)
    layers: PositiveInt = 1
    edges: NonNegativeFloat = 1.0
    kl: NonNegativeFloat = 1e-3
    equivariance: NonNegativeFloat = 0.0
    decoder: VaeDecoderConfig | None = None


@dataclass(frozen=True)
class VqConfig:
    """The VQ codec. Its loss is in `vq.py`, and each patch of f_enc has a code.

    Attributes:
        fit: see `FitConfig`.
        batch_size: pictures per step.
        codes: number of codes in the codebook.
        width: width of a code.
        channels: channels of the levels, multiples of 32 and of the first; each level has half the side of the one
            before.
        blocks: residual blocks per level.
        latent_channels: channels of the last level, before and after the codebook.
        edges, commitment: weights of these terms.
        continuous: number of steps at the start that decode the encoder's vectors and not codes.
    """

    fit: FitConfig
    batch_size: PositiveInt = 16
    codes: PositiveInt = 2048
    width: PositiveInt = 8
    channels: tuple[int, ...] = (32, 64, 64, 128)
    blocks: PositiveInt = 1
    latent_channels: PositiveInt = 64
    edges: NonNegativeFloat = 1.0
    commitment: NonNegativeFloat = 0.25
    continuous: NonNegativeInt = 100

    def sizes(self) -> dict[str, Any]:
        """Return these settings as fields of `JanusVQVAEConfig`.

        Raises:
            ValueError: if the codec cannot have these channels.
        """
        first = self.channels[0] if self.channels else 0
        if not first or any(each % 32 or each % first for each in self.channels):
            raise ValueError(f"vq.channels is {list(self.channels)}; expected multiples of 32 and of the first")
        return {
            "num_embeddings": self.codes,
            "embed_dim": self.width,
            "base_channels": first,
            "channel_multiplier": [each // first for each in self.channels],
            "num_res_blocks": self.blocks,
            "latent_channels": self.latent_channels,
        }


@dataclass(frozen=True)
class TowerConfig:
    """The SigLIP tower.

    Attributes:
        fit: see `FitConfig`.
        batch_size: pairs per step; for each pair, the others are the negatives.
        text_layers: layers of the text tower, which is discarded.
        text_tokens: number of a caption's tokens that are read.
        words, outlines: weights of the auxiliary losses; see `tower.py`. With much smaller ones, the tower
            learns neither outlines nor, later, shapes (docs/log.md).
    """

    fit: FitConfig
    batch_size: PositiveInt = 64
    text_layers: PositiveInt = 4
    text_tokens: PositiveInt = 72
    words: NonNegativeFloat = 5.0
    outlines: NonNegativeFloat = 30.0


@dataclass(frozen=True)
class LlmConfig:
    """The language model.

    Attributes:
        fit: see `FitConfig`.
        batch_size: texts per step.
        look_back: give the first layers heads that see the previous two tokens; see `look_back` in `llm.py`.
    """

    fit: FitConfig
    batch_size: PositiveInt = 32
    look_back: bool = False


@dataclass(frozen=True)
class PartsConfig:
    """The settings of one pretraining run. With `vae` it gives a JanusFlow, with `vq` a Janus.

    Attributes:
        out: folder of the run; the model is written into its subfolder `export`.
        pictures: sources of pictures with a text, for the codec, the tower and the tokenizer.
        texts: sources of texts and conversations, for the language model and the tokenizer. The text of a record
            replaces its pictures.
        vae, vq, tower, llm, tokenizer: see their classes.
        start: a JanusFlow whose tokenizer, tower and language model are used in place of `tokenizer`, `tower`, `llm`
            and `network`.
        network: sizes that differ from those of the preset "tiny", as in `config.json`.
        seed: seed of everything random.
        workers: number of processes that make samples in advance; they only change the time.
        max_broken: largest share of broken records; above it, training ends. The default is that of `janusflow train`.
    """

    out: str
    pictures: list[AnySource]
    texts: list[AnySource] = field(default_factory=list)
    vae: VaeConfig | None = None
    vq: VqConfig | None = None
    tower: TowerConfig | None = None
    llm: LlmConfig | None = None
    start: str | None = None
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    network: dict[str, Any] = field(default_factory=dict)
    seed: Seed = 0
    workers: NonNegativeInt = 0
    max_broken: Share = DataConfig.max_broken

    def check(self) -> None:
        """Check what the types do not show.

        Raises:
            ValueError: for a fault; the message is one sentence.
        """
        if (self.vae is None) == (self.vq is None):
            raise ValueError("give exactly one of vae and vq, the codec of a JanusFlow or of a Janus")
        for name in ("tower", "llm"):
            if (getattr(self, name) is None) == (self.start is None):
                raise ValueError(f"give {name}, or start=MODEL, whose own is taken; not both")
        if self.start is not None and self.network:
            raise ValueError("network is for new parts; those of start keep their sizes")
        if self.start is None:
            self._check_sizes(self.sizes(self.tokenizer.vocabulary))
        if self.vq is not None:
            self.vq.sizes()
        for name, sources in (("pictures", self.pictures), ("texts", self.texts)):
            if not sources and not (name == "texts" and self.start):
                raise ValueError(f"{name} has no source; expected one or more")
            for source in sources:
                if source.kind == "replay":
                    raise ValueError(f"{name}: kind of source is 'replay', which needs a trained model")
                if getattr(source, "streaming", False):
                    raise ValueError(f"{name}: parts are pretrained on data with an index; leave streaming out")
                if source.crop == "pad":
                    raise ValueError(f"{name}: crop is 'pad', but parts learn from cropped pictures")
                try:
                    source.check("generation" if name == "pictures" else "text", checkpoint=False)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from error

    def _check_sizes(self, sizes: JanusFlowConfig) -> None:
        text, vision = sizes.text_config, sizes.vision_config
        if vision.image_size % vision.patch_size:
            raise ValueError(
                f"vision_config.image_size is {vision.image_size}; expected a multiple of {vision.patch_size} (a patch)"
            )
        if self.vq is not None and sizes.image_size != vision.image_size:
            raise ValueError(
                f"image_size is {sizes.image_size} and vision_config.image_size {vision.image_size}; "
                "a Janus generates pictures of the size that it reads"
            )
        heads = min(text.num_attention_heads, text.num_key_value_heads)
        if self.llm is not None and self.llm.look_back and heads < 2:
            raise ValueError("llm.look_back needs two heads; text_config has one")

    def sizes(self, vocabulary: int) -> JanusFlowConfig:
        """Return the dimensions of the network.

        Raises:
            ValueError: if `network` has an unknown size, or sizes that do not fit together.
        """
        config = tiny(vocabulary)
        for name, value in self.network.items():
            nested = isinstance(value, dict) and isinstance(getattr(config, name, None), PreTrainedConfig)
            sizes, within = (getattr(config, name), value) if nested else (config, {name: value})
            stored = {**VARIANTS, **sizes.to_dict()}
            known = [size for size in type(sizes).__annotations__ if size in stored]  # without transformers' settings
            for key in within.keys() - set(known):
                raise ValueError(f"network has no size {quoted(key)}; choose from {', '.join(known)}")
            sizes.update(within)
        return JanusFlowConfig.from_dict(config.to_dict())  # checks the new sizes

    def shortened(self, steps: int) -> PartsConfig:
        """Return these settings with few steps of small batches, to check that everything runs."""

        def short(part: Any, **changes: Any) -> Any:
            return part and replace(part, fit=replace(part.fit, steps=steps, warmup=1), **changes)

        tokenizer = replace(self.tokenizer, records=min(self.tokenizer.records, 100))
        parts = {name: short(getattr(self, name), batch_size=4) for name in ("vae", "vq", "tower", "llm")}
        if self.vae is not None:
            parts["vae"] = replace(parts["vae"], decoder=short(self.vae.decoder))
        return replace(self, **parts, tokenizer=tokenizer)


def load_parts(recipe: str | Path, overrides: Sequence[str] = ()) -> PartsConfig:
    """Read a recipe with overrides, and check it.

    Raises:
        ValueError: for an unreadable file, an unknown key, a wrong type or an impossible combination, in one sentence.

    Example:
        >>> load_parts("recipes/pictograms/parts.yaml", ["vae.fit.steps=100"]).vae.fit.steps
        100
    """
    config = typed_config(PartsConfig, recipe_values(recipe, overrides))
    config.check()
    return config
