"""`janusflow ablate --ray`: workers of a Ray cluster that share the runs of an ablation."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.exceptions import RayError

from janusflow.ablation.runs import Run, run_all, unfinished
from janusflow.cluster import connected


@dataclass(frozen=True)
class RayWorkers:
    """Who shares the runs.

    Attributes:
        count: workers; None is as many as the cluster has room for, and never more than runs.
        address: of a running cluster; None starts one on this machine.
        cpus, gpus: that each worker reserves.
    """

    count: int | None = None
    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0


def run_on_ray(
    runs: Sequence[Run], workers: RayWorkers, *, device: str = "auto", say: Callable[[str], None] = print
) -> None:
    """`run_all` in each worker. They see this folder at the same path: on several machines, a shared disk.

    Raises:
        ValueError: as `unfinished`; if no cluster answers at the address; or if a worker died. In the last case run the
            same command again to continue.
    """
    unfinished(runs)  # what is wrong with a recipe is reported here, not by a worker
    with connected(workers.address):
        count = min(len(runs), workers.count or room(ray.cluster_resources(), workers))
        say(f"{count} workers share {len(runs)} runs")
        remote = ray.remote(num_cpus=workers.cpus, num_gpus=workers.gpus, max_retries=0)(work)
        try:
            ray.get([remote.remote(str(Path.cwd()), list(runs), device) for _ in range(count)])
        except RayError as error:
            raise ValueError(f"a worker ended early ({error}); the same command continues") from error


def room(resources: dict[str, float], workers: RayWorkers) -> int:
    """How many workers fit into a cluster, at least one.

    Example:
        >>> room({"CPU": 16.0, "GPU": 4.0}, RayWorkers(cpus=2, gpus=0.5))
        8
    """
    reserved = {"CPU": workers.cpus, "GPU": workers.gpus}
    fitting = [resources.get(name, 0.0) / each for name, each in reserved.items() if each]
    return max(1, int(min(fitting, default=1)))


def work(folder: str, runs: Sequence[Run], device: str) -> None:
    """What a worker does: the runs that no other one has, in the folder where the command was given."""
    os.chdir(folder)
    run_all(runs, device=device)
