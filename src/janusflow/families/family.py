"""Describe a family of models: all that the package needs to open, describe, quantize and train one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from janusflow.arguments import quoted
from janusflow.families.layout import Layout
from janusflow.families.sizes import Sizes

TOKEN_IDS = {"image_token_id": "image_id"}


@dataclass(frozen=True)
class Licence:
    """The licence of released weights and of their derivatives.

    Attributes:
        title: its name in model cards.
        name: `license_name` in the front matter of a card.
        link: its text.
        notice: the paragraph in a card.
    """

    title: str
    name: str
    link: str
    notice: str


@dataclass(frozen=True)
class Family:
    """One family of models. Register it with `janusflow.families.register`, or as an entry point.

    Attributes:
        name: of the family.
        config: class of its configuration, with `text_config` and `vision_config`; its `model_type` is the family's.
        network: class of its network, built by `network._from_config(config)`.
        layouts: how checkpoints are stored; see `families/layout.py`. The first is that of `save_pretrained`; if
            several match a folder, the first counts.
        pipeline: "module:Class", a `janusflow.pipelines.base.Pipeline`.
        seen_tokens, drawn_tokens: `configuration -> number` of image tokens of an input or a generated picture.
        picture: `configuration -> (side in pixels, what a picture is generated as, in words)`.
        parts: submodule of the network to what it is.
        sizes: dataclass that checks the values of a configuration; see `families/sizes.py`.
        depths: dotted name of a number of layers in a configuration to the least number of tensors per layer.
        token_ids: field of the configuration to the processor's attribute with the same id.
        text_generation: `processor -> more arguments` of the network's `GenerationConfig`.
        blocks: submodule of the network with the LLM's blocks.
        quantized: other submodules whose linear layers are quantized.
        trainable: parts that training may choose, with the prefixes of their parameters; empty if it cannot be trained.
        never_run: part of the names of parameters that no forward pass reads, which stay frozen.
        presets: name to function that returns the configuration of a new network.
        separate_vae: whether pixels need a VAE that is stored next to the network.
        licence: of its released weights.
        all_released: whether every checkpoint counts as derived from released weights.
        library: `library_name` of its model cards.
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
    sizes: type[Sizes] = Sizes
    depths: Mapping[str, int] = field(default_factory=dict)
    token_ids: Mapping[str, str] = field(default_factory=lambda: TOKEN_IDS)
    text_generation: Callable[[Any], dict[str, Any]] = lambda processor: {}
    blocks: str = "language_model.layers"
    quantized: tuple[str, ...] = ("lm_head",)
    trainable: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    never_run: str = "\0"
    presets: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    separate_vae: bool = False
    licence: Licence | None = None
    all_released: bool = False
    library: str = "janusflow"

    @property
    def unused(self) -> tuple[str, ...]:
        """Prefixes of stored tensors that the network does not use."""
        return tuple(prefix for layout in self.layouts for prefix in layout.unused)

    def layout(self, name: str) -> Layout:
        """Return the layout with a name, if it can be written; "janusflow" is always that of `save_pretrained`.

        Raises:
            ValueError: for another name; lists those that are allowed.
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
