"""What one tick computes: the seam between the scheduler, which knows no tensors, and the engine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch

from janusflow.pipelines.base import Pipeline
from janusflow.pipelines.janus import Janus
from janusflow.pipelines.janusflow import JanusFlow
from janusflow.serving.jobs import Event, Failed, Request
from janusflow.serving.pictures import code_picture, flow_picture
from janusflow.serving.texts import answer

LOG = logging.getLogger("janusflow.serving")
PICTURES: dict[type[Pipeline], Callable[[Any], Iterator[list[Event]]]] = {JanusFlow: flow_picture, Janus: code_picture}
"""How the pictures of each pipeline are made."""


class Runner(Protocol):
    """Advances jobs. All calls come from one thread."""

    def start(self, request: Request) -> Any:
        """The state of a new job; computes nothing yet."""

    def advance(self, states: Sequence[Any]) -> list[list[Event]]:
        """Does one bounded piece of work for each job, and returns the events of each.

        A job that ends does so with `TextDone`, `PictureDone` or `Failed` as its last event. The error of one job is
        an event of that job, not an exception.
        """

    def finish(self, state: Any) -> None:
        """Frees what a job holds, whether it has ended or not."""


class PipelineRunner:
    """Runs jobs on the pipelines that their requests name, one forward a job."""

    def start(self, request: Request) -> Iterator[list[Event]]:
        """See `Runner`."""
        if request.kind == "text":
            return answer(request)
        return PICTURES[type(request.model)](request)

    @torch.inference_mode()
    def advance(self, states: Sequence[Iterator[list[Event]]]) -> list[list[Event]]:
        """See `Runner`."""
        return [_advanced(state) for state in states]

    def finish(self, state: Any) -> None:
        """See `Runner`."""
        state.close()


def _advanced(state: Iterator[list[Event]]) -> list[Event]:
    try:
        return next(state)
    except Exception as error:  # of many kinds, memory that runs out among them
        LOG.exception("a job failed")
        return [Failed(error)]
