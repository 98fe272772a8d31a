"""Execute the runs of an ablation: train the stages of each variant, evaluate the result, record it.

Any number of processes can run the same command: each run has a lock, and no finished run is repeated.
"""

from __future__ import annotations

import json
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from janusflow.ablation.runs import FAILED, RESULTS, Result, Run, parts_of, with_finished
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run.evaluate import checked_run, evaluate
from janusflow.files import checked, locked, read_json, write_text
from janusflow.training.parts.pretrain import pretrain
from janusflow.training.trainer import train

LOCK = "run.lock"
EVALUATION_SEEDS = 100_000  # distance between the seeds of two runs' evaluations, whose items use seed + 0, 1, 2, ...


@dataclass(frozen=True)
class Done:
    """A stage that is trained and, if it is the last one, measured: `done-STEPS.json`.

    Attributes:
        scores: scores by metric; empty for other stages.
        seconds: time that both took.
        settings: digest of what determines it; "" in files of older versions.
    """

    scores: dict[str, float]
    seconds: float
    settings: str = ""


def unfinished(runs: Sequence[Run]) -> list[Run]:
    """Return the runs without a result. This reads all recipes, so later changes to the files have no effect.

    Raises:
        ValueError: if a recipe cannot be read, a run of the folder was made with other settings, an evaluation has a
            wrong name, setting or option or lacks its data, or a model is missing.
    """
    for run in with_finished(runs):
        _ = run.settings, run.result()
    todo = [run for run in runs if run.result() is None]
    for run in {run.variant: run for run in todo}.values():
        for name in run.measured()[0]:
            checked_run(_request(run, name, 0, "tiny", "auto"))
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
                say(f"{run.name}: another process has it")
                continue
            if run.result() is None and not _failed_since(run, started):
                say(f"{run.name}: started")
                _try(run, device, say)


def _failed_since(run: Run, started: float) -> bool:
    file = run.folder / FAILED
    return file.is_file() and file.stat().st_mtime >= started


def _try(run: Run, device: str, say: Callable[[str], None]) -> None:
    (run.folder / FAILED).unlink(missing_ok=True)  # other processes that end meanwhile must not count it as failed
    try:
        found = perform(run, device=device)
    except Exception as error:  # of any kind: the other runs do not depend on it
        said = f"{type(error).__name__}: {error}"
        write_text(run.folder / FAILED, json.dumps({"error": said, "traceback": traceback.format_exc()}, indent=1))
        say(f"{run.name}: failed: {said}")
        return
    write_text(run.folder / RESULTS, json.dumps(asdict(found), indent=1) + "\n")
    for checkpoints in run.folder.glob("*/checkpoints"):
        shutil.rmtree(checkpoints)
    say(f"{run.name}: " + ", ".join(f"{name} {value:.4g}" for name, value in found.scores.items()))


def perform(run: Run, *, device: str = "auto") -> Result:
    """Train the stages of a run and evaluate the result, continuing from what exists.

    Raises:
        ValueError: from training and evaluation, or if the score of a metric is missing.
        SystemExit: if SIGTERM ended a training.
    """
    run.begin()
    stages = run.stages
    samples = sum(config.steps * config.batch_size for _, config in stages)
    metrics = run.measured()[1]
    model, curve, seconds = run.base() or "tiny", dict[int, dict[str, float]](), 0.0
    for number, (_, config) in enumerate(stages):
        last = number + 1 == len(stages)
        for steps in run.points(config.steps) if last else [config.steps]:
            state = Path(config.out) / f"done-{steps}.json"
            wanted = run.settings if last else run.training
            done = checked(Done, read_json(state), state) if state.is_file() else None
            if done is None or done.settings not in ("", wanted) or (last and {*done.scores} != {*metrics}):
                began = time.perf_counter()
                exported, before = Path(config.out) / "export", 0.0
                if done and not run.ablation.at and exported.is_dir():  # only the evaluations are new
                    before = done.seconds
                else:
                    exported = train(replace(config, steps=steps), resume=True, device=device)
                if exported.name != "export":
                    raise SystemExit(128 + signal.SIGTERM)  # stopped by it: the same command continues
                scores = _measure(run, steps, str(exported), device) if last else {}
                done = Done(scores, before + time.perf_counter() - began, wanted)
                write_text(state, json.dumps(asdict(done)) + "\n")
            seconds += done.seconds
            if last:
                curve[steps] = done.scores
        model = str(Path(config.out) / "export")
    if not stages:
        began = time.perf_counter()
        curve[0] = _measure(run, 0, model, device)
        seconds = time.perf_counter() - began
    return Result(run.variant, run.seed, run.settings, curve[max(curve)], curve, samples, seconds)


def _request(run: Run, name: str, steps: int, model: str, device: str) -> EvalRequest:
    """The request of an evaluation of the model after some steps of the last stage."""
    one = run.ablation.evaluations[name]
    return EvalRequest(
        one.benchmark,
        run.folder / "evaluations" / f"{name}-{steps}",
        model=model,
        data=None if one.data is None else Path(one.data),
        limit=one.limit,
        batch_size=one.batch_size,
        device=device,
        options={**one.options, **run.changes.options},
        settings=one.settings | ({one.seed_setting: EVALUATION_SEEDS * run.seed} if one.seed_setting else {}),
    )


def _measure(run: Run, steps: int, model: str, device: str) -> dict[str, float]:
    """The scores of a model by metric."""
    evaluations, metrics = run.measured()
    scores: dict[str, dict[str, float]] = {}
    for name in evaluations:
        found = evaluate(_request(run, name, steps, model, device))
        if found["judged"] < found["items"]:
            raise ValueError(f"{name}: {found['items'] - found['judged']} of {found['items']} items were not judged")
        scores[name] = found["scores"]
    for metric in metrics.values():
        if metric.score not in scores[metric.evaluation]:
            known = ", ".join(scores[metric.evaluation])
            raise ValueError(f"{metric.evaluation} has no score {metric.score!r}; it has {known}")
    return {name: float(scores[metric.evaluation][metric.score]) for name, metric in metrics.items()}
