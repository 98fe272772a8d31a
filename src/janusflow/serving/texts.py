"""Generate answers that share each forward. Texts join and leave at any token, and long prompts are read in parts.

The first n rows of the slots belong to texts whose prompt has been read; each tick decodes one token of all of them.
The rows after them belong to prompts with an unread part.

Shapes: T tokens of a prompt, D width of the LLM, n rows, V vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from janusflow.engine.streaming import Pieces
from janusflow.engine.text import KEPT_PICTURES, Memory, Slots, plain_llm
from janusflow.engine.understanding import embed_conversations
from janusflow.serving.choosing import Chooser, choose_tokens
from janusflow.serving.jobs import Event, Failed, TextDone, TextRequest, Token, TokenLogprob
from janusflow.serving.stopping import StopStrings
from janusflow.serving.token_bytes import token_bytes

LOG = logging.getLogger("janusflow.serving")
PREFILL = 512  # prompt tokens that are read in a tick
LEAST_ROOM = 256  # tokens of a row
KEPT_TOKENS = 4096  # caches for more tokens are freed once nothing is decoded


class Text:
    """Answer that is being generated. It equals that of `ask` if it is greedy, or sampled with the same seed.

    Args:
        request: request to answer.
        engine: `Texts` that it belongs to.

    Attributes:
        ids: (T,) token ids of the prompt, with pictures identified by content; empty until it is embedded.
        unread: (U, D) embeddings of the prompt's unread part.
        tokens: generated tokens.
    """

    def __init__(self, request: TextRequest, engine: Texts) -> None:
        self.request, self.engine, self.tokens = request, engine, list[int]()
        self.ids, self.unread = np.empty(0, np.int64), torch.empty(0)
        network, inputs, tokenizer = request.model.network, request.inputs, request.model.processor.tokenizer
        room = network.config.text_config.max_position_embeddings - inputs.input_ids.shape[1]
        self.limit = min(request.decoding.max_new_tokens, room)
        self.tokenizer, self.stops = tokenizer, StopStrings(request.stop)
        self.pieces = Pieces(tokenizer, [int(inputs.input_ids[0, -1])] if inputs.begun[0] else [])
        self.chooser = Chooser.of(request, self.limit)

    def add(self, token: int, logits: Tensor) -> list[Event]:
        """Add the next token, chosen from the (V,) logits, and return its events; `TextDone` comes last at the end."""
        self.tokens.append(token)
        if token == self.tokenizer.eos_token_id:
            return [TextDone(self._rest(), "stop", len(self.tokens))]
        piece, stopped = self.stops.add(self.pieces.add(token))
        event = self._with_logprobs(piece, token, logits)
        if stopped:
            return [event, TextDone("", "stop", len(self.tokens))]
        if len(self.tokens) == self.limit:
            return [event, TextDone(self._rest(), "length", len(self.tokens))]
        return [event]

    def _rest(self) -> str:
        piece, stopped = self.stops.add(self.pieces.rest())
        return piece if stopped else piece + self.stops.rest()

    def _with_logprobs(self, piece: str, token: int, logits: Tensor) -> Token:
        """Return the event of a token; probabilities are the model's, before temperature and penalties."""
        if self.request.top_logprobs is None:
            return Token(piece)
        logprobs = logits.log_softmax(dim=-1)
        best = logprobs.topk(self.request.top_logprobs)
        alternatives = [
            TokenLogprob(token_bytes(self.tokenizer, index), value)
            for index, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
        return Token(piece, TokenLogprob(token_bytes(self.tokenizer, token), float(logprobs[token])), alternatives)


class Texts:
    """All answers of one network.

    Args:
        network: see `janusflow.engine.understanding.Speaker`.

    Attributes:
        waiting: texts without a row, in order.
        rows: texts with a row: first all that decode, then those whose prompt has an unread part (at most one after
            a complete tick).

    Raises:
        ValueError: if our own loop cannot run the network.
    """

    def __init__(self, network: Any) -> None:
        llm = plain_llm(network)
        if llm is None:
            raise ValueError("the language model's layers have hooks of others, or it is not a Llama; serve it whole")
        self.network, self.llm, self.memory = network, llm, Memory()
        self.slots = Slots(llm, 0, LEAST_ROOM)
        self.waiting, self.rows = list[Text](), list[Text]()

    def start(self, request: TextRequest) -> Text:
        """Return a new text, which is read from the next tick on."""
        text = Text(request, self)
        self.waiting.append(text)
        return text

    def finish(self, text: Text) -> None:
        """Free the row of a text, whether it has ended or not."""
        if text in self.waiting:
            self.waiting.remove(text)
        if text in self.rows:
            if text.tokens:
                self._remember(text)
            self._leave(text)

    def _remember(self, text: Text) -> None:
        """Keep what was read and generated for the conversation's next turn."""
        row = self.rows.index(text)
        said = np.concatenate([text.ids, np.array(text.tokens, np.int64)])
        try:
            self.memory.keep(said[: self.slots.lengths[row]], self.slots.kept(row))
        except Exception:  # of many kinds, such as running out of memory
            LOG.exception("a conversation is not kept for its next turn")

    def _leave(self, text: Text) -> None:
        row, last, decoded = self.rows.index(text), len(self.rows) - 1, self._decoded() - 1
        if text.tokens:
            self.slots.move(decoded, row)  # the gap moves behind all rows that decode
            self.rows[row], row = self.rows[decoded], decoded
        self.slots.move(last, row)
        self.rows[row] = self.rows[last]
        self.rows.pop()
        if not self.rows and len(self.slots.lengths) * self.slots.room > KEPT_TOKENS:
            self.slots = Slots(self.llm, 0, LEAST_ROOM)

    def advance(self) -> dict[Text, list[Event]]:
        """Decode a token of each read text, and read the next part of prompts. Texts that end must be finished."""
        events: dict[Text, list[Event]] = {text: [] for text in (*self.rows, *self.waiting)}
        self._begin(events)
        lengths = list(self.slots.lengths)
        try:
            decoded, parts = self._decoded(), self._parts()
            states = self._forward(decoded, parts)
            reading = list(zip(self.rows[decoded:], parts, strict=True))
            ready = self.rows[:decoded] + [text for text, part in reading if len(part) == len(text.unread)]
            logits, chosen = self._choose(states, ready)
        except Exception as error:  # of many kinds, such as running out of memory
            LOG.exception("a forward of %d texts failed; the newest of them ends", len(self.rows))
            self.slots.lengths[: len(lengths)] = lengths
            newest = self.rows[-1]
            self._leave(newest)
            events[newest].append(Failed(error))
            return events
        for text, part in reading:
            text.unread = text.unread[len(part) :]
        for text, token, row in zip(ready, chosen, logits, strict=True):
            try:
                events[text] += text.add(token, row)
            except Exception as error:  # of many kinds, such as running out of memory
                LOG.exception("a text failed")
                events[text].append(Failed(error))
        return events

    def _choose(self, states: Tensor, ready: Sequence[Text]) -> tuple[Tensor, list[int]]:
        """Return the (n, V) logits and the next tokens of the n texts whose last token has been read."""
        if not ready:
            return torch.empty(0), []
        logits = self.network.get_output_embeddings()(states[: len(ready)]).float()
        return logits, choose_tokens(logits, [(text.chooser, text.tokens) for text in ready])

    def _decoded(self) -> int:
        """Return the number of rows that decode."""
        return sum(bool(text.tokens) for text in self.rows)

    def _begin(self, events: dict[Text, list[Event]]) -> None:
        """Give rows to waiting texts as long as their prompts fit into a tick.

        A text whose prompt another text is about to read waits for it, so a prompt with n answers is read once. Each
        text reads only the last token itself, because the state after it is not kept.
        """
        budget = PREFILL - sum(len(text.unread) for text in self.rows)
        self._encode_pictures(budget)
        for text in list(self.waiting):
            if budget <= 0:
                return
            if any(len(other.unread) > 1 and other.request.inputs is text.request.inputs for other in self.rows):
                continue
            self.waiting.remove(text)
            try:
                (text.ids,), (embeds,) = embed_conversations(self.network, text.request.inputs, self.memory)
                known = self.memory.recall(text.ids)
                self._fit(len(self.rows) + 1, len(text.ids))
            except Exception as error:  # of many kinds, such as running out of memory
                LOG.exception("a prompt failed")
                events[text].append(Failed(error))
                continue
            self.rows.append(text)
            if known is not None:
                self.slots.restore(len(self.rows) - 1, known)
            text.unread = embeds[self.slots.lengths[len(self.rows) - 1] :]
            budget -= len(text.unread)

    def _encode_pictures(self, budget: int) -> None:
        """Encode the pictures of the next prompts together, which is faster; `_begin` recalls them one by one.

        Args:
            budget: prompt tokens that fit into the tick.
        """
        pixels = list[Tensor]()
        for text in self.waiting:
            inputs = text.request.inputs
            budget -= inputs.input_ids.shape[1]
            pixels += [] if inputs.pixel_values is None else [inputs.pixel_values]
            if budget <= 0 or sum(map(len, pixels)) >= KEPT_PICTURES:
                break
        if len(pixels) < 2:
            return
        try:
            self.memory.pictures(torch.cat(pixels).to(self.network.device), self.network.see)
        except Exception:  # of many kinds, such as running out of memory
            LOG.exception("%d pictures could not be encoded together; each is tried on its own", len(pixels))

    def _parts(self) -> list[Tensor]:
        """Return what each row after those that decode reads now: (U, D), all but the last complete."""
        parts, budget = [], PREFILL
        for text in self.rows[self._decoded() :]:
            parts.append(text.unread[:budget])
            budget -= len(parts[-1])
        return parts

    def _forward(self, decoded: int, parts: list[Tensor]) -> Tensor:
        """Let decoded rows read one token and others a part, and return the (rows, D) states of their last tokens."""
        self._fit(len(self.rows), 1 + max(self.slots.lengths[: len(self.rows)], default=0))
        states = []
        if decoded:
            last = torch.tensor([text.tokens[-1] for text in self.rows[:decoded]], device=self.network.device)
            states.append(self.slots.step(self.network.get_input_embeddings()(last)))
        if parts:
            states.append(self.slots.read(parts, range(decoded, decoded + len(parts))))
            shared = {id(text.request.inputs) for text in self.waiting}
            for row, text in enumerate(self.rows[decoded:], decoded):
                if id(text.request.inputs) in shared and self.slots.lengths[row] == len(text.ids):
                    self.memory.keep(text.ids, self.slots.kept(row))
        return torch.cat(states) if states else torch.empty(0)

    def _fit(self, rows: int, room: int) -> None:
        """Make the slots large enough, in powers of two, so that they are seldom copied."""
        have = len(self.slots.lengths), self.slots.room
        if rows > have[0] or room > have[1]:
            self.slots.resize(max(have[0], _power_of_two(rows)), max(have[1], _power_of_two(room)))


def _power_of_two(number: int) -> int:
    """Return the smallest power of two that is at least a number."""
    return 1 << (number - 1).bit_length()
