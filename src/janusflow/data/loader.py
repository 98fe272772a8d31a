"""Load a process's samples of a step: the plan chooses them, `SampleMaker` makes them, broken ones are replaced."""

from __future__ import annotations

import signal
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from janusflow.data.mixture import TASKS, Mixture, index_of
from janusflow.data.records import BROKEN, Record
from janusflow.data.samples import Crop, Sample, SampleMaker
from janusflow.data.sources import FileSource, Source, SourceConfig
from janusflow.data.streams import EmptyStreamError, LostRowsError, StreamSource

OPEN_FILES = 65536
REPLACEMENTS = 20  # records tried in place of a broken one
LACKS = {
    "understanding": "without a conversation or a caption",
    "generation": "without a caption",
    "text": "without a text",
}
NO_PICTURE = "it shows no picture and is learned as a conversation in text"


@dataclass
class StepSamples:
    """The samples of one step for this process.

    Attributes:
        step: number of the step.
        samples: the samples, in the order of their numbers.
        broken: names of skipped records, and why they were skipped.
        notes: names of used records, and what was left out of them or is unusual about them.
        lost: number of further records lost in a stream's file that breaks off, estimated from the other files.
        failed: why there are no samples; empty if there are any.
        streams: positions of the streams after this step, for resuming; empty without streams.
    """

    step: int
    samples: list[Sample]
    broken: list[str] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    lost: int = 0
    failed: str = ""
    streams: dict[str, Any] = field(default_factory=dict)


