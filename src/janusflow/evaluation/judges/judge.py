"""The judge interface: a model that reads a prompt, perhaps with pictures, and replies with text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from janusflow.reasoning import final_answer


class NotJudgedError(ValueError):
    """Raised if a judge cannot be asked or gives no verdict; the item counts as not judged and is retried next time."""


@dataclass(frozen=True)
class Query:
    """A question to a judge; the fields are the arguments of `Judge.reply`."""

    prompt: str
    images: Sequence[Image.Image] = ()
    system: str = ""
    temperature: float = 0.0
    attempt: int = 0

    def put_to(self, judge: Judge) -> str:
        """Return the reply of any object with `Judge.reply`."""
        options = {name: getattr(self, name) for name in ("system", "temperature", "attempt")}
        return judge.reply(self.prompt, self.images, **options)


class Judge(ABC):
    """A model that judges. Benchmarks accept any object with a `name` and this `reply`."""

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
        """Reply to one prompt.

        Args:
            system: system prompt; "" for none.
            temperature: sampling temperature; 0 is greedy.
            attempt: number of the attempt; another number asks again if a cached reply is useless.

        Raises:
            NotJudgedError: if the judge gives no reply.
        """
        return self.answer(Query(prompt, images, system, temperature, attempt))

    @abstractmethod
    def answer(self, query: Query) -> str:
        """See `reply`."""

    def stop(self) -> None:
        """Stop retrying failed requests, because the run was interrupted."""
        return


class WithoutThoughts(Judge):
    """A judge that replies with its answer only, without thoughts; see `reasoning.final_answer`.

    Every benchmark asks its judge, of whatever kind, through this class; `Cached` keeps the whole reply.
    """

    def __init__(self, judge: Judge) -> None:
        self.name, self.judge = judge.name, judge

    def answer(self, query: Query) -> str:
        """See `Judge`; "" if the thoughts do not end."""
        return final_answer(query.put_to(self.judge))

    def stop(self) -> None:
        """See `Judge`; the caller's own object may lack it."""
        if isinstance(self.judge, Judge):
            self.judge.stop()
