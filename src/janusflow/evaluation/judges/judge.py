"""What a judge is: a model that reads a prompt, perhaps with pictures, and replies in words."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from janusflow.reasoning import final_answer


class NotJudgedError(ValueError):
    """A judge could not be asked or gave no verdict; the item counts as not judged and is tried again next time."""


@dataclass(frozen=True)
class Query:
    """What a judge is asked; the fields are the arguments of `Judge.reply`."""

    prompt: str
    images: Sequence[Image.Image] = ()
    system: str = ""
    temperature: float = 0.0
    attempt: int = 0

    def put_to(self, judge: Judge) -> str:
        """The reply of any object with `Judge.reply`."""
        options = {name: getattr(self, name) for name in ("system", "temperature", "attempt")}
        return judge.reply(self.prompt, self.images, **options)


class Judge(ABC):
    """A model that judges. Benchmarks accept any object that has a `name` and this `reply`."""

    name: str

    def reply(
        self,
        prompt: str,
        images: Sequence[Image.Image] = (),
        *,
        system: str = "",
        temperature: float = 0.0,
        attempt: int = 0,
    ) -> str:
        """The reply to one prompt.

        Args:
            system: system prompt; "" for none.
            temperature: of the sampling; 0 is greedy.
            attempt: another number asks again where a cached reply was useless.

        Raises:
            NotJudgedError: if the judge gives no reply.
        """
        return self.answer(Query(prompt, images, system, temperature, attempt))

    @abstractmethod
    def answer(self, query: Query) -> str:
        """See `reply`."""


class WithoutThoughts(Judge):
    """A judge whose replies are only its answers, without thoughts: see `reasoning.final_answer`.

    Every benchmark asks its judge through this, whatever the judge is; what `Cached` keeps is the whole reply.
    """

    def __init__(self, judge: Judge) -> None:
        self.name, self.judge = judge.name, judge

    def answer(self, query: Query) -> str:
        """See `Judge`; "" where the thoughts do not end."""
        return final_answer(query.put_to(self.judge))