class Data(Dataset):
    """All steps of a run, as seen by this process: sample n of a step goes to process n mod `ranks`.

    Args:
        rank, ranks: index of this process, and number of processes.
    """

    def __init__(
        self,
        sources: Mapping[str, Sequence[SourceConfig]],
        mixture: Mixture,
        maker: SampleMaker,
        *,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.mixture, self.maker, self.seed, self.rank, self.ranks = mixture, maker, seed, rank, ranks
        self.sources = {
            task: [config.open(task, seed, rank, ranks) for config in sources.get(task, ())] for task in TASKS
        }
        self.configs = {task: sources.get(task, ()) for task in TASKS}

    def __getitem__(self, step: int) -> StepSamples:
        found = StepSamples(step, [])
        for number, draw in enumerate(self.mixture.plan(step)):
            if number % self.ranks != self.rank:
                continue
            source, rng = self.sources[draw.task][draw.source], Random(f"{self.seed}/{step}/{number}")
            try:
                config = self.configs[draw.task][draw.source]
                sample = self._sample(draw.task, source, draw.count, rng, found, config.crop)
                found.samples.append(replace(sample, anchored=config.anchor))
            except ValueError as error:  # raised here, it would carry the traceback of a worker
                return StepSamples(step, [], found.broken, failed=str(error))
        found.streams = {name: stream.state() for name, stream in self.streams().items()}
        return found

    def _sample(
        self,
        task: str,
        source: Source | StreamSource,
        count: int,
        rng: Random,
        found: StepSamples,
        crop: Crop | None,
    ) -> Sample:
        tried: list[int] = []
        for attempt in range(REPLACEMENTS):
            if tried and not isinstance(source, StreamSource) and len(tried) == source.length:
                which = f"all {attempt} records of a source are" if attempt > 1 else "the only record of a source is"
                raise ValueError(f"{which} broken ({task}); the last: {found.broken[-1]}")
            name = ""
            try:
                record = self._record(source, count, tried, rng, again=attempt > 0)
                name = record.name
                sample = self.maker.make(task, record, rng, crop=crop)
                if record.note:
                    found.notes.append((name, record.note))
                if task == "understanding" and sample.seen is None:
                    found.notes.append((name, NO_PICTURE))
                return sample
            except EmptyStreamError:
                raise
            except BROKEN as error:
                said = str(error) or type(error).__name__
                found.broken.append(said if name in said else f"{name}: {said}")
                found.lost += error.rows - 1 if isinstance(error, LostRowsError) else 0
        raise ValueError(f"{REPLACEMENTS} records in a row are broken; the last: {found.broken[-1]}")

    def _record(
        self, source: Source | StreamSource, count: int, tried: list[int], rng: Random, *, again: bool
    ) -> Record:
        """Return the record at a position of a source or, in place of a broken one, another that was not tried."""
        if isinstance(source, StreamSource):
            return source.next()
        if source.length is None:
            return source.record(rng.getrandbits(48) if again else count)
        index = index_of(count, source.length, f"{self.seed}")
        while index in tried:
            index = rng.randrange(source.length)
        tried.append(index)
        return source.record(index)

    def streams(self) -> dict[str, StreamSource]:
        """Return the sources whose position must be saved, by name."""
        return {
            f"{task}.{index}": source
            for task, sources in self.sources.items()
            for index, source in enumerate(sources)
            if isinstance(source, StreamSource)
        }

    def described(self) -> str:
        """Describe which source serves which task, and with how many records."""
        parts = []
        for task, sources in self.sources.items():
            pairs = zip(self.configs[task], sources, strict=True)
            each = [f"{config.path or config.kind} ({size_in_words(source, task)})" for config, source in pairs]
            parts += [f"{task}: {', '.join(each)}"] if each else []
        return "; ".join(parts)

    def restore(self, streams: Mapping[str, Any]) -> None:
        """Move the streams to positions that `StepSamples.streams` recorded."""
        for name, source in self.streams().items():
            if name in streams:
                source.restore(streams[name])


def size_in_words(source: Source | StreamSource, task: str) -> str:
    """Describe how many records a source has for a task, and what is not read."""
    if isinstance(source, StreamSource):
        return "a stream"
    parts = "endless" if source.length is None else "1 record" if source.length == 1 else f"{source.length:,} records"
    if isinstance(source, FileSource) and source.skipped:
        parts += f", {source.skipped:,} {LACKS[task]} skipped"
    if isinstance(source, FileSource) and source.unread:
        parts += f"; {source.unread}, choose with split=NAME or give the split's folder"
    return parts


def steps(data: Data, first: int, last: int, *, workers: int) -> Generator[StepSamples, None, None]:
    """Yield steps `first` to `last` - 1 in order, made ahead by worker processes, which end when this is closed.

    Streams are read sequentially, so with any stream there is only one worker. If a worker is killed, the last step has
    `failed` set, or torch raises an error wherever the main process is, which `worker_killed` recognizes.
    """
    if data.streams():
        workers = min(workers, 1)
    if workers:
        _allow_open_files()
    order = list(range(first, last))
    loader = DataLoader(
        data,
        batch_size=None,
        sampler=order,
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        worker_init_fn=_outlive_signals,
    )
    ahead = iter(loader)
    step = first
    try:
        for samples in ahead:
            step = samples.step + 1
            yield samples
    except RuntimeError as error:
        if not (killed := worker_killed(error, workers)):
            raise
        yield StepSamples(step, [], failed=killed)
    finally:
        if isinstance(ahead, _MultiProcessingDataLoaderIter):
            ahead._shutdown_workers()
            for worker in ahead._workers:  # they ignore SIGTERM, with which it ends them otherwise
                worker.kill()


def worker_killed(error: BaseException, workers: int) -> str:
    """Return what to do about an error caused by a killed data worker; empty for any other error.

    Args:
        error: the error. torch raises it from a signal handler, so it may be the cause of another error, or the error
            of a checkpoint that was being written may quote it.
    """
    cause: BaseException | None = error
    while cause is not None:
        if "DataLoader worker (pid" in str(cause):
            return (
                "a data worker was killed, probably for lack of memory; continue with fewer workers "
                f"(now {workers}; with 0, the main process reads the data)"
            )
        cause = cause.__cause__ or cause.__context__
    return ""


def _allow_open_files() -> None:
    """Raise a low limit of open files: every tensor that a worker hands over is an open file."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _outlive_signals(worker: int) -> None:
    """Make a worker ignore a scheduler's SIGTERM and a terminal's SIGINT, which every process receives.

    The run first saves and then ends its workers.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
