"""Several workers for one run: local processes, Ray workers, or the processes of torchrun."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run import parent
from janusflow.extras import require
from janusflow.offline import first_line

Work: TypeAlias = Callable[[EvalRequest, int, int], None]  # one worker's part: request, rank, ranks

PATIENCE = timedelta(days=30)  # how long processes wait for each other


def in_processes(work: Work, request: EvalRequest, workers: int) -> None:
    """Run local processes, which end with this one; if one fails, its error is raised here when the others are done."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    import torch

    context, before = multiprocessing.get_context("spawn"), set(multiprocessing.active_children())
    with ProcessPoolExecutor(workers, mp_context=context, initializer=parent.end_with_parent) as pool:
        cores = max(1, torch.get_num_threads() // workers)
        parts = [pool.submit(_on_cores, cores, work, request, rank, workers) for rank in range(workers)]
        try:
            for part in parts:
                part.result()
        except KeyboardInterrupt:  # their records are complete whenever they end
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()
            raise
        except BrokenProcessPool as error:
            raise ValueError(
                "a worker process died, perhaps because memory ran out; finished items are kept: run the command again"
            ) from error


def _on_cores(cores: int, work: Work, request: EvalRequest, rank: int, ranks: int) -> None:
    """Do a worker's part with its share of the cores."""
    import torch

    torch.set_num_threads(cores)
    work(request, rank, ranks)


def on_ray(work: Work, request: EvalRequest, workers: int) -> None:
    """Run Ray workers, each with a GPU if the cluster has any.

    Raises:
        ValueError: for a worker's own such error, or if a worker died.
    """
    require("--ray", "ray")
    import ray
    from ray.exceptions import RayError, RayTaskError

    if not ray.is_initialized():
        ray.init(include_dashboard=False)
    part = ray.remote(num_gpus=1 if ray.cluster_resources().get("GPU") else 0)(_work_from)
    request = replace(request, model=_whole(request.model), vae=_whole(request.vae))
    request = replace(request, out=request.out.resolve(), data=request.data and request.data.resolve())
    here = str(Path.cwd())
    try:
        ray.get([part.remote(here, work, request, rank, workers) for rank in range(workers)])
    except RayTaskError as error:
        if isinstance(error.cause, ValueError | OSError):
            raise error.cause from None
        raise
    except RayError as error:
        what = f"a Ray worker ended early ({first_line(error)})"
        raise ValueError(f"{what}; finished items are kept: run the command again") from error


def _work_from(folder: str, work: Work, request: EvalRequest, rank: int, ranks: int) -> None:
    """Do a worker's part in the folder of the command, for relative paths in settings and the user's own benchmark."""
    sys.path.append(folder)
    with suppress(OSError):  # another machine may lack it: settings need absolute paths there
        os.chdir(folder)
    work(request, rank, ranks)


def _whole(value: Any) -> Any:
    """Return a folder's absolute path, for workers that run in another folder; anything else is returned unchanged."""
    return str(Path(value).resolve()) if isinstance(value, str) and Path(value).is_dir() else value


def together(ranks: int) -> Callable[[], object]:
    """Return a function that, under torchrun, waits until every process has called it, however long that takes.

    The process group is kept until this process ends: to create it again with torchrun's store fails or hangs.
    """
    if ranks == 1:
        return lambda: None
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("gloo", timeout=PATIENCE)
        atexit.register(_leave)
    return dist.barrier


def _leave() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()
