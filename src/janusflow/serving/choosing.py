"""Choose the next tokens of many texts, each with its own settings. Rows with the same settings are sampled together.

Shapes: n texts, V vocabulary, S steps.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LogitsProcessorList

from janusflow.engine.decoding import SeededSampling
from janusflow.engine.token_generation import TokenSampling
from janusflow.serving.jobs import TextRequest


@dataclass(frozen=True)
class Chooser:
    """Token selection of one text.

    Attributes:
        penalties: transformers' processors for its logits.
        sampling: temperature, top_k and top_p; None is greedy.
        uniform: (S,) numbers in [0, 1) for sampling, one per token.
        presence, frequency: OpenAI's penalties.
    """

    penalties: LogitsProcessorList
    sampling: TokenSampling | None
    uniform: Tensor
    presence: float
    frequency: float

    @staticmethod
    def of(request: TextRequest, steps: int) -> Chooser:
        """Return the chooser of a request for at most `steps` tokens. With a seed, it chooses the tokens of `ask`."""
        found = request.decoding.processors(1, steps, request.model.device)
        seeded = next((one for one in found if isinstance(one, SeededSampling)), None)
        others = LogitsProcessorList([one for one in found if one is not seeded])
        presence, frequency = request.presence_penalty, request.frequency_penalty
        if seeded is None:
            return Chooser(others, None, torch.empty(0), presence, frequency)
        return Chooser(others, seeded.sampling, seeded.uniform[0], presence, frequency)

    def penalize(self, logits: Tensor, tokens: Sequence[int]) -> Tensor:
        """Return (1, V) logits with all penalties for the tokens so far."""
        before = torch.tensor([tokens], dtype=torch.int64, device=logits.device)
        less = penalized(logits, tokens, presence=self.presence, frequency=self.frequency)
        return self.penalties(before, less)


def penalized(logits: Tensor, tokens: Sequence[int], *, presence: float, frequency: float) -> Tensor:
    """Return (1, V) logits with OpenAI's penalties for the tokens so far.

    logits[j] - presence [c_j > 0] - frequency c_j, where c_j counts token j.
    """
    if not tokens or not (presence or frequency):
        return logits
    used, counts = torch.tensor(tokens, device=logits.device).unique(return_counts=True)
    return logits.index_add(1, used, -(presence + frequency * counts)[None].to(logits.dtype))


def choose_tokens(logits: Tensor, texts: Sequence[tuple[Chooser, Sequence[int]]]) -> list[int]:
    """Return the next token of each text.

    Args:
        logits: (n, V) float32.
        texts: chooser of each text, and its tokens so far.
    """
    scores, groups = logits.clone(), defaultdict[TokenSampling, list[int]](list)
    for row, (chooser, tokens) in enumerate(texts):
        if chooser.penalties or chooser.presence or chooser.frequency:
            scores[row] = chooser.penalize(logits[row, None], tokens)[0]
        if chooser.sampling is not None:
            groups[chooser.sampling].append(row)
    chosen = scores.argmax(dim=-1)
    for sampling, rows in groups.items():
        uniform = torch.stack([texts[row][0].uniform[len(texts[row][1])] for row in rows])
        chosen[rows] = sampling.choose(scores[rows], uniform)
    found: list[int] = chosen.tolist()
    return found
