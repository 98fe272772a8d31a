"""What a checkpoint says about its processor: how conversations become text, and pictures pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeAlias

from annotated_types import Interval, Len, MinLen

from janusflow.arguments import quoted
from janusflow.processing.chat_template import ROLE_WORDS, SYSTEM_PROMPT

Tag: TypeAlias = Annotated[str, MinLen(1)]
Pixels: TypeAlias = Annotated[int, Interval(ge=1, le=2**12)]


@dataclass(frozen=True)
class TextSettings:
    """How conversations become text; `processor_config.json`.

    Attributes:
        num_image_tokens: understanding tokens of one picture.
        sft_format: name of the chat template, a key of `ROLE_WORDS`.
        system_prompt: stands before an understanding conversation that brings none of its own.
        image_tag: placeholder of one picture in the text.
        image_start_tag: token before a picture's tokens, and the last token of a generation prompt.
        image_end_tag: token after a picture's tokens.
    """

    num_image_tokens: Annotated[int, Interval(ge=1, le=2**20)]
    sft_format: str = "deepseek_old"
    system_prompt: str = SYSTEM_PROMPT
    image_tag: Tag = "<image_placeholder>"
    image_start_tag: Tag = "<begin_of_image>"
    image_end_tag: Tag = "<end_of_image>"

    def __post_init__(self) -> None:
        if self.sft_format not in ROLE_WORDS:
            raise ValueError(f"sft_format is {quoted(self.sft_format)}; known templates are {', '.join(ROLE_WORDS)}")


@dataclass(frozen=True)
class ImageSettings:
    """How pictures become pixels; `preprocessor_config.json`.

    Attributes:
        image_size: side of the square that f_enc takes.
        min_size: the short side is never made smaller than this.
        image_mean, image_std: per channel, of values in [0, 1].
        rescale_factor: 1/255.
        do_normalize: whether mean and deviation are applied.
    """

    image_size: Pixels
    min_size: Pixels = 14
    image_mean: Annotated[tuple[Annotated[float, Interval(ge=0, le=1)], ...], Len(3, 3)] = (0.5, 0.5, 0.5)
    image_std: Annotated[tuple[Annotated[float, Interval(ge=1e-6, le=1e6)], ...], Len(3, 3)] = (0.5, 0.5, 0.5)
    rescale_factor: Annotated[float, Interval(ge=1e-6, le=1)] = 1 / 255
    do_normalize: bool = True

    def __post_init__(self) -> None:
        if self.min_size > self.image_size:
            raise ValueError(f"min_size is {self.min_size}, larger than image_size ({self.image_size})")

    @property
    def background(self) -> tuple[int, ...]:
        """The colour that pads a picture to a square: the mean, truncated to 8 bits."""
        return tuple(int(mean * 255) for mean in self.image_mean)
