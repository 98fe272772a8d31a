"""Compute one tick: the layer between the scheduler, which knows no tensors, and the engine."""

from __future__ import annotations

import gc
import logging
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from janusflow.engine.jobs import Engine, Job
from janusflow.model import JanusFlowForConditionalGeneration
from janusflow.pipelines.base import Pipeline
from janusflow.pipelines.janus import Janus
from janusflow.pipelines.janusflow import JanusFlow
from janusflow.serving.jobs import Event, Failed, Preview, Request
from janusflow.serving.pictures import DecodeJob, code_picture, decode_together, flow_picture
from janusflow.serving.texts import Text, Texts

LOG = logging.getLogger("janusflow.serving")
PICTURES: dict[type[Pipeline], Callable[[Any], Generator[Any]]] = {JanusFlow: flow_picture, Janus: code_picture}
"""Functions that generate the pictures of each pipeline."""
PREVIEWS_TOGETHER, PATIENCE = 4, 3
"""Previews are decoded once this many wait (a single one takes twice as long), or after this many of their turns."""


def give_cores(call: Callable[[Callable[[], int]], int]) -> None:
    """Let only the model's thread compute on several cores, which is best for the model.

    Each thread that computes on several cores has its own workers. If there are more workers than cores in total, the
    OpenMP runtime in PyTorch's Linux wheels (libgomp) puts workers to sleep after every operation, and a step of a
    small model takes twice as long.

    Args:
        call: `Scheduler.call`, which runs a function in the model's thread; afterwards all computation must run there.
    """
    call(torch.get_num_threads)  # fixes the number for that thread, which would otherwise take the newest one later
    torch.set_num_threads(1)  # for this thread, and those that start from now on


def keep_loaded() -> None:
    """Exclude everything in memory from Python's garbage collection.

    Otherwise each collection visits 500,000 objects of the libraries: about 0.2 s, during which nothing is computed.
    """
    gc.collect()
    gc.freeze()


class Runner(Protocol):
    """Advance jobs. All calls come from one thread."""

    def start(self, request: Request) -> Any:
        """Return the state of a new job; compute nothing yet."""

    def advance(self, states: Sequence[Any]) -> list[list[Event]]:
        """Do one bounded piece of work for each job, and return the events of each.

        The last event of a job that ends is `TextDone`, `PictureDone` or `Failed`. An error of one job is an event of
        that job, not an exception.
        """

    def finish(self, state: Any) -> None:
        """Free the resources of a job, whether it has ended or not."""


class PipelineRunner:
    """Run jobs on the pipelines that their requests name. All pictures of one share a forward, and so do all texts."""

    def __init__(self) -> None:
        self.engines: dict[JanusFlowForConditionalGeneration, Engine] = {}
        self.texts: dict[Any, Texts] = {}

    @torch.inference_mode()
    def start(self, request: Request) -> Work | Text:
        """See `Runner`."""
        network = getattr(request.model, "network", None)
        if request.kind == "picture":
            return Work(PICTURES[type(request.model)](request), network)
        if network not in self.texts:
            self.texts[network] = Texts(network)
        return self.texts[network].start(request)

    @torch.inference_mode()
    def advance(self, states: Sequence[Work | Text]) -> list[list[Event]]:
        """See `Runner`. All texts of a network advance, so a turn of texts must include all of them."""
        events: dict[int, list[Event]] = {id(state): [] for state in states}
        for engine in {state.engine for state in states if isinstance(state, Text)}:
            for text, own in engine.advance().items():
                events[id(text)] += own
        self._advance_pictures([state for state in states if isinstance(state, Work)], events)
        return list(events.values())

    def _advance_pictures(self, states: Sequence[Work], events: dict[int, list[Event]]) -> None:
        jobs, results = defaultdict[Any, list[tuple[Work, Job]]](list), list[tuple[Work, DecodeJob]]()
        for state in states:
            piece = state.take(events[id(state)])
            if isinstance(piece, Job):
                jobs[state.network].append((state, piece))
            elif piece is not None:
                results.append((state, piece))
        previews = _due_previews(states, [state for state, _ in results])
        _decode([job for _, job in results] + [job for state in previews for job in state.previews])
        for state in previews:
            state.send_previews(events[id(state)])
        for state, _ in results:
            state.take(events[id(state)])
        for network, asked in jobs.items():
            engine = self.engines.setdefault(network, Engine(network))
            try:
                engine.advance([job for _, job in asked])
            except Exception:  # of many kinds, such as running out of memory
                LOG.exception("a step of %d pictures failed; each is tried on its own", len(asked))
                for state, job in asked:
                    if job.result is None:  # others took their last step before the error
                        events[id(state)] += _failure(engine, job)

    @torch.inference_mode()
    def finish(self, state: Work | Text) -> None:
        """See `Runner`."""
        if isinstance(state, Text):
            state.engine.finish(state)
        else:
            state.pieces.close()

    def forget(self, model: Pipeline) -> None:
        """Free what is kept for a model that is no longer served; jobs that use it still finish."""
        network = getattr(model, "network", None)
        self.engines.pop(network, None)  # type: ignore[arg-type]
        self.texts.pop(network, None)


