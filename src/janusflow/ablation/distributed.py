"""`janusflow ablate --ray`: share the runs of an ablation among workers of a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.exceptions import RayError

from janusflow.ablation.execution import run_all, unfinished
from janusflow.ablation.runs import Run
from janusflow.cluster import connected


@dataclass(frozen=True)
class RayWorkers:
    """The workers that share the runs.

    Attributes:
        count: number of workers. None starts as many as fit into the cluster, up to the number of runs.
        address: address of a running cluster. None starts one on this machine.
        cpus, gpus: resources that each worker reserves.
    """

    count: int | None = None
    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0


def run_on_ray(
    runs: Sequence[Run], workers: RayWorkers, *, device: str = "auto", say: Callable[[str], None] = print
) -> None:
    """Call `run_all` in each worker. All workers need the current folder at the same path, such as on a shared disk.

    Raises:
        ValueError: from `unfinished`; if no cluster answers at the address; or if a worker died. In the last case, the
            same command continues.
    """
    todo = unfinished(runs)  # also reports invalid recipes here instead of in a worker
    say(f"{len(runs) - len(todo)} of {len(runs)} runs are finished")
    if not todo:
        return
    with connected(workers.address):
        count = min(len(todo), workers.count or room(ray.cluster_resources(), workers))
        say(f"{count} workers share {len(todo)} runs")
        remote = ray.remote(num_cpus=workers.cpus, num_gpus=workers.gpus, max_retries=0)(work)
        try:
            ray.get([remote.remote(str(Path.cwd()), todo, device) for _ in range(count)])
        except RayError as error:
            raise ValueError(f"a worker ended early ({error}); the same command continues") from error


def room(resources: dict[str, float], workers: RayWorkers) -> int:
    """Return the number of workers that fit into a cluster, at least one.

    Example:
        >>> room({"CPU": 16.0, "GPU": 4.0}, RayWorkers(cpus=2, gpus=0.5))
        8
    """
    reserved = {"CPU": workers.cpus, "GPU": workers.gpus}
    fitting = [resources.get(name, 0.0) / each for name, each in reserved.items() if each]
    return max(1, int(min(fitting, default=1)))


def work(folder: str, runs: Sequence[Run], device: str) -> None:
    """Execute the runs that no other worker has taken, in the folder where the command was started."""
    os.chdir(folder)
    run_all(runs, device=device)
