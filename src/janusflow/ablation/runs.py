"""The runs of an ablation: one folder for each variant and seed, which also records whether the run is finished.

OUT/parts                     shared by all runs, if the recipe has parts
OUT/runs/VARIANT/seed-N       stages, evaluations, `settings.json`, `results.json` or `failed.json`
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from janusflow import __version__
from janusflow.ablation.config import Ablation, Variant
from janusflow.files import checked, read_json, write_text
from janusflow.training.config import TrainConfig, load_config
from janusflow.training.parts.config import PartsConfig, load_parts
from janusflow.training.stored_settings import without_free

RESULTS, FAILED, SETTINGS = "results.json", "failed.json", "settings.json"
STAGE_SEEDS = 100  # distance between the seeds of two runs; stage n of a run adds n to its seed


@dataclass(frozen=True)
class Result:
    """The result of a finished run, as stored in `results.json`.

    Attributes:
        variant, seed: identify the run.
        settings: digest of everything that determines the run.
        scores: final score of each metric.
        curve: scores of each metric by step of the last stage; a single point if `at` is empty.
        samples: number of training samples.
        seconds: time for training and all evaluations. After an interruption, only the time since the last start.
        version: version of the package.
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
        source: folder of the recipe file; paths of stage recipes are relative to it.
        variant: name of the variant.
        seed: 0, 1, ...
        out: output folder of the ablation.
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
        """The folder of this run."""
        return self.out / "runs" / self.name

    @property
    def changes(self) -> Variant:
        """The changes that this variant makes."""
        return self.ablation.variants[self.variant]

    @cached_property
    def stages(self) -> list[tuple[str, TrainConfig]]:
        """Names and settings of the stages. With the same seed, all variants see the same data in the same order.

        Raises:
            ValueError: if a recipe cannot be read, an override does not fit, or `at` is used with a learning-rate
                schedule that depends on the number of steps.
        """
        before = self.base()
        found: list[tuple[str, TrainConfig]] = []
        for number, stage in enumerate(self.ablation.stages):
            if stage.name in self.changes.without:
                continue
            folder = self.folder / stage.name
            places = [f"out={json.dumps(str(folder))}", f"seed={STAGE_SEEDS * self.seed + number}"]
            places += [] if before is None else ["model.preset=null", f"model={json.dumps(before)}"]
            changes = [*stage.set, *self.changes.set, *self.changes.stages.get(stage.name, ())]
            config = load_config(self.source / stage.recipe, [*places, *changes])
            found.append((stage.name, self._shortened(config)))
            before = str(folder / "export")
        if self.ablation.at and found and (schedule := found[-1][1].optimizer.schedule) != "constant":
            raise ValueError(f"at needs a stage of constant rate, but {found[-1][0]} has the schedule {schedule}")
        return found

    def points(self, steps: int) -> list[int]:
        """Return the steps of the last stage at which the model is evaluated."""
        return [*(self._share(at) for at in self.ablation.at if self._share(at) < steps), steps]

    def base(self) -> str | None:
        """Return the model that the run starts from, or None if the recipe of the first stage names it."""
        return str(self.out / "parts" / "export") if self.ablation.parts else self.ablation.model

    @cached_property
    def settings(self) -> str:
        """Digest of everything that determines the run, except its own paths and the content of data and models."""
        evaluations, metrics = self.measured()
        measured = {name: asdict(one) | {"batch_size": 0} for name, one in evaluations.items()}  # only rounding
        scores = {name: (one.evaluation, one.score) for name, one in metrics.items()}
        stages, parts = self._trained
        everything: list[object] = [stages, parts, measured, scores, self.changes.options, self.seed, self.ablation.at]
        everything += [] if self.stages else [self.ablation.model]
        return _digest(everything)

    @cached_property
    def training(self) -> str:
        """Digest of what determines the trainings alone: they stay as they are when an evaluation is corrected."""
        return _digest([*self._trained, self.seed, self.ablation.at])

    @cached_property
    def _trained(self) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
        """The settings of the stages and of the parts, without those that do not change what is computed."""
        stages = [without_free(asdict(config)) for _, config in self.stages]
        made = [str(self.out / "parts" / "export"), *(str(Path(config.out) / "export") for _, config in self.stages)]
        for stage in stages:
            if stage["model"]["checkpoint"] in made:
                stage["model"]["checkpoint"] = ""
        parts = asdict(replace(parts_of(self), out="")) if self.ablation.parts else {}
        for name in ("workers", "max_broken"):  # they change nothing
            parts.pop(name, None)
        return stages, parts or None

    def missing(self) -> str | None:
        """Return the local model that the run starts from if it does not exist and no earlier step creates it."""
        parts, first = str(self.out / "parts" / "export"), self.stages[0][1].model.checkpoint if self.stages else None
        for place in (first, self.ablation.model):
            local = place is not None and place.count("/") > 1  # a hub id has one
            if place is not None and local and place != parts and not Path(place).exists():
                return place
        return None

    def result(self) -> Result | None:
        """Return the result of the run, or None if it is not finished.

        Raises:
            ValueError: if the file is damaged, or the run was made with other settings.
        """
        file = self.folder / RESULTS
        if not file.is_file():
            return None
        found = checked(Result, read_json(file), file)
        if (found.variant, found.seed) != (self.variant, self.seed):
            raise ValueError(f"{file} is of {found.variant}/seed-{found.seed}; give variants their names back")
        if found.settings != self.settings:
            only = "" if self.ablation.at else f", or only its {RESULTS} to evaluate it again"
            raise ValueError(f"{self.folder} was made with other settings; give another --out, or remove it{only}")
        return found

    def begin(self) -> None:
        """Record the settings. Evaluations that an earlier attempt began with other settings are removed.

        Raises:
            ValueError: as `check_begun`.
        """
        self.check_begun()
        file, settings = self.folder / SETTINGS, {"settings": self.settings, "training": self.training}
        if file.is_file() and read_json(file).get("settings") != self.settings:
            shutil.rmtree(self.folder / "evaluations", ignore_errors=True)
        write_text(file, json.dumps(settings) + "\n")

    def check_begun(self) -> None:
        """Check that an unfinished run in the folder was started with the same trainings. With `at`, its evaluations
        must be the same, too, because weights at earlier steps no longer exist.

        Raises:
            ValueError: if it was started with other settings.
        """
        file = self.folder / SETTINGS
        if not file.is_file():
            return
        begun = checked(dict[str, str], read_json(file), file)
        name = "training" if "training" in begun and not self.ablation.at else "settings"  # older folders lack it
        if begun.get(name) != getattr(self, name):
            raise ValueError(f"{self.folder} was begun with other settings; give another --out, or remove it")

    def failure(self) -> str | None:
        """Return the error that ended the last attempt, or None."""
        file = self.folder / FAILED
        return checked(dict[str, str], read_json(file), file).get("error", "") if file.is_file() else None

    def _share(self, steps: int) -> int:
        return max(1, round(steps * self.changes.share))

    def _shortened(self, config: TrainConfig) -> TrainConfig:
        """Return the stage with the variant's share of its steps, warm-up, ratios and EMA horizon. With the EMA of the
        whole stage, the average of a short one would consist largely of starting weights."""
        share, optimizer = self.changes.share, config.optimizer
        optimizer = replace(optimizer, warmup=round(optimizer.warmup * share))
        ratios = [replace(ratio, until=ratio.until and self._share(ratio.until)) for ratio in config.data.ratios]
        data, steps = replace(config.data, ratios=ratios), self._share(config.steps)
        return replace(config, steps=steps, ema=config.ema ** (1 / share), optimizer=optimizer, data=data)

    def measured(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the evaluations and metrics of this variant."""
        used = {n: one for n, one in self.ablation.evaluations.items() if n not in self.changes.without}
        return used, {n: one for n, one in self.ablation.metrics.items() if one.evaluation in used}


def _digest(settings: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]


def runs_of(
    ablation: Ablation, source: Path, out: Path, *, only: Sequence[str] = (), seeds: int | None = None
) -> list[Run]:
    """Return all runs, ordered by seed, so that the first finished runs can already be compared.

    Raises:
        ValueError: if a name in `only` is not a variant.
    """
    if unknown := [name for name in only if name not in ablation.variants]:
        raise ValueError(f"--only has {unknown[0]!r}; expected some of {', '.join(ablation.variants)}")
    chosen = [name for name in ablation.variants if not only or name in only]
    return [Run(ablation, source, name, seed, out) for seed in range(seeds or ablation.seeds) for name in chosen]


def parts_of(run: Run) -> PartsConfig:
    """Return the recipe of the pretrained parts that all runs start from."""
    assert run.ablation.parts is not None
    return load_parts(run.source / run.ablation.parts, [f"out={json.dumps(str(run.out / 'parts'))}"])


def with_finished(runs: Sequence[Run]) -> list[Run]:
    """Return these runs and all other finished runs of the ablation, ordered by seed."""
    first, chosen = runs[0], {run.name: run for run in runs}
    order = list(first.ablation.variants)
    for file in first.out.glob(f"runs/*/seed-*/{RESULTS}"):
        variant, seed = file.parents[1].name, file.parent.name.removeprefix("seed-")
        if variant in order and seed.isdecimal():
            run = replace(first, variant=variant, seed=int(seed))
            chosen.setdefault(run.name, run)
    return sorted(chosen.values(), key=lambda run: (run.seed, order.index(run.variant)))
