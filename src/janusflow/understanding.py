"""From conversations to answers: transformers' generation on the network, whole or token by token."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer

from janusflow.arguments import whole_number
from janusflow.generation import check_seed
from janusflow.messages import Message
from janusflow.processor import JanusFlowProcessor

SAMPLING = ("temperature", "top_p", "top_k")  # greedy decoding does without
HALF_A_CHARACTER = "\ufffd"  # what a decoder writes where the bytes of a character are not all there yet


class Speaker(Protocol):
    """What decoding needs of a network; JanusFlow's and Janus's both have it."""

    config: Any
    generate: Callable[..., Any]

    @property
    def device(self) -> torch.device: ...

    def embed(self, input_ids: Tensor, pixel_values: Tensor | None = None) -> Tensor: ...


@dataclass(frozen=True)
class Decoding:
    """How text is decoded; names and meaning are transformers'.

    Attributes:
        max_new_tokens: at most; the model's context may end earlier.
        do_sample: False takes the most likely token.
        temperature, top_p, top_k: of sampling.
        repetition_penalty: 1 is none.
        seed: of sampling; None leaves torch's global generator as it is.
    """

    max_new_tokens: int = 512
    do_sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_new_tokens", whole_number("max_new_tokens", self.max_new_tokens))
        object.__setattr__(self, "top_k", whole_number("top_k", self.top_k, least=0))
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature is {self.temperature}; expected a positive number")
        if self.seed is not None:
            object.__setattr__(self, "seed", check_seed(self.seed))
        if not 0 < self.repetition_penalty < float("inf"):
            raise ValueError(f"repetition_penalty is {self.repetition_penalty}; expected a positive number")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; expected a number above 0 and at most 1")
        idle = [name for name in SAMPLING if getattr(self, name) != getattr(Decoding, name)]
        if idle and not self.do_sample:
            warnings.warn(f"without do_sample=True, {' and '.join(idle)} mean nothing", stacklevel=4)

    def config(self, processor: JanusFlowProcessor, room: int) -> GenerationConfig:
        """transformers' configuration, with the tokenizer's end token and at most `room` new tokens."""
        tokenizer = processor.tokenizer
        sampled = {"temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k} if self.do_sample else {}
        return GenerationConfig(
            max_new_tokens=min(self.max_new_tokens, room),
            do_sample=self.do_sample,
            repetition_penalty=self.repetition_penalty,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.eos_token_id,
            **sampled,
        )


def answer(
    network: Speaker,
    processor: JanusFlowProcessor,
    conversations: Sequence[Sequence[Message]],
    decoding: Decoding,
) -> list[str]:
    """One answer per conversation, all decoded in one batch.

    Raises:
        ValueError: for malformed conversations, or one that does not fit into the model's context.
    """
    embeds, mask, config = _prepare(network, processor, conversations, decoding)
    with torch.inference_mode(), _seeded(decoding.seed, embeds.device):
        ids = network.generate(inputs_embeds=embeds, attention_mask=mask, generation_config=config)
    return [processor.tokenizer.decode(row, skip_special_tokens=True) for row in ids]


def stream(
    network: Speaker,
    processor: JanusFlowProcessor,
    messages: Sequence[Message],
    decoding: Decoding,
) -> Iterator[str]:
    """The answer to one conversation, piece by piece as it is decoded; joined, what `answer` gives.

    The request is checked at once; closing the iterator stops the decoding.

    Raises:
        ValueError: as `answer`.
    """
    embeds, mask, config = _prepare(network, processor, [messages], decoding)
    return _pieces(network, processor, embeds, mask, config, decoding.seed)


def _pieces(
    network: Speaker,
    processor: JanusFlowProcessor,
    embeds: Tensor,
    mask: Tensor,
    config: GenerationConfig,
    seed: int | None,
) -> Iterator[str]:
    streamer = _TokenStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    stop, failure = threading.Event(), []

    def run() -> None:
        try:
            with torch.inference_mode(), _seeded(seed, embeds.device):
                network.generate(
                    inputs_embeds=embeds,
                    attention_mask=mask,
                    generation_config=config,
                    streamer=streamer,
                    stopping_criteria=StoppingCriteriaList([_Stopped(stop)]),
                )
        except BaseException as error:  # handed to the reader below
            failure.append(error)
            streamer.end()

    worker = threading.Thread(target=run, daemon=True)
    worker.start()
    try:
        yield from (piece for piece in streamer if piece)
    finally:
        stop.set()
        worker.join()
    if failure:
        raise failure[0]


class _TokenStreamer(TextIteratorStreamer):
    """Hands over each token's text as it comes, where transformers' own waits for the end of a word."""

    next_tokens_are_prompt: bool
    print_len: int

    def put(self, value: Tensor) -> None:
        """Takes the ids of the prompt first, then of one token after the other."""
        if self.next_tokens_are_prompt:
            self.next_tokens_are_prompt = False
            return
        self.token_cache.extend(value.flatten().tolist())
        text = str(self.tokenizer.decode(self.token_cache, **self.decode_kwargs))
        if not text.endswith(HALF_A_CHARACTER):
            self.on_finalized_text(text[self.print_len :])
            self.print_len = len(text)


class _Stopped(StoppingCriteria):
    """Stops every row once the event is set."""

    def __init__(self, event: threading.Event) -> None:
        self.event = event

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: object) -> Tensor:
        return torch.full((input_ids.shape[0],), self.event.is_set(), device=input_ids.device)


def _prepare(
    network: Speaker,
    processor: JanusFlowProcessor,
    conversations: Sequence[Sequence[Message]],
    decoding: Decoding,
) -> tuple[Tensor, Tensor, GenerationConfig]:
    inputs = processor.encode_conversations(conversations)
    context = network.config.text_config.max_position_embeddings
    room = context - inputs.input_ids.shape[1]
    if room < 1:
        raise ValueError(
            f"the conversation has {inputs.input_ids.shape[1]} tokens, its pictures included; "
            f"fewer than {context} fit into the model's context"
        )
    device = network.device
    with torch.inference_mode():
        pixels = None if inputs.pixel_values is None else inputs.pixel_values.to(device)
        embeds = network.embed(inputs.input_ids.to(device), pixels)
    return embeds, inputs.attention_mask.to(device), decoding.config(processor, room)


@contextmanager
def _seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Seeds torch for a while and puts its generators back afterwards."""
    if seed is None:
        yield
        return
    others = {} if device.type == "cpu" else {"device_type": device.type}
    with torch.random.fork_rng(devices=[device] if others else [], **others):
        torch.manual_seed(seed)
        yield
