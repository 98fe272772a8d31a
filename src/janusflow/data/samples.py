"""Turn records into training samples: template, picture transforms, noise and time, all from one random generator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Annotated, Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from pydantic import Field
from torch import Tensor

from janusflow.data.constraints import PositiveInt, Share
from janusflow.data.records import Record
from janusflow.data.templates import IGNORE, Tokens, captioning, conversation, drawing, plain_text
from janusflow.families import family_of
from janusflow.flow import logit_normal, standard_normal
from janusflow.processing.images import BACKDROP, ImageSource, load_image
from janusflow.processing.processor import JanusFlowProcessor

Template = Literal["pretraining", "chat"]
Crop = Literal["random", "center", "pad"]
INSTRUCTIONS = (  # before a caption in stages 1 and 2
    "Generate the caption of this image.",
    "Describe this image.",
    "What does this picture show?",
)


@dataclass(frozen=True)
class Drawn:
    """A picture to generate.

    Attributes:
        pixels: (3, H, W) in [-1, 1].
        noise: x_0 of its latent, (C, h, w); None if it is generated as codes.
        t: the time.
        cropped: share of the picture's area that the square leaves out.
    """

    pixels: Tensor
    noise: Tensor | None
    t: float
    cropped: float = 0.0


@dataclass(frozen=True)
class Sample:
    """One training sample.

    Attributes:
        tokens: token sequence.
        seen: pictures to understand, (n, 3, S, S), normalized for f_enc; None if there are none.
        drawn: picture to generate, or None.
        anchored: whether the model learns its own outputs from before the run in place of the labels and the picture.
    """

    tokens: Tokens
    seen: Tensor | None = None
    drawn: Drawn | None = None
    anchored: bool = False

    @property
    def of_text(self) -> bool:
        """Whether the sample has no picture."""
        return self.seen is None and self.drawn is None


@dataclass(frozen=True)
class SampleConfig:
    """How to turn records into samples.

    Attributes:
        template: "pretraining" or "chat"; see `data/templates.py`.
        prompt_dropout: share of generation prompts that are replaced by the unconditional row of guidance (JanusFlow:
            only BOS and `<begin_of_image>`; Janus: pad tokens between these two).
        time: distribution of t: "logit_normal" or "uniform". This and the next two are not used for codes.
        time_mean, time_scale: mean and scale of the logit of t.
        crop: how a picture to generate becomes a square: cropped at "random" or in the "center", or whole with white
            bars ("pad"). The last two can be cached. Pictures to understand are always whole.
        longest: maximum number of tokens in a sample. Longer plain text is cut to a part of it; other samples are
            rejected. The LLM's number of positions is a limit, too.
    """

    template: Template = "chat"
    prompt_dropout: Share = 0.1
    time: Literal["logit_normal", "uniform"] = "logit_normal"
    time_mean: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    time_scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    crop: Crop = "random"
    longest: PositiveInt = 4096


class SampleMaker:
    """Makes samples for one network."""

    def __init__(self, processor: JanusFlowProcessor, network: Any, config: SampleConfig) -> None:
        self.processor, self.config, family = processor, config, family_of(network)
        self.longest = min(config.longest, network.text_config.max_position_embeddings)
        self.side, self.places = family.picture(network)[0], family.drawn_tokens(network)
        self.latent, self.without_words = family.latent(network), family.without_words

    def make(self, task: str, record: Record, rng: Random, *, crop: Crop | None = None) -> Sample:
        """Make a sample of a record for a task.

        Args:
            crop: used in place of the configuration's.

        Raises:
            ValueError: if the record lacks what the task needs, a picture is broken, or the sample is too long.
        """
        if task == "generation":
            sample = self._generation(record, rng, crop or self.config.crop)
        else:
            sample = self._understanding(record, rng) if task == "understanding" else self._text(record, rng)
        pictures = 0 if sample.seen is None else len(sample.seen)
        if sample.tokens.ids.count(self.processor.image_id) != pictures * self.processor.text.num_image_tokens:
            raise ValueError(f"{record.name} holds an image tag where no picture stands: in an answer or a caption")
        if len(sample.tokens) > self.longest:
            raise ValueError(f"{record.name} has {len(sample.tokens)} tokens, more than {self.longest}")
        return sample

    def _understanding(self, record: Record, rng: Random) -> Sample:
        """Make a sample of a conversation, with or without pictures, or of a caption after an instruction."""
        if not record.images and not record.turns:
            raise ValueError(f"{record.name} has no picture to understand")
        if not record.turns and not record.text:
            raise ValueError(f"{record.name} says nothing about its picture")
        pictures, tag = len(record.images), self.processor.text.image_tag
        if record.turns:
            tokens = self._talk(record.turns, pictures, record.system)
        else:
            instruction = rng.choice(INSTRUCTIONS)
            if self.config.template == "chat":
                tokens = self._talk([(f"{tag}\n" * pictures + instruction, record.text)], pictures)
            else:
                tokens = captioning(self.processor, instruction, record.text, pictures=pictures)
        seen = torch.stack([self.processor.preprocess(image) for image in record.images]) if pictures else None
        return Sample(tokens, seen=seen)

    def _generation(self, record: Record, rng: Random, crop: Crop) -> Sample:
        if len(record.images) != 1 or not record.text:
            raise ValueError(f"{record.name} is not one picture with a text: {len(record.images)} pictures")
        generator = torch.Generator().manual_seed(rng.getrandbits(63))
        config, noise = self.config, self._noise(record, generator)
        if record.time is not None:
            t = record.time
        elif config.time == "uniform":
            t = float(torch.rand(1, generator=generator, device=generator.device, dtype=torch.float32))
        else:
            t = float(logit_normal(1, generator, mean=config.time_mean, scale=config.time_scale))
        image = load_image(record.images[0])
        if crop == "pad":
            pixels, cropped = padded(image, self.side), 0.0
        else:
            pixels = square(image, self.side, rng if crop == "random" else None)
            cropped = 1 - min(image.size) / max(image.size)
        tokens = drawing(
            self.processor,
            record.text,
            self.places,
            dropped=rng.random() < config.prompt_dropout,
            chat=config.template == "chat",
            without_words=self.without_words,
        )
        return Sample(tokens, drawn=Drawn(pixels, noise, t, cropped))

    def _noise(self, record: Record, generator: torch.Generator) -> Tensor | None:
        """Return x_0, (C, h, w): the record's own, or a random one; None for codes."""
        shape = self.latent
        if shape is None:
            if record.noise is not None or record.noise_seed is not None:
                raise ValueError(f"{record.name} belongs to a noise, but the model generates codes")
            return None
        if record.noise is not None:
            values = torch.frombuffer(bytearray(record.noise), dtype=torch.float16).float()
            if values.numel() != math.prod(shape):
                raise ValueError(
                    f"{record.name} has noise of {values.numel()} values; the latent has {math.prod(shape)}"
                )
            return values.view(shape)
        if record.noise_seed is not None:
            generator = torch.Generator().manual_seed(record.noise_seed)
        return standard_normal(shape, generator)

    def _text(self, record: Record, rng: Random) -> Sample:
        """Make a sample of a conversation, or of plain text, cut to a part of at most `longest` tokens."""
        if record.turns:
            return Sample(self._talk(record.turns, 0, record.system))
        if not record.text:
            raise ValueError(f"{record.name} has no text")
        tokens, longest = plain_text(self.processor, record.text), self.longest
        if len(tokens) > longest:
            first = rng.randint(1, len(tokens) - longest + 1)
            ids = [tokens.ids[0], *tokens.ids[first : first + longest - 1]]
            tokens = Tokens(ids, [IGNORE, *ids[1:]], list(range(longest)))
        return Sample(tokens)

    def _talk(self, turns: Sequence[tuple[str, str]], pictures: int, system: str | None = None) -> Tokens:
        """Tokenize a conversation; its picture tags are anywhere in the user's turns, or are put before the first."""
        placed = sum(question.count(self.processor.text.image_tag) for question, _ in turns)
        if pictures and not placed:
            (first, answer), *rest = turns
            turns = [(self.processor.question(first, pictures), answer), *rest]
        elif placed != pictures:
            raise ValueError(f"the conversation holds {placed} image tags, but {pictures} pictures were given")
        return conversation(self.processor, turns, system=system)


def square(source: ImageSource, side: int, rng: Random | None) -> Tensor:
    """Crop a picture to generate to a square, at random or in the middle: (3, side, side) in [-1, 1]."""
    image = load_image(source)
    scale = side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (rng.randint(0, spare) if rng is not None else spare // 2 for spare in (width - side, height - side))
    pixels = np.asarray(image.crop((left, top, left + side, top + side)), dtype=np.float32)
    return torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1


def padded(source: ImageSource, side: int) -> Tensor:
    """Pad a picture to generate with white bars, its long side resized to `side`: (3, side, side) in [-1, 1]."""
    image = ImageOps.pad(load_image(source), (side, side), Image.Resampling.BICUBIC, color=BACKDROP)
    return torch.from_numpy(np.asarray(image, dtype=np.float32)).permute(2, 0, 1) / 127.5 - 1
