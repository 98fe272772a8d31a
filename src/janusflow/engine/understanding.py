"""From conversations to answers, whole or token by token: our own engine, or transformers where it cannot run."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LlamaModel, LogitsProcessorList

from janusflow.engine.decoding import Decoding
from janusflow.engine.lookup import copied
from janusflow.engine.streaming import Pieces, first_row, tokens_of_transformers
from janusflow.engine.text import Memory, Slots, plain_llm
from janusflow.model.kernels import product
from janusflow.processing.messages import Message
from janusflow.processing.processor import JanusFlowProcessor, UnderstandingInputs

__all__ = ["Decoding", "Speaker", "answer", "continue_texts", "stream"]


class Speaker(Protocol):
    """What decoding needs from a network; those of JanusFlow and Janus both have it."""

    config: Any
    generate: Callable[..., Any]

    @property
    def device(self) -> torch.device: ...

    def embed(self, input_ids: Tensor, pixel_values: Tensor | None = None, *, seen: Tensor | None = None) -> Tensor: ...

    def see(self, pixel_values: Tensor) -> Tensor: ...

    def get_decoder(self) -> Any: ...

    def get_input_embeddings(self) -> Any: ...

    def get_output_embeddings(self) -> Any: ...


def answer(
    network: Speaker,
    processor: JanusFlowProcessor,
    conversations: Sequence[Sequence[Message]],
    decoding: Decoding,
    memory: Memory | None = None,
) -> list[str]:
    """Return one answer per conversation, all decoded in one batch; a last message of the assistant is continued.

    Args:
        network, processor: the model.
        conversations: each a list of messages (`processing/messages.py`).
        decoding: see `Decoding`.
        memory: what the model keeps between calls; None keeps nothing.

    Raises:
        ValueError: for malformed conversations, or one that does not fit into the model's context.
    """
    inputs = processor.encode_conversations(conversations, continue_final_message=True)
    return continue_texts(network, processor, inputs, decoding, memory)


def continue_texts(
    network: Speaker,
    processor: JanusFlowProcessor,
    inputs: UnderstandingInputs,
    decoding: Decoding,
    memory: Memory | None = None,
) -> list[str]:
    """Return the continuations of B encoded texts with pictures; see `answer`."""
    request = _Request.of(network, processor, inputs, decoding)
    if (tokens := request.decode(network, memory)) is not None:
        answers = [list(row) for row in zip(*tokens, strict=True)]
    else:
        with torch.inference_mode():
            answers = network.generate(**request.for_transformers(network)).tolist()
    decode = partial(processor.tokenizer.decode, skip_special_tokens=True)
    end = processor.tokenizer.eos_token_id
    said = [row[: row.index(end)] if end in row else row for row in answers]
    return [decode(old + new)[len(decode(old)) :] for old, new in zip(request.before, said, strict=True)]


def stream(
    network: Speaker,
    processor: JanusFlowProcessor,
    messages: Sequence[Message],
    decoding: Decoding,
    memory: Memory | None = None,
) -> Iterator[str]:
    """Stream the answer to one conversation piece by piece; joined, the pieces are what `answer` returns.

    The request is checked immediately; closing the iterator stops the decoding.

    Raises:
        ValueError: as in `answer`.
    """
    inputs = processor.encode_conversations([messages], continue_final_message=True)
    request = _Request.of(network, processor, inputs, decoding)
    pieces = Pieces(processor.tokenizer, request.before[0])
    if (tokens := request.decode(network, memory)) is not None:
        return pieces.of(first_row(tokens))
    return pieces.of(tokens_of_transformers(network.generate, request.for_transformers(network)))


@dataclass(frozen=True)
class _Request:
    """Conversations in the form that the network takes.

    Attributes:
        inputs: ids, pixels and mask of B conversations, padded on the left.
        config: transformers' decoding settings.
        decoding: our decoding settings.
        before: for each row, the token whose text the answer continues, if any: some tokenizers write a space only
            between two tokens, so an answer's first space needs the token before it.
    """

    inputs: UnderstandingInputs
    config: GenerationConfig
    decoding: Decoding
    before: list[list[int]]

    @staticmethod
    def of(
        network: Speaker,
        processor: JanusFlowProcessor,
        inputs: UnderstandingInputs,
        decoding: Decoding,
    ) -> _Request:
        """Check and return the request."""
        context = network.config.text_config.max_position_embeddings
        room = context - inputs.input_ids.shape[1]
        if room < 1:
            raise ValueError(
                f"the conversation has {inputs.input_ids.shape[1]} tokens, its pictures included; "
                f"fewer than {context} fit into the model's context"
            )
        before = [[int(row[-1])] if begun else [] for row, begun in zip(inputs.input_ids, inputs.begun, strict=True)]
        return _Request(inputs, decoding.config(processor, room), decoding, before)

    def for_transformers(self, network: Speaker) -> dict[str, Any]:
        """Return the arguments of the network's `generate`."""
        device = network.device
        with torch.inference_mode():
            pixels = None if self.inputs.pixel_values is None else self.inputs.pixel_values.to(device)
            embeds = network.embed(self.inputs.input_ids.to(device), pixels)
        return {
            "inputs_embeds": embeds,
            "attention_mask": self.inputs.attention_mask.to(device),
            "generation_config": self.config,
            "logits_processor": self.decoding.sampling(len(embeds), self.config.max_new_tokens, device),
        }

    def decode(self, network: Speaker, memory: Memory | None) -> Generator[list[int], None, None] | None:
        """Return the tokens of all rows, step by step, from our own engine; None if transformers must decode.

        A row that has ended continues with the end token.
        """
        with torch.inference_mode():
            llm = plain_llm(network)
        if llm is None:
            return None
        ahead = self.decoding.prompt_lookup if len(self.before) == 1 else 0
        processors = self.decoding.processors(len(self.before), self.config.max_new_tokens, network.device)
        return self._decode(network, llm, processors, memory or Memory(), ahead)

    def _decode(
        self, network: Speaker, llm: LlamaModel, processors: LogitsProcessorList, memory: Memory, ahead: int
    ) -> Generator[list[int], None, None]:
        with torch.inference_mode():
            slots, states, ids = self._read(network, llm, memory)
        rows, end, most = len(ids), self.config.eos_token_id, self.config.max_new_tokens
        said = torch.empty(rows, 0, dtype=torch.long, device=states.device)
        ended = torch.zeros(rows, dtype=torch.bool, device=states.device)
        guess: list[int] = []  # for a single row: states are then those of its last token and of each guess
        try:
            while True:
                fresh = []
                with torch.inference_mode():
                    logits = product(network.get_output_embeddings(), states).float()
                    for place in range(len(guess) + 1):
                        tokens = processors(said, logits[place : place + rows]).argmax(dim=-1)
                        tokens = torch.where(ended, end, tokens)
                        said, ended = torch.cat([said, tokens[:, None]], dim=1), ended | (tokens == end)
                        fresh.append(tokens.tolist())
                        over = said.shape[1] == most or bool(ended.all())
                        if over or place == len(guess) or fresh[-1] != guess[place : place + 1]:
                            break
                    slots.forget(0, len(guess) + 1 - len(fresh))
                yield from fresh
                if over:
                    return
                with torch.inference_mode():
                    if ahead:
                        most_now = min(ahead, most - said.shape[1] - 1)
                        guess = copied([*ids[0].tolist(), *said[0].tolist()], most_now)
                    embed = network.get_input_embeddings()
                    if guess:
                        states = slots.read([embed(torch.cat([tokens, tokens.new_tensor(guess)]))], every=True)
                    else:
                        states = slots.step(embed(tokens))
        finally:
            if rows == 1:
                known = np.concatenate([ids[0], said[0].cpu().numpy()])[: slots.lengths[0]]
                memory.keep(known, slots.kept(0))

    def _read(self, network: Speaker, llm: LlamaModel, memory: Memory) -> tuple[Slots, Tensor, list[np.ndarray]]:
        """Prefill: return the slots, each row's last state, and its ids, with pictures identified by their content."""
        ids, embeds = embed_conversations(network, self.inputs, memory)
        slots = Slots(llm, len(ids), max(map(len, ids)) + self.config.max_new_tokens)
        for number, row in enumerate(ids):
            if (layers := memory.recall(row)) is not None:
                slots.restore(number, layers)
        return slots, slots.read([row[slots.lengths[n] :] for n, row in enumerate(embeds)]), ids


def embed_conversations(
    network: Speaker, inputs: UnderstandingInputs, memory: Memory
) -> tuple[list[np.ndarray], list[Tensor]]:
    """Embed B conversations for the LLM.

    Args:
        network: embeds text, and encodes pictures that the memory does not have.
        inputs: conversations padded on the left.
        memory: memory of encoded pictures.

    Returns:
        For each conversation, its T ids, with pictures identified by their content (as `Memory` compares them), and
        its (T, D) embeddings.
    """
    device = network.device
    named, seen = inputs.input_ids.clone(), None
    if inputs.pixel_values is not None:
        seen, numbers = memory.pictures(inputs.pixel_values.to(device), network.see)
        inside = inputs.input_ids == network.config.image_token_id
        named[inside] = -1 - torch.tensor(numbers).repeat_interleave(int(inside.sum()) // len(numbers))
    embeds = network.embed(inputs.input_ids.to(device), seen=seen)
    ids = [row[real].numpy() for row, real in zip(named, inputs.attention_mask.bool(), strict=True)]
    return ids, [embeds[number, -len(row) :] for number, row in enumerate(ids)]
