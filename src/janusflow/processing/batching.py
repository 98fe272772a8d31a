"""Turn rows of token ids into one batch, with the padding and truncation options of transformers' processors.

Shapes: B rows, T tokens in the longest row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from janusflow.arguments import given, quoted, whole_number
from janusflow.device import CPU
from janusflow.processing.images import ImageSource, load_images

PADDING = {True: "longest", "longest": "longest", False: None, "do_not_pad": None, "max_length": "max_length"}
TRUNCATION = {True: True, "longest_first": True, "only_first": True, False: False, "do_not_truncate": False}


@dataclass(frozen=True)
class Batching:
    """Settings that turn texts into rows of one length; names and values are those of transformers.

    Attributes:
        padding: True or "longest" pads to the longest row, "max_length" to `max_length`; with False rows of different
            lengths raise an error.
        padding_side: "left", as generation needs it, or "right".
        truncation: True cuts rows after `max_length` tokens; cutting a picture raises an error.
        max_length: length in tokens, including those of the pictures.
        pad_to_multiple_of: the length of the batch is rounded up to a multiple of this.
        add_special_tokens: whether each text starts with BOS.

    Raises:
        ValueError: for a value that is not allowed or has no effect.
    """

    padding: bool | str = True
    padding_side: str = "left"
    truncation: bool | str = False
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    add_special_tokens: bool = True

    def __post_init__(self) -> None:
        choices: tuple[tuple[str, Sequence[Any]], ...] = (
            ("padding", tuple(PADDING)),
            ("padding_side", ("left", "right")),
            ("truncation", tuple(TRUNCATION)),
            ("add_special_tokens", (True, False)),
        )
        for name, allowed in choices:
            value = getattr(self, name)
            if not isinstance(value, (str, bool)) or value not in allowed:
                raise ValueError(f"{name} is {quoted(value)}; expected {', '.join(map(repr, allowed))}")
        for name in ("max_length", "pad_to_multiple_of"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, whole_number(name, value))
        limited = TRUNCATION[self.truncation] or PADDING[self.padding] == "max_length"
        if limited and self.max_length is None:
            raise ValueError("truncation and padding='max_length' need max_length, a number of tokens")
        if self.max_length is not None and not limited:
            raise ValueError("max_length needs truncation=True or padding='max_length'; without them it has no effect")

    @classmethod
    def read(cls, options: Mapping[str, Any]) -> Batching:
        """Read keyword arguments; None means the default.

        Raises:
            ValueError: for an unknown argument.
        """
        chosen = {name: value for name, value in options.items() if value is not None}
        known = [entry.name for entry in fields(cls)]
        unknown = ", ".join(sorted(chosen.keys() - set(known)))
        if unknown:
            raise ValueError(f"{unknown}: not options of the processor, which are return_tensors, {', '.join(known)}")
        return cls(**chosen)

    def collate(self, rows: Sequence[list[int]], *, pad: int, image: int) -> tuple[Tensor, Tensor]:
        """Return ids and mask, both (B, T) int64.

        Args:
            image: id of a picture's tokens, which are never cut.

        Raises:
            ValueError: if a row does not fit.
        """
        if TRUNCATION[self.truncation]:
            rows = [self._cut(row, image) for row in rows]
        lengths = {len(row) for row in rows}
        if PADDING[self.padding] is None and len(lengths) > 1:
            raise ValueError(f"texts have {min(lengths)} to {max(lengths)} tokens; give padding=True to make one batch")
        longest = max(lengths)
        if PADDING[self.padding] == "max_length":
            assert self.max_length is not None
            longest = max(longest, self.max_length)
        if self.pad_to_multiple_of is not None:
            longest += -longest % self.pad_to_multiple_of
        ids = torch.full((len(rows), longest), pad, device=CPU)
        mask = torch.zeros_like(ids)
        for index, row in enumerate(rows):
            part = slice(longest - len(row), None) if self.padding_side == "left" else slice(0, len(row))
            ids[index, part], mask[index, part] = torch.tensor(row, dtype=torch.long, device=CPU), 1
        return ids, mask

    def _cut(self, row: list[int], image: int) -> list[int]:
        cut = row[: self.max_length]
        end = len(row) - row[::-1].index(image) + 1 if image in row else 0  # after the last <end_of_image>
        if len(cut) < end:
            raise ValueError(f"max_length is {self.max_length}, which cuts a picture; expected at least {end}")
        return cut


@dataclass
class UnderstandingInputs:
    """A batch of B conversations, padded on the left to T tokens.

    Attributes:
        input_ids: (B, T) int64; `<image_placeholder>` at each understanding token.
        attention_mask: (B, T) int64, 1 at tokens.
        pixel_values: (N, 3, S, S) float32, the pictures of all conversations in reading order; None without pictures.
        text: the prompts as strings, with one placeholder per picture.
        begun: whether the prompt of each conversation ends inside a message of the assistant.
    """

    input_ids: Tensor
    attention_mask: Tensor
    pixel_values: Tensor | None
    text: list[str] = field(default_factory=list)
    begun: list[bool] = field(default_factory=list)


def pictures_of(images: ImageSource | Sequence[Any] | None, placed: Sequence[int], image_tag: str) -> list[Image.Image]:
    """Load the pictures of several texts in reading order, from a flat list or one list per text.

    Args:
        images: none, one, several for all texts together, or a list with the pictures of each text.
        placed: number of placeholders in each text.

    Raises:
        ValueError: if pictures and placeholders differ in number.
    """
    if isinstance(images, (list, tuple)) and any(one is None or isinstance(one, (list, tuple)) for one in images):
        if len(images) != len(placed):
            raise ValueError(f"{given(len(images), 'list')} with pictures for {len(placed)} texts; give one per text")
        each = [load_images(one) for one in images]
        for index, (count, own) in enumerate(zip(placed, each, strict=True), start=1):
            if count != len(own):
                raise ValueError(f"text {index} has {count} {image_tag}, but {given(len(own), 'picture')} for it")
        return [picture for own in each for picture in own]
    pictures = load_images(images)
    if sum(placed) != len(pictures):
        raise ValueError(f"the text has {sum(placed)} {image_tag}, but {given(len(pictures), 'picture')}")
    return pictures
