"""Questions and conversations about pictures, which every model of the family supports."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any, Self

import torch
from PIL import Image
from torch import nn

from janusflow.arguments import given, quoted, unknown_argument
from janusflow.device import resolve_device
from janusflow.engine import understanding
from janusflow.engine.text import Memory
from janusflow.engine.understanding import Decoding, Speaker
from janusflow.pipelines.allowed import as_short_text
from janusflow.pipelines.digests import weights_digest
from janusflow.processing.images import ImageSource, listed
from janusflow.processing.messages import Message
from janusflow.processing.processor import JanusFlowProcessor


class Conversational(ABC):
    """From pictures to words. Subclasses provide `network`, `processor`, `to` and `_part`.

    Threads: several threads may call `ask`, `chat`, `stream`, their batch versions and `generate` on one model at once,
    and streams may be read in turn. Each call has its own random generators: with a seed, its result is the same as if
    it ran by itself, and torch's global generator is neither read nor changed. Anything that changes the model (`to`,
    `offload`, adapters, a setting of the network) must not run during a call.
    """

    network: Speaker
    processor: JanusFlowProcessor
    opened: Mapping[str, str | None] = {}  # the name, vae, adapter and quantize given to `from_pretrained`
    _computes_on: torch.device | None = None  # with `offload`
    _moving: threading.Lock  # with `offload`: held while a part is moved
    _at_work: Counter[str]  # with `offload`: how many calls each part serves

    def ask(self, question: str, images: ImageSource | Sequence[ImageSource] | None = None, **decoding: Any) -> str:
        """Answer one question.

        Args:
            question: some text. One `<image_placeholder>` and a newline per picture are prepended, unless the text
                already contains that many placeholders.
            images: none, one or several pictures.
            **decoding: max_new_tokens=512, do_sample=False, temperature, top_p, top_k, repetition_penalty, seed; see
                `janusflow.engine.understanding.Decoding`. As in transformers, temperature, top_p, top_k and seed need
                do_sample=True; on the command line, --temperature implies it.

        Raises:
            ValueError: for an empty question, an unreadable picture, or a request that does not fit into the context.
            UnknownArgumentError: a ValueError and TypeError, for an unknown argument; suggests the name probably meant.

        Example:
            >>> from janusflow import JanusFlow
            >>> model = JanusFlow.from_pretrained("tiny")
            >>> model.ask("what color is the circle?", images="scene.png")
            'red'
        """
        chosen = _decoding(self.ask, decoding)
        return self._answers([self._question(question, images)], chosen)[0]

    def chat(self, messages: Sequence[Message], **decoding: Any) -> str:
        """Return the assistant's next message in a conversation with any number of turns and pictures.

        Args:
            messages: mappings with `role` (user, assistant; system at the start) and `content`. A message lists its
                pictures under `images`, with an `<image_placeholder>` in its content for each; or `content` is a list
                of parts in OpenAI's format. If the last message is the assistant's, the model continues it, and only
                the continuation is returned. Trailing spaces of that message are dropped.
            **decoding: as in `ask`.

        Example:
            >>> from janusflow import JanusFlow
            >>> model = JanusFlow.from_pretrained("tiny")
            >>> question = "<image_placeholder>\\nhow many shapes are there?"
            >>> talk = [{"role": "user", "content": question, "images": ["scene.png"]}]
            >>> talk.append({"role": "assistant", "content": model.chat(talk)})
            >>> talk.append({"role": "user", "content": "what color is the circle?"})
            >>> model.chat(talk)
            'red'
        """
        chosen = _decoding(self.chat, decoding)
        return self._answers([messages], chosen)[0]

    def chat_batch(self, conversations: Sequence[Sequence[Message]], **decoding: Any) -> list[str]:
        """Run `chat` on several conversations of any lengths at once; `seed` may be a list with one for each."""
        chosen = _decoding(self.chat_batch, decoding)
        return self._answers(conversations, chosen)

    def ask_batch(
        self, questions: Sequence[str], images: Sequence[ImageSource | Sequence[ImageSource] | None], **decoding: Any
    ) -> list[str]:
        """Run `ask` on several questions at once.

        Args:
            questions: texts.
            images: for each question, no picture (None or an empty list), one or several.
            **decoding: as in `ask`; `seed` may be a list with one for each.

        Raises:
            ValueError: as in `ask`, and if there is not one entry of `images` per question.
        """
        chosen = _decoding(self.ask_batch, decoding)
        if isinstance(questions, str):
            raise ValueError("questions is one text; give a list of questions, or use ask")
        if images is None or is_one_picture(images):
            found = "None" if images is None else "one picture"
            raise ValueError(f"images is {found}; give a list with the pictures of each question")
        if len(questions) != len(images):
            raise ValueError(f"{given(len(questions), 'question')} with pictures for {len(images)}")
        return self._answers([self._question(q, i) for q, i in zip(questions, images, strict=True)], chosen)

    def _answers(self, conversations: Sequence[Sequence[Message]], decoding: Decoding) -> list[str]:
        if not conversations:
            return []
        with self._working("network"):
            return understanding.answer(self.network, self.processor, conversations, decoding, self._remembered())

    def stream(
        self,
        question: str | Sequence[Message],
        images: ImageSource | Sequence[ImageSource] | None = None,
        **decoding: Any,
    ) -> Iterator[str]:
        """Stream the answer of `ask` (for a string) or `chat` (for messages) piece by piece while it is decoded.

        Example:
            >>> from janusflow import JanusFlow
            >>> model = JanusFlow.from_pretrained("tiny")
            >>> for piece in model.stream("what color is the circle?", images="scene.png"):
            ...     print(piece, end="")
            red
        """
        chosen = _decoding(self.stream, decoding)
        messages = self._question(question, images) if isinstance(question, str) else question
        with self._working("network"):
            pieces = understanding.stream(self.network, self.processor, messages, chosen, self._remembered())
        return self._streamed(pieces)

    def _remembered(self) -> Memory:
        """Return the memory of earlier calls, emptied if the weights have changed since."""
        memory = self.__dict__.setdefault("_memory", Memory())
        network: Any = self.network
        edits = sum(weight._version for weight in network.parameters() if not weight.is_inference())  # even small ones
        memory.hold_for(f"{weights_digest(network)} {edits} {network.dtype} {network.device}")
        return memory

    def _streamed(self, pieces: Iterator[str]) -> Iterator[str]:
        with self._working("network"):
            yield from pieces

    def __repr__(self) -> str:
        dtype = str(getattr(self.network, "dtype", "")).removeprefix("torch.")
        return f"{type(self).__name__}({self.opened.get('name')!r}, dtype={dtype}, device={self.device})"

    @property
    def device(self) -> torch.device:
        """The device that the network computes on."""
        return self._computes_on or self.network.device

    def offload(self, device: str | torch.device = "auto") -> Self:
        """Keep the parts in main memory from now on, and only the part that is running on the device.

        Args:
            device: the device to compute on; "auto" is the best one available.
        """
        self.to("cpu")
        self._moving, self._at_work = threading.Lock(), Counter()
        self._computes_on = resolve_device(device)
        return self

    def identity(self) -> dict[str, str | None]:
        """Return what a picture records about its model; see `janusflow.pipelines.provenance.Provenance`."""
        network: Any = self.network
        return {
            **{name: value if value is None else as_short_text(value) for name, value in self.opened.items()},
            "family": type(self).__name__,
            "digest": weights_digest(*self._weights()),
            "dtype": str(network.dtype).removeprefix("torch."),
            "device": self.device.type,
            "sft_format": self.processor.text.sft_format,
        }

    @contextmanager
    def _working(self, part: str | None) -> Iterator[None]:
        """Move an offloaded part of the model to the device for the body; the last call to end moves it back."""
        place = self._computes_on
        if part is None or place is None:
            yield
            return
        with self._moving:
            if not self._at_work[part]:
                self._move(part, place)
            self._at_work[part] += 1
        try:
            yield
        finally:
            with self._moving:
                self._at_work[part] -= 1
                if not self._at_work[part]:
                    self._move(part, torch.device("cpu"))

    def _move(self, part: str, place: torch.device) -> None:
        with torch.inference_mode(False):  # quantized weights cannot be moved in inference mode
            self._part(part).to(place)

    def _weights(self) -> list[Any]:
        """The modules whose weights a picture depends on."""
        return [self.network]

    @abstractmethod
    def to(self, device: str | torch.device) -> Self:
        """Move everything to a device and keep it there."""

    @abstractmethod
    def _part(self, part: str) -> nn.Module:
        """Return the module that `_working` moves: "network", or another one that produces pixels."""

    def _question(self, question: str, images: ImageSource | Sequence[ImageSource] | None) -> list[Message]:
        if not isinstance(question, str) or not question.strip():
            raise ValueError(f"question is {quoted(question)}; a question is some text")
        pictures = listed(images)  # loaded once, when the batch is built
        return [{"role": "user", "content": self.processor.question(question, len(pictures)), "images": pictures}]


def is_one_picture(images: object) -> bool:
    """Whether `images` is a single picture, and not a list or a batch (an array or a tensor with 4 axes)."""
    return isinstance(images, (str, bytes, os.PathLike, Image.Image)) or getattr(images, "ndim", 4) < 4


def _decoding(method: Callable[..., object], arguments: dict[str, Any]) -> Decoding:
    """Return the decoding settings that a method was given.

    Raises:
        UnknownArgumentError: for an unknown argument; names the method.
    """
    if unknown := set(arguments) - set(Decoding.__dataclass_fields__):
        known = [name for name in signature(method).parameters if name != "decoding"]
        raise unknown_argument(unknown, [*known, *Decoding.__dataclass_fields__], of=method.__name__)
    return Decoding(**arguments)
