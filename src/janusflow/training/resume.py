"""Checkpoints from which a killed run continues: complete or absent, and for any number of processes.

A checkpoint is a folder `step-NNNNNNN` with the sharded tensors of model, EMA and optimizer
(`torch.distributed.checkpoint`) and `progress.json`. It is written under another name and renamed when it is complete.
"""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.optim import Optimizer

from janusflow.data.constraints import NonNegativeInt, PositiveInt, Share
from janusflow.data.streams import Place
from janusflow.files import checked, first_cause, read_json, remove_leftovers
from janusflow.training.checkpoint_files import METADATA, SafePlanner, SafeReader, damaged_file, write_checksums
from janusflow.training.distributed import World
from janusflow.training.ema import Ema
from janusflow.training.objective import Objective

ALONE = "torch.distributed is disabled"  # start of torch's warning for every checkpoint of a single process
NAME = re.compile(r"step-(\d{7})$")
UNFIT = ("Missing key", "mismatch", "Unexpected key")  # in torch's errors for a checkpoint of another run


@dataclass
class Progress:
    """The contents of a checkpoint next to its tensors.

    Attributes:
        step: number of steps done.
        loss: running mean of the loss without L_REPA: the sum of `means`.
        best: the lowest such mean at any checkpoint, and its step.
        seen: number of records taken so far, and how many of them were broken.
        streams: places of the streams by process and source.
        ranks: number of processes.
        start_share: share of the starting weights in the average; None if it follows from the recipe.
        means: running mean of each weighted loss by term, over the steps that have it; without L_REPA.
    """

    step: NonNegativeInt = 0
    loss: float = float("inf")
    best: tuple[float, NonNegativeInt] = (float("inf"), 0)
    seen: tuple[NonNegativeInt, NonNegativeInt] = (0, 0)
    streams: dict[str, Any] = field(default_factory=dict)
    ranks: PositiveInt = 1
    start_share: Share | None = None
    means: dict[str, float] = field(default_factory=dict)


@dataclass
class Begun:
    """An incomplete checkpoint: its final folder, the temporary one, and the best step when it was begun."""

    final: Path
    temporary: Path
    best: int
    future: Future[Any] | None = None


