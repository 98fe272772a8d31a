"""Describe a family of models: all that the package needs to open, describe, quantize and train one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from janusflow.arguments import quoted
from janusflow.families.descendants import Descendant
from janusflow.families.layout import Layout
from janusflow.families.sizes import Sizes

TOKEN_IDS = {"image_token_id": "image_id"}


def only_first(ids: list[int], pad: int) -> tuple[list[int], list[int]]:
    """Return the first and last token of a prompt, and their positions (`Family.without_words` of JanusFlow)."""
    return [ids[0], ids[-1]], [0, len(ids) - 1]


def latent_of(config: Any) -> tuple[int, int, int]:
    """Return the shape (C, h, w) of a generated latent (`Family.latent` of JanusFlow)."""
    return config.latent_channels, config.latent_size, config.latent_size


@dataclass(frozen=True)
class Licence:
    """The licence of released weights and of their derivatives.

    Attributes:
        title: its name in model cards.
        name: `license_name` in the front matter of a card.
        link: its text.
        notice: its paragraph in model cards.
    """

    title: str
    name: str
    link: str
    notice: str


@dataclass(frozen=True)
class Family:
    """One family of models. Register it with `janusflow.families.register`, or as an entry point.

    Attributes:
        name: name of the family.
        config: class of its configuration, with `text_config` and `vision_config`; its `model_type` is the family's.
        network: class of its network, built by `network._from_config(config)`.
        layouts: how checkpoints are stored; see `families/layout.py`. `save_pretrained` writes the first one; if
            several match a folder, the first match is used.
        pipeline: "module:Class", a `janusflow.pipelines.base.Pipeline`.
        seen_tokens, drawn_tokens: `configuration -> number` of image tokens of an input or a generated picture.
        picture: `configuration -> (side in pixels, what a picture is generated as, in words)`.
        latent: `configuration -> (C, h, w)` of the noise that pictures start from; None if they are generated as codes.
        losses: loss terms that teach this family to generate pictures. Terms that no family names apply to all
            families.
        without_words: `(prompt ids up to <begin_of_image>, pad id) -> ids and positions` of the unconditional row in
            guidance, and of training samples whose prompt is dropped. A module-level function, not a lambda.
        parts: submodule of the network to its description.
        sizes: dataclass that checks the values of a configuration; see `families/sizes.py`.
        depths: dotted name of a number of layers in a configuration to the minimum number of tensors per layer.
        token_ids: field of the configuration to the processor's attribute with the same id.
        text_generation: `processor -> more arguments` of the network's `GenerationConfig`.
        blocks: submodule of the network with the LLM's blocks.
        quantized: other submodules whose linear layers are quantized.
        trainable: parts that training may choose, with the prefixes of their parameters; empty if it cannot be trained.
        never_run: part of the names of parameters that the forward pass of training does not use; they stay frozen.
        tower: name of a parameter of transformers' SigLIP vision tower to its name in the network.
        codec: submodule with the codec of pictures, if it is part of the network.
        presets: name to function that returns the configuration of a new network.
        separate_vae: whether pixels need a VAE that is stored next to the network.
        licence: licence of its released weights.
        all_released: whether a checkpoint counts as derived from released weights unless its card says otherwise.
        library: `library_name` of its model cards.
        descendants: released checkpoints with the family's network and procedures of their own.
    """

    name: str
    config: type[Any]
    network: type[Any]
    layouts: tuple[Layout, ...]
    pipeline: str
    seen_tokens: Callable[[Any], int]
    drawn_tokens: Callable[[Any], int]
    picture: Callable[[Any], tuple[int, str]]
    parts: Mapping[str, str]
    latent: Callable[[Any], tuple[int, int, int] | None] = latent_of
    losses: tuple[str, ...] = ("flow", "repa")
    without_words: Callable[[list[int], int], tuple[list[int], list[int]]] = only_first
    sizes: type[Sizes] = Sizes
    depths: Mapping[str, int] = field(default_factory=dict)
    token_ids: Mapping[str, str] = field(default_factory=lambda: TOKEN_IDS)
    text_generation: Callable[[Any], dict[str, Any]] = lambda processor: {}
    blocks: str = "language_model.layers"
    quantized: tuple[str, ...] = ("lm_head",)
    trainable: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    never_run: str = "\0"
    tower: Callable[[str], str] = "understanding_encoder.tower.{}".format
    codec: str = ""
    presets: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    separate_vae: bool = False
    licence: Licence | None = None
    all_released: bool = False
    library: str = "janusflow"
    descendants: tuple[Descendant, ...] = ()

    @property
    def unused(self) -> tuple[str, ...]:
        """Prefixes of stored tensors that the network does not use."""
        return tuple(prefix for layout in self.layouts for prefix in layout.unused)

    def layout(self, name: str) -> Layout:
        """Return the layout with a name, if it can be written; "janusflow" is always the one of `save_pretrained`.

        Raises:
            ValueError: for any other name; the message lists the allowed ones.
        """
        written = {"janusflow": self.layouts[0], **{one.name: one for one in self.layouts if one.write is not None}}
        if name not in written:
            raise ValueError(f"{self.name} has no layout {quoted(name)}; expected {', '.join(written)}")
        return written[name]

    def part_of(self, parameter: str) -> str:
        """Return the trainable part that a parameter of the network belongs to.

        Raises:
            KeyError: if it belongs to none.
        """
        for part, prefixes in self.trainable.items():
            if parameter.startswith(prefixes):
                return part
        raise KeyError(parameter)
