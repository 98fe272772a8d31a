"""Checkpoints that a killed run continues from: whole or not there, and for any number of processes.

A checkpoint is a folder `step-NNNNNNN` with the sharded tensors of model, EMA and optimizer
(`torch.distributed.checkpoint`) and `progress.json`. It is written under another name and renamed when it is complete.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.optim import Optimizer

from janusflow.training.distributed import Ema, World
from janusflow.training.objective import Objective

NAME = re.compile(r"step-(\d{7})$")


@dataclass
class Progress:
    """What a checkpoint knows beside tensors.

    Attributes:
        step: steps done.
        loss: running mean of the loss.
        best: the lowest such mean at any checkpoint, and its step.
        seen: records taken so far, and how many of them were broken.
        streams: places of the streams, by process and source.
        ranks: number of processes.
    """

    step: int = 0
    loss: float = float("inf")
    best: tuple[float, int] = (float("inf"), 0)
    seen: tuple[int, int] = (0, 0)
    streams: dict[str, Any] = field(default_factory=dict)
    ranks: int = 1


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: theirs.
        world: this process.
        keep: how many of the last stay; the best stays too.
    """

    def __init__(self, folder: Path, world: World, *, keep: int) -> None:
        self.folder, self.world, self.keep = folder, world, keep
        if world.first:
            folder.mkdir(parents=True, exist_ok=True)
            for half in folder.glob("*.tmp"):
                shutil.rmtree(half, ignore_errors=True)
        world.wait()

    def all(self) -> list[Path]:
        """Complete ones, oldest first."""
        return sorted(path for path in self.folder.iterdir() if NAME.match(path.name))

    def save(self, objective: Objective, ema: Ema, optimizer: Optimizer, progress: Progress) -> Path:
        """Writes one; the others stay as they are until it is complete.

        Raises:
            OSError: if it cannot be written; what was there before is untouched.
        """
        final = self.folder / f"step-{progress.step:07d}"
        beside = final.with_suffix(".tmp")
        try:
            self._write(beside, _tensors(objective, ema, optimizer), progress)
        except Exception as error:
            if self.world.first:
                shutil.rmtree(beside, ignore_errors=True)
            raise OSError(f"checkpoint {final} could not be written ({error}); the one before it is intact") from error
        if self.world.first:
            shutil.rmtree(final, ignore_errors=True)
            beside.rename(final)
            self._prune(progress)
        self.world.wait()
        return final

    def _write(self, folder: Path, tensors: dict[str, Any], progress: Progress) -> None:
        dcp.save(tensors, checkpoint_id=folder, no_dist=self.world.mesh is None)
        streams = {str(self.world.rank): progress.streams.get(str(self.world.rank), {})}
        (folder / f"streams-{self.world.rank}.json").write_text(json.dumps(streams))
        self.world.wait()
        if self.world.first:
            progress.ranks = self.world.ranks
            content = {key: value for key, value in vars(progress).items() if key != "streams"}
            (folder / "progress.json").write_text(json.dumps(content))

    def _prune(self, progress: Progress) -> None:
        best = f"step-{progress.best[1]:07d}"
        for path in self.all()[: -self.keep]:
            if path.name != best:
                shutil.rmtree(path, ignore_errors=True)

    def restore(self, objective: Objective, ema: Ema, optimizer: Optimizer) -> Progress:
        """Puts everything where the last complete checkpoint had it; a fresh progress if there is none."""
        found = self.all()
        if not found:
            return Progress()
        tensors = _tensors(objective, ema, optimizer)
        dcp.load(tensors, checkpoint_id=found[-1], no_dist=self.world.mesh is None)
        set_optimizer_state_dict(objective, optimizer, tensors["optimizer"])
        progress = Progress(**json.loads((found[-1] / "progress.json").read_text()))
        progress.best = (float(progress.best[0]), int(progress.best[1]))
        progress.seen = (int(progress.seen[0]), int(progress.seen[1]))
        for file in found[-1].glob("streams-*.json"):
            progress.streams.update(json.loads(file.read_text()))
        return progress


def _tensors(objective: Objective, ema: Ema, optimizer: Optimizer) -> dict[str, Any]:
    """The tensors of a run by name; loading writes into them."""
    model: Mapping[str, Any] = objective.state_dict()
    return {
        "model": dict(model),
        "ema": dict(ema.values),
        "optimizer": get_optimizer_state_dict(objective, optimizer),
    }