class Checkpoints:
    """The checkpoints of one run, which holds the lock of its folder. A checkpoint that a killed run had written but
    not yet renamed is completed; half-written ones are removed.

    Args:
        keep: number of the last checkpoints to keep; the best one is kept too.
        background: write while training continues.
    """

    def __init__(self, folder: Path, world: World, *, keep: int, background: bool = False) -> None:
        self.folder, self.world, self.keep, self.background = folder, world, keep, background
        self.begun: Begun | None = None
        self.group: dist.ProcessGroup | None = None
        if world.first:
            remove_leftovers(folder.parent)
            for half in folder.glob("*.tmp"):
                if (half / METADATA).is_file() and not half.with_suffix("").exists():
                    write_checksums(half)
                    half.rename(half.with_suffix(""))
                else:
                    shutil.rmtree(half, ignore_errors=True)
        world.wait()

    def all(self) -> list[Path]:
        """Return the complete checkpoints, oldest first."""
        return sorted(path for path in self.folder.glob("*") if NAME.match(path.name))

    def left(self) -> str:
        """Describe what is left to continue from, as the end of an error message."""
        found = self.all()
        if not found:
            return "there is no checkpoint yet"
        out = self.folder.parent
        return f"the last checkpoint, {found[-1].name}, is intact (to export it: janusflow train --export-only {out})"

    def save(self, objective: Objective, ema: Ema, optimizers: Sequence[Optimizer], progress: Progress) -> None:
        """Write a checkpoint; the others stay as they are until it is complete.

        In the background, it returns once the tensors are copied to memory, and `settle`, `finish` or the next `save`
        completes the checkpoint. If the run is killed while it is written, it is as if it had never begun.

        Raises:
            OSError: if it, or the previous one in the background, cannot be written; existing ones stay untouched.
        """
        self.finish()
        final = self.folder / f"step-{progress.step:07d}"
        self.begun = Begun(final, final.with_suffix(".tmp"), progress.best[1])
        with self._intact(self.begun):
            if self.world.first:
                self.begun.temporary.mkdir(parents=True)
            self.world.wait()
            self._write_progress(self.begun.temporary, progress)
            tensors, alone = _tensors(objective, ema, optimizers), self.world.mesh is None
            warnings.filterwarnings("ignore", ALONE)
            if self.background:
                future = dcp.async_save(
                    tensors, checkpoint_id=self.begun.temporary, process_group=self._group(), no_dist=alone
                )
                assert isinstance(future, Future)
                self.begun.future = future
                return
            dcp.save(tensors, checkpoint_id=self.begun.temporary, no_dist=alone)
        self.finish()

    def settle(self) -> None:
        """Complete a background checkpoint as soon as it is written, so that a kill loses no more than it must.

        Every process must call this: they complete the checkpoint together, once all have written.
        """
        future = self.begun and self.begun.future
        if future and not self.world.any(not future.done()):
            self.finish()

    def finish(self) -> None:
        """Wait for a checkpoint that is being written in the background, if there is one, and complete it.

        Raises:
            OSError: if it could not be written.
        """
        begun, self.begun = self.begun, None
        if begun is None:
            return
        with self._intact(begun):
            if begun.future is not None:
                begun.future.result()
            self.world.wait()
            if self.world.first:
                write_checksums(begun.temporary)
        if self.world.first:
            shutil.rmtree(begun.final, ignore_errors=True)
            begun.temporary.rename(begun.final)
            self._prune(begun.best)
        self.world.wait()

    @contextmanager
    def _intact(self, begun: Begun) -> Iterator[None]:
        try:
            yield
        except (Exception, CheckpointException) as error:  # CheckpointException (a full disk) is not an Exception
            self.begun = None
            if self.world.first:
                shutil.rmtree(begun.temporary, ignore_errors=True)
            _pass_on_interrupts(error)
            root = _root(error)
            what = f"checkpoint {begun.final} could not be written ({_reason(first_cause(root))}); {self.left()}"
            raise OSError(what) from root

    def _group(self) -> dist.ProcessGroup | None:
        """Return the group in which the processes coordinate checkpoints, separate from that of training."""
        if self.group is None and self.world.mesh is not None:
            self.group = dist.new_group(backend="gloo")
        return self.group

    def _write_progress(self, folder: Path, progress: Progress) -> None:
        streams = {str(self.world.rank): progress.streams.get(str(self.world.rank), {})}
        (folder / f"streams-{self.world.rank}.json").write_text(json.dumps(streams))
        if self.world.first:
            progress.ranks = self.world.ranks
            content = {key: value for key, value in vars(progress).items() if key != "streams"}
            (folder / "progress.json").write_text(json.dumps(content))

    def _prune(self, best_step: int) -> None:
        best = f"step-{best_step:07d}"
        for path in self.all()[: -self.keep]:
            if path.name != best:
                shutil.rmtree(path, ignore_errors=True)

    def _check(self, found: Sequence[Path]) -> None:
        """Compare the last of these checkpoints with its checksums; the files are divided among the processes."""
        fault = damaged_file(found[-1], lambda index: index % self.world.ranks == self.world.rank)
        if self.world.any(fault is not None):
            what = fault or "another process found a file that differs from its checksum"
            raise ValueError(f"checkpoint {found[-1]} is damaged ({what}); {_without(found)}")

    def restore(self, objective: Objective, ema: Ema, optimizers: Sequence[Optimizer]) -> Progress:
        """Restore everything from the last complete checkpoint; return a new progress if there is none.

        Settings of the optimizers (betas, weight decay) stay as given. Without optimizers, as for an export, their
        states are not read.

        Raises:
            ValueError: if the checkpoint has other parts, losses or sizes, or cannot be read.
        """
        found = self.all()
        if not found:
            return Progress()
        self._check(found)
        given = [[{**group, "params": None} for group in optimizer.param_groups] for optimizer in optimizers]
        tensors = _tensors(objective, ema, optimizers)
        try:
            warnings.filterwarnings("ignore", ALONE)
            reader = SafeReader(found[-1])
            dcp.load(tensors, storage_reader=reader, planner=SafePlanner(), no_dist=self.world.mesh is None)
            if optimizers:
                set_optimizer_state_dict(objective, optimizers, tensors["optimizer"])
            progress = _read_progress(found[-1])
        except (CheckpointException, RuntimeError, ValueError, KeyError, TypeError, EOFError, OSError) as error:
            _pass_on_interrupts(error)
            reason = _reason(error)
            if any(word in reason for word in UNFIT):
                fault = "does not fit this run: its parts, losses or sizes differ from the recipe's"
            else:
                fault = f"cannot be read; {_without(found)}"
            raise ValueError(f"checkpoint {found[-1]} {fault} ({reason})") from error
        for optimizer, groups in zip(optimizers, given, strict=True):
            for group, own in zip(optimizer.param_groups, groups, strict=True):
                group.update({name: value for name, value in own.items() if name != "params"})
        return progress


def _read_progress(folder: Path) -> Progress:
    """Read the JSON files of a checkpoint."""
    file = folder / "progress.json"
    progress = checked(Progress, read_json(file), file.name)
    if folder.name != f"step-{progress.step:07d}":
        raise ValueError(f"{file.name} is damaged: step is {progress.step}")
    for file in folder.glob("streams-*.json"):
        places = read_json(file)
        checked(dict[str, dict[str, Place]], places, file.name)
        progress.streams.update(places)
    return progress


def _without(found: Sequence[Path]) -> str:
    """Describe what happens if the last of these checkpoints is deleted."""
    before = f"continues from {found[-2].name}" if len(found) > 1 else "starts from the beginning"
    return f"without that folder the run {before}"


def _pass_on_interrupts(error: BaseException) -> None:
    """Raise what ended the process, such as Ctrl-C, if PyTorch wrapped it: it says nothing about the checkpoint."""
    if isinstance(error, CheckpointException):
        for inner, _ in error.failures.values():
            if not isinstance(inner, Exception | CheckpointException):
                raise inner


def _root(error: BaseException) -> BaseException:
    """Return the error of a process that PyTorch wrapped, which alone names its causes."""
    while isinstance(error, CheckpointException) and error.failures:
        error = next(iter(error.failures.values()))[0]
    return error


def _reason(error: BaseException) -> str:
    """Return the root cause of an error in one line."""
    error = _root(error)
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _tensors(objective: Objective, ema: Ema, optimizers: Sequence[Optimizer]) -> dict[str, Any]:
    """Return the tensors of a run by name; loading writes into them."""
    model: Mapping[str, Any] = objective.state_dict()
    tensors: dict[str, Any] = {"model": dict(model), "ema": dict(ema.values)}
    if optimizers:
        tensors["optimizer"] = get_optimizer_state_dict(objective, optimizers)
    return tensors
