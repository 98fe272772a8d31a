"""An answer as bounded pieces of work: pictures of the prompt, its text in parts, then token after token.

Shapes: T tokens of the prompt, D width of the LLM, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from janusflow.engine.streaming import HALF_A_CHARACTER
from janusflow.serving.jobs import Event, TextDone, TextRequest, Token, TokenLogprob

PREFILL = 512  # tokens of a prompt that are read in one piece


def answer(request: TextRequest) -> Generator[list[Event]]:
    """An answer, token by token. A greedy one equals that of `ask`, a sampled one too with the same seed.

    Args:
        request: what is asked for.
    """
    decoder = _Decoder(request)
    parts = decoder.embed().split(PREFILL, dim=1)
    yield []
    for part in parts[:-1]:
        decoder.forward(inputs_embeds=part)
        yield []
    events = decoder.choose(decoder.forward(inputs_embeds=parts[-1]))
    yield events
    while not isinstance(events[-1], TextDone):
        last = torch.tensor([decoder.tokens[-1:]], device=decoder.device)
        events = decoder.choose(decoder.forward(input_ids=last))
        yield events


class _Decoder:
    """The state of one answer.

    Args:
        request: what is asked for.
    """

    def __init__(self, request: TextRequest) -> None:
        self.request = request
        self.network, self.tokenizer = request.model.network, request.model.processor.tokenizer
        self.device = request.model.device
        ids = request.inputs.input_ids
        room = self.network.config.text_config.max_position_embeddings - ids.shape[1]
        self.limit = min(request.decoding.max_new_tokens, room)
        self.cache = DynamicCache(config=self.network.config.text_config)
        self.tokens: list[int] = []
        self.text = Text(self.tokenizer, [int(ids[0, -1])] if request.inputs.begun[0] else [], request.stop)
        self.processors = request.decoding.processors(1, self.limit, self.device)

    def embed(self) -> Tensor:
        """(1, T, D) of the prompt, its pictures included."""
        inputs = self.request.inputs
        pixels = None if inputs.pixel_values is None else inputs.pixel_values.to(self.device)
        embeds: Tensor = self.network.embed(inputs.input_ids.to(self.device), pixels)
        return embeds

    def forward(self, **inputs: Tensor) -> Tensor:
        """(1, V) float32 logits of the token that follows."""
        out = self.network(**inputs, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        logits: Tensor = out.logits[:, -1].float()
        return logits

    def choose(self, logits: Tensor) -> list[Event]:
        """Takes the next token, and reports it; with the last one, the end."""
        before = torch.tensor([self.tokens], dtype=torch.int64, device=self.device)
        request = self.request
        less = penalised(logits, self.tokens, presence=request.presence_penalty, frequency=request.frequency_penalty)
        scores = self.processors(before, less)
        token = int(scores.argmax())
        self.tokens.append(token)
        if token == self.tokenizer.eos_token_id:
            return [TextDone(self.text.rest(), "stop", len(self.tokens))]
        piece, stopped = self.text.add(token)
        event = self._with_logprobs(piece, token, logits)
        if stopped:
            return [event, TextDone("", "stop", len(self.tokens))]
        if len(self.tokens) == self.limit:
            return [event, TextDone(self.text.rest(), "length", len(self.tokens))]
        return [event]

    def _with_logprobs(self, piece: str, token: int, logits: Tensor) -> Token:
        """The event of a token; probabilities are the model's, before temperature and penalties."""
        if self.request.top_logprobs is None:
            return Token(piece)
        logprobs = logits[0].log_softmax(dim=-1)
        best = logprobs.topk(self.request.top_logprobs)
        alternatives = [
            TokenLogprob(self.tokenizer.decode([index]), value)
            for index, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
        return Token(piece, TokenLogprob(self.tokenizer.decode([token]), float(logprobs[token])), alternatives)


def penalised(logits: Tensor, tokens: Sequence[int], *, presence: float, frequency: float) -> Tensor:
    """(1, V) logits with OpenAI's penalties for the tokens so far.

    logits[j] - presence [c_j > 0] - frequency c_j, where c_j counts token j.
    """
    if not tokens or not (presence or frequency):
        return logits
    used, counts = torch.tensor(tokens, device=logits.device).unique(return_counts=True)
    return logits.index_add(1, used, -(presence + frequency * counts)[None].to(logits.dtype))


class Text:
    """The text of tokens, handed out as soon as it is certain; joined, it is what `ask` returns.

    Args:
        tokenizer: decodes.
        before: the token that the answer continues, whose text is not handed out.
        stop: strings that end the answer.
    """

    def __init__(self, tokenizer: Any, before: Sequence[int], stop: Sequence[str] = ()) -> None:
        self.tokenizer, self.ids, self.stop = tokenizer, list(before), tuple(stop)
        self.start = self.given = len(self._decode())

    def add(self, token: int) -> tuple[str, bool]:
        """Takes a token.

        Returns:
            What it adds for certain, and whether a stop string was reached, which ends the text.
        """
        self.ids.append(token)
        text = self._decode()
        found = [place for one in self.stop if (place := text.find(one, self.start)) >= 0]
        if found:
            return self._give(text[: max(min(found), self.given)]), True
        if text.endswith(HALF_A_CHARACTER):
            return "", False
        held = max((n for one in self.stop for n in range(1, len(one)) if text.endswith(one[:n])), default=0)
        return self._give(text[: max(len(text) - held, self.given)]), False

    def rest(self) -> str:
        """What was held back, at the end."""
        return self._give(self._decode())

    def _give(self, text: str) -> str:
        piece, self.given = text[self.given :], len(text)
        return piece

    def _decode(self) -> str:
        return str(self.tokenizer.decode(self.ids, skip_special_tokens=True))
