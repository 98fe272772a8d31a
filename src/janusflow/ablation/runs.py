"""The runs of an ablation: each variant with each seed, in a folder that says whether it is finished.

    OUT/parts                     shared by all runs, if the recipe has parts
    OUT/runs/VARIANT/seed-N       stages, evaluations, `results.json` or `failed.json`

Any number of processes may run the same command: a lock is held per run, and none is repeated.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from janusflow import __version__
from janusflow.ablation.config import Ablation, Variant
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run.evaluate import evaluate
from janusflow.files import checked, locked, read_json, write_text
from janusflow.training.config import TrainConfig, load_config
from janusflow.training.parts.config import PartsConfig, load_parts
from janusflow.training.parts.pretrain import pretrain
from janusflow.training.trainer import train

RESULTS, FAILED, LOCK = "results.json", "failed.json", "run.lock"
STAGE_SEEDS = 100  # between the seeds of two runs: the stages of a run have different ones


@dataclass(frozen=True)
class Result:
    """A finished run, as `results.json` contains it.

    Attributes:
        variant, seed: which run.
        settings: digest of everything that determines it.
        scores: by metric, at the end.
        curve: by step of the last stage, scores by metric; of one point if there is no curve.
        samples: that were trained on.
        seconds: of training and evaluation, without interruptions.
        version: of the package.
    """

    variant: str
    seed: int
    settings: str
    scores: dict[str, float]
    curve: dict[int, dict[str, float]]
    samples: int
    seconds: float
    version: str = __version__


@dataclass(frozen=True)
class Run:
    """One variant with one seed.

    Attributes:
        ablation: the recipe.
        source: folder of its file, where recipes of stages are found.
        variant: its name.
        seed: from 0.
        out: folder of the ablation.
    """

    ablation: Ablation
    source: Path
    variant: str
    seed: int
    out: Path

    @property
    def name(self) -> str:
        """VARIANT/seed-N."""
        return f"{self.variant}/seed-{self.seed}"

    @property
    def folder(self) -> Path:
        """Of the run."""
        return self.out / "runs" / self.name

    @property
    def changes(self) -> Variant:
        """What the variant changes."""
        return self.ablation.variants[self.variant]

    @cached_property
    def stages(self) -> list[tuple[str, TrainConfig]]:
        """Names and settings of the stages; equal seeds give equal data in equal order to all variants.

        Raises:
            ValueError: for a recipe that cannot be read, or an override that does not fit.
        """
        before = self.base()
        found: list[tuple[str, TrainConfig]] = []
        for number, stage in enumerate(self.ablation.stages):
            if stage.name in self.changes.without:
                continue
            folder = self.folder / stage.name
            places = [f"out={folder}", f"seed={STAGE_SEEDS * self.seed + number}"]
            places += [] if before is None else ["model.preset=null", f"model={before}"]
            changes = [*stage.set, *self.changes.set, *self.changes.stages.get(stage.name, ())]
            config = load_config(self.source / stage.recipe, [*places, *changes])
            found.append((stage.name, replace(config, steps=self._share(config.steps))))
            before = str(folder / "export")
        return found

    def points(self, steps: int) -> list[int]:
        """The steps of the last stage after which it is evaluated."""
        return [*(self._share(at) for at in self.ablation.at if self._share(at) < steps), steps]

    def base(self) -> str | None:
        """The model that the run starts from; None if its first recipe says that."""
        return str(self.out / "parts" / "export") if self.ablation.parts else self.ablation.model

    @cached_property
    def settings(self) -> str:
        """A digest of everything that determines the run, but no place."""
        stages = [asdict(config) | {"out": "", "save": "", "watch": ""} for _, config in self.stages]
        for stage in stages:
            if str(stage["model"]["checkpoint"]).startswith(str(self.out)):
                stage["model"]["checkpoint"] = ""  # the parts, or the stage before
        parts = asdict(replace(parts_of(self), out="")) if self.ablation.parts else {}
        parts.pop("workers", None)  # changes nothing
        measured = [{name: asdict(one) for name, one in kind.items()} for kind in self._measured()]
        for evaluation in measured[0].values():
            del evaluation["batch_size"]  # changes nothing but rounding
        everything = [stages, parts or None, measured, self.changes.options, self.seed, self.ablation.at]
        everything += [] if self.stages else [self.ablation.model]
        return hashlib.sha256(json.dumps(everything, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def result(self) -> Result | None:
        """What the finished run measured; None if it is not finished.

        Raises:
            ValueError: if its file is damaged, or the run was made with other settings.
        """
        file = self.folder / RESULTS
        if not file.is_file():
            return None
        found = checked(Result, read_json(file), file)
        if found.settings != self.settings:
            raise ValueError(f"{self.folder} was made with other settings; give another --out, or remove it")
        return found

    def failure(self) -> str | None:
        """The error that ended the last try, or None."""
        file = self.folder / FAILED
        return str(read_json(file)["error"]) if file.is_file() else None

    def _share(self, steps: int) -> int:
        return max(1, round(steps * self.changes.share))

    def _measured(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Evaluations and metrics of this variant."""
        used = {n: one for n, one in self.ablation.evaluations.items() if n not in self.changes.without}
        return used, {n: one for n, one in self.ablation.metrics.items() if one.evaluation in used}


def runs_of(
    ablation: Ablation, source: Path, out: Path, *, only: Sequence[str] = (), seeds: int | None = None
) -> list[Run]:
    """All runs, seed by seed, so that those that are finished first can be compared.

    Raises:
        ValueError: for a name in `only` that is not a variant.
    """
    if unknown := [name for name in only if name not in ablation.variants]:
        raise ValueError(f"--only has {unknown[0]!r}; expected some of {', '.join(ablation.variants)}")
    chosen = [name for name in ablation.variants if not only or name in only]
    return [Run(ablation, source, name, seed, out) for seed in range(seeds or ablation.seeds) for name in chosen]


def parts_of(run: Run) -> PartsConfig:
    """The recipe of the parts that all runs start from."""
    assert run.ablation.parts is not None
    return load_parts(run.source / run.ablation.parts, [f"out={run.out / 'parts'}"])


def run_all(runs: Sequence[Run], *, device: str = "auto", say: Callable[[str], None] = print) -> None:
    """Run what is not finished and not held by another process; a run that fails is written down and left.

    A later call tries failed runs again, from their last checkpoint.

    Raises:
        ValueError: before anything is trained, for a recipe that cannot be read or finished runs with other settings.
        SystemExit: if SIGTERM ended a training.
    """
    started = time.time()
    todo = [run for run in runs if run.result() is None]
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
    """Train a run's stages and measure the result, or continue.

    Raises:
        ValueError: as training and evaluation do, or if a metric's score is missing.
        SystemExit: if SIGTERM ended a training.
    """
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
    evaluations, metrics = run._measured()
    scores: dict[str, dict[str, float]] = {}
    for name, one in evaluations.items():
        settings = one.settings | ({one.seed_setting: run.seed} if one.seed_setting else {})
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
        scores[name] = evaluate(request)["scores"]
    for metric in metrics.values():
        if metric.score not in scores[metric.evaluation]:
            known = ", ".join(scores[metric.evaluation])
            raise ValueError(f"{metric.evaluation} has no score {metric.score!r}; it has {known}")
    return {name: float(scores[metric.evaluation][metric.score]) for name, metric in metrics.items()}
