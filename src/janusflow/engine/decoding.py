"""Text decoding: the settings of `ask` and `chat`, and sampling with separate random numbers for each row."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, RepetitionPenaltyLogitsProcessor

from janusflow.arguments import LARGEST, SMALLEST, counted, given, number_from, true_or_false, whole_number
from janusflow.device import CPU
from janusflow.engine.generation import check_seed
from janusflow.engine.token_generation import TokenSampling
from janusflow.processing.processor import JanusFlowProcessor

SAMPLING = ("temperature", "top_p", "top_k", "seed")  # ignored by greedy decoding
CALLER = 5  # stacklevel of the line that calls `Conversational.ask`: ask, _decoding and __init__ lie between


@dataclass(frozen=True)
class Decoding:
    """Decoding settings, with transformers' names and meanings.

    Attributes:
        max_new_tokens: maximum number of new tokens; the model's context may end earlier.
        do_sample: whether to sample; False takes the most likely token, and a warning names the sampling settings that
            are ignored.
        temperature: divides the logits, above 0.
        top_p: choose from the most likely tokens that together have this probability, above 0; 1 is all.
        top_k: number of most likely tokens to choose from; 0 is all.
        repetition_penalty: divides the logits of tokens that were generated before (multiplies negative ones), above 0;
            1 is none. Tokens of the prompt are not penalized.
        seed: sampling seed: one number for all conversations of a batch, so that an answer is the same whatever else is
            in the batch (and the same conversation twice gives the same answer twice), or one number for each. With
            None, the seeds come from torch's global generator, which a given seed neither reads nor changes.
        prompt_lookup: number of tokens that are guessed ahead by copying what followed the last words earlier in the
            conversation (`engine/lookup.py`), and checked in one pass. The answer is the same, and arrives sooner where
            answers repeat their questions; 0 disables it. It works on single conversations, not on batches.
    """

    max_new_tokens: int = 512
    do_sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int | Sequence[int] | None = None
    prompt_lookup: int = 0

    def __post_init__(self) -> None:
        true_or_false("do_sample", self.do_sample)
        object.__setattr__(self, "max_new_tokens", whole_number("max_new_tokens", self.max_new_tokens))
        object.__setattr__(self, "top_k", whole_number("top_k", self.top_k, least=0))
        object.__setattr__(self, "prompt_lookup", whole_number("prompt_lookup", self.prompt_lookup, least=0, most=64))
        seed: Any = self.seed
        if hasattr(seed, "__len__") and getattr(seed, "ndim", 1) > 0:
            object.__setattr__(self, "seed", tuple(map(check_seed, seed)))
        elif self.seed is not None:
            object.__setattr__(self, "seed", check_seed(self.seed))
        for name, most in (("temperature", LARGEST), ("repetition_penalty", LARGEST), ("top_p", 1)):
            object.__setattr__(self, name, number_from(name, getattr(self, name), SMALLEST, most))
        idle = [name for name in SAMPLING if getattr(self, name) != getattr(Decoding, name)]
        if idle and not self.do_sample:
            listed = f"{idle[0]} is" if len(idle) == 1 else f"{', '.join(idle[:-1])} and {idle[-1]} are"
            warnings.warn(f"{listed} ignored without do_sample=True", stacklevel=CALLER)

    def config(self, processor: JanusFlowProcessor, room: int) -> GenerationConfig:
        """Return transformers' configuration, with the tokenizer's end token and at most `room` new tokens."""
        tokenizer = processor.tokenizer
        return GenerationConfig(
            max_new_tokens=min(self.max_new_tokens, room),
            do_sample=False,  # takes the token that `SeededSampling` leaves
            repetition_penalty=self.repetition_penalty,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.eos_token_id,
        )

    def processors(self, conversations: int, steps: int, device: torch.device) -> LogitsProcessorList:
        """Return everything that changes logits: the repetition penalty, then `sampling`, with the same arguments."""
        found = self.sampling(conversations, steps, device)
        if self.repetition_penalty != 1:
            found.insert(0, RepetitionPenaltyLogitsProcessor(self.repetition_penalty))
        return found

    def sampling(self, conversations: int, steps: int, device: torch.device) -> LogitsProcessorList:
        """Return the processor that samples the tokens of a batch, for at most `steps` steps; none if greedy.

        Args:
            conversations: number of conversations in the batch.
            steps: new tokens of each.
            device: device of the logits.

        Raises:
            ValueError: if the number of seeds differs from that of conversations.
        """
        if not self.do_sample:
            return LogitsProcessorList()
        if isinstance(self.seed, Sequence):
            seeds = list(self.seed)
        elif self.seed is None:
            seeds = torch.randint(2**63 - 1, (conversations,), dtype=torch.int64, device=CPU).tolist()
        else:
            seeds = [self.seed] * conversations
        if len(seeds) != conversations:
            raise ValueError(f"{given(len(seeds), 'seed')} for {counted(conversations, 'conversation')}")
        generators = [torch.Generator(CPU).manual_seed(seed) for seed in seeds]
        uniform = torch.stack([torch.rand(steps, generator=one, dtype=torch.float32, device=CPU) for one in generators])
        sampling = TokenSampling(1.0, True, self.temperature, self.top_k, self.top_p)
        return LogitsProcessorList([SeededSampling(sampling, uniform.to(device))])


class SeededSampling(LogitsProcessor):
    """Leaves one token per row, chosen by the row's own random numbers, so that greedy decoding samples.

    transformers' own sampling reads torch's global generator, which all threads share.

    Args:
        sampling: temperature, top_k and top_p.
        uniform: (B, steps) random numbers in [0, 1).
    """

    def __init__(self, sampling: TokenSampling, uniform: Tensor) -> None:
        self.sampling, self.uniform = sampling, uniform

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(B, V) logits -> (B, V), all but the chosen ones -inf. `input_ids`: (B, step), the new tokens so far."""
        chosen = self.sampling.choose(scores, self.uniform[:, input_ids.shape[1]])
        return torch.full_like(scores, -torch.inf).scatter(1, chosen[:, None], 0.0)
