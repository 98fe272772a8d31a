"""The training data of a run. `training/config/sources.py` derives the sources from its files."""

from __future__ import annotations

from dataclasses import dataclass, field

from janusflow.data.constraints import NonNegativeInt, Share
from janusflow.data.mixture import Ratio
from janusflow.data.sources.registry import AnySource


@dataclass(frozen=True)
class DataConfig:
    """The data that a run is trained on.

    Attributes:
        understanding, generation, text: sources of each task.
        own: a folder or file of your own, or several. They join the sources of every task that they serve: pictures
            with texts serve generation, and pictures with conversations or texts serve understanding. Records that do
            not serve a task are left out. Several count as one data set, each by its number of records.
        own_share: share of your own data in those tasks; at 1, the other sources are left out.
        ratios: shares of the tasks, one ratio after the other.
        workers: number of processes that make samples in advance.
        max_broken: largest share of broken records; above it, the run stops.
        cache: folder in which latents (and f_enc's features, while the tower is frozen) are kept.
        allow_changes: resume even if data files were added, removed or replaced since the run was started.
    """

    understanding: list[AnySource] = field(default_factory=list)
    generation: list[AnySource] = field(default_factory=list)
    text: list[AnySource] = field(default_factory=list)
    own: str | list[str] | None = None
    own_share: Share = 0.5
    ratios: list[Ratio] = field(default_factory=lambda: [Ratio(1, 1, 1)])
    workers: NonNegativeInt = 2
    max_broken: Share = 0.05
    cache: str | None = None
    allow_changes: bool = False
