"""The dry run and the power estimate: the cost of an ablation, and the differences that it can detect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from janusflow.ablation.report import by_seed, pooled_deviations
from janusflow.ablation.runs import Run, with_finished
from janusflow.ablation.statistics import smallest_effect
from janusflow.training.dryrun import estimate

MOST_SEEDS = 10


def dry_run(runs: Sequence[Run]) -> str:
    """Describe the runs: their steps and samples, the expected time, and H100 days.

    The time is estimated from finished runs, otherwise from the recipe's `samples_per_second`, which does not include
    evaluations. GPU days are computed from FLOPs. This requires the sizes of the model, so the parts must exist.

    Raises:
        ValueError: if the recipe of a stage cannot be read.
    """
    finished = [found for run in runs if (found := run.result()) is not None]
    trained = [found for found in finished if found.samples and found.seconds > 0]
    speed = runs[0].ablation.samples_per_second
    if trained:
        speed = sum(found.samples for found in trained) / sum(found.seconds for found in trained)
    lines, left, days, unknown = [], 0.0, 0.0, 0
    for run in runs:
        stages = run.stages
        samples = sum(config.steps * config.batch_size for _, config in stages)
        done = run.result() is not None
        words = [f"{name} {config.steps:,} steps of {config.batch_size}" for name, config in stages]
        took = "finished" if done else f"{samples / speed / 60:,.1f} min" if speed and samples else ""
        gpu = gpu_days(run)
        days += 0 if gpu is None or done else gpu
        unknown += gpu is None and not done and bool(samples)
        left += 0 if done or not speed else samples / speed
        lines.append(", ".join(filter(None, [f"{run.name}: {'; '.join(words) or 'evaluation only'}", took])))
    lines.append(f"{len(runs)} run{'s'[: len(runs) > 1]}, {len(runs) - len(finished)} of them not finished")
    if left:
        counted = "with evaluations" if trained else "without evaluations"
        lines.append(f"about {left / 3600:,.1f} hours at {speed:.3g} samples a second, {counted}")
    if days:
        lines.append(f"about {days:,.3g} GPU days of H100 at 40 % MFU (from the FLOPs, not measured)")
    if unknown:
        lines.append(
            f"GPU days of {unknown} runs: unknown before the model or the parts that they start from are there"
        )
    return "\n".join(lines)


def gpu_days(run: Run) -> float | None:
    """Return the days that one H100 needs for the training of a run, or None if the model cannot be read yet."""
    configs = [config for _, config in run.stages]
    days = 0.0
    try:
        for config in configs:  # the models of later stages do not exist yet, but have the sizes of the first
            asked = config.model
            first = replace(
                configs[0].model,
                understanding_encoder=asked.understanding_encoder,
                image_attention=asked.image_attention,
            )
            days += estimate(replace(config, model=first)).days(1)
    except ValueError:
        return None
    return days


def power(runs: Sequence[Run], deviations: Mapping[str, float] | None = None) -> str:
    """Tabulate the smallest differences that two to ten seeds detect with 80 % probability.

    Args:
        runs: runs of the ablation. Standard deviations of the paired differences come from all its finished runs,
            pooled over the variants.
        deviations: standard deviations by metric to use instead.

    Raises:
        ValueError: if no standard deviation is known, or if one is given for an unknown metric.
    """
    ablation = runs[0].ablation
    if unknown := [name for name in deviations or () if name not in ablation.metrics]:
        raise ValueError(f"--sd has {unknown[0]!r}; expected one of {', '.join(ablation.metrics)}")
    finished = [result for run in with_finished(runs) if (result := run.result()) is not None]
    found = dict(deviations or pooled_deviations(by_seed(finished), ablation.baseline))
    if not found:
        raise ValueError("no variant has two finished runs next to the baseline's; give --sd METRIC=DEVIATION")
    lines = [f"{'seeds':>5}  " + "  ".join(f"{name:>12}" for name in found)]
    for n in range(2, MOST_SEEDS + 1):
        lines.append(f"{n:5}  " + "  ".join(f"{smallest_effect(sd, n):12.4g}" for sd in found.values()))
    used = ", ".join(f"{name} {sd:.4g}" for name, sd in found.items())
    return "\n".join([*lines, f"standard deviations of the differences paired by seed: {used}"])
