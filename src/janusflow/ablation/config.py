"""The recipe of an ablation: stages, variants of them, and what is measured."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from janusflow.arguments import quoted
from janusflow.data.constraints import FromOne
from janusflow.recipes import overridden, read_recipe
from janusflow.training.config import typed_config

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
TAKEN = ("evaluations", "export", "results.json", "failed.json", "settings.json", "run.lock")  # in a run's folder
Outcome = Literal["better", "worse", "equal"]


@dataclass(frozen=True)
class Stage:
    """One training.

    Attributes:
        name: of its folder.
        recipe: of `janusflow train`, relative to the ablation's file.
        set: overrides of the recipe, `key=value`.
    """

    name: str
    recipe: str
    set: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Variant:
    """What one column of the comparison changes.

    Attributes:
        about: in the table.
        set: overrides of all stages.
        stages: more overrides by stage.
        share: of the steps of every stage; its warm-up and the steps that its EMA reaches back shrink with it.
        without: names of stages and evaluations that are left out.
        options: of generating and answering in the evaluations.
        expects: by metric, whether the paper's text says that this variant is better or worse than the baseline, or
            equal. Metrics without an entry are reported without a claim.
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
    """A benchmark of `janusflow eval`.

    Attributes:
        benchmark: its name.
        data: folder of its data.
        settings, options: as for `janusflow eval`.
        limit: number of items.
        batch_size: items that are generated or answered together.
        seed_setting: name of the setting that gets the run's seed; without one all seeds are measured on equal items
            with equal noise.
    """

    benchmark: str
    data: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    limit: FromOne | None = None
    batch_size: FromOne = 16
    seed_setting: str | None = None


@dataclass(frozen=True)
class Metric:
    """A score that is compared.

    Attributes:
        evaluation: name of the evaluation that measures it.
        score: its name in the evaluation's report.
        lower_is_better: whether it is.
        paper: the paper's figure by variant.
        paper_title: what the paper's figures are of.
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
        title: of the report.
        baseline: the variant that the others are compared with, by seed.
        variants, evaluations, metrics: by name.
        model: where the first stage starts, or what is evaluated without stages. Without it the first stage's recipe
            says that, or `parts` does.
        parts: a recipe of `janusflow pretrain`, relative to this file, whose result the first stage starts from.
        stages: one after the other; without any, only options of the evaluations differ.
        seeds: number of runs of each variant.
        at: steps of the last stage at which it is also measured, for curves.
        samples_per_second: of training, for the estimate of a dry run.
        differs: what differs from the paper and why; sentences for the report.
    """

    title: str
    baseline: str
    variants: dict[str, Variant]
    evaluations: dict[str, Evaluation]
    metrics: dict[str, Metric]
    model: str | None = None
    parts: str | None = None
    stages: list[Stage] = field(default_factory=list)
    seeds: FromOne = 3
    at: list[FromOne] = field(default_factory=list)
    samples_per_second: Annotated[float, Field(gt=0)] | None = None
    differs: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Check that all names exist.

        Raises:
            ValueError: in one sentence.
        """
        for name in (*self.variants, *self.evaluations, *(stage.name for stage in self.stages)):
            if not NAME.fullmatch(name):
                raise ValueError(f"{quoted(name)} becomes a folder; expected letters, digits, '.', '_' and '-'")
        stages = [stage.name for stage in self.stages]
        if wrong := [name for name in stages if stages.count(name) > 1 or name in TAKEN]:
            raise ValueError(
                f"a stage is named {quoted(wrong[0])}; expected names of their own, not {', '.join(TAKEN)}"
            )
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
            if stages and set(stages) <= set(variant.without) and self.model is None and self.parts is None:
                raise ValueError(f"variants.{name} leaves out all stages; without model and parts nothing is evaluated")

    def expected(self, variant: str, name: str) -> Outcome | None:
        """What is claimed of a variant; None without a claim."""
        return self.variants[variant].expects.get(name)


def _known(place: str, given: Any, allowed: Any) -> None:
    for name in given:
        if name not in allowed:
            raise ValueError(f"{place} has {quoted(name)}; expected one of {', '.join(allowed) or 'none'}")


def load_ablation(file: Path, overrides: Sequence[str] = ()) -> Ablation:
    """Read and check the recipe of an ablation.

    Raises:
        ValueError: in one sentence.

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
