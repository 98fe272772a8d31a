"""From conversations to answers: transformers' generation on the network, whole or token by token."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TextIteratorStreamer,
)

from janusflow.arguments import counted, given, whole_number
from janusflow.device import CPU
from janusflow.engine.generation import check_seed
from janusflow.engine.token_generation import TokenSampling
from janusflow.processing.messages import Message
from janusflow.processing.processor import JanusFlowProcessor

SAMPLING = ("temperature", "top_p", "top_k", "seed")  # what greedy decoding ignores
CALLER = 5  # stacklevel of the line that calls `Conversational.ask`: ask, _decoding and __init__ lie between
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
        do_sample: False takes the most likely token, whatever the settings of sampling are; a warning names those that
            are ignored.
        temperature, top_p, top_k: of sampling.
        repetition_penalty: 1 is none.
        seed: of sampling. One number serves every conversation of a batch, so that an answer is the same whatever else
            is in the batch (and the same conversation twice gives the same answer twice); or one number each. With
            None the seeds come from torch's global generator, which a given seed neither reads nor changes.
    """

    max_new_tokens: int = 512
    do_sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int | Sequence[int] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_new_tokens", whole_number("max_new_tokens", self.max_new_tokens))
        object.__setattr__(self, "top_k", whole_number("top_k", self.top_k, least=0))
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature is {self.temperature}; expected a positive number")
        seed: Any = self.seed
        if hasattr(seed, "__len__"):
            object.__setattr__(self, "seed", tuple(map(check_seed, seed)))
        elif self.seed is not None:
            object.__setattr__(self, "seed", check_seed(self.seed))
        if not 0 < self.repetition_penalty < float("inf"):
            raise ValueError(f"repetition_penalty is {self.repetition_penalty}; expected a positive number")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; expected a number above 0 and at most 1")
        idle = [name for name in SAMPLING if getattr(self, name) != getattr(Decoding, name)]
        if idle and not self.do_sample:
            listed = f"{idle[0]} is" if len(idle) == 1 else f"{', '.join(idle[:-1])} and {idle[-1]} are"
            warnings.warn(f"{listed} ignored without do_sample=True", stacklevel=CALLER)

    def config(self, processor: JanusFlowProcessor, room: int) -> GenerationConfig:
        """transformers' configuration, with the tokenizer's end token and at most `room` new tokens."""
        tokenizer = processor.tokenizer
        return GenerationConfig(
            max_new_tokens=min(self.max_new_tokens, room),
            do_sample=False,  # the likeliest of what `SeededSampling` leaves
            repetition_penalty=self.repetition_penalty,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.eos_token_id,
        )

    def sampling(self, conversations: int, steps: int, device: torch.device) -> LogitsProcessorList:
        """The processor that samples the tokens of a batch, for at most `steps` steps; none for greedy decoding.

        Args:
            conversations: of the batch.
            steps: new tokens of each.
            device: of the logits.

        Raises:
            ValueError: if there is another number of seeds.
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
    """Leaves one token of each row, chosen by the row's own random numbers: greedy decoding then samples.

    transformers' own sampling reads torch's global generator, which all threads share.

    Args:
        sampling: temperature, top_k and top_p.
        uniform: (B, steps) in [0, 1).
    """

    def __init__(self, sampling: TokenSampling, uniform: Tensor) -> None:
        self.sampling, self.uniform = sampling, uniform

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(B, V) logits -> (B, V), all but the chosen ones -inf. `input_ids`: (B, step), the new tokens so far."""
        chosen = self.sampling.choose(scores, self.uniform[:, input_ids.shape[1]])
        return torch.full_like(scores, -torch.inf).scatter(1, chosen[:, None], 0.0)


def answer(
    network: Speaker,
    processor: JanusFlowProcessor,
    conversations: Sequence[Sequence[Message]],
    decoding: Decoding,
) -> list[str]:
    """One answer per conversation, all decoded in one batch; a last message of the assistant is continued.

    Raises:
        ValueError: for malformed conversations, or one that does not fit into the model's context.
    """
    request, before = _prepare(network, processor, conversations, decoding)
    with torch.inference_mode():
        answers = network.generate(**request).tolist()
    decode = partial(processor.tokenizer.decode, skip_special_tokens=True)
    return [decode(old + new)[len(decode(old)) :] for old, new in zip(before, answers, strict=True)]


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
    request, (before,) = _prepare(network, processor, [messages], decoding)
    streamer = _TokenStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    streamer.begin(before)
    return _pieces(network, streamer, request)


def _pieces(network: Speaker, streamer: _TokenStreamer, request: dict[str, Any]) -> Iterator[str]:
    stop, failure = threading.Event(), []

    def run() -> None:
        try:
            with torch.inference_mode():
                stopping = StoppingCriteriaList([_Stopped(stop)])
                network.generate(**request, streamer=streamer, stopping_criteria=stopping)
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

    def begin(self, before: list[int]) -> None:
        """Takes the ids that the answer continues, whose text is not handed over."""
        self.token_cache = list(before)
        self.print_len = len(self.tokenizer.decode(before, **self.decode_kwargs))

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
) -> tuple[dict[str, Any], list[list[int]]]:
    """The arguments of the network's `generate`, and of each row the token whose text the answer continues, if any.

    Some tokenizers write a space only between two tokens, so that an answer's first space needs the token before it.
    """
    inputs = processor.encode_conversations(conversations, continue_final_message=True)
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
    config = decoding.config(processor, room)
    before = [[int(row[-1])] if begun else [] for row, begun in zip(inputs.input_ids, inputs.begun, strict=True)]
    request = {
        "inputs_embeds": embeds,
        "attention_mask": inputs.attention_mask.to(device),
        "generation_config": config,
        "logits_processor": decoding.sampling(len(embeds), config.max_new_tokens, embeds.device),
    }
    return request, before
