"""Batches of pictures and texts for parts, from the sources of `janusflow train`. A batch is a function of its step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from random import Random

from janusflow.data.loader import Data, StepSamples, steps
from janusflow.data.mixture import Mixture, Ratio
from janusflow.data.records import Record
from janusflow.data.samples import Crop, Drawn, Sample, SampleMaker, square
from janusflow.data.sources import SourceConfig
from janusflow.data.templates import IGNORE, Tokens
from janusflow.processing.images import load_image
from janusflow.progress import say
from janusflow.training.broken import too_many_broken
from janusflow.training.config.data import DataConfig

PICTURES, TEXTS = "generation", "text"  # the tasks of `janusflow train` whose records are read
RATIOS = {PICTURES: Ratio(0, 1, 0), TEXTS: Ratio(0, 0, 1)}
LAST = 1_000_000  # more steps than any part is trained for
Batches = Callable[[int], list[Sample]]


@dataclass(frozen=True)
class Pictured(Sample):
    """A picture with a text.

    Attributes:
        regions: tokens of the texts of its regions, or of the whole picture if it has none, with the boxes (left, top,
            right, bottom) as shares of the square picture's side.
    """

    regions: tuple[tuple[list[int], tuple[float, float, float, float]], ...] = ()


class PictureMaker(SampleMaker):
    """Makes samples of a picture and the tokens of its texts, without a template or noise.

    Pictures with regions are cropped in the middle.
    """

    def make(self, task: str, record: Record, rng: Random, *, crop: Crop | None = None) -> Sample:
        if len(record.images) != 1 or not record.text:
            raise ValueError(f"{record.name} is not one picture with a text: {len(record.images)} pictures")
        encode = partial(self.processor.tokenizer.encode, add_special_tokens=False)
        ids, whole = encode(record.text), (0.0, 0.0, 1.0, 1.0)
        image = load_image(record.images[0])
        found = [part for region in record.regions if (part := region.cropped(*image.size))]
        regions = tuple((encode(part.text), (part.left, part.top, part.right, part.bottom)) for part in found)
        pixels = square(image, self.side, rng if crop == "random" and not record.regions else None)
        tokens = Tokens(ids, [IGNORE] * len(ids), list(range(len(ids))))
        return Pictured(tokens, drawn=Drawn(pixels, pixels[:0], 0.0), regions=regions or ((ids, whole),))


class TextMaker(SampleMaker):
    """Makes samples of texts and conversations. The text of a record replaces its pictures."""

    def make(self, task: str, record: Record, rng: Random, *, crop: Crop | None = None) -> Sample:
        return super().make(task, described(record, self.processor.text.image_tag), rng, crop=crop)


class Reader(SampleMaker):
    """Collects the sentences of records, for a tokenizer."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def make(self, task: str, record: Record, rng: Random, *, crop: Crop | None = None) -> Sample:
        record = described(record, "<image_placeholder>")
        self.sentences += [f"User: {question}\n\nAssistant: {answer}" for question, answer in record.turns]
        self.sentences += [f"User: {record.text}\n\nAssistant:"] if task == PICTURES else []
        self.sentences += [record.text] if record.text else []
        return Sample(Tokens([], [], []))


def described(record: Record, tag: str) -> Record:
    """Return a record without its pictures, with its text in their place in the conversation."""
    if not record.images:
        return record
    turns = [(question.replace(tag, record.text).strip(), answer) for question, answer in record.turns]
    if turns and record.text and not any(tag in question for question, _ in record.turns):
        turns[0] = (f"{record.text}\n{turns[0][0]}", turns[0][1])
    return replace(record, images=(), turns=tuple(turns))


class StepBatches:
    """The samples of each step, as a function of its number. Close it to end its processes.

    Args:
        data: samples of all steps.
        workers: number of processes that make the following steps in advance; 0 makes each step on request.
        max_broken: largest share of broken records, counted from the first step that was asked for.
    """

    def __init__(self, data: Data, workers: int = 0, *, max_broken: float) -> None:
        self.data, self.workers, self.max_broken = data, workers, max_broken
        self._ahead: Generator[StepSamples, None, None] | None = None
        self._next = -1
        self._named: set[str] = set()
        self._seen = self._broken = 0

    def __call__(self, step: int) -> list[Sample]:
        """Return the samples of a step, and print the records that were skipped for it, each once.

        Raises:
            ValueError: if there are no samples, or the share of broken records is above its limit.
        """
        found = self._ready(step) if self.workers else self.data[step]
        for problem in dict.fromkeys(found.broken):
            if problem not in self._named:
                say(f"skipped: {problem}", logging.WARNING)
        self._named.update(found.broken)
        if found.failed:
            raise ValueError(found.failed)
        lost = len(found.broken) + found.lost
        self._seen, self._broken = self._seen + len(found.samples) + lost, self._broken + lost
        if why := too_many_broken(self._seen, self._broken, self.max_broken, setting="max_broken", last=found.broken):
            raise ValueError(why)
        return found.samples

    def _ready(self, step: int) -> StepSamples:
        if self._ahead is None or step != self._next:  # the first step, or not the one made in advance
            self.close()
            self._ahead = steps(self.data, step, step + LAST, workers=self.workers)
        self._next = step + 1
        return next(self._ahead)

    def close(self) -> None:
        """End the worker processes."""
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None


def batches(
    task: str,
    sources: Sequence[SourceConfig],
    maker: SampleMaker,
    *,
    size: int,
    seed: int,
    workers: int = 0,
    max_broken: float = DataConfig.max_broken,
) -> StepBatches:
    """Return batches of the samples of each step.

    Args:
        sources: sources that take turns by weight.
        size: samples per step.
        seed: seed of everything random.
        workers: number of processes that make samples in advance.
        max_broken: largest share of broken records.
    """
    mixture = Mixture([RATIOS[task]], {task: [source.weight for source in sources]}, batch_size=size, seed=seed)
    return StepBatches(Data({task: sources}, mixture, maker, seed=seed), workers, max_broken=max_broken)


def corpus(
    pictures: Sequence[SourceConfig],
    texts: Sequence[SourceConfig],
    records: int,
    seed: int,
    *,
    max_broken: float = DataConfig.max_broken,
) -> list[str]:
    """Return the sentences of this number of records each of pictures and of texts.

    Raises:
        ValueError: if data cannot be read, or the share of broken records is above `max_broken`.
    """
    reader = Reader()
    for task, sources in ((PICTURES, pictures), (TEXTS, texts)):
        batches(task, sources, reader, size=records, seed=seed, max_broken=max_broken)(0)
    return reader.sentences