@dataclass
class Work:
    """Picture that is generated in pieces.

    Attributes:
        pieces: events, engine jobs that need a velocity, or latents to decode.
        network: network that the engine's job needs.
        previews: previews that wait to be decoded together with others.
        waited: turns that the first preview has waited.
    """

    pieces: Generator[Any]
    network: Any = None
    previews: list[DecodeJob] = field(default_factory=list)
    waited: int = 0

    def take(self, events: list[Event]) -> Job | DecodeJob | None:
        """Do the next piece: add its events, or return work to batch with that of others."""
        self.waited += 1 if self.previews else 0
        try:
            while isinstance(piece := next(self.pieces), DecodeJob) and piece.preview is not None:
                self.previews.append(piece)
        except Exception as error:  # of many kinds, such as running out of memory
            LOG.exception("a job failed")
            piece = [Failed(error)]
        if isinstance(piece, (Job, DecodeJob)):
            return piece
        events += piece
        return None

    def send_previews(self, events: list[Event]) -> None:
        """Add the waiting previews. One that cannot be decoded is left out: the picture itself may still succeed."""
        for job in self.previews:
            try:
                events.append(Preview(job.preview or 0, job.picture()))
            except Exception:  # of many kinds, such as running out of memory
                LOG.exception("a preview failed")
        self.previews, self.waited = [], 0


def _due_previews(states: Sequence[Work], ended: Sequence[Work]) -> list[Work]:
    """Return the pictures whose previews are due: all, once enough wait, one has waited long, or its picture ends."""
    waiting = [state for state in states if state.previews]
    enough = sum(len(state.previews) for state in waiting) >= min(PREVIEWS_TOGETHER, len(states))
    if enough or any(state.waited >= PATIENCE or state in ended for state in waiting):
        return waiting
    return []


def _decode(asked: Sequence[DecodeJob]) -> None:
    """Decode what can be decoded together. If that fails, `DecodeJob.picture` tries each picture on its own."""
    latents = defaultdict[Any, list[DecodeJob]](list)
    for job in asked:
        latents[job.model, job.decoder, job.latents.shape].append(job)
    for same in latents.values():
        try:
            decode_together(same)
        except Exception:  # of many kinds, such as running out of memory
            LOG.exception("%d pictures could not be decoded together; each is tried on its own", len(same))


def _failure(engine: Engine, job: Job) -> list[Event]:
    """Evaluate one job on its own; return how it failed, if it did."""
    try:
        engine.advance([job])
    except Exception as error:  # of many kinds, such as running out of memory
        LOG.exception("a job failed")
        return [Failed(error)]
    return []
