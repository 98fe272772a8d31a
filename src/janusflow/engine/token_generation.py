"""From words to codes, one after the other: how Janus and Janus-Pro generate pictures.

Shapes: P prompts of T tokens, N pictures, L codes each, K codes of the codebook.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import SupportsIndex

import torch
from torch import Tensor

from janusflow.arguments import LARGEST, MAX_TOP_K, SMALLEST, number_from, true_or_false, whole_number
from janusflow.engine.text import Slots, plain_llm
from janusflow.model.janus import JanusForConditionalGeneration, cache_of, unconditional_ids

TokenCallback = Callable[[int, Tensor], None]


@dataclass(frozen=True)
class TokenSampling:
    """How each code is chosen.

    Attributes:
        guidance_scale: w in logits = u + w (c - u), c with the prompt and u without; 1 runs no unconditional row.
        do_sample: whether to sample; False takes the most likely code.
        temperature: divides the logits.
        top_k: number of most likely codes to choose from; 0 is all.
        top_p: choose from the most likely codes that together have this probability; 1 is all.
        image_guidance_scale: w' in c = (f + w' p) / (1 + w') when a picture is edited, with f from a row with its
            features and codes, and p from one with only its features. None if no picture is edited.

    Raises:
        ValueError: for a value that is not allowed.
    """

    guidance_scale: float = 5.0
    do_sample: bool = True
    temperature: float = 1.0
    top_k: SupportsIndex = 0
    top_p: float = 1.0
    image_guidance_scale: float | None = None

    def __post_init__(self) -> None:
        true_or_false("do_sample", self.do_sample)
        object.__setattr__(self, "top_k", whole_number("top_k", self.top_k, least=0, most=MAX_TOP_K))
        for name, bounds in (
            ("guidance_scale", (1, LARGEST)),
            ("temperature", (SMALLEST, LARGEST)),
            ("top_p", (SMALLEST, 1)),
            ("image_guidance_scale", (0, LARGEST)),
        ):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, number_from(name, value, *bounds))

    @property
    def rows(self) -> int:
        """Number of rows per picture, G: with the prompt, without the codes of an edited picture, without the words."""
        return 1 + (self.image_guidance_scale is not None) + (self.guidance_scale > 1)

    def guide(self, logits: Tensor) -> Tensor:
        """Guide logits, (G N, K) -> (N, K): all rows with the prompt come first, all rows without its words last."""
        rows = logits.chunk(self.rows)
        conditional, unconditional = rows[0], rows[-1]
        if (weight := self.image_guidance_scale) is not None:
            conditional = (conditional + weight * rows[1]) / (1 + weight)
        if self.guidance_scale == 1:
            return conditional
        return unconditional + self.guidance_scale * (conditional - unconditional)

    def choose(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """Choose one code per picture: (N, K) guided logits and (N,) uniform numbers in [0, 1) -> (N,).

        The code is where the cumulative probability passes the uniform number, so a picture's codes depend only on its
        own numbers.
        """
        if not self.do_sample:
            return logits.argmax(dim=-1)
        logits = logits.float() / self.temperature
        if 0 < int(self.top_k) < logits.shape[-1]:
            least = logits.topk(int(self.top_k)).values[:, -1:]
            logits = logits.masked_fill(logits < least, -math.inf)
        probabilities = logits.softmax(dim=-1)
        if self.top_p < 1:
            ordered, places = probabilities.sort(dim=-1, descending=True)
            before = ordered.cumsum(dim=-1) - ordered
            ordered = ordered.masked_fill(before >= self.top_p, 0)
            probabilities = torch.zeros_like(probabilities).scatter(1, places, ordered)
        cumulative = probabilities.cumsum(dim=-1)
        total = cumulative[:, -1:]
        below = torch.minimum(uniform[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
        return torch.searchsorted(cumulative, below, right=True)[:, 0]


@dataclass
class ReadPrompts:
    """P prompts, each read once in G rows; see `TokenSampling.rows`.

    Attributes:
        states: (G P, D) last state of each row, from which the first code is predicted.
        layers: per LLM layer, keys and values.
        visible: (G P, T) 0 at padding.
        prompts: number of prompts, P.
    """

    states: Tensor
    layers: list[tuple[Tensor, Tensor]]
    visible: Tensor
    prompts: int


def read_prompts(
    network: JanusForConditionalGeneration, input_ids: Tensor, visible: Tensor, pad_token_id: int, *, guided: bool
) -> ReadPrompts:
    """Read prompts that are padded on the left and end with `<begin_of_image>`."""
    rows = [input_ids, unconditional_ids(input_ids, visible, pad_token_id)] if guided else [input_ids]
    return read_rows(network, rows, visible)


def read_rows(
    network: JanusForConditionalGeneration, rows: Sequence[Tensor], visible: Tensor, **pictures: Tensor
) -> ReadPrompts:
    """Read the G rows of P prompts.

    Args:
        network: the network.
        rows: G times (P, T) ids, in the order of `TokenSampling.rows`.
        visible: (P, T) 0 at padding, on the left.
        **pictures: `seen` and `codes` of the pictures in the rows; see `JanusForConditionalGeneration.embed`.
    """
    every = visible.repeat(len(rows), 1)
    states, layers = network.read(torch.cat(list(rows)), every, **pictures)
    return ReadPrompts(states, layers, every, len(visible))


def draw_codes(
    network: JanusForConditionalGeneration,
    read: ReadPrompts,
    owner: Tensor,
    uniform: Tensor,
    sampling: TokenSampling,
    callback: TokenCallback = lambda step, codes: None,
) -> Tensor:
    """Generate the codes of N pictures, (N, L) int64.

    Args:
        network, read, owner, uniform, sampling: see `code_by_code`.
        callback: called with (step, codes so far) after each code.
    """
    codes = owner.new_empty(len(owner), 0)
    for step, codes in enumerate(code_by_code(network, read, owner, uniform, sampling)):
        callback(step, codes.clone())  # whatever the callback does to them
    return codes


def code_by_code(
    network: JanusForConditionalGeneration, read: ReadPrompts, owner: Tensor, uniform: Tensor, sampling: TokenSampling
) -> Iterator[Tensor]:
    """Yield the codes of N pictures so far, after each code: (N, 1), (N, 2), ... (N, L) int64.

    Args:
        network: the network.
        read: the prompts.
        owner: (N,) the prompt of each picture.
        uniform: (N, L) each picture's own random numbers, in [0, 1).
        sampling: see `TokenSampling`; its guidance must be the one that the prompts were read for.
    """
    rows = torch.cat([owner + row * read.prompts for row in range(sampling.rows)])
    length, states = network.image_tokens, read.states[rows]
    codes = owner.new_empty(len(owner), length)
    continued = _continued(network, read, rows, length)
    for step in range(length):
        codes[:, step] = sampling.choose(sampling.guide(network.next_logits(states)), uniform[:, step])
        yield codes[:, : step + 1]
        if step + 1 < length:
            states = continued(codes[:, step].repeat(sampling.rows), step)


def _continued(
    network: JanusForConditionalGeneration, read: ReadPrompts, rows: Tensor, length: int
) -> Callable[[Tensor, int], Tensor]:
    """Return a function from a step's codes (R,) to the states (R, D) after them, by slots or else by transformers.

    Args:
        network, read: see `code_by_code`.
        rows: (R,) the prompt of each row.
        length: total number of codes.
    """
    visible = read.visible[rows]
    if (llm := plain_llm(network)) is not None:
        slots = Slots(llm, len(rows), int(visible.sum(dim=1).max()) + length - 1)
        for slot, row in enumerate(rows.tolist()):
            seen = read.visible[row].bool()
            slots.restore(slot, [(keys[row, :, seen], values[row, :, seen]) for keys, values in read.layers])
        return lambda codes, step: slots.step(network.embed_codes(codes))
    cache, positions = cache_of(read.layers, rows), visible.sum(dim=1)
    mask = torch.cat([visible, visible.new_ones(len(rows), length)], dim=1) if bool((visible == 0).any()) else None

    def by_transformers(codes: Tensor, step: int) -> Tensor:
        shown = None if mask is None else mask[:, : visible.shape[1] + step + 1]
        return network.step(codes, cache, shown, positions + step)

    return by_transformers
