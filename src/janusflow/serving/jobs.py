"""Work of the scheduler: requests for a text or a picture, their jobs, and the events that a job sends."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from PIL import Image

from janusflow.engine.understanding import Decoding
from janusflow.pipelines.base import Pipeline
from janusflow.processing.processor import UnderstandingInputs

Kind: TypeAlias = Literal["text", "picture"]
KINDS: tuple[Kind, ...] = ("text", "picture")
_numbers = itertools.count()


@dataclass(frozen=True)
class TextRequest:
    """Request for one answer to one conversation.

    Attributes:
        model: pipeline that answers.
        inputs: the encoded conversation, one row.
        decoding: how tokens are chosen; with do_sample, its seed must be given.
        stop: strings that end the answer; they are not part of it.
        top_logprobs: number of alternatives reported for each token; None reports no probabilities.
        presence_penalty, frequency_penalty: OpenAI's penalties, subtracted from the logits of tokens that the answer
            already contains: the first one once, the second one once per occurrence.
    """

    model: Pipeline
    inputs: UnderstandingInputs
    decoding: Decoding
    stop: Sequence[str] = ()
    top_logprobs: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    kind: Literal["text"] = "text"


@dataclass(frozen=True)
class PictureRequest:
    """Request for one picture.

    Attributes:
        model: pipeline that generates.
        name: the model's name as clients know it; written to the picture's metadata.
        prompt: what the picture shows.
        seed: seed of its noise.
        settings: result of `model.resolve`: every setting of `generate` for this prompt, checked.
        image: picture to start from, of any size.
        mask: (height, width) bool for `image`, True where it is generated anew.
        previews: number of previews to send.
        digests: of `image` and `mask` as they were sent; see `janusflow.pipelines.provenance.input_digests`.
    """

    model: Pipeline
    name: str
    prompt: str
    seed: int
    settings: Mapping[str, Any]
    image: Image.Image | None = None
    mask: np.ndarray | None = None
    previews: int = 0
    digests: Mapping[str, Sequence[str]] = field(default_factory=dict)
    kind: Literal["picture"] = "picture"


Request: TypeAlias = TextRequest | PictureRequest


@dataclass(frozen=True)
class TokenLogprob:
    """A token, with the natural logarithm of its probability.

    Attributes:
        data: its text in UTF-8; a character may be spread over several tokens.
        logprob: see above.
    """

    data: bytes
    logprob: float


@dataclass(frozen=True)
class Token:
    """A token of an answer.

    Attributes:
        text: text that it adds to the answer; empty inside a character, and where a stop string may have begun.
        logprob: its own log probability, if requested.
        alternatives: the most likely tokens.
    """

    text: str
    logprob: TokenLogprob | None = None
    alternatives: Sequence[TokenLogprob] = ()


@dataclass(frozen=True)
class TextDone:
    """The end of an answer.

    Attributes:
        text: text that was still held back.
        reason: "stop" for an end token or a stop string, "length" for the limit.
        tokens: number of generated tokens.
    """

    text: str
    reason: Literal["stop", "length"]
    tokens: int


@dataclass(frozen=True)
class Preview:
    """An estimate of the finished picture; `index` counts from 0."""

    index: int
    picture: Image.Image


@dataclass(frozen=True)
class PictureDone:
    """The finished picture."""

    picture: Image.Image


@dataclass(frozen=True)
class Failed:
    """The job ends without a result."""

    error: Exception


Event: TypeAlias = Token | TextDone | Preview | PictureDone | Failed
ENDS = (TextDone, PictureDone, Failed)


class CancelledError(RuntimeError):
    """A job was cancelled."""


class DeadlineError(RuntimeError):
    """A job did not finish in time."""


class StoppedError(RuntimeError):
    """The server stopped before the job was finished."""


@dataclass(eq=False)
class Job:
    """One request in the scheduler.

    Attributes:
        request: what the client requests.
        listener: called with each event in the model's thread; must return at once.
        priority: 0 is first.
        deadline: time on the scheduler's clock.
        submitted, started: times on the same clock.
        cancelled: set by `Scheduler.cancel`.
        ended: whether the last event was sent.
    """

    request: Request
    listener: Callable[[Event], None]
    priority: int
    deadline: float
    submitted: float
    started: float | None = None
    cancelled: bool = False
    ended: bool = False
    number: int = field(default_factory=lambda: next(_numbers))

    def over(self, now: float) -> bool:
        """Return whether the job is cancelled or late."""
        return self.cancelled or now > self.deadline

    def order(self) -> tuple[int, int]:
        """Return the sort key by which waiting jobs start."""
        return self.priority, self.number
