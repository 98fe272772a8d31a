"""What a family of models is: everything that the rest of the package has to know to open, describe and train one."""

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
    """The licence of released weights, and of what is made of them.

    Attributes:
        title: how model cards name it.
        name: `license_name` in the front matter of a card.
        link: its text.
        notice: the paragraph of a card.
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
        layouts: how checkpoints are stored, each as `families/layout.py` says. The first is the one of
            `save_pretrained`; of several that fit a folder the first counts.
        pipeline: "module:Class", a `janusflow.pipelines.base.Pipeline`.
        seen_tokens, drawn_tokens: `configuration -> number` of image tokens of a picture that is seen or generated.
        picture: `configuration -> (side in pixels, what a picture is generated as, in words)`.
        parts: submodule of the network to what it is.
        sizes: dataclass that the values of a configuration must fit; see `families/sizes.py`.
        depths: numbers of layers in a configuration, by dotted name, to the least number of tensors of a layer.
        token_ids: field of the configuration to the processor's attribute with the same id.
        text_generation: `processor -> more arguments` of the network's `GenerationConfig`.
        blocks: submodule of the network with the LLM's blocks.
        quantized: other submodules whose linear layers are quantized.
        trainable: parts that training may choose to the prefixes of their parameters; empty if it cannot be trained.
        never_run: in names of parameters that no forward pass reads, which stay frozen.
        presets: name to function that makes the configuration of a new network.
        separate_vae: whether pixels come from a VAE that is stored next to the network.
        licence: of its released weights.
        all_released: whether every checkpoint counts as made of released weights.
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
        """How the names of stored tensors begin that the network has no use for."""
        return tuple(prefix for layout in self.layouts for prefix in layout.unused)

    def layout(self, name: str) -> Layout:
        """The layout of a name that can be written; "janusflow" is always the one of `save_pretrained`.

        Raises:
            ValueError: if there is none, naming those that there are.
        """
        written = {"janusflow": self.layouts[0], **{one.name: one for one in self.layouts if one.write is not None}}
        if name not in written:
            raise ValueError(f"{self.name} has no layout {quoted(name)}; allowed are {', '.join(written)}")
        return written[name]

    def part_of(self, parameter: str) -> str:
        """The trainable part that a parameter of the network belongs to.

        Raises:
            KeyError: if it belongs to none.
        """
        for part, prefixes in self.trainable.items():
            if parameter.startswith(prefixes):
                return part
        raise KeyError(parameter)
