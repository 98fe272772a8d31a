"""Convert tokens to text while they are decoded, and transformers' `generate` to an iterator of tokens."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

HALF_A_CHARACTER = "\ufffd"  # what a decoder writes while bytes of a character are missing


def first_row(tokens: Generator[list[int], None, None]) -> Generator[int, None, None]:
    """Yield the tokens of the first row."""
    with closing(tokens):
        for row in tokens:
            yield row[0]


class Pieces:
    """Turns tokens into text as they arrive; half characters wait for their remaining bytes.

    Args:
        tokenizer: the model's tokenizer.
        before: ids that the answer continues; their text is not part of it.
    """

    def __init__(self, tokenizer: Any, before: Sequence[int] = ()) -> None:
        self._decode = partial(tokenizer.decode, skip_special_tokens=True)
        self._ids, self._said = list(before), len(self._decode(list(before)))

    def of(self, tokens: Generator[int, None, None]) -> Iterator[str]:
        """Yield the pieces of an answer; closing this iterator also closes `tokens`."""
        with closing(tokens):
            yield from filter(None, map(self.add, tokens))
            yield from filter(None, [self.rest()])

    def add(self, token: int) -> str:
        """Add a token and return the text that it completes."""
        self._ids.append(token)
        return self._new(self._decode(self._ids).removesuffix(HALF_A_CHARACTER))

    def rest(self) -> str:
        """Return what is left at the end: the replacement for a half character."""
        return self._new(self._decode(self._ids))

    def _new(self, text: str) -> str:
        piece, self._said = text[self._said :], max(len(text), self._said)
        return piece


def tokens_of_transformers(generate: Callable[..., Any], request: dict[str, Any]) -> Generator[int, None, None]:
    """Yield the tokens of transformers' `generate`, which runs in its own thread."""
    stop, made = threading.Event(), queue.SimpleQueue[int | BaseException | None]()

    class Streamer(BaseStreamer):
        prompt = True

        def put(self, value: Tensor) -> None:
            for token in () if self.prompt else value.flatten().tolist():
                made.put(token)
            self.prompt = False

        def end(self) -> None:
            made.put(None)

    def run() -> None:
        try:
            with torch.inference_mode():
                stopping = StoppingCriteriaList([_Stopped(stop)])
                generate(**request, streamer=Streamer(), stopping_criteria=stopping)
        except BaseException as error:  # raised by the reader below
            made.put(error)

    worker = threading.Thread(target=run, daemon=True)
    worker.start()
    try:
        while (token := made.get()) is not None:
            if isinstance(token, BaseException):
                raise token
            yield token
    finally:
        stop.set()
        worker.join()


class _Stopped(StoppingCriteria):
    """Stops every row once the event is set."""

    def __init__(self, event: threading.Event) -> None:
        self.event = event

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: object) -> Tensor:
        return torch.full((input_ids.shape[0],), self.event.is_set(), device=input_ids.device)
