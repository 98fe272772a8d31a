"""Execute the runs of an ablation: train the stages of each variant, evaluate the result, record it.

Any number of processes can run the same command: each run has a lock, and no finished run is repeated.
"""

from __future__ import annotations

import json
import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

from janusflow.ablation.runs import FAILED, RESULTS, SETTINGS, Result, Run, parts_of
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run.evaluate import evaluate
from janusflow.files import locked, read_json, write_text
from janusflow.training.parts.pretrain import pretrain
from janusflow.training.trainer import train

LOCK = "run.lock"
EVALUATION_SEEDS = 100_000  # distance between the seeds of two runs' evaluations, whose items use seed + 0, 1, 2, ...


def unfinished(runs: Sequence[Run]) -> list[Run]:
    """Return the runs without a result. This reads all recipes, so later changes to the files have no effect.

    Raises:
        ValueError: if a recipe cannot be read, a run was made with other settings, or a model is missing.
    """
    for run in runs:
        _ = run.settings
    todo = [run for run in runs if run.result() is None]
    for run in todo:
        run.check_begun()
        if (place := run.missing()) is not None:
            raise ValueError(f"{run.name} starts from {place}, which is not there; see the head of the recipe")
    return todo


def run_all(runs: Sequence[Run], *, device: str = "auto", say: Callable[[str], None] = print) -> None:
    """Execute all runs that are not finished and that no other process has taken.

    A run that fails is recorded, and the others continue. The next call retries it from its last checkpoint.

    Raises:
        ValueError: as `unfinished`, before anything is trained.
        SystemExit: if SIGTERM ended a training.
    """
    started = time.time()
    todo = unfinished(runs)
    say(f"{len(runs) - len(todo)} of {len(runs)} runs are finished")
    if todo and todo[0].ablation.parts:
        config = parts_of(todo[0])
        Path(config.out).mkdir(parents=True, exist_ok=True)
        with locked(todo[0].out / "parts.lock", "", patience=-1):  # others wait for the parts
            pretrain(config, device=device)
    for run in todo:
        run.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(run.folder / LOCK, "another process has this run"))
            except ValueError:
                continue
            if run.result() is None and not _failed_since(run, started):
                say(f"{run.name}: started")
                _try(run, device, say)


def _failed_since(run: Run, started: float) -> bool:
    file = run.folder / FAILED
    return file.is_file() and file.stat().st_mtime >= started


def _try(run: Run, device: str, say: Callable[[str], None]) -> None:
    try:
        found = perform(run, device=device)
    except Exception as error:  # of any kind: the other runs do not depend on it
        said = f"{type(error).__name__}: {error}"
        write_text(run.folder / FAILED, json.dumps({"error": said, "traceback": traceback.format_exc()}, indent=1))
        say(f"{run.name}: failed: {said}")
        return
    write_text(run.folder / RESULTS, json.dumps(asdict(found), indent=1) + "\n")
    (run.folder / FAILED).unlink(missing_ok=True)
    for checkpoints in run.folder.glob("*/checkpoints"):
        shutil.rmtree(checkpoints)
    say(f"{run.name}: " + ", ".join(f"{name} {value:.4g}" for name, value in found.scores.items()))


def perform(run: Run, *, device: str = "auto") -> Result:
    """Train the stages of a run and evaluate the result, continuing from what exists.

    Raises:
        ValueError: from training and evaluation, or if the score of a metric is missing.
        SystemExit: if SIGTERM ended a training.
    """
    run.check_begun()
    write_text(run.folder / SETTINGS, json.dumps({"settings": run.settings}) + "\n")
    stages = run.stages
    samples = sum(config.steps * config.batch_size for _, config in stages)
    model, curve, seconds = run.base() or "tiny", dict[int, dict[str, float]](), 0.0
    for number, (_, config) in enumerate(stages):
        last = number + 1 == len(stages)
        for steps in run.points(config.steps) if last else [config.steps]:
            state = Path(config.out) / f"done-{steps}.json"
            if not state.is_file():
                began = time.perf_counter()
                exported = train(replace(config, steps=steps), resume=True, device=device)
                if exported.name != "export":
                    raise SystemExit(0)  # stopped by SIGTERM: the same command continues
                scores = _measure(run, steps, str(exported), device) if last else {}
                write_text(state, json.dumps({"scores": scores, "seconds": time.perf_counter() - began}) + "\n")
            done = read_json(state)
            seconds += done["seconds"]
            if last:
                curve[steps] = done["scores"]
        model = str(Path(config.out) / "export")
    if not stages:
        began = time.perf_counter()
        curve[0] = _measure(run, 0, model, device)
        seconds = time.perf_counter() - began
    return Result(run.variant, run.seed, run.settings, curve[max(curve)], curve, samples, seconds)


def _measure(run: Run, steps: int, model: str, device: str) -> dict[str, float]:
    """The scores of a model by metric."""
    evaluations, metrics = run.measured()
    scores: dict[str, dict[str, float]] = {}
    for name, one in evaluations.items():
        settings = one.settings | ({one.seed_setting: EVALUATION_SEEDS * run.seed} if one.seed_setting else {})
        request = EvalRequest(
            one.benchmark,
            run.folder / "evaluations" / f"{name}-{steps}",
            model=model,
            data=None if one.data is None else Path(one.data),
            limit=one.limit,
            batch_size=one.batch_size,
            device=device,
            options={**one.options, **run.changes.options},
            settings=settings,
        )
        found = evaluate(request)
        if found["judged"] < found["items"]:
            raise ValueError(f"{name}: {found['items'] - found['judged']} of {found['items']} items were not judged")
        scores[name] = found["scores"]
    for metric in metrics.values():
        if metric.score not in scores[metric.evaluation]:
            known = ", ".join(scores[metric.evaluation])
            raise ValueError(f"{metric.evaluation} has no score {metric.score!r}; it has {known}")
    return {name: float(scores[metric.evaluation][metric.score]) for name, metric in metrics.items()}
