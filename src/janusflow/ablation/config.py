"""The recipe of an ablation: stages, variants of them, and what is measured."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from janusflow.arguments import quoted
from janusflow.data.constraints import PositiveInt
from janusflow.recipes import overridden, read_recipe
from janusflow.training.config import typed_config

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
TAKEN = ("evaluations", "export", "results.json", "failed.json", "settings.json", "run.lock")  # in a run's folder
OWN, START = ("out", "seed"), ("model", "model.checkpoint", "model.preset")  # settings that stages get from here
Outcome = Literal["better", "worse", "equal"]


@dataclass(frozen=True)
class Stage:
    """One training.

    Attributes:
        name: of its folder.
        recipe: of `janusflow train`, relative to the ablation's file.
        set: overrides of the recipe, `key=value`. `out` and `seed` belong to the ablation.
    """

    name: str
    recipe: str
    set: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Variant:
    """One variant, described by its changes to the recipe.

    Attributes:
        about: description in the table.
        set: overrides for all stages. With several, `model.checkpoint` belongs to `stages`, under the first.
        stages: further overrides by stage.
        share: fraction of the steps of each stage to train. Warm-up and EMA horizon shrink with it.
        without: names of stages and evaluations to leave out.
        options: options for generating and answering in the evaluations.
        expects: the paper's claim by metric: "better", "worse" or "equal", compared with the baseline. Metrics without
            an entry are reported without a verdict on a claim.
    """

    about: str
    set: list[str] = field(default_factory=list)
    stages: dict[str, list[str]] = field(default_factory=dict)
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    without: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    expects: dict[str, Outcome] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """A benchmark of `janusflow eval`, with its settings.

    Attributes:
        benchmark: name of the benchmark.
        data: folder with its data.
        settings, options: as in `janusflow eval`.
        limit: maximum number of items.
        batch_size: number of items generated or answered at once.
        seed_setting: name of the benchmark setting that receives the seed of the run. Without it, all seeds are
            evaluated on the same items and noise.
    """

    benchmark: str
    data: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    limit: PositiveInt | None = None
    batch_size: PositiveInt = 16
    seed_setting: str | None = None


@dataclass(frozen=True)
class Metric:
    """A score to compare.

    Attributes:
        evaluation: name of the evaluation that computes the score.
        score: name of the score in the report of the evaluation.
        lower_is_better: whether lower values are better.
        paper: the figures in the paper, by variant.
        paper_title: name of the paper's metric.
    """

    evaluation: str
    score: str
    lower_is_better: bool = False
    paper: dict[str, float] = field(default_factory=dict)
    paper_title: str = ""


@dataclass(frozen=True)
class Ablation:
    """One comparison.

    Attributes:
        title: title of the report.
        baseline: variant that the others are compared with, seed by seed.
        variants, evaluations, metrics: mappings from names to definitions.
        model: model that the first stage starts from, or that is evaluated if there are no stages. If it is None, the
            model comes from `parts` or from the recipe of the first stage.
        parts: recipe for `janusflow pretrain`, relative to this file. The first stage starts from its result.
        stages: training stages, in order. Without stages, the variants differ only in options of the evaluations.
        seeds: number of seeds for each variant.
        at: additional steps of the last stage at which the model is evaluated, for curves.
        samples_per_second: training speed that a dry run assumes before any run is finished.
        differs: sentences for the report on what differs from the paper and why.
    """

    title: str
    baseline: str
    variants: dict[str, Variant]
    evaluations: dict[str, Evaluation]
    metrics: dict[str, Metric]
    model: str | None = None
    parts: str | None = None
    stages: list[Stage] = field(default_factory=list)
    seeds: PositiveInt = 3
    at: list[PositiveInt] = field(default_factory=list)
    samples_per_second: Annotated[float, Field(gt=0)] | None = None
    differs: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Check the names and their references.

        Raises:
            ValueError: if a name is invalid or does not exist, or options contradict each other.
        """
        for name in (*self.variants, *self.evaluations, *(stage.name for stage in self.stages)):
            if not NAME.fullmatch(name):
                raise ValueError(f"{quoted(name)} becomes a folder; expected letters, digits, '.', '_' and '-'")
        stages = [stage.name for stage in self.stages]
        if wrong := [name for name in stages if stages.count(name) > 1 or name in TAKEN]:
            raise ValueError(
                f"a stage is named {quoted(wrong[0])}; expected names of their own, not {', '.join(TAKEN)}"
            )
        for number, stage in enumerate(self.stages):
            _own(f"set of stage {stage.name}", stage.set, (*OWN, *START) if number else OWN)
        if self.baseline not in self.variants:
            raise ValueError(f"baseline is {quoted(self.baseline)}; expected one of {', '.join(self.variants)}")
        if not self.stages and self.model is None:
            raise ValueError("without stages, model must name what is evaluated")
        if self.model is not None and self.parts is not None:
            raise ValueError("give model or parts, not both")
        if self.at and (not self.stages or self.at != sorted(set(self.at))):
            raise ValueError(f"at is {self.at}; expected rising numbers of steps of the last stage")
        for name, metric in self.metrics.items():
            _known(f"metrics.{name}.evaluation", [metric.evaluation], self.evaluations)
            _known(f"metrics.{name}.paper", metric.paper, self.variants)
        for name, variant in self.variants.items():
            _known(f"variants.{name}.stages", variant.stages, stages)
            _known(f"variants.{name}.without", variant.without, [*stages, *self.evaluations])
            _known(f"variants.{name}.expects", variant.expects, self.metrics)
            trains = set(stages) - set(variant.without)
            if not trains and (variant.set or variant.stages or variant.share != 1):
                raise ValueError(f"variants.{name} trains no stage, so it cannot have set, stages or share")
            _own(f"variants.{name}.set", variant.set, (*OWN, *START) if len(trains) > 1 else OWN)
            first = next((stage for stage in stages if stage in trains), None)
            for one, changes in variant.stages.items():
                _own(f"variants.{name}.stages.{one}", changes, OWN if one == first else (*OWN, *START))
            if stages and not trains and self.model is None and self.parts is None:
                raise ValueError(f"variants.{name} leaves out all stages; without model and parts nothing is evaluated")

    def expected(self, variant: str, name: str) -> Outcome | None:
        """Return the claim about a metric of a variant, or None."""
        return self.variants[variant].expects.get(name)


def _known(place: str, given: Any, allowed: Any) -> None:
    for name in given:
        if name not in allowed:
            raise ValueError(f"{place} has {quoted(name)}; expected one of {', '.join(allowed) or 'none'}")


def _own(place: str, changes: Sequence[str], taken: Sequence[str]) -> None:
    """Refuse overrides of what the ablation sets itself: two runs would share a folder or a seed without notice."""
    for change in changes:
        if (key := change.partition("=")[0]) in taken:
            raise ValueError(f"{place} has {quoted(change)}, but the ablation itself gives each stage its {key}")


def load_ablation(file: Path, overrides: Sequence[str] = ()) -> Ablation:
    """Read and check the recipe of an ablation.

    Raises:
        ValueError: if the recipe is not valid.

    Example:
        >>> load_ablation(Path("recipes/ablation/table6.yaml")).baseline
        'F'
    """
    values = read_recipe(file)
    if "variants" not in values and "steps" in values:
        raise ValueError(f"{file} is a recipe of `janusflow train`; an ablation has variants, evaluations and metrics")
    found: Ablation = typed_config(Ablation, overridden(values, overrides))
    found.check()
    return found
